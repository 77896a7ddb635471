"""`sophon state doctor`: whether all that the log rests on is as it should be, and what to do where it is not."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from app.audit.database.doctor import CannotLook, Finding, examine
from app.audit.database.provision import current_login
from app.audit.signing.store import Store
from app.cli.groups import state
from app.cli.work import COULD_NOT, TAMPERED, WHOLE, CannotDo, console, run
from app.installation import administered, keys_of
from app.projections.standing import standing
from app.settings import Settings

LEAST_FREE = 1 << 30
"""Bytes of disk below which the log may soon not be written any more."""


@state.command("doctor")
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", help="For people, programs.")  # pyright: ignore
def state_doctor(output: str) -> None:
    """Look at everything that the log rests on; change nothing.

    Each fault has a code that stays, and says how it is mended. Exit code: 0 healthy, 1 faults found, 2 could not look.
    """
    codes: list[int] = []

    async def look(settings: Settings) -> None:
        findings = await diagnose(settings)
        codes.append(_tell(findings, output))

    run(look)
    sys.exit(codes[0])


async def diagnose(settings: Settings) -> list[Finding]:
    """Look at the database and the machine. Raises `CannotDo` where the database does not answer."""
    signed = Store(settings.signer_directory).signed()
    async with administered(settings, console.print) as dsn:
        try:
            database = await examine(dsn, await current_login(dsn, keys_of(settings)), signed.size if signed else 0)
            return [*database, *await standing(dsn), *premises(settings)]
        except CannotLook as error:
            raise CannotDo(str(error)) from error


def premises(settings: Settings) -> Iterator[Finding]:
    """Look at the data directory: who can read what is secret, and how much room is left."""
    secret = settings.data / "secret"
    yield Finding(
        "SPH-HOST-001",
        "only this user can read the installation's secret",
        f"chmod 600 {secret}; never delete it: what is sealed cannot be read without it. Count what is sealed as known "
        "to whoever may have read it.",
        tuple(_open_to_others([secret])),
    )
    signer = settings.signer_directory
    yield Finding(
        "SPH-HOST-002",
        "only this user can read the keys that sign the log",
        f"chmod -R go= {signer}; whoever may have read them can sign another history: make new ones with `sophon audit "
        "rotate`.",
        tuple(_open_to_others([signer, *signer.rglob("*")] if (signer / "keys.json").exists() else [])),
    )
    yield Finding(
        "SPH-HOST-003",
        "only this user can put files into the data directory",
        f"chmod go-w {settings.data}",
        tuple(_open_to_others([settings.data], 0o022)),
    )
    free = shutil.disk_usage(settings.data).free
    yield Finding(
        "SPH-HOST-004",
        "there is room for the log to grow",
        f"Make room on the disk of {settings.data}: without any, nothing can be recorded, and every change is refused.",
        (f"{free / (1 << 20):,.0f} MiB are left.",) if free < LEAST_FREE else (),
    )


def _open_to_others(paths: list[Path], rights: int = 0o077) -> Iterator[str]:
    for path in paths:
        if path.exists() and path.stat().st_mode & rights:
            yield f"Others than its owner can use {path}: mode {path.stat().st_mode & 0o777:o}."


def _tell(findings: list[Finding], output: str) -> int:
    findings = sorted(findings, key=lambda one: one.code)
    if output == "json":
        click.echo(msgspec.json.encode(findings).decode())
    else:
        _print(findings)
    faults = sum(len(one.faults) for one in findings)
    unknown = sum(one.unknown is not None for one in findings)
    console.print(f"Faults: {faults}." if faults else "No fault was found.")
    if unknown:
        console.print(f"Could not be looked at: {unknown}.")
    return TAMPERED if faults else COULD_NOT if unknown else WHOLE


def _print(findings: list[Finding]) -> None:
    table = Table("code", "", "looked at", box=None, pad_edge=False)
    for one in findings:
        state = "fault" if one.faults else "unknown" if one.unknown else "ok"
        lines = [one.about, *one.faults, *([one.unknown] if one.unknown else [])]
        if one.faults:
            lines.append(f"-> {one.mend}")
        table.add_row(one.code, state, "\n".join(lines))
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160).print(table)
