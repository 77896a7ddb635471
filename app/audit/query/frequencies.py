"""How many entries an index has for some tags, as far as the planner knows."""

from time import monotonic

from psycopg import AsyncConnection

from app.audit.query.sieve import Test, joined

KEPT = 60.0
"""Seconds. To ask takes as long as to look for what is rare, and the planner learns no faster."""
MOST = 1_000

_EXPLAIN = "EXPLAIN (FORMAT JSON) SELECT FROM audit.entries WHERE {}"


class Frequencies:
    """What the planner expected not long ago, in one database. Answers do not depend on it, but how long they take."""

    def __init__(self) -> None:
        self._known: dict[tuple[Test, ...], int] = {}
        self._until = 0.0

    async def expected(self, tests: tuple[Test, ...], connection: AsyncConnection) -> int:
        """Say how many entries are expected for which all of some tests hold."""
        if monotonic() > self._until or len(self._known) == MOST:
            self._known, self._until = {}, monotonic() + KEPT
        if tests not in self._known:
            text, values = joined(" AND ", tests)
            cursor = await connection.execute(_EXPLAIN.format(text).encode(), values, prepare=False)
            ((plan,),) = await cursor.fetchall()
            self._known[tests] = plan[0]["Plan"]["Plan Rows"]
        return self._known[tests]
