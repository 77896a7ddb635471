"""What is personal: sealed on its way into the log, readable as long as its subject's key is, and erased for good."""
