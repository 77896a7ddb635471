"""What the platform decides, and nothing else: no clock, no identifiers made here, no I/O, no async."""
