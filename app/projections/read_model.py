"""A read model: a table of rows, how each row evolves, and the questions that are asked of it."""

import types
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from psycopg import AsyncConnection
from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder
from psycopg_pool import AsyncConnectionPool

from app.audit.entry import Record
from app.domain.event import Event
from app.domain.model import Selection, events
from app.domain.names import ERASED

LIVE = "read"
"""The schema that the API reads. A generation that is being rebuilt lies in another one, beside it."""

PAGE = 1_000
"""Rows that are read at a time: what is kept of a table in memory, and for how long nothing else is done."""

Row = TypeVar("Row", bound=Struct)

_COLUMN_TYPES: dict[type, str] = {str: "text", bool: "boolean", int: "bigint", datetime: "timestamptz"}


class ReadModel(Generic[Row]):
    """One table. Its columns are the row's fields, the first is the key; a row is what the reader sees.

    Subclasses name the row, the events that it evolves by, and the field of those events that holds the key, which is
    the kind of its tag as well: what a row was folded from is found by the types and that tag.
    """

    row: ClassVar[type[Struct]]
    key: ClassVar[str]
    events: ClassVar[tuple[type[Event], ...]]
    sealed: ClassVar[tuple[str, ...]] = ()
    """Columns that hold what is sealed in the log. `evolve` copies such text and decides nothing by it."""
    indexes: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    """Raise it when `evolve` changes: the read models are then rebuilt at the next start."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self.pool = pool

    def evolve(self, row: Row | None, event: Any, record: Record) -> Row | None:
        """Return the row after the event; none means that there is no row (any more)."""
        raise NotImplementedError

    @classmethod
    def table(cls) -> str:
        """Name the table, as the class is named."""
        return cls.__name__.lower()

    @classmethod
    def primary(cls) -> str:
        """Name the column that holds the key."""
        return cls.row.__struct_fields__[0]

    @classmethod
    def types(cls) -> tuple[str, ...]:
        """Name the events that it evolves by, as they are stored."""
        return tuple(event.__name__ for event in cls.events)

    @classmethod
    def about(cls, key: str) -> Selection:
        """Select what one row is folded from."""
        return events(*cls.events, tags=(f"{cls.key}:{key}",))

    @classmethod
    def shape(cls) -> str:
        """Give all that a stored table depends on: if it differs, the table is to be rebuilt."""
        return f"{cls.table()} {cls.version} {_columns(cls.row)} {cls.indexes}"

    async def create(self, connection: AsyncConnection, schema: str) -> None:
        """Create the empty table, which a crash of the database empties until `Generation.keep` is called."""
        columns = [SQL("{} {}").format(Identifier(name), SQL(kind)) for name, kind in _columns(self.row).items()]  # pyright: ignore
        primary = Identifier(self.primary())
        table = Identifier(schema, self.table())
        await connection.execute(
            SQL("CREATE UNLOGGED TABLE {} ({}, PRIMARY KEY ({}))").format(table, SQL(", ").join(columns), primary)
        )
        for index in self.indexes:
            await connection.execute(SQL("CREATE INDEX ON {} {}").format(table, SQL(index)))  # pyright: ignore

    async def apply(self, connection: AsyncConnection, schema: str, mine: Sequence[Record]) -> None:
        """Fold records of this model's events: one statement to load the rows, one to save what changed."""
        keys = [getattr(record.event, self.key) for record in mine]
        before = await self._load(connection, schema, list(dict.fromkeys(keys)))
        rows: dict[str, Row | None] = dict(before)
        for key, record in zip(keys, mine, strict=True):
            rows[key] = self.evolve(rows.get(key), record.event, record)
        await self._save(connection, schema, [row for key, row in rows.items() if row and row is not before.get(key)])
        await self._delete(connection, schema, [key for key in before if rows[key] is None])

    async def write(self, connection: AsyncConnection, schema: str, rows: Mapping[str, Row | None]) -> None:
        """Write rows as they are; those that are none are deleted."""
        await self._save(connection, schema, [row for row in rows.values() if row is not None])
        await self._delete(connection, schema, [key for key, row in rows.items() if row is None])

    def fold(self, records: Iterable[Record], row: Row | None = None) -> Row | None:
        """Fold what one row rests on, or what follows on that which made it what it is."""
        for record in records:
            row = self.evolve(row, record.event, record)
        return row

    def masked(self, row: Row) -> Row:
        """Give a row as it is folded without what is sealed."""
        return replace(row, **{name: ERASED for name in self.sealed if getattr(row, name) is not None})

    async def pages(self, connection: AsyncConnection, schema: str) -> AsyncIterator[list[Row]]:
        """Read every row of a schema's table, in pages, in the order of the keys' bytes."""
        primary = Identifier(self.primary())
        query = SQL("SELECT row_to_json(t)::text FROM {table} AS t WHERE {key} > %s ORDER BY {key} LIMIT %s").format(
            table=Identifier(schema, self.table()), key=primary
        )
        after = ""
        while True:
            cursor = await connection.execute(query, (after, PAGE))
            rows = [self._decode(text) for (text,) in await cursor.fetchall()]
            if not rows:
                return
            yield rows
            after = getattr(rows[-1], self.primary())

    async def select(
        self, where: Composable, values: dict[str, Any], *, limit: int = 1, after: str | None = None
    ) -> list[Row]:
        """Ask for live rows, in the order of their keys, from the one after `after`."""
        key = Identifier(self.primary())
        query = SQL(
            "SELECT row_to_json(t)::text FROM {table} AS t WHERE {where}{beyond} ORDER BY {key} LIMIT %(limit)s"
        ).format(
            table=Identifier(LIVE, self.table()),
            where=where,
            beyond=SQL("") if after is None else SQL(" AND {} > %(after)s").format(key),
            key=key,
        )
        async with self.pool.connection() as connection:
            cursor = await connection.execute(query, {**values, "after": after, "limit": limit})
            return [self._decode(text) for (text,) in await cursor.fetchall()]

    async def row_of(self, key: str) -> Row | None:
        """Ask for one live row, whoever may see it."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(_asking(type(self)), (key,))
            row = await cursor.fetchone()
        return self._decode(row[0]) if row else None

    def _decode(self, text: str) -> Row:
        return msgspec.json.decode(text, type=self.row)  # pyright: ignore[reportReturnType]

    async def _load(self, connection: AsyncConnection, schema: str, keys: list[str]) -> dict[str, Row]:
        cursor = await connection.execute(_loading(type(self), schema), (keys,))
        rows = [self._decode(text) for (text,) in await cursor.fetchall()]
        primary = self.primary()
        return {getattr(row, primary): row for row in rows}

    async def _save(self, connection: AsyncConnection, schema: str, rows: list[Row]) -> None:
        if rows:
            await connection.execute(_saving(type(self), schema), (msgspec.json.encode(rows).decode(),))

    async def _delete(self, connection: AsyncConnection, schema: str, keys: list[str]) -> None:
        if keys:
            await connection.execute(_deleting(type(self), schema), (keys,))


@lru_cache
def _asking(model: type[ReadModel[Any]]) -> bytes:
    query = SQL("SELECT row_to_json(t)::text FROM {} AS t WHERE {} = %s")
    return query.format(Identifier(LIVE, model.table()), Identifier(model.primary())).as_bytes()


@lru_cache
def _loading(model: type[ReadModel[Any]], schema: str) -> bytes:
    # The planner is not shown how many are asked for: it would plan anew each time.
    query = SQL("SELECT row_to_json(t)::text FROM {} AS t WHERE {} = ANY((SELECT %s::text[])::text[])")
    return query.format(Identifier(schema, model.table()), Identifier(model.primary())).as_bytes()


@lru_cache
def _saving(model: type[ReadModel[Any]], schema: str) -> bytes:
    primary, *others = map(Identifier, model.row.__struct_fields__)
    query = SQL(
        "INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %s::json)"
        " ON CONFLICT ({key}) DO UPDATE SET ({columns}) = ROW({values})"
    )
    return query.format(
        table=Identifier(schema, model.table()),
        key=primary,
        columns=SQL(", ").join(others),
        values=SQL(", ").join(SQL("excluded.{}").format(column) for column in others),
    ).as_bytes()


@lru_cache
def _deleting(model: type[ReadModel[Any]], schema: str) -> bytes:
    query = SQL("DELETE FROM {} WHERE {} = ANY(%s)")
    return query.format(Identifier(schema, model.table()), Identifier(model.primary())).as_bytes()


def of_those(**given: str | None) -> Composed:
    """Write a condition on the columns for which a value is given, to stand before others.

    "Or none is given" within SQL would do as well, but for the plan: it could look nothing up.
    """
    terms = [
        SQL("{} = {} AND ").format(Identifier(column), Placeholder(column))
        for column, value in given.items()
        if value is not None
    ]
    return SQL("").join(terms)


def _columns(row: type[Struct]) -> dict[str, str]:
    columns = {field.name: _column(field.type) for field in msgspec.structs.fields(row)}
    key = next(iter(columns))
    # Its order is that of its bytes, wherever the database was made: lists, pages and digests go by it.
    return {**columns, key: columns[key].replace("text", 'text COLLATE "C"')}


def _column(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return _column(next(part for part in get_args(hint) if part is not type(None))).removesuffix(" NOT NULL")
    plain = next((sql for kind, sql in _COLUMN_TYPES.items() if _is_kind(hint, kind)), "jsonb")
    return f"{plain} NOT NULL"


def _is_kind(hint: Any, kind: type) -> bool:
    """Look through `Annotated` and `Literal` (whose values are text)."""
    if hasattr(hint, "__metadata__"):
        return _is_kind(hint.__origin__, kind)
    return hint is kind or (kind is str and isinstance(next(iter(get_args(hint)), None), str))
