"""Where exactly a log was tampered with: the entries of a page, what was written beside them, and the kept tile."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from psycopg import AsyncConnection

from app.audit.evidence.findings import Finding, Kind, legible
from app.audit.evidence.leaves import Page, hashes_of
from app.audit.pruned import NOTHING, Prunings, is_tombstone
from app.audit.signing.edge import CompleteTile
from app.audit.transparency.strict import HASH
from app.audit.transparency.tiles import WIDTH, unpack_hashes


class _Row:
    """An entry as it stands, its hash, and what was written beside it as that."""

    def __init__(self, position: int, entry: bytes, said: bytes, prunings: Prunings) -> None:
        self.position, self.entry, self.said = position, entry, said
        self.hash = said if prunings.covers(position, entry) else hashes_of([entry])[0]


async def locate(
    connection: AsyncConnection,
    page: Page,
    *,
    tile: CompleteTile | None = None,
    kept: tuple[bytes, bytes] | None = None,
    or_else: bool = True,
    prunings: Prunings = NOTHING,
) -> Any:
    """Find what is wrong with a page that something is wrong with; none if nothing can be seen, and `or_else` is not.

    Positions are looked at first, then each entry beside its hash, then the tiles. `tile`, if it is given, is one that
    the entries give, and `kept` what is kept in its place.
    """
    rows = await _rows(connection, page.after, page.until, prunings)
    found = _gap(rows, page) or await _against_tiles(connection, rows, page) or _against_hashes(rows) or _lines(rows)
    if found or not or_else:
        return found
    if tile is not None:
        return _tile(tile, kept)
    raise AssertionError("A page is not whole, and is.")  # pragma: no cover


async def _rows(connection: AsyncConnection, after: int, until: int, prunings: Prunings) -> list[_Row]:
    cursor = await connection.execute(
        "SELECT position, convert_to(coalesce(bytes::text, ''), 'UTF8'), coalesce(leaf_hash, '') FROM audit.entries "
        "WHERE position > %s AND position <= %s ORDER BY position",
        (after, until),
    )
    return [_Row(position, bytes(text), bytes(said), prunings) for position, text, said in await cursor.fetchall()]


def _gap(rows: Sequence[_Row], page: Page) -> Finding | None:
    there = {row.position for row in rows}
    if len(there) < len(rows):
        twice = next(row for row, other in pairwise(rows) if row.position == other.position)
        return _finding("inserted", twice, twice.said, "the hash beside it", "Two entries stand at one position:")
    missing = [position for position in range(page.after + 1, page.until + 1) if position not in there]
    if not missing:
        return None
    last = missing[0]
    while last + 1 not in there and last < page.until:
        last += 1
    return Finding(
        kind="deleted",
        says=f"Entry {missing[0]} is missing."
        if last == missing[0]
        else f"Entries {missing[0]} to {last} are missing.",
        first=missing[0],
        last=last,
        found="no entry",
    )


def _against_hashes(rows: Sequence[_Row]) -> Finding | None:
    row = next((row for row in rows if row.hash != row.said), None)
    if row is None:
        return None
    return _finding("edited", row, row.said, "the hash that was written beside it")


def _lines(rows: Sequence[_Row]) -> Finding | None:
    row = next((row for row in rows if b"\n" in row.entry), None)
    if row is None:
        return None
    return Finding(
        kind="edited",
        says=f"Entry {row.position} has a line end in it, which no entry is written with.",
        first=row.position,
        last=row.position,
        entry=legible(row.entry),
    )


async def _against_tiles(connection: AsyncConnection, rows: Sequence[_Row], page: Page) -> Finding | None:
    """Compare with the kept tiles of leaves, which say what the hashes were when they were signed."""
    cursor = await connection.execute(
        "SELECT index, hashes FROM audit.tiles WHERE level = 0 AND index >= %s AND index < %s AND length(hashes) = %s "
        "ORDER BY index",
        (page.after // WIDTH, -(-page.until // WIDTH), WIDTH * HASH),
    )
    for index, hashes in await cursor.fetchall():
        kept = unpack_hashes(bytes(hashes))
        ours = [row for row in rows if row.position > index * WIDTH][: len(kept) + 1]
        n = next((n for n in range(min(len(kept), len(ours))) if ours[n].hash != kept[n]), None)
        if n is not None:
            return _told_apart(ours, kept, n)
        odd = next((row for row in ours[: len(kept)] if row.said != row.hash), None)
        if odd is not None:
            return _finding("hash", odd, odd.hash, "the hash that was written beside it was changed")
    return None


def _told_apart(ours: Sequence[_Row], kept: Sequence[bytes], n: int) -> Finding:
    """Say what was done to the first entry that is not what the tile says."""
    row, by_tile = ours[n], "the tile that was signed"
    if row.said == kept[n]:
        return _finding("edited", row, kept[n], "the hash beside it, and the tile that was signed")
    if n + 1 < len(kept) and row.hash == kept[n + 1]:
        return _finding("deleted", row, kept[n], by_tile, "An entry was taken out, and those after it moved up:")
    if n + 1 < len(ours) and ours[n + 1].hash == kept[n]:
        return _finding("inserted", row, kept[n], by_tile, "An entry was put in, and those after it moved down:")
    if row.hash in kept:
        other = row.position - n + kept.index(row.hash)
        return _finding("swapped", row, kept[n], by_tile, f"Entry {other} stands in the place of another:")
    return _finding("edited", row, kept[n], by_tile)


def _finding(kind: Kind, row: _Row, expected: bytes, by: str, says: str = "") -> Finding:
    if kind == "hash":
        text = f"Entry {row.position} is whole, but {by}: it was {expected.hex()}, and is {row.said.hex()}."
    else:
        text = f"{says} entry {row.position} hashes to {row.hash.hex()}; by {by} it has to be {expected.hex()}."
    if is_tombstone(row.entry):
        text += " It was made to look as if it had been pruned, and nothing in the log says that it was."
    return Finding(
        kind=kind,
        says=text.strip()[0].upper() + text.strip()[1:],
        first=row.position,
        last=row.position,
        expected=expected.hex(),
        found=(row.said if kind == "hash" else row.hash).hex(),
        entry=legible(row.entry),
    )


def _tile(tile: CompleteTile, kept: tuple[bytes, bytes] | None) -> Finding:
    span = WIDTH ** (tile.level + 1)
    return Finding(
        kind="tile",
        says=f"Tile {tile.index} of level {tile.level} is {'not what the entries under it give' if kept else 'missing'}"
        f" (entries {tile.index * span + 1} to {(tile.index + 1) * span}).",
        first=tile.index * span + 1,
        last=(tile.index + 1) * span,
        expected=tile.root.hex(),
        found=bytes(kept[1]).hex() if kept else "no tile",
    )
