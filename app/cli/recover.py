"""`sophon state recover`: the entries that a restored backup lacks, appended again from an export."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich_click as click

from app.audit.entry import Record, UnreadableEntry
from app.audit.evidence.exported import Exported, entries_from, open_exported
from app.audit.evidence.recovery import Recovered, recover
from app.audit.evidence.trust import trust_of
from app.audit.evidence.verify import connected
from app.audit.sealing.vault import Vault
from app.cli.asker import TOKEN, bearer, by, note_use, refused, somebody
from app.cli.groups import state
from app.cli.rebuilding import opened, progressing
from app.cli.verify import judged, must_be_known
from app.cli.work import CannotDo, console, run
from app.domain.event import Event
from app.domain.exports import StateRecovered
from app.domain.names import UserId
from app.domain.users import Administrators
from app.identity.identity import Identity
from app.installation import database, keys_of, only_one
from app.settings import Settings

SECOND = "SOPHON_SECOND_TOKEN"

_PATH: Any = click.Path(path_type=Path)


@state.command("recover")
@click.option("--from-export", "directory", type=_PATH, required=True, metavar="DIR", help="An export of this log.")
@click.option("--evidence", type=_PATH, default=Path(), metavar="DIR", help="Where a file of evidence is written.")
def state_recover(directory: Path, evidence: Path) -> None:
    """Append the entries that the database lacks, from an export as tiles or jsonl; Sophon has to be stopped.

    Two administrators have to want it: their API tokens are in SOPHON_TOKEN and SOPHON_SECOND_TOKEN. Where the restored
    log knows one administrator only, that one has to; where it knows none, nobody can be asked.
    The export has to be whole and signed by this log's keys, what the database has has to be its beginning, and it has
    to reach as far as was signed. Exit code: 0, 1 tampered with, 2 could not; nothing is changed by 1 and 2.
    """
    run(lambda settings: judged(lambda: _recover(settings, directory), evidence))


async def _recover(settings: Settings, directory: Path) -> None:
    trust = must_be_known(trust_of(settings.signer_directory), settings)
    with only_one(settings.data):
        exported = open_exported(directory, trust)
        wanted = await _who_want_it(settings, exported)
        async with database(settings, console.print) as dsn, connected(dsn) as connection:
            with progressing("recovering", exported.checkpoint.size) as progress:
                done = await recover(connection, exported, trust, progress)
        if done.size > done.head:
            await _record(settings, done, wanted)
    click.echo(f"{done.size - done.head} entries were appended again; the log ends at {done.size}")
    click.echo(f"root: {done.root.hex()}")
    if done.sealed:
        console.print(
            f"{done.sealed:,} sealed values of these entries are in no backup: names and addresses recorded since then "
            "read as erased. The accounts, sessions and tokens of that time have to be given again."
        )


async def _who_want_it(settings: Settings, exported: Exported) -> tuple[UserId, ...]:
    """Name the administrators whose tokens were given: two, or as many as there are. Raises `CannotDo`.

    Who was one in the restored log, and by the export was none any more in the end, is not asked, and does not count.
    """
    async with opened(settings, anew=True) as log:  # there may be nothing but the export
        known = Administrators.all()
        page = await log.read(known.selections)
        happened = [record.event for record in page.records]
        there = known.fold(happened).users & known.fold([*happened, *_changes(exported, page.head)]).users
        identity = Identity(log, Vault(log.pool), keys_of(settings))
        found = [await identity.who(os.environ.get(name, "").strip(), "token") for name in (TOKEN, SECOND)]
        users = {one.user for one in found if one and one.caller.administering} & there
        are_enough = len(users) >= min(2, len(there))
        if not are_enough and page.head >= exported.checkpoint.size:  # else it would follow on the wrong end
            await refused(log, by(found[0]) if found[0] else somebody(), "nobody-restores-alone")
    if not are_enough:
        raise CannotDo(
            f"Nobody restores alone: set {TOKEN} and {SECOND} to API tokens, with the scope `admin`, of two "
            f"administrators, made before the backup was. Of those given, {'one' if users else 'none'} is. "
            "Nothing was changed."
        )
    return tuple(sorted(users))


def _changes(exported: Exported, after: int) -> Iterator[Event]:
    """Give what the export says of roles after a position. It is verified before anything is appended."""
    for start, entries in entries_from(exported, after):
        for position, octets in enumerate(entries, start + 1):
            if b'"UserRolesChanged"' in octets or b'"SubjectErased"' in octets:
                with contextlib.suppress(UnreadableEntry):
                    yield Record(position, octets).event


async def _record(settings: Settings, done: Recovered, wanted: tuple[UserId, ...]) -> None:
    async with opened(settings) as log:
        root = done.root.hex()
        recovered = StateRecovered(head=done.head, size=done.size, root=root, sealed=done.sealed, by=wanted)
        principal = await bearer(log, settings)
        context = by(principal) if principal else somebody()
        await log.append([context.draft(recovered)])
        if principal:
            await note_use(log, principal, context)
