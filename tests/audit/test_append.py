"""Appending: in order, without a gap, all or nothing, and exactly on the condition."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace
from psycopg import AsyncConnection

from app.audit import recent, writer
from app.audit.batch import Batch, ConditionViolated
from app.audit.entry import MAX_ENTRY, Actor, Draft
from app.audit.log import Log
from app.audit.writer import LogUnavailable
from app.domain.model import Selection
from tests.audit.drafts import draft, stored_ids, unless
from tests.audit.workload import Run, Step, steps
from tests.database import SEALER, Databases

Insert = Callable[[AsyncConnection, Batch], Awaitable[int]]

unhurried = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@unhurried
@given(
    writers=st.lists(st.lists(steps, min_size=1, max_size=5), min_size=2, max_size=8),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
)
async def test_writers_in_two_processes_get_what_they_would_get_one_after_the_other(
    databases: Databases, writers: list[list[Step]], sizes: tuple[int, int, int]
) -> None:
    with databases.fresh() as dsn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "BATCH", sizes[0])
        patch.setattr(writer, "ALONE", sizes[0])
        patch.setattr(writer, "READ_ON", sizes[1])
        patch.setattr(recent, "KEEP", sizes[2])
        run = Run()
        async with Log.open(dsn, SEALER, 2) as log, Log.open(dsn, SEALER, 2) as other:
            await run.write_all((log, other), writers)
            run.check((await log.read()).records)


async def test_many_writers_in_two_processes_with_everything_as_large_as_in_production(dsn: str) -> None:
    chance = random.Random(20)
    choices = [
        Step((("A", (tag,)), ("B", ())), (Selection(("A",), (tag,)),), back) for tag in "xyz" for back in (0, 3, 10_000)
    ]
    run = Run()
    async with Log.open(dsn, SEALER) as log, Log.open(dsn, SEALER) as other:
        await run.write_all((log, other), [chance.choices(choices, k=20) for _ in range(40)])
        run.check((await log.read()).records)
        refused = sum(outcome.position is None for outcome in run.outcomes)
        assert 0 < refused < len(run.outcomes) == 800


async def test_of_many_that_rest_on_the_same_one_is_accepted(log: Log) -> None:
    appends = [log.append([draft("A", ["x"])], unless("A", tags=["x"])) for _ in range(100)]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome != 1] == [ConditionViolated] * 99
    assert log.head == 1


async def test_nothing_is_refused_because_of_what_was_not_appended_after_all(dsn: str) -> None:
    """Two wait together; somebody else's append refuses the first, so that the second one's condition holds."""
    async with Log.open(dsn, SEALER) as log, Log.open(dsn, SEALER) as other:
        await log.append([draft("start")])
        await other.append([draft("theirs")])
        outcomes = await asyncio.gather(
            log.append([draft("first")], unless("theirs")),
            log.append([draft("second")], unless("first")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [ConditionViolated, int]
        assert [record.entry.type for record in (await log.read()).records] == ["start", "theirs", "second"]


async def test_what_an_append_adds_does_not_violate_its_own_condition(log: Log) -> None:
    assert await log.append([draft("A"), draft("A"), draft("A")], unless("A")) == 3


async def test_an_append_without_a_condition_rests_on_nothing(log: Log) -> None:
    assert [await log.append([draft("A", ["x"])]) for _ in range(3)] == [1, 2, 3]


async def test_a_condition_looks_only_at_what_comes_after_its_position(log: Log) -> None:
    await log.append([draft("A")])
    assert await log.append([draft("A")], unless("A", after=1)) == 2
    with pytest.raises(ConditionViolated):
        await log.append([draft("A")], unless("A", after=1))


async def test_a_condition_older_than_what_is_kept_in_memory_is_checked_in_the_database(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "KEEP", 2)
    await log.append([draft("A", ["x"])])
    for _ in range(10):
        await log.append([draft("B")])
    with pytest.raises(ConditionViolated):
        await log.append([draft("C")], unless("A", tags=["x"]))
    assert await log.append([draft("C")], unless("A", tags=["x"], after=1)) == 12
    assert await log.append([draft("C")], unless("A", tags=["y"])) == 13


async def test_a_condition_older_than_the_process_is_checked_in_the_database(dsn: str) -> None:
    async with Log.open(dsn, SEALER) as before:
        await before.append([draft("A", ["x"])])
    async with Log.open(dsn, SEALER) as log:
        with pytest.raises(ConditionViolated):
            await log.append([draft("B")], unless("A"))
        assert await log.append([draft("B")], unless("B")) == 2


@pytest.mark.parametrize(
    "bad",
    [
        draft("A", data={"text": "x" * MAX_ENTRY}),
        draft("A", ["two words"]),
        draft("A", [""]),
        draft("A", ['quote"d']),
        draft("A", ["back\\slash"]),
        draft("A", ["new\nline"]),
        draft("A", ["é"]),
        draft("A", ["x" * 201]),
    ],
    ids=["too long", "space", "empty", "quote", "backslash", "newline", "accent", "long tag"],
)
async def test_an_entry_that_cannot_be_stored_is_refused_alone(log: Log, bad: Draft) -> None:
    good = [draft("A") for _ in range(20)]
    appends = [log.append([one]) for one in good]
    appends.insert(10, log.append([draft("A"), bad]))
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(outcomes.pop(10), ValueError)
    assert outcomes == list(range(1, 21))
    assert await stored_ids(log) == [one.id for one in good]


async def test_an_entry_that_only_the_database_refuses_is_refused_alone(log: Log) -> None:
    """NUL is in canonical JSON and in no `text` of PostgreSQL; an id is used once."""
    known = draft("A")
    await log.append([known])
    bad = [draft("A", data={"text": "\0"}), known, replace(draft("A"), data=Raw(b"no json"))]
    good = [draft("A") for _ in range(20)]
    outcomes = await asyncio.gather(*(log.append([one]) for one in (*bad, *good)), return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes[:3])
    assert outcomes[3:] == list(range(2, 22))
    assert await stored_ids(log) == [known.id, *(one.id for one in good)]


async def test_the_largest_entry_there_may_be_is_stored(log: Log) -> None:
    empty = draft("A", data={"text": ""})
    await log.append([empty])
    spare = MAX_ENTRY - len((await log.read()).records[0].octets) - len('.000000"') + len('"')
    # The time that the log gives has six digits of a second, but for one entry in a million.
    await log.append([draft("A", data={"text": "x" * (spare - 10)})])
    assert MAX_ENTRY - 30 < len((await log.read()).records[1].octets) <= MAX_ENTRY


@pytest.mark.timeout(20)
async def test_appending_nothing_is_refused(log: Log) -> None:
    with pytest.raises(ValueError, match="at least one"):
        async with asyncio.timeout(2):
            await log.append([])


async def test_callers_that_go_away_do_no_harm(log: Log) -> None:
    chance = random.Random(3)
    drafts = [[draft("A"), draft("B")] for _ in range(200)]
    tasks = [asyncio.create_task(log.append(pair, unless("C"))) for pair in drafts]
    for task in chance.sample(tasks, 60):
        await asyncio.sleep(0)
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert await log.append([draft("B")]) == log.head
    ids = (await stored_ids(log))[:-1]
    told = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(told) >= 140
    assert len(set(told)) == len(told)
    for pair, outcome in zip(drafts, outcomes, strict=True):
        if not isinstance(outcome, BaseException):
            assert ids[outcome - 2 : outcome] == [one.id for one in pair]
        elif pair[0].id in ids:
            assert ids[ids.index(pair[0].id) + 1] == pair[1].id
        else:
            assert pair[1].id not in ids
    assert len(ids) == len(set(ids))


async def test_times_never_decrease_even_if_the_clock_does(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        back = timedelta()

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - cls.back

    monkeypatch.setattr(writer, "datetime", Clock)
    async with Log.open(dsn, SEALER) as log, Log.open(dsn, SEALER) as other:
        for back in (timedelta(), timedelta(hours=1), timedelta(seconds=1), timedelta(days=1), timedelta()):
            Clock.back = back
            await log.append([draft("A")])
            await other.append([draft("A")])
        times = [record.entry.at for record in (await log.read()).records]
    Clock.back = timedelta(days=2)
    async with Log.open(dsn, SEALER) as later:
        await later.append([draft("A")])
        times.append((await later.read()).records[-1].entry.at)
    assert times == sorted(times)
    assert datetime.now(UTC) - times[-1] < timedelta(minutes=1)


async def test_what_is_stored_is_what_was_hashed_and_the_columns_agree_with_it(dsn: str) -> None:
    ada = Actor(kind="user", id="usr_1", via="session")
    drafts = [
        draft(
            "A", ["group:x", "user:null", "a:b@c/d+e=f.g_h-i"], data={"text": 'é"\\\n\t{}[],\u2028😀 null'}, actor=ada
        ),
        draft("B", outcome="refused"),
        draft("Größe", ["null"], data={"number": 2**53 - 1, "none": None, "yes": True}, outcome="failed"),
    ]
    async with Log.open(dsn, SEALER) as log:
        await log.append(drafts)
        records = (await log.read()).records
    async with await AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute(
            "SELECT bytes::text, leaf_hash, id::text, type, tags, actor, outcome, at"
            " FROM audit.entries ORDER BY position"
        )
        rows = await cursor.fetchall()
    for record, row, one in zip(records, rows, drafts, strict=True):
        entry, octets = record.entry, row[0].encode()
        assert octets == record.octets
        assert row[1] == hashlib.sha256(b"\0" + octets).digest()
        assert row[2:] == (entry.id, entry.type, list(entry.tags), entry.actor.id, entry.outcome, entry.at)
        assert (entry.id, entry.tags, entry.type, bytes(entry.data)) == (one.id, one.tags, one.type, bytes(one.data))
        assert msgspec.json.encode(msgspec.json.decode(octets), order="sorted") == octets


@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_whose_answer_was_lost_is_looked_up(
    log: Log, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    insert: Insert = writer._insert  # pyright: ignore[reportPrivateUsage]
    lost: list[int] = []

    def nothing(*_: object) -> None:
        """Send nothing ahead."""

    async def lose_every_other_answer(connection: AsyncConnection, batch: Batch) -> int:
        lost.append(batch.after)
        if len(lost) % 2:
            if committed:
                await insert(connection, batch)
            raise psycopg.OperationalError("the connection was lost")
        return await insert(connection, batch)

    monkeypatch.setattr(writer.Writer, "_made_ready", nothing)
    monkeypatch.setattr(writer, "_insert", lose_every_other_answer)
    monkeypatch.setattr(writer, "BATCH", 3)
    drafts = [[draft("A", [f"n:{n}"]), draft("B"), draft("C")] for n in range(12)]
    positions = await asyncio.gather(*(log.append(three, unless(tags=[f"n:{n}"])) for n, three in enumerate(drafts)))
    assert await stored_ids(log) == [one.id for three in drafts for one in three]
    assert positions == list(range(3, 37, 3))
    assert len(lost) >= 4


async def test_a_log_that_cannot_be_written_says_so_and_goes_on_when_it_can(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> int:
        raise psycopg.OperationalError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_insert", refuse)
        patch.setattr(writer, "PATIENCE", 0.1)
        outcomes = await asyncio.gather(*(log.append([draft()]) for _ in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LogUnavailable] * 5
    assert await log.append([draft()]) == 1


async def test_two_processes_that_never_pause_both_get_on(dsn: str) -> None:
    done = {"one": 0, "other": 0}

    async def write(name: str, log: Log) -> None:
        while min(done.values()) < 20:
            await log.append([draft()])
            done[name] += 1

    async with Log.open(dsn, SEALER) as one, Log.open(dsn, SEALER) as other, asyncio.timeout(30):
        await asyncio.gather(*(write("one", one) for _ in range(8)), *(write("other", other) for _ in range(8)))


async def test_a_log_that_is_closed_while_news_comes_in_is_closed(dsn: str) -> None:
    async with asyncio.timeout(30):
        for _ in range(60):
            async with Log.open(dsn, SEALER, 2) as log:
                await log.append([draft()])
