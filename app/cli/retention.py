"""`sophon audit retention`: what is kept for how long, what was kept long enough, and what is under legal hold."""

from datetime import UTC, datetime

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from app.audit.retention import Report, Retention
from app.cli.asker import note_question
from app.cli.groups import audit
from app.cli.rebuilding import opened
from app.cli.work import run
from app.settings import Settings


@audit.command("retention")
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", help="For people, programs.")  # pyright: ignore
def audit_retention(output: str) -> None:
    """Tell what is kept, by class, and what is past its term. Removes nothing; facts are kept for ever."""

    async def report(settings: Settings) -> None:
        async with opened(settings) as log:
            await note_question(log, settings, "holds")
            _tell(await Retention(log, settings.retention).report(datetime.now(UTC)), output)

    run(report)


def _tell(report: Report, output: str) -> None:
    if output == "json":
        click.echo(msgspec.json.encode(report).decode())
        return
    table = Table("class", "kept", "entries", "bytes", "oldest", "past", "held", "bytes past", box=None, pad_edge=False)
    for one in report.classes:
        table.add_row(
            one.name,
            "for ever" if one.days is None else f"{one.days} days",
            *(f"{number:,}" for number in (one.entries, one.bytes)),
            one.oldest.date().isoformat() if one.oldest else "-",
            *(f"{number:,}" for number in (one.past, one.held, one.bytes_past)),
        )
    Console(highlight=False, markup=False).print(table)
    for about in report.holds:
        click.echo(f"hold {about}")
