"""Connections on which no function or operator of somebody's own stands in for one of PostgreSQL's.

Whoever may alter the database can put a schema before `pg_catalog` for all who connect. What is ours is always called
by its full name, so nothing else has to be found. Nor are plans compiled: where the planner is kept from seeing for
what values something is asked, it expects far more than there is, and would compile for longer than it then looks.

The same person can give a database settings by which names, times and texts read otherwise, or the planner believes a
constraint and passes rows over. So those stand here as they are by default.
"""

from typing import Any

from psycopg import AsyncConnection

_PINNED = """
SET search_path = pg_catalog; SET jit = off; SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY';
SET standard_conforming_strings = on; SET quote_all_identifiers = off; SET constraint_exclusion = partition
"""


async def connect(dsn: str, **options: Any) -> AsyncConnection:
    """Connect; raises `psycopg.OperationalError`. `options` are psycopg's."""
    connection = await AsyncConnection.connect(dsn, **options)
    try:
        await pin(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


async def pin(connection: AsyncConnection) -> None:
    """Look for names in `pg_catalog` alone, compile no plan, and read all as written, while the connection is open."""
    await connection.execute(_PINNED)
    if not connection.autocommit:
        await connection.commit()
