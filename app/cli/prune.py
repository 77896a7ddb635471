"""`sophon audit prune`: accesses that were kept long enough lose their content; an export has it."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich_click as click

from app.audit.evidence.exported import Exported, open_exported, verify_exported
from app.audit.evidence.trust import Unverifiable, trust_of
from app.audit.pruned import DatabaseRefuses
from app.audit.retention import Due, Retention
from app.cli.asker import Asker, administrator
from app.cli.groups import audit
from app.cli.rebuilding import progressing
from app.cli.verify import judged, must_be_known, see_to_policy
from app.cli.work import CannotDo, console, run
from app.dispatch import LogCannotBeWritten
from app.domain.approvals import ApprovalRequested
from app.domain.errors import Refusal
from app.domain.pruning import LogPruned, PruneLog
from app.installation import database, keys_of
from app.platform import Platform
from app.projections.times import moment_of
from app.settings import Settings

MOST = 20_000
"""Entries that are pruned at once: nothing can be appended meanwhile."""

_PATH: Any = click.Path(path_type=Path)


@audit.command("prune")
@click.option("--before", "before", required=True, metavar="TIME|POS", help="Up to this position, or this time.")
@click.option("--export", "export", type=_PATH, required=True, metavar="DIR", help="The export that has them.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and change nothing.")
@click.option("--evidence", type=_PATH, default=Path(), metavar="DIR", help="Where a file of evidence is written.")
def audit_prune(before: str, export: Path, dry_run: bool, evidence: Path) -> None:
    """Remove the content of accesses that SOPHON_RETENTION lets go; hashes, and so all proofs, stay.

    Never facts, nor what is under legal hold, nor what the export in DIR, which is verified first, does not hold. It
    happens when a second administrator asks for the same within 24 hours, each with a token of theirs in SOPHON_TOKEN.
    """
    run(lambda settings: judged(lambda: _prune(settings, before, export, dry_run=dry_run), evidence))


async def _prune(settings: Settings, text: str, directory: Path, *, dry_run: bool) -> None:
    if not settings.retention:
        raise CannotDo("Everything is kept for ever: set SOPHON_RETENTION to the days that each class has to be kept.")
    trust = must_be_known(trust_of(settings.signer_directory), settings)
    exported = open_exported(directory, trust)
    see_to_policy(settings, trust, exported.note)
    with progressing("verifying the export", exported.checkpoint.size) as progress:
        verify_exported(exported, (), progress)
    async with (
        database(settings, console.print) as dsn,
        Platform.open(settings, keys_of(settings), dsn) as platform,
    ):
        asker = await administrator(platform.log, platform.identity)
        retention = Retention(platform.log, settings.retention)
        now = datetime.now(UTC)
        due = await retention.due(now, await _position(retention, text, now))
        _tell(due)
        await _must_hold(platform, exported, due.before)
        if dry_run or not due.entries:
            console.print("Nothing was changed.")
            return
        if due.entries > MOST:
            raise CannotDo(f"At most {MOST:,} entries are pruned at once: choose an earlier --before, and go on then.")
        await _ask(platform, asker, due, exported, now)


async def _position(retention: Retention, text: str, now: datetime) -> int:
    try:
        moment = moment_of(text, now)
    except ValueError as error:
        raise CannotDo(str(error)) from error
    return moment if isinstance(moment, int) else await retention.position_before(moment)


async def _must_hold(platform: Platform, exported: Exported, before: int) -> None:
    """See that the export goes as far, and is of a checkpoint that this log gave out."""
    size, root = exported.checkpoint.size, exported.checkpoint.root
    if size < before:
        raise CannotDo(
            f"The export in {exported.directory} ends at entry {size}, before {before}. Go on with it first: "
            f"sophon audit export {exported.directory}"
        )
    given = await platform.tree.covering(size)
    if given is None or given.size != size:
        raise Unverifiable(
            f"This log gave out no checkpoint of {size} entries, of which the export is: make a new one."
        )
    if given.root != root:
        raise CannotDo(f"The export in {exported.directory} is of another history than this log.")


async def _ask(platform: Platform, asker: Asker, due: Due, exported: Exported, now: datetime) -> None:
    command = PruneLog(
        by=asker.principal.caller,
        now=now,
        before=due.before,
        entries=due.entries,
        positions=due.digest,
        size=exported.checkpoint.size,
        root=exported.checkpoint.root.hex(),
        classes=due.classes,
        held=due.held,
    )
    try:
        receipt = await platform.dispatch(command, asker.context)
    except (Refusal, LogCannotBeWritten) as refusal:
        raise CannotDo(str(refusal)) from refusal
    except DatabaseRefuses as error:
        raise CannotDo(f"The database refuses it, and nothing was changed: {str(error).strip()}") from error
    for event in receipt.events:
        match event:
            case ApprovalRequested(until=until):
                console.print(
                    f"Recorded. It happens when another administrator asks for the same (--before {due.before}) before "
                    f"{until:%Y-%m-%d %H:%M} UTC."
                )
            case LogPruned(entries=entries):
                await platform.swept(receipt.position)
                click.echo(f"{entries} entries up to {due.before} were pruned, at position {receipt.position}")
            case _:
                pass


def _tell(due: Due) -> None:
    for one in due.classes:
        click.echo(f"{one.name}\t{len(due.positions.get(one.name, ()))}\tbefore {one.until:%Y-%m-%d %H:%M} UTC")
    for about in sorted(due.held):
        console.print(f"{about} is under legal hold: what is about it stays.", markup=False)
