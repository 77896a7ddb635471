"""A generation: all read models in one schema, and the bookmark that commits with them."""

import hashlib
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import InvalidSchemaName, UndefinedTable
from psycopg.sql import SQL, Identifier
from psycopg_pool import AsyncConnectionPool

from app.audit.entry import Record
from app.projections.groups import Groups
from app.projections.notebooks import Notebooks
from app.projections.projects import Projects
from app.projections.read_model import LIVE, ReadModel
from app.projections.tokens import Tokens
from app.projections.users import Users

MODELS: tuple[type[ReadModel[Any]], ...] = (Users, Tokens, Groups, Projects, Notebooks)
"""Every read model. A new noun is one line here."""

LOCK = 7305798
"""Held for the length of a batch by whoever applies one, and by whoever swaps generations."""


def shape() -> str:
    """Digest all that stored read models depend on; a stored generation of another shape is rebuilt, not migrated."""
    return hashlib.sha256("\n".join(model.shape() for model in MODELS).encode()).hexdigest()[:16]


class Generation:
    """The read models in one schema."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection], schema: str = LIVE) -> None:
        self.schema = schema
        self._models = [model(pool) for model in MODELS]

    async def create(self, connection: AsyncConnection) -> None:
        """Create empty tables at position 0, in place of what an interrupted attempt may have left."""
        schema = Identifier(self.schema)
        await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
        await connection.execute(SQL("CREATE SCHEMA {}").format(schema))
        for model in self._models:
            await model.create(connection, self.schema)
        await connection.execute(
            SQL("CREATE TABLE {} (position bigint NOT NULL, shape text NOT NULL)").format(self._bookmark)
        )
        await connection.execute(SQL("INSERT INTO {} VALUES (0, %s)").format(self._bookmark), (shape(),))

    async def bookmark(self, connection: AsyncConnection) -> int | None:
        """Give the position up to which everything was applied; none if there is no such generation of this shape."""
        try:
            cursor = await connection.execute(SQL("SELECT position, shape FROM {}").format(self._bookmark))
        except (UndefinedTable, InvalidSchemaName):
            return None
        row = await cursor.fetchone()
        return row[0] if row and row[1] == shape() else None

    async def apply(self, connection: AsyncConnection, records: Sequence[Record]) -> None:
        """Fold the records that follow on the bookmark, and move it. Inside a transaction of the caller's."""
        facts = [record for record in records if record.event.fact]
        for model in self._models if facts else ():
            await model.apply(connection, self.schema, facts)
        await connection.execute(SQL("UPDATE {} SET position = %s").format(self._bookmark), (records[-1].position,))

    @property
    def _bookmark(self) -> Identifier:
        return Identifier(self.schema, "bookmark")
