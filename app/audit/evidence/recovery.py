"""Recovery: an older copy of the database was put back, and the entries that it lacks are appended from an export.

They are appended byte by byte, at the positions that they had, so the tree becomes the one that was signed. Kill it at
any moment and begin again: it goes on from where the log ends.
"""

import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.evidence.exported import Exported, entries_from, verify_exported
from app.audit.evidence.findings import Finding, Tampered, legible
from app.audit.evidence.leaves import PAGE, Page, hashes_of, read_page
from app.audit.evidence.trust import Trust, Unverifiable
from app.audit.evidence.walk import Head, Progress, Walk
from app.audit.pruned import Prunings, prune
from app.audit.signing.tree import keep_tiles, publish, read_size

BATCH = 512
"""Entries in one transaction, as of the writer's."""

_SEALED = re.compile(rb'"_sd":\[([^\]]*)\]')


class Recovered(Struct, frozen=True):
    """Where the log had ended, where it ends now, with what root; and how many sealed values cannot be opened."""

    head: int
    size: int
    root: bytes
    sealed: int


async def recover(
    connection: AsyncConnection, exported: Exported, trust: Trust, tell: Progress = lambda done, of: None
) -> Recovered:
    """Append the entries that an export has and the log has not.

    Before anything is appended, the export is verified as a whole, the log in the database is shown to be the beginning
    of it, and it has to reach as far as the signer has signed. Raises `Tampered`, or `Unverifiable` where it does not.
    Nobody else may be appending. The connection is in autocommit.
    """
    head = await read_size(connection)
    size = exported.checkpoint.size
    _reaches(exported, trust)
    ours = await _leaves(connection, head)
    verify_exported(exported, (), tell, _beginning(ours, head))
    if head < size:
        await _append(connection, exported, head, tell)
    await _publish(connection, exported)
    for said in sorted((await Prunings.read(connection)).said):
        if said > head:
            await prune(connection, said)
    sealed = 0 if head >= size else await _unopenable(connection, head, size)
    return Recovered(head, max(head, size), exported.checkpoint.root, sealed)


def _reaches(exported: Exported, trust: Trust) -> None:
    if trust.newest is None:
        return
    signed, size = trust.open(trust.newest).size, exported.checkpoint.size
    if signed > size:
        raise Unverifiable(
            f"The export ends at entry {size}, and {signed} were signed: it would not bring all back. Nothing was "
            "changed. Take a newer export, or make one of a replica."
        )


async def _leaves(connection: AsyncConnection, head: int) -> bytes:
    """Hash what the database has: 32 bytes an entry, so that a log of 10^6 takes 32 MB here."""
    hashes: list[bytes] = []
    prunings = await Prunings.read(connection)
    for after in range(0, head, PAGE):
        page = await read_page(connection, after, min(after + PAGE, head))
        found = _standing(page, prunings)
        if len(found) != page.until - after:
            raise _another(after + 1, page.until, "there are not as many entries as positions")
        hashes.append(b"".join(found))
    return b"".join(hashes)


def _beginning(ours: bytes, head: int) -> Callable[[int, list[bytes], list[bytes]], None]:
    """Give what compares an export's entries with the database's hashes, as far as those go."""

    def compare(after: int, entries: list[bytes], hashes: list[bytes]) -> None:
        if after >= head or b"".join(hashes[: head - after]) == ours[32 * after : 32 * (after + len(hashes))]:
            return
        for n, hash_ in enumerate(hashes, after):
            if (found := ours[32 * n : 32 * n + 32]) != hash_:
                why = f"it hashes to {found.hex()}, and in the export to {hash_.hex()}"
                raise _another(n + 1, n + 1, why, hash_.hex(), found.hex(), legible(entries[n - after]))

    return compare


def _another(
    first: int, last: int, why: str, expected: str = "", found: str = "", beside: str | None = None
) -> Tampered:
    where = f"Entry {first}" if first == last else f"Entries {first} to {last}"
    return Tampered(
        Finding(
            kind="differs",
            says=f"{where} of the database cannot be continued by the export: {why}. Nothing was changed.",
            first=first,
            last=last,
            expected=expected,
            found=found,
            beside=beside,
        )
    )


async def _append(connection: AsyncConnection, exported: Exported, head: int, tell: Progress) -> None:
    for after, entries in entries_from(exported, head):
        for start in range(0, len(entries), BATCH):
            some = entries[start : start + BATCH]
            await _append_some(connection, after + start, some)
        tell(after + len(entries), exported.checkpoint.size)


async def _append_some(connection: AsyncConnection, after: int, entries: list[bytes]) -> None:
    cursor = await connection.execute(
        "SELECT audit.append(%s, %s, %s, NULL)",
        (after, b"\n".join(entries).decode(), b"".join(hashes_of(entries))),
    )
    row: Any = await cursor.fetchone()
    if row[0] != after:
        raise Unverifiable(f"The log grew to {row[0]} while it was being recovered. Stop Sophon, and begin again.")


async def _publish(connection: AsyncConnection, exported: Exported) -> None:
    """Walk over the log as it is now: its root has to be the one that was signed. Keep tiles and checkpoint again."""
    checkpoint = exported.checkpoint
    prunings = await Prunings.read(connection)
    walk = Walk([Head(checkpoint.size, checkpoint.root, exported.note, "the export's checkpoint")])
    for after in range(0, checkpoint.size, PAGE):
        page = await read_page(connection, after, min(after + PAGE, checkpoint.size))
        await keep_tiles(connection, walk.take(_standing(page, prunings), page.parts))
    walk.end()
    await publish(connection, checkpoint.size, checkpoint.root, exported.note)


def _standing(page: Page, prunings: Prunings) -> list[bytes]:
    entries = page.entries
    return prunings.hashes(page.after, entries, hashes_of(entries), page.said)


async def _unopenable(connection: AsyncConnection, head: int, size: int) -> int:
    """Count the sealed values of what was appended: their disclosures were in the database that was lost."""
    count = 0
    for after in range(head, size, PAGE):
        page = await read_page(connection, after, min(after + PAGE, size))
        count += sum(len(found.split(b",")) for text in page.parts for found in _SEALED.findall(text) if found)
    return count
