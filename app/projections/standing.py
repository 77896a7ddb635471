"""How the read models stand to the log, as it is seen from outside of the process that keeps them."""

import asyncio
from collections.abc import Sequence

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import InsufficientPrivilege, InvalidSchemaName, UndefinedTable
from psycopg.sql import SQL, Identifier

from app.audit.database.connecting import connect
from app.audit.database.doctor import CannotLook, Finding, look_at
from app.audit.entry import UnreadableEntry
from app.audit.reading import one, read_page
from app.projections.generation import shape
from app.projections.read_model import LIVE

PATIENCE = 3.0
"""Seconds in which read models that are kept up to date get on."""

BEHIND = (
    "SPH-READ-001",
    "the read models are as far as the log",
    "See that Sophon runs (`sophon up`), and what its /health says; if they do not get on, `sophon state rebuild`.",
)
STOPPED = (
    "SPH-READ-002",
    "the read models can read the next entry",
    "Run the release of Sophon that wrote this entry, or a later one. Nothing is lost: they go on where they stopped.",
)
OTHERS = (
    "SPH-READ-003",
    "the read models are this release's",
    "Start Sophon: it rebuilds them. Or `sophon state rebuild`.",
)


async def standing(dsn: str) -> list[Finding]:
    """Say whether the read models are there, can go on, and do. Raises `CannotLook`."""
    try:
        async with await connect(dsn, autocommit=True) as connection:
            return [
                await look_at(connection, *OTHERS, _others),
                await look_at(connection, *STOPPED, _stopped),
                await look_at(connection, *BEHIND, _behind),
            ]
    except psycopg.OperationalError as error:
        raise CannotLook(f"The database does not answer: {str(error).strip()}") from error


async def _bookmark(connection: AsyncConnection) -> tuple[int, str] | None:
    try:
        cursor = await connection.execute(SQL("SELECT position, shape FROM {}").format(Identifier(LIVE, "bookmark")))
        return await cursor.fetchone()
    except (UndefinedTable, InvalidSchemaName, InsufficientPrivilege):
        return None


async def _head(connection: AsyncConnection) -> int:
    cursor = await connection.execute("SELECT coalesce(max(position), 0) FROM audit.entries")
    return one(await cursor.fetchone())


async def _others(connection: AsyncConnection) -> Sequence[str]:
    found = await _bookmark(connection)
    if found is None:
        return ["There are no read models."]
    return [] if found[1] == shape() else ["The read models were made by another release."]


async def _stopped(connection: AsyncConnection) -> Sequence[str]:
    found = await _bookmark(connection)
    for record in await read_page(connection, found[0], 1) if found else ():
        try:
            _ = record.event
        except UnreadableEntry as error:
            return [str(error)]
    return []


async def _behind(connection: AsyncConnection) -> Sequence[str]:
    head = await _head(connection)
    position = head
    for wait in (0.0, *[PATIENCE / 3] * 3):
        await asyncio.sleep(wait)
        position, _ = await _bookmark(connection) or (head, "")
        if head <= position <= await _head(connection):
            return []
    return [f"The read models stand at {position:,}, and the log ends at {head:,}."]
