"""Whether the log continues what was signed of it, by what the signer remembers and by the entries themselves."""

import asyncio
import random

from psycopg import AsyncConnection

from app.audit.database.shape import RETYPED
from app.audit.signing.edge import Edge
from app.audit.signing.store import Signed
from app.audit.signing.tree import (
    PAGE,
    NotInTree,
    Tampered,
    keep_tiles,
    read_checkpoints,
    read_edge,
    read_leaves,
    read_size,
    read_tile,
)
from app.audit.transparency.tiles import WIDTH

SAMPLE = 16
"""Complete tiles, drawn by lot, whose entries are hashed anew at each start."""


class Refused(Exception):
    """Nothing is signed. The message says what to do."""


class AnotherHistory(Refused):
    """The log does not continue what was signed, so nothing may be appended to it either."""


async def compare(connection: AsyncConnection, signed: Signed | None) -> Edge:
    """Give the edge of the log as it was signed last. Raises `Refused` or `Tampered` if it is not there."""
    if retyped := await (await connection.execute(RETYPED)).fetchall():
        raise Refused(
            f"{' '.join(row[0] for row in retyped)} Nothing is signed. `sophon state doctor` says how that is mended."
        )
    size = signed.size if signed else 0
    checkpoints = await read_checkpoints(connection, size)
    head = await read_size(connection)  # after them: another process may be signing
    if head < (most := max([size, *(of for of, _ in checkpoints)])):
        raise rolled_back(head, most)
    try:
        edge = await read_edge(connection, size)
    except NotInTree:
        edge = await extend(connection, Edge(), size)
    frontier = edge.frontier()
    if signed is not None and [one.hex() for one in frontier.hashes] != list(signed.frontier):
        raise another(size)
    # A checkpoint that is newer than our memory: the directory is an older copy, or we were killed. It is ours to
    # repeat if the entries still give that root, and then only.
    if checkpoints:
        of, root = checkpoints[-1]
        if (await extend(connection, edge.copy(), of)).frontier().root() != root:
            raise another(of)
    return edge


async def extend(connection: AsyncConnection, edge: Edge, size: int) -> Edge:
    """Grow an edge by the entries until a size, a page at a time, and keep the tiles that they complete."""
    while edge.size < size:
        leaves = await read_leaves(connection, edge.size, min(edge.size + PAGE, size))
        await keep_tiles(connection, edge.extend(leaves))
        await asyncio.sleep(0)
    return edge


async def sample(connection: AsyncConnection, size: int) -> None:
    """Hash some of the entries that were signed anew. Raises `Tampered`, naming those that are not what they were."""
    complete = size // WIDTH
    for index in random.sample(range(complete), min(SAMPLE, complete)):  # a lot, no secret
        entries = f"{index * WIDTH + 1} to {(index + 1) * WIDTH}"
        leaves = await read_leaves(connection, index * WIDTH, (index + 1) * WIDTH)
        try:
            tile = await read_tile(connection, 0, index, WIDTH)
        except NotInTree:
            raise Tampered(f"The tile of entries {entries} is gone, though they were signed.") from None
        if b"".join(leaves) != tile:
            raise Tampered(f"Entries {entries} are not those that were signed.")
        await asyncio.sleep(0)


async def ends_so(connection: AsyncConnection, edge: Edge) -> bool:
    """Whether the last entry of an edge is still the one that was hashed."""
    return await read_leaves(connection, edge.size - 1, edge.size) == [edge.last]


def rolled_back(head: int, size: int) -> AnotherHistory:
    """Say that the log is shorter than what was signed."""
    return AnotherHistory(
        f"The log ends at {head}, and {size} entries were signed: an older copy of the database was put back. "
        "Nothing is signed or appended. Stop Sophon, and append the lost entries from an export: "
        "sophon state recover --from-export DIR."
    )


def another(size: int) -> AnotherHistory:
    """Say that as many entries were signed, and others."""
    return AnotherHistory(
        f"The first {size} entries are not those that were signed: history was rewritten, or another database was put "
        "in place of this one. Nothing is signed or appended. Run sophon audit verify to find the place, and put the "
        "entries back from an export: sophon state recover --from-export DIR."
    )
