"""The command and its groups, and which module of this package has which of their commands.

A module is imported when one of its commands is asked for: whoever verifies an export waits for no web server.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import rich_click as click

MAIN = {"image": "installation", "signer": "signer", "up": "installation"}
AUDIT = {
    "approvals": "approvals",
    "blame": "moments",
    "check-proof": "prove",
    "checkpoint": "checkpoint",
    "diff": "moments",
    "explain": "moments",
    "export": "export",
    "log": "log",
    "prove": "prove",
    "prune": "prune",
    "retention": "retention",
    "rotate": "rotate",
    "show": "moments",
    "subject": "subject",
    "tail": "log",
    "verify": "verify",
    "webhook": "webhook",
    "witness": "witness",
}
VOLUMES = {"purge": "volumes"}
ADMIN = {"password": "password"}
STATE = {
    "diff": "differences",
    "doctor": "doctor",
    "drill": "drill",
    "drop-old": "rebuilding",
    "rebuild": "rebuilding",
    "recover": "recover",
    "seal": "rebuilding",
    "verify": "rebuilding",
}
INTERRUPTED = 130
"""The exit code after Ctrl-C."""


class Group(click.RichGroup):
    """A group whose commands are found in modules, by their names."""

    def __init__(self, *args: Any, modules: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules = modules or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name them all."""
        return sorted({*self.modules, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give one, once its module has hung it here; of an unknown one, click tells which of all are much like it."""
        if cmd_name not in self.commands:
            for name in {cmd_name} & self.modules.keys() or self.modules:
                import_module(f"app.cli.{self.modules[name]}")
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Do what was asked; end as shells know it after Ctrl-C: click's own code, 1, would be that of a finding."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Group, modules=MAIN)
@click.version_option(package_name="sophon")  # pyright: ignore[reportUnknownMemberType]
def main() -> None:
    """Sophon: notebooks of research groups, and a log of everything that happened."""


@main.group(cls=Group, modules=AUDIT)
def audit() -> None:
    """What happened, and the proof of it. Exit code: 0 whole, 1 tampered with, 2 could not, 3 policy not met."""


@main.group(cls=Group, modules=VOLUMES)
def volumes() -> None:
    """What notebooks keep their files in."""


@main.group(cls=Group, modules=ADMIN)
def admin() -> None:
    """What whoever has the machine does when nobody gets in any more. Exit code: 0 done, 2 could not."""


@main.group(cls=Group, modules=STATE)
def state() -> None:
    """What is derived from the log, and what it rests on. Exit code: 0 as it should be, 1 not, 2 could not."""
