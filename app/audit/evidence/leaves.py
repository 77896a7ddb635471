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
SELECT start, tile.* FROM generate_series(%(after)s::bigint, %(until)s::bigint - 1, 256) AS start, LATERAL (
    SELECT string_agg(leaf_hash, ''::bytea ORDER BY position),
           string_agg(convert_to(bytes::text, 'UTF8'), '\\x0a'::bytea ORDER BY position)
    FROM (
        SELECT * FROM audit.entries
        WHERE position > start AND position <= least(start + 256, %(until)s) ORDER BY position LIMIT 257
    ) AS entries HAVING count(*) > 0
) AS tile ORDER BY start
"""
"""SQL: a row for each tile; in one for all, memory would be asked of the system, and given back, for every page. The
limit tells the planner how few entries that is, and lets one be seen that is there twice. By the order, the server has
all of them ready before it sends the first, and so it need not wait for us."""

_WITH_COLUMNS = _PAGE.replace("\n    FROM", f",\n{KEYS},\n{WORDS}\n    FROM", 1)


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
    question = _WITH_COLUMNS if columns else _PAGE
    cursor = await connection.execute(question, {"after": after, "until": until}, binary=True)
    tiles: list[Any] = await cursor.fetchall()
    _, said, texts, *searched = zip(*tiles, strict=True) if tiles else ((), (), ())
    keys, *words = searched or ((),)
    text = b"\n".join(texts)
    entries = text.split(b"\n") if texts else []
    return Page(after, until, entries, b"".join(said), text, b"".join(keys), tuple(map("\n".join, words)))


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
