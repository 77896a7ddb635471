"""Whether the log is whole: every entry hashed from its bytes, up to the roots that were signed; and where it is not.

Nothing is believed that is not derived here from the entries. What stands beside them (hashes, tiles, checkpoints) is
compared with that, and serves to say where somebody put a hand on it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg
from msgspec.structs import replace
from psycopg import AsyncConnection

from app.audit.database.connecting import connect
from app.audit.evidence.beside import Beside, Checkpoints, read_beside, read_checkpoints
from app.audit.evidence.beyond import must_be_nothing_beyond
from app.audit.evidence.columns import agree, misplaced, words_of
from app.audit.evidence.findings import Finding, Tampered, legible
from app.audit.evidence.hiding import must_show_all
from app.audit.evidence.leaves import (
    Page,
    Unequal,
    hashes_in,
    pages,
    standing,
)
from app.audit.evidence.locate import locate
from app.audit.evidence.stamps import read_stamps
from app.audit.evidence.trust import Trust, Unverifiable, WrongKey
from app.audit.evidence.walk import Head, Progress, Walk, Whole
from app.audit.pruned import Prunings, digest_of
from app.audit.signing.edge import CompleteTile
from app.audit.signing.tree import read_size
from app.audit.transparency.notes import NoteRejected


@contextlib.asynccontextmanager
async def connected(dsn: str, what: str = "The database") -> AsyncGenerator[AsyncConnection]:
    """Connect to a database; raises `Unverifiable` where there is none, or it has no log in it."""
    try:
        connection = await connect(dsn, autocommit=True, connect_timeout=10)
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        raise Unverifiable(f"{what} does not answer: {str(error).strip()}") from error
    async with connection:
        try:
            yield connection
        except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
            raise Unverifiable(f"{what} cannot be read: {str(error).strip()}") from error


async def verify_log(
    connection: AsyncConnection, trust: Trust, saved: Sequence[bytes] = (), tell: Progress = lambda done, of: None
) -> Whole:
    """Verify the whole log in a database; `saved` are checkpoints that somebody kept elsewhere.

    The connection is in autocommit; everything is read in one snapshot. Raises `Tampered`; `Unverifiable` where there
    is nothing to verify by, and `NoteRejected` if a saved checkpoint is none of this log.
    """
    heads = [_saved(trust, note, "the checkpoint that was saved") for note in saved]
    if trust.newest is not None:
        heads.append(_saved(trust, trust.newest, "the newest checkpoint that the signer remembers"))
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await must_show_all(connection)
        prunings = await Prunings.read(connection)
        walk = Walk(heads, stamps=await read_stamps(connection))
        return await _Verification(connection, trust, walk, tell, prunings).run()


def _saved(trust: Trust, note: bytes, whence: str) -> Head:
    checkpoint = trust.open(note)
    return Head(checkpoint.size, checkpoint.root, note, whence)


class _Verification:
    """One pass over one snapshot."""

    def __init__(
        self, connection: AsyncConnection, trust: Trust, walk: Walk, tell: Progress, prunings: Prunings
    ) -> None:
        self._connection = connection
        self._prunings = prunings
        self._trust = trust
        self._walk = walk
        self._tell = tell
        self._checkpoints = 0
        self._newest: Head | None = None
        self._suspicion: Finding | None = None
        """An entry that is not what its tile says: which of them was touched, the next root that is met decides."""

    async def run(self) -> Whole:
        head, signed = await read_size(self._connection), await self._signed_size()
        async with pages(self._connection, 0, head, read_beside) as read:
            async for one in read:
                await self._take(one, signed)
                self._tell(one.page.until, head)
        self._walk.expect(self._heads(await read_checkpoints(self._connection, head + 1, 2**63 - 1)))
        self._walk.end()
        if self._suspicion:
            raise Tampered(self._suspicion)
        await must_be_nothing_beyond(self._connection, head)
        if by := self._prunings.others():
            raise Tampered(_others(self._prunings, by))
        newest = self._newest
        waiting = await self._time_of(newest.size + 1) if newest else None
        pruned = sum(map(len, self._prunings.met.values()))
        return Whole(head, self._walk.tiling.root(), self._checkpoints, newest, waiting, pruned, self._walk.stamps())

    async def _take(self, read: Beside, signed: int) -> None:
        """Take a page in, and compare what is kept beside it; on whatever is wrong in it, say exactly where."""
        page = read.page
        hashes, times, is_found = await _derived(page)
        try:
            hashes = standing(page, hashes, self._prunings)
        except Unequal as error:
            raise Tampered(await locate(self._connection, page, prunings=self._prunings)) from error
        self._walk.expect(self._heads(read.checkpoints))
        try:
            complete = self._walk.take(hashes, page.parts, times)
        except Tampered as error:
            if error.finding.kind == "time":
                raise
            finding = self._suspicion or await locate(self._connection, page, or_else=False, prunings=self._prunings)
            raise Tampered(finding or error.finding) from error
        if self._suspicion is None:
            await self._compare_tiles(read, complete, signed)
        if not is_found and (finding := await misplaced(self._connection, page.after, page.until)):
            raise Tampered(finding)
        if self._suspicion and self._suspicion.first <= self._walk.proven:
            raise Tampered(_touched_tile(self._suspicion))

    async def _compare_tiles(self, read: Beside, complete: Sequence[CompleteTile], signed: int) -> None:
        for tile in complete:
            covers = (tile.index + 1) << 8 * (tile.level + 1)
            is_there = read.tiles.get((tile.level, tile.index))
            if is_there != (tile.hashes, tile.root) and (is_there or covers <= signed):
                self._suspicion = await locate(
                    self._connection, read.page, tile=tile, kept=is_there, prunings=self._prunings
                )
                return

    async def _signed_size(self) -> int:
        """Read up to where the signer has kept its tiles."""
        cursor = await self._connection.execute("SELECT coalesce(max(size), 0) FROM audit.checkpoints")
        row: Any = await cursor.fetchone()
        return row[0]

    async def _time_of(self, position: int) -> datetime | None:
        cursor = await self._connection.execute("SELECT at FROM audit.entries WHERE position = %s", (position,))
        row: Any = await cursor.fetchone()
        return row and row[0]

    def _heads(self, checkpoints: Checkpoints) -> Iterator[Head]:
        for size, root, note in checkpoints:
            head = Head(size, root, note, f"the checkpoint of {size} entries in the database")
            self._check_note(head)
            self._checkpoints += 1
            self._newest = head
            yield head

    def _check_note(self, head: Head) -> None:
        says = f"The checkpoint of {head.size} entries in the database"
        try:
            checkpoint = self._trust.open(head.note)
        except (NoteRejected, WrongKey) as error:
            why = f"{says} is not one of this log: {error}"
        else:
            if (checkpoint.size, checkpoint.root) == (head.size, head.root):
                return
            why = f"{says} is not what its note says: {checkpoint.size} entries, root {checkpoint.root.hex()}."
        raise Tampered(
            Finding(
                kind="checkpoint",
                says=why,
                first=head.size,
                last=head.size,
                found=head.root.hex(),
                notes=tuple(filter(None, (legible(head.note), legible(self._trust.newest or b"")))),
            )
        )


async def _derived(page: Page) -> tuple[list[bytes], list[datetime] | None, bool]:
    """Give of a page's entries the hashes, the times unless one has none, and whether their columns are as they say.

    In between, what the database has sent is received: it waits where a socket holds no more.
    """
    hashes: list[bytes] = []
    times: list[datetime] | None = []
    is_found = True
    for text, columns in zip(page.parts, page.columns, strict=True):
        hashes += hashes_in(text)
        await _receive()
        words = words_of(text)
        is_found = is_found and words is not None and agree(words, columns)
        times = None if words is None or times is None else times + [one.at for one in words]
        await _receive()
    return hashes, times, is_found


async def _receive() -> None:
    """Let the event loop see what has come, wake who waits for it, and that one take it."""
    for _ in range(3):
        await asyncio.sleep(0)


def _others(prunings: Prunings, by: int) -> Finding:
    said, met = prunings.said[by], prunings.met[by]
    return Finding(
        kind="edited",
        says=f"Entry {by} says which {said.entries} entries to {said.before} were pruned; {len(met)} look as if they "
        "had been, and they are not the same. An export shows which of them were not.",
        first=min(met),
        last=max(met),
        expected=said.positions,
        found=digest_of(met),
    )


def _touched_tile(finding: Finding) -> Finding:
    """The entries are those that were signed for, so it was the tile that somebody touched."""
    if finding.kind == "tile":
        return finding
    says = f"Entry {finding.first} is whole, but the tile that has its hash was changed."
    return replace(finding, kind="tile", says=says, expected=finding.found, found=finding.expected)
