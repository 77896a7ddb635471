"""Entries in pages, hashed from their bytes: the inner loop of verifying and exporting."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.evidence.columns import KEYS, WORDS
from app.audit.pruned import NOTHING, Prunings
from app.audit.signing.edge import CompleteTile, Edge, widths
from app.audit.transparency.tiles import WIDTH

PAGE = 8 * WIDTH
"""Entries that are in memory at once, a whole number of tiles: some 800 kB; 128 MB if each is as long as it may be."""

_PAGE = """
SELECT count(*), coalesce(string_agg(leaf_hash, ''::bytea ORDER BY position), ''::bytea),
       coalesce(string_agg(convert_to(bytes::text, 'UTF8'), '\\x0a'::bytea ORDER BY position), ''::bytea)
FROM audit.entries WHERE position > %s AND position <= %s
"""
_WITH_COLUMNS = _PAGE.replace("\nFROM", f",\n       {KEYS},\n       {WORDS}\nFROM", 1)


class Page(Struct, frozen=True):
    """Entries `after + 1` to `until`, and the hashes that were written beside them, 32 bytes each."""

    after: int
    until: int
    entries: list[bytes]
    said: bytes
    text: bytes
    """The entries again, one on each line."""
    keys: bytes = b""
    words: tuple[str, ...] = ()
    """By what they are searched, see `columns`; empty where that was not asked for."""


class Moment(Struct, frozen=True):
    """Of an entry, its time."""

    at: datetime


_moments = msgspec.json.Decoder(Moment).decode_lines


class NotAnEntry(ValueError):
    """Something that stands where an entry should is no JSON object with a time; or the times of entries decrease."""


class Unequal(Exception):
    """A page has more or fewer entries than positions, or one whose bytes do not have the hash beside it."""


async def read_page(connection: AsyncConnection, after: int, until: int, *, columns: bool = False) -> Page:
    """Read entries of the log as they stand, believing nothing; with the columns by which they are searched, or not."""
    cursor = await connection.execute(_WITH_COLUMNS if columns else _PAGE, (after, until), binary=True)
    row: Any = await cursor.fetchone()
    count, said, text, *searched = row
    keys, *words = searched or (None,)
    return Page(after, until, text.split(b"\n") if count else [], said, text, keys or b"", tuple(words))


@asynccontextmanager
async def pages(
    connection: AsyncConnection, after: int, size: int, *, columns: bool = False
) -> AsyncGenerator[AsyncIterator[Page]]:
    """Read the entries after a position page by page; the database gets the next one ready while one is worked on."""
    ahead: list[asyncio.Task[Page]] = []

    async def begin(start: int) -> None:
        if start < size:
            ahead.append(asyncio.create_task(read_page(connection, start, min(start + PAGE, size), columns=columns)))
            await asyncio.sleep(0)  # so that the question is on its way

    async def each() -> AsyncIterator[Page]:
        await begin(after)
        while ahead:
            page = await ahead[0]
            del ahead[0]
            await begin(page.until)
            yield page

    try:
        yield each()
    finally:
        # Not cancelled: that would end the transaction, in which somebody may have to look for what is wrong.
        await asyncio.gather(*ahead, return_exceptions=True)


def hashes_of(entries: Sequence[bytes]) -> list[bytes]:
    """Hash entries as leaves (RFC 6962, 2.1)."""
    digest = sha256
    return [digest(b"\0" + entry).digest() for entry in entries]


def checked_hashes(page: Page, prunings: Prunings = NOTHING) -> list[bytes]:
    """Hash the entries of a page; raises `Unequal` if that is not what stands beside them.

    For an entry that was pruned, as the log says, the hash beside it counts.
    """
    hashes = prunings.hashes(page.after, page.entries, hashes_of(page.entries), page.said)
    if len(hashes) != page.until - page.after or b"".join(hashes) != page.said:
        raise Unequal
    return hashes


def times_of(text: bytes, newest: datetime | None) -> datetime | None:
    """Check that times do not decrease from line to line; return the last. Raises `NotAnEntry`."""
    try:
        times = [moment.at for moment in _moments(text)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotAnEntry(str(error)) from error
    return in_order(times, newest)


def in_order(times: list[datetime], newest: datetime | None) -> datetime | None:
    """Check that times do not decrease; return the last. Raises `NotAnEntry`."""
    if newest is not None:
        times.insert(0, newest)
    if times != sorted(times):
        raise NotAnEntry("Its time is before that of the entry in front of it.")
    return times[-1] if times else None


class Tiling(Edge):
    """The right edge of a tree that grows, and the partial tiles in it."""

    def root(self) -> bytes:
        """Give the root of the tree."""
        return self.frontier().root()

    def partial(self) -> list[CompleteTile]:
        """Give the tiles at the right end that are not complete; none of them is empty. Their root is not given."""
        return [
            CompleteTile(level, (self.size >> 8 * level) // WIDTH, b"".join(self._levels[level]), b"")
            for level, width in widths(self.size)
            if width
        ]

    def floor(self) -> "Tiling":
        """Give the tree as it was when its last complete tile of leaves was."""
        size = self.size // WIDTH * WIDTH
        return Tiling(size, [b"", *(b"".join(one) for one in self._levels[1:])] if size else [])
