"""Generations that nothing reads: kept on purpose, or left by a process that was killed. Erased text is in none."""

from psycopg import AsyncConnection
from psycopg.errors import UndefinedTable
from psycopg.sql import SQL, Identifier

from app.audit.log import Log
from app.audit.reading import one
from app.domain.subjects import SubjectErased
from app.projections.guarded import is_alone

NEXT, OLD, AT = "read_next", "read_old", "read_at"
"""What a rebuild makes, what was live before it, and what the state of a position is folded into."""
CHECK, VERIFY = "read_check", "read_verify"
"""What is made to compare with, and thrown away."""


async def drop_kept(connection: AsyncConnection) -> list[str]:
    """Drop the generations that were kept on purpose; give their schemas' names."""
    return await _drop_matching(connection, rf"^({OLD}|{AT}_[0-9]+(_[a-z]+)?)$")


async def drop_outlived(connection: AsyncConnection) -> None:
    """Drop what an interrupted rebuild or comparison left, if it does not know of the newest erasure.

    Inside a transaction. Whoever is at work now is left alone: they come to that entry themselves.
    """
    if not await is_alone(connection):
        return
    await _drop_matching(connection, f"^({CHECK}|{VERIFY})$")
    if (reached := await _reached(connection)) is None:
        return
    query = "SELECT EXISTS (SELECT FROM audit.entries WHERE type = %s AND position > %s)"
    cursor = await connection.execute(query, (SubjectErased.__name__, reached))
    if await cursor.fetchone() == (True,):
        await _drop_matching(connection, f"^{NEXT}$")


async def know(log: Log, position: int) -> bool:
    """Whether what is made beside the live generation, if anything is, knows of an erasure at a position."""
    try:
        async with log.pool.connection() as connection, connection.transaction():
            await drop_outlived(connection)
            reached = await _reached(connection)
    except UndefinedTable:  # put in the place of the live one between two looks
        return False
    return reached is None or reached >= position


async def _reached(connection: AsyncConnection) -> int | None:
    """Read up to where a rebuild has come; none if there is none, and it left nothing."""
    cursor = await connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{NEXT}.bookmark",))
    if await cursor.fetchone() != (True,):
        return None
    query = SQL("SELECT coalesce(min(position), 0) FROM {}").format(Identifier(NEXT, "bookmark"))
    return one(await (await connection.execute(query)).fetchone())


async def _drop_matching(connection: AsyncConnection, pattern: str) -> list[str]:
    cursor = await connection.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ %s ORDER BY 1", (pattern,))
    names = [name for (name,) in await cursor.fetchall()]
    for name in names:
        await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))
    return names
