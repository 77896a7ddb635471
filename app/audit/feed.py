"""The newest entries, read once for all who follow the log in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from app.audit.entry import Record
from app.domain.subjects import SubjectErased

KEEP = 4_096
PAGE = 1_000

ReadPage = Callable[[int, int], Awaitable[list[Record]]]
"""(after, limit) -> the records after a position, in order."""


class Feed:
    """A window on the end of the log. It grows by `offer`, in order and without a gap, and followers read from it."""

    def __init__(self, head: int, read_page: ReadPage, forget: Callable[[str], None] = lambda subject: None) -> None:
        self._forget = forget
        self._read_page = read_page
        self._records: list[Record] = []
        self._floor = head
        self._grown = asyncio.Event()
        self._catching_up = asyncio.Lock()

    @property
    def head(self) -> int:
        """The position of the newest entry that is known here."""
        return self._floor + len(self._records)

    def offer(self, records: Sequence[Record]) -> None:
        """Take in entries that were just committed; those that are known, or do not follow on the head, are left."""
        for record in records:
            if record.position == self.head + 1:
                self._records.append(record)
                if record.entry.type == SubjectErased.__name__:
                    self._erase(record)
        if len(self._records) > 2 * KEEP:
            self._floor += len(self._records) - KEEP
            del self._records[:-KEEP]
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def _erase(self, erased: Record) -> None:
        """Let go of what a subject's values are in this process's memory, whichever process erased it."""
        subject = erased.entry.tags[0]
        self._forget(subject)
        for record in self._records:
            if any(one.subject == subject for one in record.disclosures):
                record.disclosures = [one for one in record.disclosures if one.subject != subject]

    async def catch_up(self) -> None:
        """Read what others appended."""
        async with self._catching_up:
            while records := await self._read_page(self.head, PAGE):
                self.offer(records)

    async def follow(self, after: int) -> AsyncIterator[list[Record]]:
        """Give every entry after a position, each once and in order, in pages of at most 1,000; then wait for more."""
        while True:
            grown = self._grown
            if after < self._floor:
                records = await self._read_page(after, PAGE)
            else:
                start = after - self._floor
                records = self._records[start : start + PAGE]
            if records:
                after = records[-1].position
                yield records
            else:
                await grown.wait()
