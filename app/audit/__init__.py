"""The log: one gapless sequence of entries in Postgres, and what is read from it."""
