"""The log beside a replica of it that somebody else administers: entry by entry."""

from psycopg import AsyncConnection

from app.audit.evidence.findings import Finding, Tampered, legible
from app.audit.evidence.leaves import (
    PAGE,
    hashes_of,
    read_page,
)
from app.audit.evidence.walk import Progress
from app.audit.pruned import Prunings
from app.audit.signing.tree import read_size


async def compare(ours: AsyncConnection, theirs: AsyncConnection, tell: Progress = lambda done, of: None) -> int:
    """Compare with a replica, entry by entry; return up to which position both have entries.

    A replica may lag behind. Raises `Tampered` at the first that differs, or if the replica has more than we have.
    """
    size, other = await read_size(ours), await read_size(theirs)
    common = min(size, other)
    prunings = await Prunings.read(ours)
    for after in range(0, common, PAGE):
        until = min(after + PAGE, common)
        here, there = await read_page(ours, after, until), await read_page(theirs, after, until)
        is_same = here.parts == there.parts or prunings.hashes(
            after, here.entries, hashes_of(here.entries), here.said
        ) == hashes_of(there.entries)
        if not is_same or len(here.entries) != until - after:
            raise Tampered(await _difference(ours, theirs, after, until, prunings))
        tell(until, common)
    if other > size:
        raise Tampered(
            Finding(
                kind="truncated",
                says=f"Entries {size + 1} to {other} are gone: the replica has them.",
                first=size + 1,
                last=other,
                expected=str(other),
                found=str(size),
            )
        )
    return common


async def _difference(
    ours: AsyncConnection, theirs: AsyncConnection, after: int, until: int, prunings: Prunings
) -> Finding:
    here, there = await _rows(ours, after, until), await _rows(theirs, after, until)
    suspects = [one for one in range(after + 1, until + 1) if here.get(one) != there.get(one) or one not in here]
    pruned = [one for one in suspects if prunings.covers(one, here.get(one, b""))]
    position = next((one for one in suspects if one not in pruned), suspects[0])
    mine, other = here.get(position), there.get(position)
    return Finding(
        kind="deleted" if mine is None else "differs",
        says=f"Entry {position} is {'gone' if mine is None else 'another'} here, compared with the replica.",
        first=position,
        last=position,
        expected=_hash(other),
        found=_hash(mine),
        entry=None if mine is None else legible(mine),
        beside=None if other is None else legible(other),
    )


def _hash(entry: bytes | None) -> str:
    return "" if entry is None else hashes_of([entry])[0].hex()


async def _rows(connection: AsyncConnection, after: int, until: int) -> dict[int, bytes]:
    cursor = await connection.execute(
        "SELECT position, convert_to(bytes::text, 'UTF8') FROM audit.entries WHERE position > %s AND position <= %s",
        (after, until),
    )
    return {position: bytes(text) for position, text in await cursor.fetchall()}
