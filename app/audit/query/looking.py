"""Ways to look through the entries, in SQL: in the order of positions, so many at a time, and how far that came.

The planner believes that everything is spread evenly, and walks the whole log for what is frequent on the whole and
absent at its end. So it is given no choice: rows are ordered by an index's value and position, which no other index
serves, and what else is asked is looked at when a row has been fetched. Nor does it see for what values such an index
is asked: whatever they are, the plan is the same, and is made once for each connection. Of tags it does see the values:
without them it expects so many that it starts parallel workers for a handful.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from app.audit.query.marks import Guests, OneOf, OneOfFew
from app.audit.query.ranges import LAST_POSITION
from app.audit.query.sieve import Test, joined

Question = tuple[str, tuple[Any, ...]]
"""Text that is all ours, with a `%s` for each of the values."""
Row = tuple[int, str]
"""Position and text; of what is looked through also whether it is asked for, and whether it is the last of those."""


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

    test: OneOf | Guests | None = None

    @property
    def is_simple(self) -> bool:
        """Whether it is one run of an index."""
        return not isinstance(self.test, OneOf) or len(self.test.values) == 1

    def question(self, page: Page, bound: int) -> Question:
        """Ask for each value's, and put them together."""
        match self.test:
            case OneOf(values=several) if len(several) > 1:
                run, values = _run(self, page, max(bound // len(several), 1))
                marks = ", hit, last" if self.rest else ""
                query = _MERGE.format(run=run, marks=marks, direction=page.direction, limit=page.limit)
                return query, (list(several), *values)
            case _:
                return _run(self, page, bound)

    def seen(self, rows: Sequence[Any], page: Page, bound: int) -> Seen:
        """Read the answer."""
        if not self.rest:
            return Way.seen(self, rows, page, bound)
        found: list[Row] = []
        for position, text, hit, last in rows:
            if hit:
                found.append((position, text))
            if last or len(found) == page.limit:
                return Seen(found, position)
        return Seen(found, None)


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
        rest, values = joined(" AND ", self.rest)
        rest, values = f"position {_WITHIN} AND {rest}", (page.low, page.high, *values)
        index, own = (rest, ()) if self.test is None else self.test.clause()
        rest = "true" if self.test is None else rest
        text = _ALL.format(index=index, rest=rest, direction=page.direction, limit=page.limit)
        return text, (*own, *values)

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


def unseen(text: str) -> str:
    """Keep values from the planner. In a log of any size it then makes one plan, which fits all of them."""
    return text.replace("%s", "(SELECT %s)")


_WITHIN = "BETWEEN %s AND %s"
_ALL = """
SELECT position, bytes::text
FROM (SELECT * FROM audit.entries WHERE {index} OFFSET 0) AS found WHERE {rest}
ORDER BY position {direction} LIMIT {limit}
"""
_RUN = """
SELECT position, {bytes} FROM audit.entries WHERE {condition} ORDER BY {order} LIMIT {limit}
"""
_SIFTED = """
SELECT position, {bytes}, hit, last FROM (
    SELECT {shown}, bytes, ({hit}) IS TRUE AS hit, row_number() OVER (ORDER BY {order}) = {bound} AS last
    FROM audit.entries WHERE {condition} ORDER BY {order} LIMIT {bound}
) AS looked WHERE hit OR last ORDER BY {shown_order} LIMIT {limit}
"""
_MERGE = """
SELECT position, bytes::text{marks} FROM (
    SELECT run.position{marks} FROM unnest(%s::text[]) AS value CROSS JOIN LATERAL ({run}) AS run
    ORDER BY run.position {direction} LIMIT {limit}
) AS merged JOIN audit.entries USING (position) ORDER BY position {direction}
"""


def _run(line: Line, page: Page, bound: int) -> Question:
    """Go along an index; where more is asked than what it has, tell where the last row lies that was looked at."""
    rest = line.rest
    hit, wanted = joined(" AND ", rest)
    column, condition, values = _range(line, page)
    by_position = f"position {page.direction}"
    text = (_SIFTED if rest else _RUN).format(
        bytes="bytes::text" if line.is_simple else "bytes",
        hit=hit,
        order=f"{column} {page.direction}, {by_position}" if column else by_position,
        shown=f"{column} AS key, position" if column else "position",
        shown_order=f"key {page.direction}, {by_position}" if column else by_position,
        condition=unseen(condition),
        bound=bound,
        limit=page.limit,
    )
    return text, (*wanted, *values) if rest else values


def _range(line: Line, page: Page) -> tuple[str, str, tuple[Any, ...]]:
    """Give what an index has before the position, if anything, the condition that picks a run of it, and its values."""
    match line.test:
        case None:
            return "", f"position {_WITHIN}", (page.low, page.high)
        case OneOf(column=column, values=values) as test:
            value, own = ("%s", (values[0],)) if line.is_simple else ("value", ())
            few = " AND outcome <> 'success'" if isinstance(test, OneOfFew) else ""
            low, high = (f"({column}, position) {sign} ({value}, %s::bigint)" for sign in (">=", "<="))
            return column, f"{low} AND {high}{few}", (*own, page.low, *own, page.high)
        case Guests():
            return "actor", f"actor IS NULL AND position {_WITHIN}", (page.low, page.high)
