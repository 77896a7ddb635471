"""Entries in pages, hashed from their bytes: the inner loop of verifying and exporting."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.evidence.columns import WORDS
from app.audit.pruned import NOTHING, Prunings
from app.audit.signing.edge import CompleteTile, Edge, widths
from app.audit.transparency.tiles import WIDTH

PAGE = 8 * WIDTH
"""Entries that are in memory at once, a whole number of tiles: some 800 kB; 128 MB if each is as long as it may be."""

AHEAD = 2
"""Pages that are asked for while one is worked on: the next, and one that the database goes on with at once."""

T = TypeVar("T")

_TILES = """
SELECT start, tile.* FROM generate_series(%(after)s::bigint, %(until)s::bigint - 1, 256) AS start, LATERAL (
    SELECT CASE WHEN bool_and(length(leaf_hash) = 32)
                THEN string_agg(leaf_hash, ''::bytea ORDER BY position) ELSE '' END,
           convert_to(coalesce(string_agg(bytes::text, E'\\n' ORDER BY position), '') || E'\\n', 'UTF8')
    FROM (
        SELECT * FROM audit.entries
        WHERE position > start AND position <= least(start + 256, %(until)s) ORDER BY position LIMIT 257
    ) AS entries HAVING count(*) > 0
) AS tile
"""
"""SQL: a row for each tile, which fits a processor's cache on both sides; in one for all, memory would be asked of the
system, and given back, for every page. The limit tells the planner how few entries that is, and lets one be seen that
is there twice."""

_PAGE = _TILES + "ORDER BY start"
"""By the order, the server has all of them ready before it sends the first, and so it need not wait for us."""

_WITH_COLUMNS = _TILES.replace("\n    FROM", f",\n           {WORDS}\n    FROM", 1)
"""Each is sent while the next is made: who verifies receives them in between, see `verify`."""


class Page(Struct, frozen=True):
    """Entries `after + 1` to `until`, and the hashes that were written beside them, 32 bytes each."""

    after: int
    until: int
    said: bytes
    parts: list[bytes]
    """The entries, each with a line end after it, a tile's in one part: what fits a processor's cache is fast."""
    columns: list[tuple[str, ...]] = []
    """By what they are searched, part by part, see `columns`; empty where that was not asked for."""

    @property
    def entries(self) -> list[bytes]:
        """Give the entries one by one."""
        return [entry for text in self.parts for entry in entries_in(text)]


class Moment(Struct, frozen=True, gc=False):
    """Of an entry, its time."""

    at: datetime


_moments = msgspec.json.Decoder(Moment).decode_lines


class NotAnEntry(ValueError):
    """Something that stands where an entry should is no JSON object with a time; or the times of entries decrease."""


class Unequal(Exception):
    """A page has more or fewer entries than positions, or one whose bytes do not have the hash beside it."""


async def read_page(connection: AsyncConnection, after: int, until: int, *, columns: bool = False) -> Page:
    """Read entries of the log as they stand, believing nothing; with the columns by which they are searched, or not."""
    query = _WITH_COLUMNS if columns else _PAGE
    cursor = await connection.execute(query.encode(), {"after": after, "until": until}, binary=True)
    rows: list[Any] = sorted(await cursor.fetchall())
    return Page(after, until, b"".join([row[1] for row in rows]), [row[2] for row in rows], [row[3:] for row in rows])


@asynccontextmanager
async def pages(
    connection: AsyncConnection,
    after: int,
    size: int,
    read: Callable[[AsyncConnection, int, int], Awaitable[T]] = read_page,
) -> AsyncGenerator[AsyncIterator[T]]:
    """Read the entries after a position page by page; the database gets the next two ready while one is worked on."""
    ahead: deque[asyncio.Task[T]] = deque()
    starts = iter(range(after, size, PAGE))

    def begin() -> None:
        for start in islice(starts, AHEAD - len(ahead)):
            ahead.append(asyncio.ensure_future(read(connection, start, min(start + PAGE, size))))

    async def each() -> AsyncIterator[T]:
        begin()
        while ahead:
            page = await ahead[0]
            ahead.popleft()
            begin()
            yield page

    try:
        yield each()
    finally:
        # Not cancelled: that would end the transaction, in which somebody may have to look for what is wrong.
        await asyncio.gather(*ahead, return_exceptions=True)


_LEAF = sha256(b"\0")
"""A leaf's hash as it begins. To copy it takes less than to begin another: a tenth of hashing an entry."""


def entries_in(text: bytes) -> list[bytes]:
    """Give entries that have a line end after each, without it."""
    return [line[:-1] for line in BytesIO(text)]  # split() looks at each byte by itself


def hashes_of(entries: Iterable[bytes]) -> list[bytes]:
    """Hash entries as leaves (RFC 6962, 2.1)."""
    begin = _LEAF.copy
    return [leaf.digest() for entry in entries if not (leaf := begin()).update(entry)]  # it returns nothing


def hashes_in(text: bytes) -> list[bytes]:
    """Hash entries, each with a line end after it, as leaves."""
    begin = _LEAF.copy
    return [leaf.digest() for line in BytesIO(text) if not (leaf := begin()).update(line[:-1])]


def checked(page: Page, prunings: Prunings = NOTHING) -> tuple[list[bytes], list[bytes]]:
    """Give the entries of a page and their hashes; raises `Unequal` if that is not what stands beside them.

    For an entry that was pruned, as the log says, the hash beside it counts.
    """
    entries: list[bytes] = []
    hashes: list[bytes] = []
    for text in page.parts:
        some = entries_in(text)
        entries += some
        hashes += hashes_of(some)
    return entries, standing(page, hashes, prunings)


def standing(page: Page, hashes: list[bytes], prunings: Prunings) -> list[bytes]:
    """Give the hashes that stand for the entries of a page, which has these; raises `Unequal`, as above."""
    if b"".join(hashes) != page.said:
        hashes = prunings.hashes(page.after, page.entries, hashes, page.said)
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
