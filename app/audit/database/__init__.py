"""The tables, roles and triggers in Postgres, and the doctor who examines them."""
