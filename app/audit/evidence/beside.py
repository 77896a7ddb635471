"""A page of the log, read ahead with all that is kept beside it and has to agree with it."""

from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.evidence.leaves import Page, read_page
from app.audit.transparency.tiles import HEIGHT

_LEVELS = 7
"""Those of a tree of 2^56 entries; positions have 63 bits."""

_TILES = """
SELECT level, index, coalesce(hashes, ''), coalesce(root, '')
FROM unnest(%s::smallint[], %s::bigint[]) AS wanted (level, index)
JOIN audit.tiles USING (level, index)
"""

Checkpoints = list[tuple[int, bytes, bytes]]
"""Size, root and note of each, in order."""


class Beside(Struct, frozen=True):
    """A page with its columns; what is kept as the tiles that end in it, by level and index; its checkpoints."""

    page: Page
    tiles: dict[tuple[int, int], tuple[bytes, bytes]]
    checkpoints: Checkpoints


async def read_beside(connection: AsyncConnection, after: int, until: int) -> Beside:
    """Read entries of the log, and what is kept beside them, believing nothing."""
    page = await read_page(connection, after, until, columns=True)
    tiles = await _read_tiles(connection, after, until)
    return Beside(page, tiles, await read_checkpoints(connection, after + (after > 0), until))


async def read_checkpoints(connection: AsyncConnection, first: int, last: int) -> Checkpoints:
    """Read the checkpoints from one size to another."""
    cursor = await connection.execute(
        "SELECT size, coalesce(root, ''), coalesce(note, '') FROM audit.checkpoints "
        "WHERE size >= %s AND size <= %s ORDER BY size",
        (first, last),
        binary=True,
    )
    return await cursor.fetchall()


async def _read_tiles(
    connection: AsyncConnection, after: int, until: int
) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    spans = [(level, HEIGHT * (level + 1)) for level in range(_LEVELS)]
    names = [(level, index) for level, span in spans for index in range(after >> span, until >> span)]
    wanted = ([level for level, _ in names], [index for _, index in names])
    cursor = await connection.execute(_TILES, wanted, binary=True)
    return {(level, index): (hashes, root) for level, index, hashes, root in await cursor.fetchall()}
