"""Differences: two generations, brought to one position and compared row by row; and rows written anew."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import psycopg
from msgspec import Raw, Struct, ValidationError
from psycopg import AsyncConnection
from psycopg.sql import SQL, Composed, Identifier

from app.audit.entry import BY_ITSELF, Context
from app.audit.log import Log
from app.domain.states import StateRepaired
from app.projections.generation import LOCK, Generation
from app.projections.guarded import alone
from app.projections.leftovers import CHECK
from app.projections.read_model import ReadModel
from app.projections.replay import Progress, Replay, in_silence
from app.projections.unrecorded import keep_promise, promise

SHOWN = 100
"""Rows of a table that are told of, at most; all of them are counted."""


class Difference(Struct, frozen=True, omit_defaults=True):
    """A row that is not what the log says. Without `expected` it was inserted by hand, without `found` deleted."""

    table: str
    key: str
    expected: Raw | None = None
    found: Raw | None = None


class Compared(Struct, frozen=True):
    """What was found different, as of a position: how many rows of each table that was compared, and the first ones."""

    position: int
    counts: dict[str, int]
    rows: Sequence[Difference]

    @property
    def count(self) -> int:
        """How many rows are different, of all tables together."""
        return sum(self.counts.values())


class TableMissing(Exception):
    """A table of the live read models is gone."""


class NothingToCompare(Exception):
    """There are no live read models of this release: start Sophon once, or run `sophon state rebuild`."""


async def find_differences(
    log: Log, progress: Progress = in_silence, *, repair: bool = False, context: Context = BY_ITSELF
) -> Compared:
    """Fold the log anew, beside the live read models, and find every row of theirs that says something else.

    With `repair`, just these rows are written anew, and that is recorded. Raises `NothingToCompare`, and
    `UnreadableEntry` where the log cannot be read as far as the live read models are.
    """
    live = Generation(log)
    async with alone(log), scratch(log, CHECK) as (generation, connection):
        if repair:
            await keep_promise(log, connection)
        replay = Replay(log, generation, connection, progress)
        await replay.begin(anew=True)
        async with side_by_side(log, live, replay) as (position, seeing):
            if seeing is None:
                raise replay.unreadable or NothingToCompare
            compared = await compare(seeing, generation, live.schema, position)
        if repair and compared.count:
            await _repair(log, live, replay, context)
    return compared


@contextlib.asynccontextmanager
async def scratch(log: Log, schema: str) -> AsyncGenerator[tuple[Generation, AsyncConnection]]:
    """Give a generation to throw away, and a connection to make it with."""
    async with log.pool.connection() as connection:
        try:
            yield Generation(log, schema), connection
        finally:
            with contextlib.suppress(psycopg.OperationalError):
                await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


@contextlib.asynccontextmanager
async def side_by_side(
    log: Log, live: Generation, replay: Replay
) -> AsyncGenerator[tuple[int, AsyncConnection | None]]:
    """Give a position, and a connection that sees both generations there, whatever is applied meanwhile.

    There is no connection if the live one is missing, or cannot be reached. Nobody waits for the comparison: the lock
    that stops the projector is held until the snapshot is taken.
    """
    async with log.pool.connection() as seeing:
        position = await live.bookmark(seeing)
        if position is not None:
            await replay.go_on(position)
            async with together(log, live, replay) as at:
                position = at
                await seeing.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                await seeing.execute("SELECT FROM pg_class LIMIT 1")
        try:
            yield replay.position, seeing if position is not None else None
        finally:
            await seeing.rollback()


@contextlib.asynccontextmanager
async def together(log: Log, live: Generation, replay: Replay) -> AsyncGenerator[int | None]:
    """Stop the projector where both generations are as of one position; give that, or none if they cannot be."""
    async with log.pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        at = await live.bookmark(connection)
        if at is not None and at < replay.position:  # no projector runs, and this rebuild began before it stopped
            at = await _bring_forward(log, live, replay.position)
        if at is not None:
            await replay.go_on(at)
        yield at if at == replay.position else None


async def _bring_forward(log: Log, live: Generation, position: int) -> int | None:
    async with log.pool.connection() as connection:
        replay = Replay(log, live, connection)
        await replay.begin()
        try:
            await replay.go_on(position)
        except (psycopg.ProgrammingError, psycopg.DataError, ValidationError):
            return None  # what is there is damaged: a table is gone, or a row is none
        return replay.position


async def compare(connection: AsyncConnection, expected: Generation, found: str, position: int) -> Compared:
    """Compare every table of a generation with that of the same name in another schema; a missing one has no row."""
    counts: dict[str, int] = {}
    rows: list[Difference] = []
    for model in expected.models:
        counts[model.table()], some = await _compare_table(connection, model, expected.schema, found)
        rows += some
    return Compared(position, counts, rows)


async def _compare_table(
    connection: AsyncConnection, model: ReadModel[Any], expected: str, found: str
) -> tuple[int, list[Difference]]:
    missing = await _is_missing(connection, model, found)
    query = SQL(
        "SELECT coalesce(e.{key}, f.{key}), row_to_json(e)::text, row_to_json(f)::text, count(*) OVER () {both}"
        " ORDER BY 1 LIMIT {limit}"
    ).format(key=Identifier(model.primary()), both=_both(model, expected, found, missing=missing), limit=SHOWN)
    cursor = await connection.execute(query)
    rows = await cursor.fetchall()
    some = [Difference(model.table(), key, _raw(wanted), _raw(there)) for key, wanted, there, _ in rows]
    return (rows[0][3] if rows else 0), some


async def _is_missing(connection: AsyncConnection, model: ReadModel[Any], schema: str) -> bool:
    cursor = await connection.execute("SELECT to_regclass(%s) IS NULL", (f"{schema}.{model.table()}",))
    row = await cursor.fetchone()
    return bool(row and row[0])


def _both(model: ReadModel[Any], expected: str, found: str, *, missing: bool = False) -> Composed:
    """Write the rows of either table that are not the same in the other. Rows are compared as they are stored."""
    there = SQL("(SELECT * FROM {} WHERE false)").format(Identifier(expected, model.table()))
    return SQL(
        "FROM {expected} AS e FULL JOIN {found} AS f ON e.{key} = f.{key}"
        " WHERE to_jsonb(e) IS DISTINCT FROM to_jsonb(f)"
    ).format(
        expected=Identifier(expected, model.table()),
        found=there if missing else Identifier(found, model.table()),
        key=Identifier(model.primary()),
    )


def _raw(text: str | None) -> Raw | None:
    return None if text is None else Raw(text.encode())


async def _repair(log: Log, live: Generation, replay: Replay, context: Context) -> None:
    """Write anew the rows that are different now, while nobody applies anything; and record it."""
    counts: dict[str, int] = {}
    async with together(log, live, replay) as position, log.pool.connection() as connection, connection.transaction():
        if position is None:
            raise replay.unreadable or NothingToCompare
        for model in live.models:
            counts[model.table()] = await _copy_different(connection, model, replay.generation.schema, live.schema)
        tables = tuple(table for table, count in counts.items() if count)
        repaired = StateRepaired(position=position, shape=live.shape, rows=sum(counts.values()), tables=tables)
        await promise(connection, repaired, context)
    async with log.pool.connection() as connection:
        await keep_promise(log, connection)


async def _copy_different(connection: AsyncConnection, model: ReadModel[Any], source: str, target: str) -> int:
    names = {"key": Identifier(model.primary()), "both": _both(model, source, target)}
    if await _is_missing(connection, model, target):
        raise TableMissing(f"The table {target}.{model.table()} is gone. Run `sophon state rebuild {model.table()}`.")
    query = SQL("CREATE TEMP TABLE different ON COMMIT DROP AS SELECT coalesce(e.{key}, f.{key}) AS key {both}")
    await connection.execute("DROP TABLE IF EXISTS different")
    await connection.execute(query.format(**names))
    theirs, ours = Identifier(source, model.table()), Identifier(target, model.table())
    where = SQL(" WHERE {key} IN (SELECT key FROM different)").format(key=names["key"])
    await connection.execute(SQL("DELETE FROM {}").format(ours) + where)
    await connection.execute(SQL("INSERT INTO {} SELECT * FROM {}").format(ours, theirs) + where)
    cursor = await connection.execute("SELECT count(*) FROM different")
    row = await cursor.fetchone()
    return row[0] if row else 0
