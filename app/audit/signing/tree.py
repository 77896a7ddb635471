"""The tree over the log as it lies in the database: leaves to hash, complete tiles, checkpoints, and proofs of them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from app.audit.entry import leaf_hash
from app.audit.pruned import Prunings, is_tombstone
from app.audit.reading import one
from app.audit.signing.edge import CompleteTile, Edge, widths
from app.audit.transparency.strict import HASH
from app.audit.transparency.tiles import WIDTH, TileNodes, pack_entries
from app.audit.transparency.tree import Nodes, consistency_proof, inclusion_proof

PAGE = 512
"""Leaves that are read and hashed at once: a millisecond's work, and 32 MB if each is as long as an entry may be."""

_LEAVES = """
SELECT string_agg(leaf_hash, ''::bytea ORDER BY position),
       array_agg(convert_to(coalesce(bytes::text, ''), 'UTF8') ORDER BY position)
FROM audit.entries WHERE position > %s AND position <= %s
"""


class Tampered(Exception):
    """The database does not hold what it held; the message names the position."""


class NotInTree(Exception):
    """There is no such tile, entry or checkpoint, or not yet."""


class Published(Struct, frozen=True):
    """A checkpoint as it is given out: the signed note, with its cosignatures."""

    size: int
    root: bytes
    note: bytes
    at: datetime


class Tree:
    """Reads what the signer published, and proves by it. Believe nothing of it that is not proven."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool

    async def newest(self) -> Published | None:
        """Give the newest checkpoint that enough witnesses cosigned."""
        return await self._checkpoint("WHERE size > 0 ORDER BY size DESC LIMIT 1")

    async def covering(self, position: int) -> Published | None:
        """Give the first kept checkpoint with an entry in it: of all, it says most closely when that was there."""
        return await self._checkpoint("WHERE size >= %s ORDER BY size LIMIT 1", position)

    async def tile(self, level: int, index: int, width: int = WIDTH) -> bytes:
        """Give the hashes of a tile, or the first `width` of them. Raises `NotInTree`."""
        async with self._pool.connection() as connection:
            return await read_tile(connection, level, index, width)

    async def entries(self, index: int, width: int = WIDTH) -> bytes:
        """Give the entries of tile `index` of level 0 as an entry bundle (C2SP tlog-tiles).

        Raises `NotInTree`, also where one of them was pruned: such bundles are in exports that were made before.
        """
        query = "SELECT bytes::text FROM audit.entries WHERE position > %s AND position <= %s ORDER BY position"
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, (index * WIDTH, index * WIDTH + width))
            rows = await cursor.fetchall()
        if len(rows) < width or any(is_tombstone(text.encode()) for (text,) in rows):
            raise NotInTree
        return pack_entries([text.encode() for (text,) in rows])

    async def entry(self, position: int) -> bytes:
        """Give the bytes of an entry. Raises `NotInTree`."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT bytes::text FROM audit.entries WHERE position = %s", (position,))
            if (row := await cursor.fetchone()) is None:
                raise NotInTree
        return row[0].encode()

    async def inclusion(self, position: int, size: int) -> Sequence[bytes]:
        """Prove that an entry is in the tree of `size` leaves. Raises `NotInTree`."""
        return await self._prove(size, lambda nodes: inclusion_proof(position - 1, size, nodes))

    async def consistency(self, old: int, size: int) -> Sequence[bytes]:
        """Prove that the tree of `size` leaves has that of `old` leaves at its left. Raises `NotInTree`."""
        return await self._prove(size, lambda nodes: consistency_proof(old, size, nodes))

    async def _prove(self, size: int, prove: Callable[[Nodes], Sequence[bytes]]) -> Sequence[bytes]:
        """Find out by a proof of nothing which tiles it needs, read those, and prove."""
        tiles: dict[tuple[int, int, int], bytes] = {}

        def missing(level: int, index: int, width: int) -> bytes:
            tiles[level, index, width] = b""
            return bytes(width * HASH)

        prove(TileNodes(missing, size))
        async with self._pool.connection() as connection:
            for level, index, width in tiles:
                tiles[level, index, width] = await read_tile(connection, level, index, width)
        return prove(TileNodes(lambda level, index, width: tiles[level, index, width], size))

    async def _checkpoint(self, which: str, *values: int) -> Published | None:
        query = f"SELECT size, root, note, at FROM audit.checkpoints {which}"  # noqa: S608 (two constants)
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query.encode(), values)
            row = await cursor.fetchone()
        return Published(*row) if row else None


async def read_tile(connection: AsyncConnection, level: int, index: int, width: int) -> bytes:
    """Read the first `width` hashes of a tile: the leaves' own, or the roots of the tiles below. Raises `NotInTree`."""
    start = index * WIDTH
    if width == WIDTH:
        query, values = "SELECT hashes FROM audit.tiles WHERE level = %s AND index = %s", (level, index)
    elif level == 0:
        query = "SELECT leaf_hash FROM audit.entries WHERE position > %s AND position <= %s ORDER BY position"
        values = (start, start + width)
    else:
        query = "SELECT root FROM audit.tiles WHERE level = %s AND index >= %s AND index < %s ORDER BY index"
        values = (level - 1, start, start + width)
    cursor = await connection.execute(query.encode(), values)
    hashes = b"".join([row[0] or b"" for row in await cursor.fetchall()])  # a superuser may have emptied one
    if len(hashes) != width * HASH:
        raise NotInTree
    return hashes


async def read_edge(connection: AsyncConnection, size: int) -> Edge:
    """Read the right edge of the tree of `size` leaves, those that no tile holds yet from their bytes.

    Raises `NotInTree` where tiles are missing, `Tampered` where an entry is not what was hashed.
    """
    if not size:
        return Edge()
    levels = [await read_tile(connection, level, (size >> 8 * level) // WIDTH, width) for level, width in widths(size)]
    leaves = await read_leaves(connection, (size - 1) // WIDTH * WIDTH, size)
    if size % WIDTH:
        levels[0] = b"".join(leaves)
    elif b"".join(leaves) != await read_tile(connection, 0, size // WIDTH - 1, WIDTH):
        raise Tampered(f"Entries {size - WIDTH + 1} to {size} are not those that were hashed.")
    return Edge(size, levels, leaves[-1])


async def read_leaves(connection: AsyncConnection, after: int, until: int) -> list[bytes]:
    """Hash the entries after one position until another from their bytes. Raises `Tampered`, naming the position.

    Where an entry was pruned, as the log says, the hash that is kept beside it stands for it.
    """
    cursor = await connection.execute(_LEAVES, (after, until), binary=True)
    row: Any = await cursor.fetchone()
    entries: list[bytes] = row[1] or []
    hashes = [leaf_hash(entry) for entry in entries]
    if len(hashes) == until - after:
        if b"".join(hashes) == row[0]:
            return hashes
        standing = (await Prunings.read(connection)).hashes(after, entries, hashes, row[0])
        if b"".join(standing) == row[0]:
            return standing
    raise Tampered(await _locate(connection, after, until))


async def _locate(connection: AsyncConnection, after: int, until: int) -> str:
    query = (
        "SELECT position, coalesce(leaf_hash, ''), coalesce(bytes::text, '') FROM audit.entries "
        "WHERE position > %s AND position <= %s "
        "ORDER BY position"
    )
    prunings = await Prunings.read(connection)
    cursor = await connection.execute(query, (after, until))
    expected = after
    async for position, stored, text in cursor:
        expected += 1
        if position != expected:
            return f"Entry {expected} is missing."
        if leaf_hash(text.encode()) != stored and not prunings.covers(position, text.encode()):
            return f"Entry {position} is not what was recorded: its bytes do not have its hash, {stored.hex()}."
    return f"Entry {expected + 1} is missing."


async def read_size(connection: AsyncConnection) -> int:
    """Read how many entries are committed."""
    return one(await (await connection.execute("SELECT coalesce(max(position), 0) FROM audit.entries")).fetchone())


async def keep_tiles(connection: AsyncConnection, tiles: Sequence[CompleteTile]) -> None:
    """Keep complete tiles. Raises `Tampered` where another is kept already."""
    if not tiles:
        return
    cursor = connection.cursor()
    await cursor.executemany(
        "INSERT INTO audit.tiles (level, index, hashes, root) VALUES (%s, %s, %b, %b) ON CONFLICT DO NOTHING",
        [(tile.level, tile.index, tile.hashes, tile.root) for tile in tiles],
    )
    if cursor.rowcount == len(tiles):
        return
    for tile in tiles:
        query = "SELECT hashes, root FROM audit.tiles WHERE level = %s AND index = %s"
        await cursor.execute(query, (tile.level, tile.index), binary=True)
        if await cursor.fetchone() != (tile.hashes, tile.root):
            raise Tampered(f"Tile {tile.index} of level {tile.level} is not what the entries under it give.")


async def read_checkpoints(connection: AsyncConnection, since: int) -> list[tuple[int, bytes]]:
    """Read size and root of each checkpoint from a size on, in order."""
    cursor = await connection.execute(
        "SELECT size, root FROM audit.checkpoints WHERE size >= %s ORDER BY size", (since,)
    )
    return await cursor.fetchall()


async def publish(connection: AsyncConnection, size: int, root: bytes, note: bytes) -> None:
    """Give a checkpoint out. Raises `Tampered` where one of that size has another root."""
    values = (size, root, note)
    await connection.execute(
        "INSERT INTO audit.checkpoints (size, root, note) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", values
    )
    if (size, root) not in await read_checkpoints(connection, size):
        raise Tampered(f"There is a checkpoint of {size} entries with another root.")
