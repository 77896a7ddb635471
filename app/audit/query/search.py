"""Searches the entries: one page, in the order of positions, from an end or a cursor, and not for long.

What has an index in the order of positions (types, actors, requests, sources, refusals) is read along it. Tags have
none: where few entries are expected, all are found and the newest kept. Where it is not known which way is the
shortest, each that there is looks through so many entries, and the one that came furthest goes on. If the page is not
full when its time is up, it ends there: it says how far it came, and whoever wants more asks from there on. So even
what nothing answers, such as two frequent things that never meet, costs one request no more than another does.
"""

from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from psycopg import AsyncConnection

from app.audit.entry import Record
from app.audit.query.frequencies import Frequencies
from app.audit.query.looking import Heap, Line, Page, Question, Row, Seen, Way
from app.audit.query.marks import Actors, Guests, OneOf, OneOfFew, Outcomes, Reasons, Requests, Sources, Types
from app.audit.query.ranges import LAST_POSITION, Period, Span
from app.audit.query.sieve import Both, Clause, Either, Not, Sieve, Test, joined
from app.audit.query.traits import Filed, Positions, Reasoned, Subjects, Tags, Times
from app.audit.query.words import Pattern

PATIENCE = 0.025
"""Seconds after which nothing more is looked at, if something was."""
FIRST = 1_000
"""Entries that are looked at along an index before the time is."""
WALKED = 4
"""How many times as many where there is no index to go along: they lie next to each other."""
STEPS = (4, 2, 1)
"""How many times as many are looked at next, if there is time for them."""
EACH_TAG = 20
"""Entries for which looking up a tag pays: the first look is for so many more."""
NARROW = 2_000
"""Positions that are simply read through."""
FEW = 1_000
"""Expected entries that are simply all found."""
MOST_NAMES = 200
MOST_KEYS = 64
MOST_BRANCHES = 8


class Found(Struct, frozen=True):
    """Entries in the page's order; `next`: the position beyond which there may be more, none where there are not."""

    records: list[Record]
    next: int | None


async def search(
    connection: AsyncConnection, sieve: Sieve, page: Page, frequencies: Frequencies | None = None
) -> Found:
    """Give the entries that a sieve lets through; fewer than the limit, though not all, if they are far between."""
    rows, reached = await _Search(connection, frequencies or Frequencies()).page(sieve, page)
    return Found([Record(position, text.encode()) for position, text in rows], reached)


class _Search:
    def __init__(self, connection: AsyncConnection, frequencies: Frequencies) -> None:
        self._connection = connection
        self._frequencies = frequencies

    async def page(self, sieve: Sieve, page: Page) -> tuple[Sequence[Row], int | None]:
        began = monotonic()
        tests = [await self._settled(test) for test in sieve.tests]
        page, tests = _bounded(page, tests)
        if page.high < page.low:
            return (), None
        branches = _branches(tests)
        share = PATIENCE / len(branches)
        seen = [
            await self._branch(tuple(branch), page, began + share * number) for number, branch in enumerate(branches, 1)
        ]
        return _together(seen, page)

    async def _settled(self, test: Test) -> Test:
        """Turn times into positions, and parts of names into names: both have to be looked up."""
        match test:
            case Times(periods=periods):
                return Positions(tuple([await self._span(period) for period in periods]))
            case Filed(pattern=pattern) if test.is_part:
                names = await self._names(pattern)
                return Tags(names) if len(names) <= MOST_NAMES else test
            case Not(test=inner):
                return Not(await self._settled(inner))
            case Either(tests=tests):
                return Either(tuple([await self._settled(inner) for inner in tests]))
            case _:
                return test

    async def _span(self, period: Period) -> Span:
        query = "SELECT audit.first_at(%s), audit.first_at(%s::timestamptz + interval '1 microsecond') - 1"
        ((low, high),) = await self._rows((query, (period.low, period.high)))
        return Span(low, high)

    async def _names(self, pattern: Pattern) -> tuple[str, ...]:
        """Give the names of groups, projects, notebooks that a pattern matches: those that were ever given."""
        query = (
            "SELECT tags[1] FROM audit.entries WHERE type IN ('GroupCreated', 'ProjectCreated', 'NotebookCreated')"
            " AND tags[1] LIKE %s LIMIT %s"
        )
        question = query, (pattern.like(), MOST_NAMES + 1)
        return tuple(name for (name,) in await self._rows(question, prepare=False))

    async def _branch(self, tests: tuple[Test, ...], page: Page, until: float) -> Seen:
        if any(isinstance(test, Tags) and not test.tags for test in tests):
            return Seen((), None)
        if any(isinstance(test, OneOf) and not test.values for test in tests):
            return Seen((), None)
        if page.high - page.low < NARROW:
            return await self._look(Line(tests), page, NARROW + 1)
        if any(isinstance(test, Tags) for test in tests) and not any(isinstance(test, SHARP) for test in tests):
            return await self._tagged(tests, page, until)
        lines = _lines(tests)
        if not lines:
            return await self._race([Line(tests)], page, WALKED * FIRST, until)
        if not any(line.is_simple or isinstance(line.test, OneOfFew) for line in lines):
            lines = [Line(tests), *lines]  # each value is a run of its own, and perhaps they are frequent
        return await self._race(lines, page, FIRST, until)

    async def _tagged(self, tests: tuple[Test, ...], page: Page, until: float) -> Seen:
        keyed = _keyed(tests)
        filed = [test for test in keyed if isinstance(test, Tags | _Keys)]
        few = await self._frequencies.expected(joined(" AND ", filed), self._connection)
        if few <= FEW:
            return await self._look(Heap(keyed, filed[0] if len(filed) == 1 else None), page, FEW)
        ((first, last),) = await self._rows(("SELECT min(position), max(position) FROM audit.entries", ()))
        spread = max((last or 0) - (first or 1), 1) / few
        page = replace(page, low=max(page.low, first or 1), high=min(page.high, last or 0))
        heap = Heap(keyed, spread=spread)
        if page.high - page.low <= FEW * spread:
            return await self._look(heap, page, FEW)
        tags = max(len(test.tags) for test in tests if isinstance(test, Tags))
        return await self._race([heap, *_lines(tests)], page, 2 * page.limit + EACH_TAG * tags, until)

    async def _race(self, ways: Sequence[Way], page: Page, bound: int, until: float) -> Seen:
        """Look through more and more entries, the way that comes furthest, until the page is full or the time is up."""
        rows: list[Row] = []
        while True:
            began = monotonic()
            way, seen = await self._furthest(ways, page, bound)
            rows += seen.rows
            if seen.reached is None or len(seen.rows) == page.limit:
                return Seen(rows, seen.reached)
            now = monotonic()
            took = (now - began) / len(ways)
            step = next((step for step in STEPS if now + step * took < until), 0)
            if not step:
                return Seen(rows, seen.reached)
            ways, bound = [way], step * bound
            page = replace(page.beyond(seen.reached), limit=page.limit - len(seen.rows))

    async def _furthest(self, ways: Sequence[Way], page: Page, bound: int) -> tuple[Way, Seen]:
        looked: list[tuple[int, Way, Seen]] = []
        for way in ways:
            seen = await self._look(way, page, bound)
            if seen.reached is None or len(seen.rows) == page.limit:
                return way, seen
            looked.append((page.far(seen.reached), way, seen))
        _, way, seen = max(looked, key=lambda one: one[0])
        return way, seen

    async def _look(self, way: Way, page: Page, bound: int) -> Seen:
        prepare = None if way.is_fixed else False
        return way.seen(await self._rows(way.question(page, bound), prepare=prepare), page, bound)

    async def _rows(self, question: Question, *, prepare: bool | None = None) -> list[Any]:
        """Ask; `prepare`: false where the plan depends on the values."""
        text, values = question
        cursor = await self._connection.execute(text.encode(), values, prepare=prepare)
        return await cursor.fetchall()


def _together(seen: Sequence[Seen], page: Page) -> tuple[Sequence[Row], int | None]:
    """Put branches together, as far as all of them came."""
    reached = [one.reached for one in seen if one.reached is not None]
    end = (max(reached) if page.newest else min(reached)) if reached else None
    rows = {row[0]: row for one in seen for row in one.rows}
    within = [row for row in rows.values() if end is None or page.far(row[0]) <= page.far(end)]
    found = sorted(within, reverse=page.newest)[: page.limit]
    return found, found[-1][0] if len(found) == page.limit else end


def _bounded(page: Page, tests: Sequence[Test]) -> tuple[Page, list[Test]]:
    """Take ranges of positions into the page's own."""
    left: list[Test] = []
    for test in tests:
        if isinstance(test, Positions) and len(test.spans) == 1:
            (span,) = test.spans
            page = replace(page, low=max(page.low, span.low or 0), high=min(page.high, _or_last(span.high)))
        else:
            left.append(test)
    return page, left


def _or_last(bound: int | None) -> int:
    return LAST_POSITION if bound is None else bound


def _branches(tests: Iterable[Test]) -> list[list[Test]]:
    """Part what one index cannot answer: filed under a user's tag, or done by them. Not into too many parts."""
    branches: list[list[Test]] = [[]]
    for test in tests:
        parts = _parts(test)
        if len(branches) * len(parts) > MOST_BRANCHES:
            parts = [(test,)]
        branches = [[*branch, *part] for branch in branches for part in parts]
    return branches


def _parts(test: Test) -> list[tuple[Test, ...]]:
    match test:
        case Subjects(tags=tags, actors=actors):
            return [(tags,), (actors,)]
        case Either(tests=tests):
            return [part for one in tests for part in _parts(one)]
        case Both(tests=tests):
            return [tests]
        case _:
            return [(test,)]


SHARP = (Requests, Sources)
"""What lets through so little that tags need not be looked up."""


def _lines(tests: tuple[Test, ...]) -> list[Line]:
    """Give the indexes that will do, beginning with what lets the least through."""
    found: list[OneOf | Guests] = []
    for kind in (*SHARP, Reasons, Outcomes, Guests, Actors, Types):
        found += [test for test in tests if isinstance(test, kind)]
    if any(isinstance(test, Reasoned) for test in tests):
        found.insert(0, Outcomes(("failed", "refused")))
    return [Line(tests, test) for test in found]


def _keyed(tests: tuple[Test, ...]) -> tuple[Test, ...]:
    """Ask for types and tags at once, where there is an index on both."""
    tags = next(test for test in tests if isinstance(test, Tags))
    types = next((test for test in tests if isinstance(test, Types)), None)
    if types is None or len(types.values) * len(tags.tags) > MOST_KEYS:
        return tests
    return (_Keys(types, tags), *(test for test in tests if test is not tags and test is not types))


class _Keys(Test, frozen=True):
    types: Types
    tags: Tags

    def clause(self) -> Clause:
        keys = [f"{type_} {tag}" for type_ in self.types.values for tag in self.tags.tags]
        return "audit.keys(type, tags) && %s::text[]", (keys,)
