"""What is private to whom, and who came in with an administrator's power: for the members whose it is."""

from datetime import datetime

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier
from psycopg_pool import AsyncConnectionPool

from app.audit.entry import Entry
from app.projections.read_model import LIVE


class Private(Struct, frozen=True):
    """A project that is private; `foreign`: the viewer does not belong to its group."""

    project: str
    group: str
    foreign: bool


class Privacy:
    """Tells which projects are private, and to whom they are foreign."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool

    async def among(self, projects: list[str], user: str, *, also_open: bool = False) -> list[Private]:
        """Give the private ones among some projects (`also_open`: all of them), by their slugs."""
        query = SQL(
            'SELECT p.slug, p."group", NOT coalesce(g.members ? %s, false) FROM {} AS p'
            ' LEFT JOIN {} AS g ON g.slug = p."group"'
            " WHERE p.slug = ANY(%s) AND (p.visibility = 'private' OR %s) ORDER BY p.slug"
        ).format(Identifier(LIVE, "projects"), Identifier(LIVE, "groups"))
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, (user, projects, also_open))
            return [Private(*row) for row in await cursor.fetchall()]


class Visit(Struct, frozen=True):
    """One use of an administrator's power: when, who, what, and on which group, project or notebook."""

    position: int
    at: datetime
    user: str | None
    action: str
    on: list[str]


_HERE = ("group:", "project:", "notebook:")

# What lies in a group or a project is named by the entries of its making: what was deleted was visited too.
_VISITS = """
WITH here AS MATERIALIZED (
    SELECT array_agg(DISTINCT tag) || %(anchor)s::text AS tags
    FROM audit.entries CROSS JOIN unnest(tags) AS tag
    WHERE audit.keys(type, tags) && ARRAY['NotebookCreated ' || %(anchor)s, 'ProjectCreated ' || %(anchor)s]
      AND (tag LIKE 'notebook:%%' OR tag LIKE 'project:%%')
)
SELECT position, bytes::text FROM audit.entries, here
WHERE bytes -> 'actor' ->> 'role' = 'administrator' AND entries.tags && here.tags
  AND (%(before)s::bigint IS NULL OR position < %(before)s)
ORDER BY position DESC LIMIT %(limit)s
"""


class Visits:
    """Reads them out of the log itself."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool

    async def of(self, anchor: str, limit: int, before: int | None = None) -> list[Visit]:
        """Give the newest visits to a group (`group:…`) or a project (`project:…`), from before a position."""
        async with self._pool.connection() as connection:
            values = {"anchor": anchor, "limit": limit, "before": before}
            cursor = await connection.execute(_VISITS, values)
            found = await cursor.fetchall()
        return [_visit(position, msgspec.json.decode(text, type=Entry)) for position, text in found]


def _visit(position: int, entry: Entry) -> Visit:
    on = [tag for tag in entry.tags if tag.startswith(_HERE)]
    return Visit(position, entry.at, entry.actor.id, entry.type, on)
