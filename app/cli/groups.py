"""The command and its groups. Every other module of this package hangs its commands on one of them."""

import rich_click as click


@click.group()
@click.version_option(package_name="sophon")  # pyright: ignore[reportUnknownMemberType]
def main() -> None:
    """Sophon: notebooks of research groups, and a log of everything that happened."""


@main.group()
def audit() -> None:
    """What happened, and the proof of it. Exit code: 0 whole, 1 tampered with, 2 could not, 3 policy not met."""


@main.group()
def volumes() -> None:
    """What notebooks keep their files in."""


@main.group()
def admin() -> None:
    """What whoever has the machine does when nobody gets in any more. Exit code: 0 done, 2 could not."""


@main.group()
def state() -> None:
    """What is derived from the log, and what it rests on. Exit code: 0 as it should be, 1 not, 2 could not."""
