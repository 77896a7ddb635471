"""The query language: what is written reads back, nonsense is told where it stands, SQL and Python find the same."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace
from psycopg import AsyncConnection

from app.audit.entry import GUEST, SYSTEM, Actor, Entry, Outcome, Record, Source, encode, leaf_hash
from app.audit.log import Log
from app.audit.query.frequencies import Frequencies
from app.audit.query.language import KEYS, LONGEST, Query, QueryError, Term, Value, parse
from app.audit.query.looking import Page
from app.audit.query.marks import Addresses, Sources
from app.audit.query.meaning import meaning
from app.audit.query.ranges import LAST_POSITION, Period, Span
from app.audit.query.search import Found, search
from app.audit.query.sieve import Sieve, Test
from app.audit.query.words import CHANGING, OUTCOMES, SLUGS, TYPE_OF, Pattern
from app.domain.registry import EVENTS
from tests.database import Databases

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)

ADA, BOB = (f"usr_{letter:0>26}" for letter in "ab")
DIGESTS = {"10.0.0.7": ("d" * 43, "e" * 43), "::1": ("f" * 43,), "10.0.0.8": tuple(f"{n:043}" for n in range(21))}


class People:
    """Ada and Bob, and addresses."""

    async def user(self, username: str) -> str | None:
        return {"ada": ADA, "bob": BOB}.get(username)

    async def sources(self, addresses: Sequence[str]) -> Test:
        return Sources(tuple(digest for address in addresses for digest in DIGESTS.get(address, ())))


class Hashing(People):
    """The same for those who leave it to a search to look addresses up: in the vault, by their hashes."""

    async def sources(self, addresses: Sequence[str]) -> Test:
        return Addresses(tuple(address.encode() for address in addresses))


def error_of(text: str) -> QueryError:
    with pytest.raises(QueryError) as raised:
        parse(text, NOW)
    return raised.value


def read(text: str) -> Query | QueryError:
    try:
        return parse(text, NOW)
    except QueryError as error:
        return error


def term(text: str) -> Term:
    (only,) = parse(text, NOW).terms
    return only


# What is written


words = st.text(st.characters(codec="utf-8").filter(str.isprintable).filter(lambda c: c != "/"), min_size=1, max_size=8)
times = st.datetimes(datetime(1970, 1, 1), datetime(9990, 12, 31), timezones=st.just(UTC))


def patterns(exact: st.SearchStrategy[str]) -> st.SearchStrategy[Pattern]:
    """A word, or a part of one with a glob before, in or behind it."""
    return exact.flatmap(
        lambda word: st.sampled_from(
            [Pattern((word,)), Pattern((word, "")), Pattern(("", word[1:], "") if word[1:] else ("", ""))]
        )
    )


Bound = TypeVar("Bound", int, datetime)


def ranges(bounds: st.SearchStrategy[Bound]) -> st.SearchStrategy[tuple[Bound | None, Bound | None]]:
    """Two bounds, or one."""
    both = st.tuples(bounds, bounds).map(lambda pair: (min(pair), max(pair)))
    return st.one_of(both, st.tuples(bounds, st.none()), st.tuples(st.none(), bounds))


slugs = st.tuples(st.sampled_from(sorted(SLUGS)), words).map("/".join)
exact_words = words.map(lambda word: Pattern((word,)))
people = st.one_of(exact_words, words.map(lambda word: Pattern((f"user/{word}",))))
values: dict[str, st.SearchStrategy[Value]] = {
    "actor": people,
    "subject": people,
    "action": patterns(st.sampled_from(sorted(TYPE_OF))),
    "type": patterns(st.sampled_from(sorted(EVENTS))),
    "changed": patterns(st.sampled_from(sorted(CHANGING))),
    "outcome": patterns(st.sampled_from(OUTCOMES)),
    "resource": slugs.flatmap(
        lambda slug: st.sampled_from([Pattern((slug,)), Pattern((slug, "")), Pattern((slug, "x"))])
    ),
    "reason": patterns(words),
    "request": exact_words,
    "address": st.ip_addresses().map(lambda address: Pattern((str(address),))),
    "time": ranges(times).map(lambda pair: Period(*pair)),
    "position": ranges(st.integers(0, LAST_POSITION)).map(lambda pair: Span(*pair)),
}


@st.composite
def terms(draw: st.DrawFn) -> Term:
    key = draw(st.sampled_from(sorted(KEYS)))
    return Term(key, tuple(draw(st.lists(values[key], min_size=1, max_size=3))), draw(st.booleans()))


queries = st.lists(terms(), max_size=4).map(lambda found: Query(tuple(found))).filter(lambda q: len(str(q)) <= LONGEST)


@given(queries)
def test_every_query_that_is_written_reads_back(query: Query) -> None:
    assert parse(str(query), NOW) == query


@given(st.text(max_size=80))
@example("\ud800")
@example("a:\x00")
@example('actor:"\\')
@example("time:9999999 weeks ago")
@example("time:0000-00")
@example("time:2026-11-23T24:00+99:99")
def test_any_text_is_a_query_or_is_told_where_it_is_none(text: str) -> None:
    match read(text):
        case QueryError(column=column):
            assert 1 <= column <= len(text) + 1
        case query:
            assert parse(str(query), NOW) == query


@given(
    st.lists(st.sampled_from([*(f"{key}:" for key in KEYS), "-", " ", ",", "*", '"', "ada", "..", ">=", "2026", "/"]))
)
def test_any_heap_of_its_own_words_is_a_query_or_is_told_where_it_is_none(parts: list[str]) -> None:
    test_any_text_is_a_query_or_is_told_where_it_is_none.hypothesis.inner_test("".join(parts)[:200])  # pyright: ignore


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("acter:ada", 1, "did you mean actor?"),
        ("actor:ada -outcme:success", 12, "did you mean outcome?"),
        ("outcome:succes", 9, "did you mean success?"),
        ("action:projct.created", 8, "did you mean project.created?"),
        ("action:member.added,projct.*", 21, "There is no action projct.*"),
        ("resource:projet/apollo", 10, "did you mean project?"),
        ("resource:apollo", 10, "such as project/apollo"),
        ("resource:user/usr_0*", 10, "is opaque"),
        ("changed:rle", 9, "did you mean role?"),
        ("apollo", 1, "Keys: actor, action"),
        ('actor:"ada', 7, "no second one"),
        ("actor:", 7, "there has to be a value"),
        ("actor:ada,,bob", 11, "there has to be a value"),
        ("actor:a*", 7, "takes no *"),
        ("actor:project/apollo", 7, "project/apollo is no user"),
        ("subject:user/", 9, "user/ is no user"),
        ("address:10.0.0.300", 9, "is no IP address"),
        ("time:2026-02-30", 6, "is no day or time that there is"),
        ("time:soon", 6, "is no time"),
        ("time:2026-11-23..2026-11-01", 6, "ends before it begins"),
        ("position:x", 10, "is no position"),
        ("position:200..100", 10, "ends before it begins"),
        ("position:1* ", 10, "takes no *"),
        ("actor:\x07", 7, "cannot be printed"),
        ("actor:ada " * 33, 321, "at most 32 terms"),
        ("x" * 1001, 1001, "at most 1,000 characters"),
    ],
)
def test_what_is_wrong_is_told_with_its_column(text: str, column: int, words: str) -> None:
    error = error_of(text)
    assert (error.column, words in str(error)) == (column, True), str(error)


def test_time_is_as_exact_as_it_is_written() -> None:
    day = Period(datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 23, 23, 59, 59, 999999, tzinfo=UTC))
    assert term("time:2026-11-23").values == term("time:today").values == (day,)
    assert term("time:2026-11").values == (
        replace(day, low=BEGIN, high=datetime(2026, 11, 30, 23, 59, 59, 999999, UTC)),
    )
    assert term("time:2026-11-23T10:00+02:00..2026-11-23").values == (
        replace(day, low=day.low and day.low.replace(hour=8)),
    )
    assert term('time:"2 hours ago"').values == term("time:>=2-hours-ago").values
    assert term("time:2-hours-ago").values == (Period(NOW - timedelta(hours=2), None),)
    assert term("time:>2026-11-22").values == (Period(day.low, None),)
    assert term("time:<2026-11-24").values == (Period(None, day.high),)
    assert term("time:yesterday").values == (
        Period(day.low and day.low - timedelta(days=1), day.low and day.low - timedelta(microseconds=1)),
    )


def test_every_event_has_an_action_of_its_own() -> None:
    assert len(TYPE_OF) == len(EVENTS)
    assert all(re.fullmatch(r"[a-z]+(\.[a-z-]+)?", action) for action in TYPE_OF)
    assert (TYPE_OF["project.created"], TYPE_OF["notebook.start-requested"]) == (
        "ProjectCreated",
        "NotebookStartRequested",
    )
    assert (TYPE_OF["command.refused"], TYPE_OF["session.began"]) == ("CommandRefused", "LoggedIn")


def test_a_query_is_kept_unless_a_time_in_it_moves() -> None:
    later = NOW + timedelta(days=400)
    for text in ("time:today", "time:yesterday", "time:now", "time:2-hours-ago", 'time:n"o"w', r'time:"tod\ay"'):
        assert parse(text, NOW) != parse(text, later), text
    for text in ("time:2026-11", "actor:ada"):
        assert parse(text, NOW) is parse(text, later), text


def test_the_index_of_names_knows_whatever_gives_one() -> None:
    source = (Path(__file__).parents[2] / "app/audit/database/indexes.sql").read_text()
    creators = {f"{kind.title()}Created" for kind in SLUGS}
    assert creators == set(re.findall(r"'(\w+Created)'", source))
    assert all(next(iter(EVENTS[name].__struct_fields__)) == name.removesuffix("Created").lower() for name in creators)


# What is found


TYPES = (
    "ProjectCreated",
    "NotebookCreated",
    "NotebookStarted",
    "MemberAdded",
    "LoggedIn",
    "CommandRefused",
    "UserCreated",
)
TAGS = ("project:apollo", "project:apricot", "notebook:plots", "group:lab", f"user:{ADA}", f"user:{BOB}")
NAMED = ("group:lab", "project:apollo", "project:apricot", "notebook:plots")
ACTORS = (SYSTEM, GUEST, Actor(kind="user", id=ADA, via="session"), Actor(kind="user", id=BOB, via="token"))

asked = [
    "actor:ada", "actor:bob,system", "actor:guest", "actor:guest,ada", "actor:user/bob",
    "action:project.*", "action:project.created,session.began", "type:Notebook*", "changed:title,role",
    "resource:project/apollo", "resource:project/ap*", "resource:project/*", "resource:notebook/*,project/apricot",
    "resource:user/ada", "resource:group/lab,user/bob", "resource:token/*",
    "resource:project/nothing*", "subject:user/ada", "subject:bob,ada",
    "outcome:refused", "outcome:failed,refused", "outcome:success", "outcome:*", "outcome:s*,failed",
    "reason:members-only", "reason:*-only", "reason:owners-only,*-taken", "reason:nothing",
    "request:r1", "request:r1,r2", "request:none", "address:10.0.0.7", "address:10.0.0.7,::1", "address:10.0.0.8",
    "address:10.9.9.9",
    "time:2026-11-01T00:00:10..2026-11-01T00:01", "time:..2026-11-01T00:00:20,>=2026-11-01T00:01:00", "time:2025",
    "time:>=2030",
    "position:5..20", "position:1..3,8..", "position:..0", "position:>=9007199254740992",
]  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Some entries, after those in which each name was given."""
    entries: list[Entry] = []
    for name in NAMED:
        entries.append(entry(len(entries), f"{name.partition(':')[0].title()}Created", (name,), ACTORS[2]))
    for _ in range(draw(st.integers(0, 25))):
        outcome: Outcome = draw(st.sampled_from(OUTCOMES))
        entries.append(
            entry(
                len(entries),
                draw(st.sampled_from(TYPES)),
                tuple(draw(st.lists(st.sampled_from(TAGS), max_size=3, unique=True))),
                draw(st.sampled_from(ACTORS)),
                outcome,
                None
                if outcome == "success"
                else draw(st.sampled_from(["members-only", "owners-only", "slug-taken", None])),
                draw(st.sampled_from(["r1", "r2", None])),
                draw(st.sampled_from([None, *(digest for found in DIGESTS.values() for digest in found[:2])])),
                draw(st.integers(0, 9)),
            )
        )
    return entries


def entry(
    number: int, type_: str, tags: Sequence[str], actor: Actor, outcome: Outcome = "success",
    reason: str | None = None, request: str | None = None, source: str | None = None, late: int = 0,
) -> Entry:  # fmt: skip
    return Entry(
        actor=actor, at=BEGIN + timedelta(seconds=5 * number, milliseconds=100 * late), data=Raw(b"{}"),
        id=f"00000000-0000-7000-8000-{number:012}", outcome=outcome, reason=reason, request=request,
        source=Source((source,)) if source else None, tags=tuple(tags), type=type_, v=1,
    )  # fmt: skip


async def disclose(connection: AsyncConnection) -> None:
    """Take into the vault under which digests the addresses stand."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO vault.disclosures (digest, position, subject, name, key, lookup)"
            " VALUES (%s, 1, 'user:x', 'address', gen_random_uuid(), %s)",
            [(digest, address.encode()) for address, found in DIGESTS.items() for digest in found],
        )


async def write(connection: AsyncConnection, entries: Sequence[Entry]) -> list[Record]:
    records = [Record(position, encode(entry)) for position, entry in enumerate(entries, 1)]
    async with connection.cursor() as cursor:
        await cursor.execute("SET session_replication_role = replica")
        await cursor.execute("TRUNCATE audit.entries")
        await cursor.executemany(
            "INSERT INTO audit.entries (position, bytes, leaf_hash) VALUES (%s, %s, %s)",
            [(record.position, record.octets.decode(), leaf_hash(record.octets)) for record in records],
        )
    return records


questions = st.lists(st.tuples(st.booleans(), st.sampled_from(asked)), min_size=1, max_size=3)


@pytest.mark.parametrize("narrow", [2_000, 0], ids=["read through", "by the indexes"])
async def test_the_database_finds_what_python_finds(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, narrow: int
) -> None:
    monkeypatch.setattr("app.audit.query.search.NARROW", narrow)
    frequencies = Frequencies()  # of other entries than those that are there by then: it changes no answer

    with databases.fresh() as dsn:
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:

            async def check(
                entries: list[Entry],
                question: list[tuple[bool, str]],
                newest: bool,
                limit: int,
                few: int,
                first: int,
                patience: float,
            ) -> None:
                monkeypatch.setattr("app.audit.query.search.FEW", few)
                monkeypatch.setattr("app.audit.query.search.FIRST", first)
                monkeypatch.setattr("app.audit.query.search.PATIENCE", patience)
                records = await write(connection, entries)
                text = " ".join(f"{'-' * negated}{one}" for negated, one in question)
                sieve = await meaning(parse(text, NOW), People())
                page = (
                    Page(limit, low=3, high=len(records) - 1, newest=newest)
                    if limit < 4
                    else Page(limit, newest=newest)
                )
                expected = [one for one in records if page.low <= one.position <= page.high and sieve.matches(one)]
                expected = expected[::-1] if newest else expected
                asked = await meaning(parse(text, NOW), Hashing())
                found = await everything(connection, asked, page, frequencies)
                assert [one.position for one in found] == [one.position for one in expected], text
                assert [one.octets for one in found] == [one.octets for one in expected]

            await disclose(connection)
            await run(check)


@pytest.mark.parametrize("address", ["10.0.0.7", "::1", "10.0.0.8", "10.9.9.9"])
async def test_an_address_alone_is_looked_up_and_found(databases: Databases, address: str) -> None:
    sources = [digest for _, found in sorted(DIGESTS.items()) for digest in found]
    entries = [entry(number, "LoggedIn", (), ACTORS[2], source=source) for number, source in enumerate(sources * 3)]
    with databases.fresh() as dsn:
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            records = await write(connection, entries)
            await disclose(connection)
            asked = await meaning(parse(f"address:{address}", NOW), Hashing())
            for page in (Page(2), Page(2, newest=True), Page(50, newest=True), Page(3, low=5, high=60)):
                found = await everything(connection, asked, page, Frequencies())
                expected = [
                    record
                    for record in records
                    if page.low <= record.position <= page.high
                    and sources[(record.position - 1) % len(sources)] in DIGESTS.get(address, ())
                ]
                assert [one.octets for one in found] == [one.octets for one in expected[:: -1 if page.newest else 1]]


async def everything(connection: AsyncConnection, sieve: Sieve, page: Page, frequencies: Frequencies) -> list[Record]:
    """Go on from page to page, each of which comes further, until there is no more."""
    records: list[Record] = []
    while True:
        found = await search(connection, sieve, page, frequencies)
        assert len(found.records) <= page.limit
        records += found.records
        if found.next is None:
            return records
        assert all(page.far(record.position) <= page.far(found.next) for record in found.records)
        assert page.low <= found.next <= page.high
        page = page.beyond(found.next)


Case = tuple[list[Entry], list[tuple[bool, str]], bool, int, int, int, float]

cases = st.tuples(
    logs(),
    questions,
    st.booleans(),
    st.sampled_from([1, 3, 50]),
    st.sampled_from([0, 1000]),
    st.sampled_from([2, 30]),
    st.sampled_from([0.0, 60.0]),
)


async def run(check: Callable[..., Coroutine[None, None, None]]) -> None:
    """Have hypothesis try a coroutine function on the loop that is running."""
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=120,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(cases)
    def attempt(case: Case) -> None:
        asyncio.run_coroutine_threadsafe(check(*case), loop).result()

    await asyncio.to_thread(attempt)


async def test_a_user_whom_nobody_knows_is_told() -> None:
    with pytest.raises(QueryError, match="There is no user 'eve'"):
        await meaning(parse("actor:eve", NOW), People())


async def test_a_query_that_injects_sql_is_a_word_like_others(log: Log) -> None:
    for text in (
        'request:"\'; DROP TABLE audit.entries; --"',
        'reason:"%s\' OR true"',
        "resource:project/\"x') OR ('a'='a\"",
    ):
        sieve = await meaning(parse(text, NOW), People())
        async with log.pool.connection() as connection:
            assert await search(connection, sieve, Page(10)) == Found([], None)


async def test_where_an_address_has_few_digests_it_is_one_question(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    with databases.fresh() as dsn:
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            await write(connection, [entry(0, "LoggedIn", (), ACTORS[2], source="d" * 43)])
            await disclose(connection)
            asked = counted(monkeypatch)
            sieve = await meaning(parse("address:10.0.0.7", NOW), Hashing())
            assert len((await search(connection, sieve, Page(50, newest=True))).records) == 1
    assert asked == [None]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """Note of everything that is asked from now on whether it may be prepared."""
    asked: list[bool | None] = []
    execute = AsyncConnection.execute

    async def counting(self: AsyncConnection, *args: Any, prepare: bool | None = None, **options: Any) -> Any:
        asked.append(prepare)
        return await execute(self, *args, prepare=prepare, **options)

    monkeypatch.setattr(AsyncConnection, "execute", counting)
    return asked


@pytest.mark.parametrize(
    "text",
    ["", "actor:ada", "actor:ada,bob", "action:project.created", "outcome:refused", "reason:members-only", "request:r1",
     "address:::1", "actor:ada position:..9000", "resource:project/apollo", "resource:project/apollo outcome:success"],
)  # fmt: skip
async def test_what_an_index_answers_is_asked_in_one_statement_prepared_once(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    frequencies = Frequencies()
    with databases.fresh() as dsn:
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            sieve = await meaning(parse(text, NOW), People())
            await search(connection, sieve, Page(50, newest=True), frequencies)
            asked = counted(monkeypatch)
            await search(connection, sieve, Page(50, newest=True), frequencies)
    assert asked == [None]
