"""The API: one module per noun. It dispatches commands and reads read models; it appends nothing itself."""
