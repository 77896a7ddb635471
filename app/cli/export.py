"""`sophon audit export`: the log as a directory, for whoever is to verify it, keep it, or read it elsewhere."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from pathlib import Path
from typing import Any, get_args

import rich_click as click

from app.audit.evidence.export import NotExported, export_log
from app.audit.evidence.exported import Format, open_exported
from app.audit.evidence.trust import Trust, trust_of
from app.audit.evidence.verify import connected
from app.cli.asker import context_of, note
from app.cli.groups import audit
from app.cli.rebuilding import opened, progressing
from app.cli.verify import judged, must_be_known
from app.cli.work import CannotDo, console, run
from app.domain.exports import AuditExported
from app.installation import administered, keys_of
from app.settings import Settings

_PATH: Any = click.Path(path_type=Path, file_okay=False)


@audit.command("export")
@click.argument("directory", type=_PATH, metavar="DIR")
@click.option(
    "--format", "format_", type=click.Choice(get_args(Format)), default="tiles", show_default=True, help="See above."
)
@click.option("--resume", is_flag=True, help="Go on with an export that did not end.")
@click.option("--from-export", "earlier", type=_PATH, metavar="OLD", help="Take what was pruned since from there.")
@click.option("--evidence", type=_PATH, default=Path(), metavar="DIR", help="Where a file of evidence is written.")
def audit_export(directory: Path, format_: Format, resume: bool, earlier: Path | None, evidence: Path) -> None:
    """Export everything that is signed into DIR; a later export of the same DIR adds what is new.

    tiles: static files that anybody can verify (verify.sh lies beside them). jsonl: each entry as it was recorded, on a
    line. cloudevents, ocsf: for other systems. Exit code: 0, 1 the log was tampered with, 2 could not be exported.
    """

    async def export(settings: Settings) -> None:
        trust = must_be_known(trust_of(settings.signer_directory), settings)
        keys_of(settings)  # or nothing is read: that it was has to be recorded
        try:
            async with administered(settings, console.print) as dsn, connected(dsn) as connection:
                with progressing("exporting", 0) as progress:
                    old = open_exported(earlier, trust) if earlier else None
                    done = await export_log(
                        connection, directory, format_, trust, resume=resume, earlier=old, tell=progress
                    )
        except NotExported as error:
            raise CannotDo(str(error)) from error
        await _record(settings, trust, AuditExported(format=format_, size=done.size))
        click.echo(f"{directory}: {done.size} entries, {done.new} of them new")

    run(lambda settings: judged(lambda: export(settings), evidence))


async def _record(settings: Settings, trust: Trust, access: AuditExported) -> None:
    """Record the export, unless the log is behind what was signed: it must not grow on the wrong end."""
    async with opened(settings) as log:
        if trust.newest is not None and log.head < trust.open(trust.newest).size:
            console.print("The log is shorter than what was signed, so the export was not recorded in it.")
            return
        await note(log, await context_of(log, settings), access)
