"""Rebuild: fold the whole log into a generation beside the live one, compare, and swap it in while the API serves.

Killed at any moment, it leaves the live generation as it was, or the new one in its place, which the log is told by
whoever comes next; begun again, it goes on, or from the beginning if it was the database that crashed.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from app.audit.entry import BY_ITSELF, Context
from app.audit.log import Log
from app.domain.states import StateRebuilt
from app.projections.differences import Difference, NothingToCompare, compare, side_by_side, together
from app.projections.generation import LOCK, MODELS, Generation
from app.projections.guarded import alone
from app.projections.leftovers import AT, NEXT, OLD, drop_kept
from app.projections.read_model import LIVE, ReadModel
from app.projections.replay import Progress, Replay, in_silence
from app.projections.seals import Checked, Checking, seal_generation
from app.projections.unrecorded import keep_promise, promise


class Rebuilt(Struct, frozen=True):
    """What went live, as of which position; from where it went on; and what had been different, row by row."""

    position: int
    began_at: int
    entries: int
    compared: bool
    """Whether there was anything to compare with: live read models of the same shape."""
    counts: dict[str, int]
    rows: Sequence[Difference]
    checked: Checked | None = None

    @property
    def differences(self) -> int:
        """How many rows were not what they are now."""
        return sum(self.counts.values())


async def rebuild(
    log: Log,
    progress: Progress = in_silence,
    *,
    only: type[ReadModel[Any]] | None = None,
    keep_old: bool = True,
    check_seals: bool = False,
    context: Context = BY_ITSELF,
) -> Rebuilt:
    """Rebuild every read model, or one of them. It is recorded, and sealed.

    An attempt that was interrupted is gone on with, unless seals are to be checked: those are met from the beginning.
    Raises `UnreadableEntry` at an entry that cannot be read, once what stands before it is live.
    """
    async with alone(log), log.pool.connection() as connection:
        await keep_promise(log, connection)
        generation = Generation(log, NEXT, (only,) if only else MODELS)
        replay = Replay(log, generation, connection, progress)
        await replay.begin(anew=check_seals)
        began_at = replay.position
        checked = await Checking(log, replay, connection).go_on() if check_seals else None
        live = Generation(log, LIVE, MODELS)
        compared = None
        async with side_by_side(log, live, replay) as (position, seeing):
            if seeing is not None:
                compared = await compare(seeing, generation, LIVE, position)
        differences = compared.count if compared else 0
        await generation.keep(connection)
        if only:
            await _swap_one(log, live, replay, differences, context, keep_old=keep_old)
        else:
            await _swap(log, replay, connection, differences, context, keep_old=keep_old)
        if await keep_promise(log, connection):  # else they were made for the first time
            await seal_generation(log, connection, context)
        done = Rebuilt(
            position=replay.position,
            began_at=began_at,
            entries=replay.entries,
            compared=compared is not None,
            counts=compared.counts if compared else {},
            rows=compared.rows if compared else (),
            checked=checked,
        )
    if replay.unreadable:
        raise replay.unreadable
    return done


async def rebuild_to(
    log: Log, position: int, progress: Progress = in_silence, *, only: type[ReadModel[Any]] | None = None
) -> str:
    """Fold the log up to a position into a schema of its own, to be looked into; give its name.

    It is kept until `drop_old`, or until somebody is erased.
    """
    async with alone(log), log.pool.connection() as connection:
        name = f"{AT}_{position}_{only.table()}" if only else f"{AT}_{position}"
        generation = Generation(log, name, (only,) if only else MODELS)
        replay = Replay(log, generation, connection, progress)
        await replay.begin()
        await replay.go_on(position)
        await generation.keep(connection)
    if replay.unreadable:
        raise replay.unreadable
    return generation.schema


async def drop_old(log: Log) -> list[str]:
    """Drop every generation that was kept; give the names of their schemas."""
    async with alone(log), log.pool.connection() as connection, connection.transaction():
        return await drop_kept(connection)


async def _swap(
    log: Log, replay: Replay, connection: AsyncConnection, differences: int, context: Context, *, keep_old: bool
) -> None:
    """Put the new generation in the place of the live one, at the end of the log."""
    await replay.go_on()
    was_there = await _is_there(connection)
    await _drop_by_and_by(connection, OLD)
    async with log.pool.connection() as guard, guard.transaction():
        await guard.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        await replay.go_on()
        if was_there:
            await guard.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(LIVE), Identifier(OLD)))
        else:
            await _drop(guard, LIVE)
        await guard.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(NEXT), Identifier(LIVE)))
        if was_there:
            await promise(guard, _rebuilt(replay, differences), context)
    if not keep_old:
        await _drop_by_and_by(connection, OLD)


async def _swap_one(
    log: Log, live: Generation, replay: Replay, differences: int, context: Context, *, keep_old: bool
) -> None:
    """Put one new table in the place of the live one, where the live bookmark stands."""
    table = SQL(replay.generation.models[0].table())  # pyright: ignore
    old, next_, live_schema = Identifier(OLD), Identifier(NEXT), Identifier(LIVE)
    async with together(log, live, replay) as position, log.pool.connection() as connection, connection.transaction():
        if position is None:
            raise replay.unreadable or NothingToCompare
        await connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(old))
        await connection.execute(SQL("DROP TABLE IF EXISTS {}.{}").format(old, table))
        await connection.execute(SQL("ALTER TABLE IF EXISTS {}.{} SET SCHEMA {}").format(live_schema, table, old))
        await connection.execute(SQL("ALTER TABLE {}.{} SET SCHEMA {}").format(next_, table, live_schema))
        await _drop(connection, NEXT)
        if not keep_old:
            await _drop(connection, OLD)
        await promise(connection, _rebuilt(replay, differences), context)


async def _is_there(connection: AsyncConnection) -> bool:
    cursor = await connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{LIVE}.bookmark",))
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _drop(connection: AsyncConnection, schema: str) -> None:
    await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


async def _drop_by_and_by(connection: AsyncConnection, schema: str) -> None:
    """Drop a table after the other, not in one transaction.

    A request that reads several may still be at it. If all were dropped at once, each could wait for the other.
    """
    cursor = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,))
    for (table,) in await cursor.fetchall():
        await connection.execute(SQL("DROP TABLE IF EXISTS {} CASCADE").format(Identifier(schema, table)))
    await _drop(connection, schema)


def _rebuilt(replay: Replay, differences: int) -> StateRebuilt:
    return StateRebuilt(
        position=replay.position,
        shape=replay.generation.shape,
        entries=replay.entries,
        differences=differences,
        tables=tuple(model.table() for model in replay.generation.models),
    )
