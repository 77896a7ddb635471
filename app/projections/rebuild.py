"""Rebuild: fold the whole log into a generation beside the live one, and swap it in while the API goes on serving.

Killed at any moment, it leaves the live generation as it was, or the new one in its place.
"""

from collections.abc import Callable

from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from app.audit.entry import UnreadableEntry, readable
from app.audit.log import Log
from app.projections.generation import LOCK, Generation
from app.projections.read_model import LIVE

PAGE = 5_000
NEXT, OLD = "read_next", "read_old"
ONE_AT_A_TIME = 7305799

Progress = Callable[[int, int], None]
"""(position, head): how far it is."""


async def rebuild(log: Log, progress: Progress = lambda position, head: None) -> int:
    """Rebuild every read model; return the position at which the new generation went live.

    Raises `UnreadableEntry` at an entry that cannot be read, once what stands before it is live.
    """
    async with log.pool.connection() as guard:
        await guard.execute("SELECT pg_advisory_lock(%s)", (ONE_AT_A_TIME,))
        try:
            generation = Generation(log.pool, NEXT)
            async with log.pool.connection() as connection:
                async with connection.transaction():
                    await generation.create(connection)
                position, _ = await _catch_up(log, generation, connection, 0, progress)
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
                    position, unreadable = await _catch_up(log, generation, connection, position, progress)
                    await _swap(connection)
                await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(OLD)))
            if unreadable:
                raise unreadable
            return position
        finally:
            await guard.execute("SELECT pg_advisory_unlock(%s)", (ONE_AT_A_TIME,))


async def _catch_up(
    log: Log, generation: Generation, connection: AsyncConnection, position: int, progress: Progress
) -> tuple[int, UnreadableEntry | None]:
    while True:
        page = await log.read(after=position, limit=PAGE)
        records, unreadable = readable(page.records)
        if not records:
            return position, unreadable
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            await generation.apply(connection, records)
        position = records[-1].position
        progress(position, page.head)


async def _swap(connection: AsyncConnection) -> None:
    await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(OLD)))
    await connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(LIVE)))
    await connection.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(LIVE), Identifier(OLD)))
    await connection.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(NEXT), Identifier(LIVE)))
