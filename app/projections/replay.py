"""Replay: fold the log, from its beginning or from where an attempt stopped, into a generation beside the others.

A page and its bookmark commit together, and while the database writes it, the next one is read and opened. Killed at
any moment, it goes on from the bookmark; no more than these two pages are in memory, and others get their turn.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.entry import Record, UnreadableEntry, readable
from app.audit.log import Log
from app.projections.generation import SETTINGS, Generation
from app.projections.guarded import is_up
from app.tasks import end

PAGE = 500
"""Entries, while the platform is not up: nobody waits but whoever rebuilds."""

PAGE_BESIDE = 60
"""Entries, while it is up. They take about 2 ms, after which it rests: a request meets a part of such a burst, and a
pause, where it would wait at each of its steps in a long one. More would be faster, and make the slowest far slower.
"""

SLICE = 50
"""Events that are decoded at a time: the database's answer about the page before waits for no more than that."""

REST = 0.001
"""Seconds for which it rests after such a page: what has waited for a processor, or for the database, gets its turn."""

LOOK_EVERY = 0.5
"""Seconds between looks whether the platform is up."""

Progress = Callable[[int, int], None]
"""(position, head): how far it is."""


def in_silence(position: int, head: int) -> None:
    """Tell nobody how far it is."""


class _Read(Struct, frozen=True):
    records: Sequence[Record]
    head: int
    is_full: bool
    """Whether there may be more."""


class Replay:
    """Folds the log into one generation, and knows how far it is."""

    def __init__(
        self, log: Log, generation: Generation, connection: AsyncConnection, progress: Progress = in_silence
    ) -> None:
        self.generation = generation
        self.position = 0
        self.entries = 0
        """How many were folded since it began, or went on."""
        self.touched: set[str] = set()
        """The tables that were changed; whoever looks clears it."""
        self.unreadable: UnreadableEntry | None = None
        """Why it cannot go on beyond its position, if it cannot."""
        self._log = log
        self._connection = connection
        self._progress = progress
        self._company = True
        self._look_at = 0.0

    async def begin(self, *, anew: bool = False) -> None:
        """Go on from the bookmark of an attempt of the same shape; begin with empty tables where there is none."""
        position = None if anew else await self.generation.bookmark(self._connection)
        if position is None:
            async with self._connection.transaction():
                await self.generation.create(self._connection)
        self.position = position or 0

    async def go_on(self, until: int | None = None) -> None:
        """Fold everything up to a position, or to the end of the log, or to an entry that cannot be read."""
        ahead: asyncio.Task[_Read] | None = None
        try:
            while self.unreadable is None and (until is None or self.position < until):
                await self._look()
                read = await ahead if ahead else None
                if read is None or not read.is_full:  # it may have grown
                    read = await self._read(self.position)
                ahead = asyncio.create_task(self._read(read.records[-1].position)) if read.is_full else None
                if not await self._fold(read, until):
                    return
                if self._company:
                    await asyncio.sleep(REST)
        finally:
            if ahead is not None:
                await end([ahead])

    async def _look(self) -> None:
        """Look, once in a while, whether the platform is up."""
        if (now := time.monotonic()) >= self._look_at:
            self._company = await is_up(self._log)
            self._look_at = now + LOOK_EVERY

    async def _read(self, after: int) -> _Read:
        """Read a page, with what was sealed in it: nobody else has these records, so they are no copies."""
        limit = PAGE_BESIDE if self._company else PAGE
        page = await self._log.read(self.generation.selections, after=after, limit=limit)
        if sealed := [record for record in page.records if record.is_sealed and self.generation.folds(record)]:
            async with self._log.pool.connection() as connection:
                await self._log.reveal(connection, sealed)
        for start in range(0, len(page.records), SLICE):
            readable(page.records[start : start + SLICE])
            await asyncio.sleep(0)
        return _Read(page.records, page.head, len(page.records) == limit)

    async def _fold(self, read: _Read, until: int | None) -> bool:
        to = read.head if until is None else min(until, read.head)
        within = [record for record in read.records if record.position <= to]
        records, self.unreadable = readable(within)
        if self.unreadable:
            to = within[len(records)].position - 1
        elif read.is_full and len(within) == len(read.records):
            to = within[-1].position
        if to <= self.position:
            return False
        async with self._connection.transaction():
            await self._connection.execute(SETTINGS)
            if records:
                self.touched |= await self.generation.apply(self._connection, records)
            await self.generation.advance(self._connection, to)
        self.position = to
        self.entries += len(records)
        self._progress(to, read.head)
        return True
