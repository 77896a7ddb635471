"""Read models: what the API answers from. Disposable: rebuilt from the log, never migrated."""
