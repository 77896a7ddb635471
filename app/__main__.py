"""The `sophon` command."""

from app.cli.groups import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
