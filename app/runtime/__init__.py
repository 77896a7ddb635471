"""What runs: containers, their supervisor, and the proxy in front of them."""
