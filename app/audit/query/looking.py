"""Ways to look through the entries, in SQL: in the order of positions, so many at a time, and how far that came.

The planner believes that everything is spread evenly, and walks the whole log for what is frequent on the whole and
absent at its end. So it is given no choice: rows are ordered by an index's value and position, which no other index
serves, and what else is asked is looked at when a row has been fetched.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from app.audit.query.marks import Guests, OneOf, OneOfFew
from app.audit.query.ranges import LAST_POSITION
from app.audit.query.sieve import Test, joined

Question = tuple[str, tuple[Any, ...]]
"""Text that is all ours, with a `%s` for each of the values."""
Row = tuple[int, str]
Looked = tuple[int, str, bool, bool]
"""Position, text, whether it is asked for, whether it is the last that was looked at."""


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

    def further(self, one: int, other: int) -> bool:
        """Whether one position is further from the page's beginning than another."""
        return one < other if self.newest else one > other


class Seen(Struct, frozen=True):
    """What was found, and up to which position everything was looked at; none: to the page's end."""

    rows: Sequence[Row]
    reached: int | None


class Way(Struct, frozen=True):
    """One way to look for entries of which all of some tests hold."""

    tests: tuple[Test, ...]

    def question(self, page: Page, bound: int) -> Question:
        """Ask for the page's first, looking at about `bound` entries."""
        raise NotImplementedError

    def seen(self, rows: Sequence[Looked], page: Page, bound: int) -> Seen:
        """Read the answer."""
        found: list[Row] = []
        for position, text, hit, last in rows:
            if hit:
                found.append((position, text))
            if last or len(found) == page.limit:
                return Seen(found, position)
        return Seen(found, None)


class Line(Way, frozen=True):
    """Those that an index has in the order of positions: for one value or several, for guests, or simply all."""

    test: OneOf | Guests | None = None

    @property
    def is_simple(self) -> bool:
        """Whether it is one run of an index."""
        return not isinstance(self.test, OneOf) or len(self.test.values) == 1

    def question(self, page: Page, bound: int) -> Question:
        """Ask for each value's, and put them together."""
        if self.is_simple:
            return _run(self, page, bound)
        assert isinstance(self.test, OneOf)  # noqa: S101
        run, values = _run(self, page, max(bound // len(self.test.values), 1))
        query = _MERGE.format(run=run, direction=page.direction, limit=page.limit)
        return query, (list(self.test.values), *values)


class Heap(Way, frozen=True):
    """All that an index has in no order, such as one on tags, within so many positions for each that is expected."""

    spread: float | None = None
    """None: there are so few that all are found at once."""

    def question(self, page: Page, bound: int) -> Question:
        """Find all, and then the first of them: behind OFFSET the planner does not see that few are wanted."""
        page = self._window(page, bound)
        text, values = where(self.tests, page)
        return _ALL.format(where=text, direction=page.direction, limit=page.limit), values

    def seen(self, rows: Sequence[Looked], page: Page, bound: int) -> Seen:
        """Read the answer."""
        found, window = super().seen(rows, page, bound), self._window(page, bound)
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


def where(tests: Iterable[Test], page: Page) -> Question:
    """Ask of an entry that it lies in a page's positions, and for some tests."""
    text, values = joined(" AND ", tests)
    return f"position BETWEEN %s AND %s AND {text}", (page.low, page.high, *values)


_ALL = """
SELECT position, bytes::text, true, false
FROM (SELECT position, bytes FROM audit.entries WHERE {where} OFFSET 0) AS found
ORDER BY position {direction} LIMIT {limit}
"""
_RUN = """
SELECT position, {bytes}, hit, last FROM (
    SELECT {column} AS key, position, bytes, {hit} AS hit, {last} AS last
    FROM audit.entries WHERE {condition} ORDER BY {column} {direction}, position {direction} LIMIT {most}
) AS looked WHERE hit OR last ORDER BY key {direction}, position {direction} LIMIT {limit}
"""
_MERGE = """
SELECT position, bytes::text, hit, last FROM (
    SELECT run.position, hit, last FROM unnest(%s::text[]) AS value CROSS JOIN LATERAL ({run}) AS run
    ORDER BY run.position {direction} LIMIT {limit}
) AS merged JOIN audit.entries USING (position) ORDER BY position {direction}
"""


def _run(line: Line, page: Page, bound: int) -> Question:
    """Go along an index; where more is asked than what it has, tell where the last row lies that was looked at."""
    rest = [test for test in line.tests if test is not line.test]
    hit, wanted = joined(" AND ", rest)
    column, condition, values = _range(line, page)
    order = f"{column} {page.direction}, position {page.direction}"
    text = _RUN.format(
        bytes="bytes::text" if line.is_simple else "bytes",
        column=column,
        hit=f"({hit}) IS TRUE" if rest else "true",
        last=f"row_number() OVER (ORDER BY {order}) = {bound}" if rest else "false",
        condition=condition,
        direction=page.direction,
        most=bound if rest else page.limit,
        limit=page.limit,
    )
    return text, (*wanted, *values)


def _range(line: Line, page: Page) -> tuple[str, str, tuple[Any, ...]]:
    """Give what comes before the position in the index, the condition that picks a run of it, and its values."""
    within = "position BETWEEN %s AND %s"
    match line.test:
        case None:
            return "position", within, (page.low, page.high)
        case OneOf(column=column, values=values) as test:
            value, own = ("%s", (values[0],)) if line.is_simple else ("value", ())
            few = " AND outcome <> 'success'" if isinstance(test, OneOfFew) else ""
            low, high = (f"({column}, position) {sign} ({value}, %s::bigint)" for sign in (">=", "<="))
            return column, f"{low} AND {high}{few}", (*own, page.low, *own, page.high)
        case Guests():
            return "actor", f"actor IS NULL AND {within}", (page.low, page.high)
