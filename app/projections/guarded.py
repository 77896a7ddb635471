"""One at a time: whoever makes a generation beside the live one has the place to themselves."""

import contextlib
from collections.abc import AsyncGenerator

from psycopg import AsyncConnection

from app.audit.log import Log

ONE_AT_A_TIME = 7305799

SEALING = "seal"
"""What whoever leads does; wherever the platform is up, somebody does."""


@contextlib.asynccontextmanager
async def alone(log: Log) -> AsyncGenerator[None]:
    """Wait until nobody else rebuilds or compares on this log, in any process. Ends with the process at the latest."""
    async with log.pool.connection() as guard:
        await guard.execute("SELECT pg_advisory_lock(%s)", (ONE_AT_A_TIME,))
        try:
            yield
        finally:
            await guard.execute("SELECT pg_advisory_unlock(%s)", (ONE_AT_A_TIME,))


async def is_alone(connection: AsyncConnection) -> bool:
    """Whether nobody else rebuilds or compares: then nobody does until the end of this transaction."""
    cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
    return await cursor.fetchone() == (True,)


async def is_up(log: Log) -> bool:
    """Whether the platform is up, in any process: whoever makes a generation then does so beside people who wait."""
    return await log.is_led(SEALING)
