"""Ways to look through the entries, in SQL: in the order of positions, so many at a time, and how far that came.

The planner believes that everything is spread evenly, and walks the whole log for what is frequent on the whole and
absent at its end. So it is given no choice: rows are ordered by an index's value and position, which no other index
serves, and what else is asked is looked at when a row has been fetched. Nor does it see for what values such an index
is asked: they stand in a row of their own, and what is found is joined to it. Whatever they are, the plan is the same,
is made once for each connection, and starts no parallel workers. Only where several indexes could be asked, tags' among
them, does it see the values: they say which.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from app.audit.query.marks import Addresses, Guests, OneOf, OneOfFew
from app.audit.query.ranges import LAST_POSITION
from app.audit.query.sieve import Test, joined

Question = tuple[bytes, tuple[Any, ...]]
"""Text that is all ours, with a `%s` for each of the values."""
Row = tuple[int, str]
"""Position and text."""


class Page(Struct, frozen=True):
    """Which entries are wanted: in positions `low` to `high`, at most `limit`, the newest or the oldest."""

    limit: int
    low: int = 1
    high: int = LAST_POSITION
    newest: bool = False

    @property
    def direction(self) -> str:
        """Say the page's order in SQL."""
        return "DESC" if self.newest else "ASC"

    def beyond(self, position: int) -> "Page":
        """Give what is left when all up to a position has been looked at."""
        return replace(self, high=position - 1) if self.newest else replace(self, low=position + 1)

    def far(self, position: int) -> int:
        """Say how far a position is from the page's beginning, beside others."""
        return -position if self.newest else position


class Seen(Struct, frozen=True):
    """What was found, and up to which position everything was looked at; none: to the page's end."""

    rows: Sequence[Row]
    reached: int | None


class Way(Struct, frozen=True):
    """One way to look for entries of which all of some tests hold."""

    tests: tuple[Test, ...]
    test: Test | None = None
    """Which of them an index is asked for."""

    @property
    def rest(self) -> tuple[Test, ...]:
        """Give what is asked beyond what the index has."""
        return tuple([test for test in self.tests if test is not self.test])

    @property
    def is_fixed(self) -> bool:
        """Whether the plan is good for all values, so that the statement may be prepared."""
        return True

    def question(self, page: Page, bound: int) -> Question:
        """Ask for the page's first, looking at about `bound` entries."""
        raise NotImplementedError

    def seen(self, rows: Sequence[Any], page: Page, bound: int) -> Seen:
        """Read the answer."""
        return Seen(rows, rows[-1][0] if rows and len(rows) == page.limit else None)


class Line(Way, frozen=True):
    """Those that an index has in the order of positions: for one value or several, for guests, or simply all."""

    test: OneOf | Addresses | Guests | None = None

    @property
    def is_simple(self) -> bool:
        """Whether it is one run of an index."""
        return not isinstance(self.test, OneOf) or len(self.test.values) == 1

    def question(self, page: Page, bound: int) -> Question:
        """Ask for each value's, and put them together."""
        text, values = _along(self, page.direction, page.limit, bound)
        return text, (page.low, page.high, *values)

    def seen(self, rows: Sequence[Any], page: Page, bound: int) -> Seen:
        """Read the answer: where there is no text, not all was looked at beyond."""
        end = next((number for number, (_, text) in enumerate(rows) if text is None), None) if self.rest else None
        return Way.seen(self, rows, page, bound) if end is None else Seen(rows[:end], rows[end][0])


class Heap(Way, frozen=True):
    """All that an index has in no order, such as one on tags, within so many positions for each that is expected."""

    spread: float | None = None
    """None: there are so few that all are found at once."""

    @property
    def is_fixed(self) -> bool:
        """Whether it is said which index is asked: else the planner compares them, and positions with them."""
        return self.test is not None

    def question(self, page: Page, bound: int) -> Question:
        """Find all, and then the first of them: behind OFFSET the planner does not see that few are wanted."""
        page = self._window(page, bound)
        text, first, last = _among(self, page.direction, page.limit)
        return text, (*first, page.low, page.high, *last)

    def seen(self, rows: Sequence[Any], page: Page, bound: int) -> Seen:
        """Read the answer."""
        found, window = Way.seen(self, rows, page, bound), self._window(page, bound)
        if found.reached is not None or window == page:
            return found
        return Seen(found.rows, window.low if page.newest else window.high)

    def _window(self, page: Page, bound: int) -> Page:
        if self.spread is None:
            return page
        width = int(bound * self.spread)
        if page.newest:
            return replace(page, low=max(page.low, page.high - width))
        return replace(page, high=min(page.high, page.low + width))


_FIRST = """
SELECT position, bytes::text FROM {source} WHERE {rest} ORDER BY position {direction} LIMIT {limit}
"""
_ALL = "(SELECT * FROM audit.entries WHERE {condition} OFFSET 0) AS found"
_ALL_OF = f"(SELECT %s::text[] AS wanted OFFSET 0) AS asked CROSS JOIN LATERAL {_ALL}"
_ONE = """
SELECT run.position, run.bytes::text
FROM (SELECT {asked} OFFSET 0) AS asked CROSS JOIN LATERAL ({run}) AS run
"""
_FEW = f"{_ONE} ORDER BY position {{direction}} LIMIT {{limit}}"
_DIGESTS = """
unnest(digests) AS value FROM (
    SELECT array_agg(digest COLLATE "default") AS digests FROM vault.disclosures WHERE lookup = %s AND name = 'address'
) AS known WHERE cardinality(digests) <= 20
"""
_SEVERAL = """
SELECT position, CASE WHEN hit THEN bytes::text END FROM (
    SELECT run.* FROM (SELECT {asked} OFFSET 0) AS asked CROSS JOIN LATERAL ({run}) AS run
    ORDER BY run.position {direction}, run.hit DESC LIMIT {limit}
) AS merged JOIN audit.entries USING (position) ORDER BY position {direction}, hit DESC
"""
_RUN = """
SELECT position, {found} FROM audit.entries WHERE {condition} ORDER BY {order} LIMIT {limit}
"""
_SIFTED = """
(SELECT position, {found} FROM (
    SELECT position, bytes, {rest} AS is_hit FROM audit.entries WHERE {condition} ORDER BY {order} LIMIT {bound}
) AS looked WHERE is_hit)
UNION ALL
(SELECT position, {end} FROM audit.entries WHERE {condition} ORDER BY {order} OFFSET {bound} - 1 LIMIT 1)
LIMIT {limit}
"""


@lru_cache(maxsize=50)
def _among(heap: Heap, direction: str, limit: int) -> tuple[bytes, tuple[Any, ...], tuple[Any, ...]]:
    """Write what is asked of an index in no order; give its values before positions and behind them."""
    rest, values = joined(" AND ", heap.rest)
    rest, own = f"position BETWEEN %s AND %s AND {rest}", ()
    if heap.test is None:
        source, rest = _ALL.format(condition=rest), "true"
    else:
        text, own = heap.test.clause()
        source = _ALL_OF.format(condition=text.replace("%s::text[]", "wanted"))
    return _FIRST.format(source=source, rest=rest, direction=direction, limit=limit).encode(), own, values


@lru_cache(maxsize=50)
def _along(line: Line, direction: str, limit: int, bound: int) -> tuple[bytes, tuple[Any, ...]]:
    """Write what is asked along an index; give its values behind positions.

    Where more is asked than what it has, it is said behind what was found how far that came.
    """
    text, asked, own = _ONE, "%s::bigint AS low, %s::bigint AS high", ()
    match line.test:
        case OneOf(values=(value,)):
            asked, own = f"{asked}, %s::text AS value", (value,)
        case OneOf(values=values):
            text, asked, own = _SEVERAL, f"{asked}, unnest((SELECT %s::text[])) AS value", (list(values),)
            bound = max(bound // len(values), 1)
        case Addresses(lookups=(lookup,)):
            text, asked, own = _FEW, f"{asked}, {_DIGESTS}", (lookup,)
        case _:
            pass
    rest, wanted = joined(" AND ", line.rest)
    column, condition = _range(line.test)
    order = f"{column} {direction}, position {direction}" if column else f"position {direction}"
    found, end = ("bytes", "NULL::json") if line.is_simple else ("true AS hit", "false")
    run = (_SIFTED if line.rest else _RUN).format(
        found=found, end=end, rest=rest, condition=condition, order=order, bound=bound, limit=limit
    )
    return text.format(asked=asked, run=run, direction=direction, limit=limit).encode(), (*own, *wanted)


def _range(test: OneOf | Addresses | Guests | None) -> tuple[str, str]:
    """Give what an index has before the position, if anything, and the condition that picks a run of it."""
    match test:
        case None:
            return "", "position BETWEEN low AND high"
        case OneOf(column=column) | Addresses(column=column):
            few = " AND outcome <> 'success'" if isinstance(test, OneOfFew) else ""
            return column, f"({column}, position) >= (value, low) AND ({column}, position) <= (value, high){few}"
        case Guests():
            return "actor", "actor IS NULL AND position BETWEEN low AND high"
