"""A generation: all read models in one schema, and the bookmark that commits with them."""

import hashlib
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import InvalidSchemaName, UndefinedColumn, UndefinedTable
from psycopg.sql import SQL, Identifier

from app.audit.entry import Record
from app.audit.log import Log
from app.audit.reading import read_page
from app.domain.model import Selection, events
from app.domain.subjects import SubjectErased
from app.projections.disclosing import Erased, disclosed, keys_about
from app.projections.groups import Groups
from app.projections.leftovers import drop_kept, drop_outlived
from app.projections.notebooks import Notebooks
from app.projections.projects import Projects
from app.projections.read_model import LIVE, ReadModel
from app.projections.tokens import Tokens
from app.projections.users import Users

MODELS: tuple[type[ReadModel[Any]], ...] = (Users, Tokens, Groups, Projects, Notebooks)
"""Every read model. A new noun is one line here."""

LOCK = 7305798
"""Held for the length of a batch by whoever applies one, and by whoever swaps generations."""

SETTINGS = "SET LOCAL synchronous_commit = off; SET LOCAL enable_seqscan = off"
"""Of a transaction that applies: a crash loses the batch and the bookmark together, and both are made again. Plans are
made while the tables are small, and are still in use when those have grown."""

ABSENT = (UndefinedTable, UndefinedColumn, InvalidSchemaName)
"""What the database says where there is no bookmark."""

OWNER = "sophon_projector"
"""Whose the tables are. To give them to it later, everybody who reads them would have to be kept out."""

PAGE = 1_000
"""Entries that are read at a time, where a row is folded again."""

Models = Sequence[type[ReadModel[Any]]]


def shape(models: Models = MODELS) -> str:
    """Digest all that stored read models depend on; a stored generation of another shape is rebuilt, not migrated."""
    return hashlib.sha256("\n".join(model.shape() for model in models).encode()).hexdigest()[:16]


class Generation:
    """The read models, or only some of them, in one schema."""

    def __init__(self, log: Log, schema: str = LIVE, models: Models = MODELS) -> None:
        self.schema = schema
        self.models = [model(log.pool) for model in models]
        self.shape = shape(models)
        self._log = log
        self._by_type = _by_type(self.models)
        self._bookmark = Identifier(schema, "bookmark")
        self._standing = (
            SQL(
                "SELECT position, shape FROM {} WHERE position BETWEEN 0 AND"
                " (SELECT coalesce(max(position), 0) FROM audit.entries)"
            )
            .format(self._bookmark)
            .as_bytes()
        )
        self._advancing = SQL("UPDATE {} SET position = %s").format(self._bookmark).as_bytes()
        self._stepping = (
            SQL("UPDATE {} SET position = %d WHERE position = %d AND shape = {}")
            .format(self._bookmark, self.shape)
            .as_bytes()
        )

    @property
    def selections(self) -> tuple[Selection, ...]:
        """Select what these models are folded from; nothing in particular, if they are all that there are."""
        if len(self.models) == len(MODELS):
            return ()
        return (events(*{kind for model in self.models for kind in model.events}, SubjectErased),)

    async def create(self, connection: AsyncConnection) -> None:
        """Create empty tables at position 0, in place of what there may be. Inside a transaction.

        What is folded into them is not written to the database's own log (WAL), for which everybody who commits would
        have to wait. So a crash of the database empties them, bookmark and all: the fold begins anew. See `keep`.
        """
        schema = Identifier(self.schema)
        await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
        if await _may_be_given_away(connection):
            await connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(OWNER)))
        await connection.execute(SQL("CREATE SCHEMA {}").format(schema))
        for model in self.models:
            await model.create(connection, self.schema)
        await connection.execute(
            SQL("CREATE UNLOGGED TABLE {} (position bigint NOT NULL, shape text NOT NULL)").format(self._bookmark)
        )
        await connection.execute(SQL("INSERT INTO {} VALUES (0, %s)").format(self._bookmark), (self.shape,))
        await connection.execute("SET LOCAL ROLE NONE")

    async def keep(self, connection: AsyncConnection) -> None:
        """Have a crash of the database leave the tables as they are, from now on; the bookmark last."""
        for table in (*[Identifier(self.schema, model.table()) for model in self.models], self._bookmark):
            await connection.execute(SQL("ALTER TABLE {} SET LOGGED").format(table))

    async def bookmark(self, connection: AsyncConnection) -> int | None:
        """Give the position up to which everything was applied; none if there is no such generation of this shape.

        A position that the log does not have is none either: nobody would fold on from there.
        """
        try:
            cursor = await connection.execute(self._standing)
        except ABSENT:
            return None
        row = await cursor.fetchone()
        return row[0] if row and row[1] == self.shape else None

    def folds(self, record: Record) -> bool:
        """Whether a row is folded from this record."""
        return record.entry.type in self._by_type

    async def apply(self, connection: AsyncConnection, records: Sequence[Record]) -> set[str]:
        """Fold the records that follow on the bookmark, as much of them as is disclosed; name the tables touched.

        Inside a transaction of the caller's, who moves the bookmark in it too.
        """
        found: dict[int, list[Record]] = {}
        for record in records:
            for number in self._by_type.get(record.entry.type, ()):
                found.setdefault(number, []).append(record)
        for number, mine in found.items():
            await self.models[number].apply(connection, self.schema, mine)
        touched = {self.models[number].table() for number in found}
        for record in records:
            if record.entry.type == SubjectErased.__name__ and isinstance(record.event, SubjectErased):
                erased = Erased(record.event.subject, record.position)
                touched |= await self._forget(connection, erased, records[-1].position)
        return touched

    async def advance(self, connection: AsyncConnection, position: int) -> None:
        """Move the bookmark: up to there is nothing to fold any more."""
        await connection.execute(self._advancing, (position,))

    def step(self, after: int, until: int) -> bytes:
        """Write the statement that moves the bookmark from one position to another; elsewhere it leaves it."""
        return self._stepping % (until, after)

    async def _forget(self, connection: AsyncConnection, erased: Erased, until: int) -> set[str]:
        """Fold every row again that rested on what was sealed for a subject, and drop what nobody keeps up to date."""
        if self.schema == LIVE:
            await drop_kept(connection)
            await drop_outlived(connection)
        touched: set[str] = set()
        for model in self.models:
            keys = await keys_about(connection, erased.subject, model.key, model.types(), erased.position)
            rows = {key: await self._folded(connection, model, key, erased, until) for key in keys}
            await model.write(connection, self.schema, rows)
            touched |= {model.table()} if keys else set()
        return touched

    async def _folded(
        self, connection: AsyncConnection, model: ReadModel[Any], key: str, erased: Erased, until: int
    ) -> Any:
        """Fold one row from all that it rests on; no more than a page of that is in memory."""
        row, after = None, 0
        while after < until and (records := await read_page(connection, after, PAGE, (model.about(key),))):
            after = records[-1].position
            within = [record for record in records if record.position <= until]
            row = model.fold(await disclosed(self._log, connection, within, erased), row)
        return row


async def _may_be_given_away(connection: AsyncConnection) -> bool:
    """Whether there is such a role, which may create what is to be its own; not every database lets us have one."""
    cursor = await connection.execute(
        "SELECT FROM pg_roles WHERE rolname = %s AND pg_has_role(oid, 'MEMBER')"
        " AND has_database_privilege(oid, current_database(), 'CREATE')",
        (OWNER,),
    )
    return bool(cursor.rowcount)


def _by_type(models: Sequence[ReadModel[Any]]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for number, model in enumerate(models):
        for kind in model.events:
            numbers.setdefault(kind.__name__, []).append(number)
    return numbers
