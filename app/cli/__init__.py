"""The `sophon` command line: one module for each thing that can be asked, all under five groups."""
