"""Questions to the table of entries, in SQL."""

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.sql import SQL, Composed

from app.audit.entry import Record
from app.domain.model import Selection


def matching(selections: Sequence[Selection]) -> tuple[Composed, list[list[str]]]:
    """Write selections as a condition on `audit.entries`, and its values. No selection at all selects everything."""
    if not selections:
        return Composed([SQL("true")]), []
    values: list[list[str]] = []
    alternatives: list[SQL] = []
    for selection in selections:
        terms: list[SQL] = []
        if selection.tags:
            terms.append(SQL("tags @> %s::text[]"))
            values.append(list(selection.tags))
        if selection.types:
            terms.append(SQL("type = ANY(%s::text[])"))
            values.append(list(selection.types))
        alternatives.append(SQL(" AND ").join(terms or [SQL("true")]))  # pyright: ignore
    return SQL("({})").format(SQL(" OR ").join(alternatives)), values


async def read_page(
    connection: AsyncConnection, after: int, limit: int | None, selections: Sequence[Selection] = ()
) -> list[Record]:
    """Read what matches, in order, from one snapshot: positions commit in order, so there is no gap to wait for."""
    where, values = matching(selections)
    query = SQL(
        "SELECT position, bytes::text FROM audit.entries WHERE position > %s AND {} ORDER BY position LIMIT %s"
    ).format(where)
    cursor = await connection.execute(query, (after, *values, limit))
    return [Record(position, text.encode()) for position, text in await cursor.fetchall()]


async def read_with_head(
    connection: AsyncConnection, after: int, limit: int | None, selections: Sequence[Selection]
) -> tuple[list[Record], int]:
    """Read what matches together with the position at which the log ended in that same snapshot (0: it is empty)."""
    where, values = matching(selections)
    query = SQL(
        "SELECT head, position, bytes::text FROM (SELECT coalesce(max(position), 0) AS head FROM audit.entries) AS h "
        "LEFT JOIN (SELECT position, bytes FROM audit.entries WHERE position > %s AND {} "
        "ORDER BY position LIMIT %s) AS found ON true ORDER BY position"
    ).format(where)
    cursor = await connection.execute(query, (after, *values, limit))
    rows = await cursor.fetchall()
    return [Record(position, text.encode()) for _, position, text in rows if position is not None], rows[0][0]


def one(row: tuple[Any, ...] | None) -> Any:
    """Give the only column of the only row."""
    assert row is not None  # noqa: S101
    return row[0]
