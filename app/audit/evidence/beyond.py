"""Rows of a log that no page of it has: nothing is proven of them, and whoever asks the database is given them."""

from typing import Any

from psycopg import AsyncConnection

from app.audit.evidence.findings import Finding, Tampered

_TILE = """
SELECT level, index FROM audit.tiles
WHERE level NOT BETWEEN 0 AND 6 OR level IS NULL OR index IS NULL OR index < 0 OR index >= %s >> 8 * (level + 1)
LIMIT 1
"""


async def must_be_nothing_beyond(connection: AsyncConnection, head: int) -> None:
    """Raise `Tampered` for entries, checkpoints or tiles that stand where a log of so many entries has none."""
    count, first = await _row(connection, "SELECT count(*), coalesce(min(position), 1) FROM audit.entries")
    if (count, first) != (head, 1):
        says = f"The log ends at {head}, and there are {count} entries, the first of them at position {first}."
        raise Tampered(Finding(kind="inserted", says=says, first=first, last=min(first, head), found=str(count)))
    if row := await _row(connection, "SELECT size FROM audit.checkpoints WHERE size IS NULL OR size <= 0 LIMIT 1"):
        size = row[0] or 0
        says = f"There is a checkpoint of {size} entries in the database, which no signer signs."
        raise Tampered(Finding(kind="checkpoint", says=says, first=size, last=size))
    if row := await _row(connection, _TILE, head):
        level, index = row
        says = f"Tile {index} of level {level} is kept, and there is none such in a log of {head} entries."
        raise Tampered(Finding(kind="tile", says=says, first=head, last=head))


async def _row(connection: AsyncConnection, query: str, *values: int) -> Any:
    cursor = await connection.execute(query.encode(), values)
    return await cursor.fetchone()
