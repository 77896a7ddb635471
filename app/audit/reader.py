"""Group reads: whatever waits to be read goes into one question to the database, and each asker gets its own answer.

Commands that are decided at the same time rest on much the same (a group, a membership): that is looked up, sent and
decoded once. Every answer is what was in the log at one moment.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from app.audit.entry import Record
from app.domain.model import Selection

BATCH = 64
UNDER_WAY = 2
"""Questions at a time: a long answer does not keep everybody waiting."""

_SEPARATOR = "\x1f"
# The planner is not shown how many are asked for: it would plan anew each time, which takes longer than the answer.
_QUESTION = """
SELECT head, n, position, bytes::text
FROM (SELECT coalesce(max(position), 0) AS head FROM audit.entries) AS h
LEFT JOIN (
    SELECT n, position, bytes
    FROM unnest((SELECT %s::text[]), (SELECT %s::text[])) WITH ORDINALITY AS wanted (one, other, n)
    JOIN audit.entries ON audit.keys(type, tags) && string_to_array(one, E'\\x1f')
                      AND audit.keys(type, tags) && string_to_array(other, E'\\x1f')
) AS found ON true
ORDER BY position
"""


class Page(Struct, frozen=True):
    """What was found, and where the log ended in the snapshot in which it was looked for."""

    records: list[Record]
    head: int


class Reader:
    """Answers selections that name types and tags, by the index on `audit.keys`."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool
        self._waiting: list[tuple[Sequence[Selection], asyncio.Future[Page]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, selections: Sequence[Selection]) -> Page:
        """Read everything that matches any of the selections, in order."""
        answer: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self._waiting.append((selections, answer))
        if len(self._tasks) < UNDER_WAY:
            self._tasks.add(asyncio.create_task(self._drain(), name="read"))
        return await answer

    async def _drain(self) -> None:
        try:
            await self._answer_all()
        finally:
            # Not by a callback when it is done: who asks before that is called would wait for nobody.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _answer_all(self) -> None:
        while self._waiting:
            batch = self._waiting[:BATCH]
            del self._waiting[:BATCH]
            try:
                pages = await self._ask([selections for selections, _ in batch])
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for (_, answer), page in zip(batch, pages, strict=True):
                    if not answer.done():
                        answer.set_result(page)

    async def _ask(self, questions: Sequence[Sequence[Selection]]) -> list[Page]:
        distinct = list(dict.fromkeys(selection for selections in questions for selection in selections))
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                _QUESTION, ([_keys(one, 0) for one in distinct], [_keys(one, -1) for one in distinct])
            )
            rows = await cursor.fetchall()
        records: dict[int, Record] = {
            position: Record(position, text.encode()) for _, n, position, text in rows if n is not None
        }
        found: dict[Selection, list[Record]] = {one: [] for one in distinct}
        for _, n, position, _ in rows:
            if n is not None:
                found[distinct[n - 1]].append(records[position])
        for one, matching in found.items():
            found[one] = [record for record in matching if one.matches(record.entry.type, record.entry.tags)]
        return [Page(_merged([found[one] for one in selections]), rows[0][0]) for selections in questions]


def is_indexed(selections: Sequence[Selection]) -> bool:
    """Whether a `Reader` can answer: each selection names types (without the separator in them) and tags."""
    return bool(selections) and all(
        one.types and one.tags and _SEPARATOR not in "".join(one.types) for one in selections
    )


def _keys(selection: Selection, tag: int) -> str:
    """Write the keys of which an entry has one, if it has that tag and one of the types."""
    return _SEPARATOR.join(f"{type_} {selection.tags[tag]}" for type_ in selection.types)


def _merged(parts: Sequence[Sequence[Record]]) -> list[Record]:
    together = {record.position: record for part in parts for record in part}
    return [together[position] for position in sorted(together)]
