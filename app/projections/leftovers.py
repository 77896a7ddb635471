"""Generations that nothing reads: kept on purpose, or left by a process that was killed. Erased text is in none."""

from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

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
    cursor = await connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{NEXT}.bookmark",))
    if await cursor.fetchone() != (True,):
        return
    query = SQL(
        "SELECT EXISTS (SELECT FROM audit.entries WHERE type = %s AND position > (SELECT min(position) FROM {}))"
    ).format(Identifier(NEXT, "bookmark"))
    cursor = await connection.execute(query, (SubjectErased.__name__,))
    if await cursor.fetchone() == (True,):
        await _drop_matching(connection, f"^{NEXT}$")


async def _drop_matching(connection: AsyncConnection, pattern: str) -> list[str]:
    cursor = await connection.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ %s ORDER BY 1", (pattern,))
    names = [name for (name,) in await cursor.fetchall()]
    for name in names:
        await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))
    return names
