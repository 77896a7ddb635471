"""Who asks: accounts proved by password, sessions and tokens, and the way from the platform into a notebook."""
