"""Searches the entries: one page, in the order of positions, from an end or a cursor, and not for long.

What has an index in the order of positions (types, actors, requests, sources, refusals) is read along it. Tags have
none: where few entries are expected, all are found and the newest kept. Where it is not known which way is the
shortest, each that there is looks through so many entries, and the one that came furthest goes on. If the page is not
full when its time is up, it ends there: it says how far it came, and whoever wants more asks from there on. So even
what nothing answers, such as two frequent things that never meet, costs one request no more than another does.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from psycopg import AsyncConnection

from app.audit.entry import Record
from app.audit.query.branches import Branch, Lookup, addressed, branches
from app.audit.query.frequencies import Frequencies
from app.audit.query.looking import Heap, Line, Page, Question, Row, Seen, Way
from app.audit.query.marks import Addresses, Sources
from app.audit.query.ranges import LAST_POSITION, Period, Span
from app.audit.query.sieve import Either, Not, Sieve, Test
from app.audit.query.traits import Filed, Positions, Tags, Times
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
LAST_CHARACTER = "\U0010ffff"


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
        if (line := addressed(sieve.tests)) and (seen := await self._look(line, page, FIRST)).rows:
            return seen.rows, seen.reached
        tests = [await self._settled(test) for test in sieve.tests]
        page, tests = _bounded(page, tests)
        if page.high < page.low or not (parts := branches(tuple(tests))):
            return (), None
        share = PATIENCE / len(parts)
        seen = [await self._branch(branch, page, began + share * number) for number, branch in enumerate(parts, 1)]
        return _together(seen, page)

    async def _settled(self, test: Test) -> Test:
        """Turn times into positions, parts of names into names, addresses into digests: all have to be looked up."""
        match test:
            case Addresses(lookups=lookups):
                return Sources(await self._digests(lookups))
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
        query = b"SELECT audit.first_at(%s), audit.first_at(%s::timestamptz + interval '1 microsecond') - 1"
        ((low, high),) = await self._rows((query, (period.low, period.high)))
        return Span(low, high)

    async def _names(self, pattern: Pattern) -> tuple[str, ...]:
        """Give the names of groups, projects, notebooks that a pattern matches: those that were ever given.

        They are a range of an index, which the planner would see in LIKE if it saw the values: then it plans each time.
        """
        query = (
            b"SELECT tags[1] FROM audit.entries WHERE type IN ('GroupCreated', 'ProjectCreated', 'NotebookCreated')"
            b" AND tags[1] ~>=~ (SELECT %s::text) AND tags[1] ~<~ (SELECT %s::text) AND tags[1] LIKE (SELECT %s::text)"
            b" LIMIT %s"
        )
        first = pattern.parts[0]
        found = await self._rows((query, (first, f"{first}{LAST_CHARACTER}", pattern.like(), MOST_NAMES + 1)))
        return tuple([name for (name,) in found])

    async def _digests(self, lookups: tuple[bytes, ...]) -> tuple[str, ...]:
        """Give the digests under which addresses stand in entries: a session has one of its own."""
        query = b"SELECT digest FROM vault.disclosures WHERE lookup = ANY(%s::bytea[]) AND name = 'address'"
        return tuple([digest for (digest,) in await self._rows((query, (list(lookups),)))])

    async def _branch(self, branch: Branch, page: Page, until: float) -> Seen:
        if page.high - page.low < NARROW:
            return await self._look(Line(branch.tests), page, NARROW + 1)
        if branch.filed:
            return await self._tagged(branch.filed, branch.lines, page, until)
        return await self._race(branch.ways, page, FIRST if branch.lines else WALKED * FIRST, until)

    async def _tagged(self, filed: Lookup, lines: Sequence[Line], page: Page, until: float) -> Seen:
        few = await self._frequencies.expected(filed.by, self._connection)
        if few <= FEW:
            return await self._look(filed.few, page, FEW)
        ((first, last),) = await self._rows((b"SELECT min(position), max(position) FROM audit.entries", ()))
        spread = max((last or 0) - (first or 1), 1) / few
        page = replace(page, low=max(page.low, first or 1), high=min(page.high, last or 0))
        heap = Heap(filed.tests, spread=spread)
        if page.high - page.low <= FEW * spread:
            return await self._look(heap, page, FEW)
        return await self._race([heap, *lines], page, 2 * page.limit + EACH_TAG * filed.tags, until)

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
        cursor = await self._connection.execute(text, values, prepare=prepare)
        return await cursor.fetchall()


def _together(seen: Sequence[Seen], page: Page) -> tuple[Sequence[Row], int | None]:
    """Put branches together, as far as all of them came."""
    found, end = (seen[0].rows, seen[0].reached) if len(seen) == 1 else _merged(seen, page)
    return found, found[-1][0] if len(found) == page.limit else end


def _merged(seen: Sequence[Seen], page: Page) -> tuple[Sequence[Row], int | None]:
    reached = [one.reached for one in seen if one.reached is not None]
    end = (max(reached) if page.newest else min(reached)) if reached else None
    rows = {row[0]: row for one in seen for row in one.rows}
    within = [row for row in rows.values() if end is None or page.far(row[0]) <= page.far(end)]
    return sorted(within, reverse=page.newest)[: page.limit], end


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
