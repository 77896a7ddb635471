"""The command line as an auditor or an administrator types it."""
