"""Following: every entry, each once, in order, from wherever and whenever one begins."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit import feed
from app.audit import log as log_module
from app.audit.entry import Record
from app.audit.feed import Feed
from app.audit.log import Log
from app.domain.model import Selection
from tests.audit.drafts import draft
from tests.audit.workload import Run, Step, steps
from tests.database import SEALER, Databases

unhurried = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def say_nothing(log: Log) -> None:
    """Stand in for whoever tells other processes that the log has grown."""


async def follow_to(log: Log, after: int, head: int) -> list[int]:
    """Follow until a position was seen; give the positions, in the order in which they came."""
    seen: list[int] = []
    async for records in log.follow(after):
        seen += [record.position for record in records]
        if seen[-1] >= head:
            break
    return seen


@unhurried
@given(
    writers=st.lists(st.lists(steps, min_size=1, max_size=4), min_size=1, max_size=4),
    followers=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=1, max_size=4),
    keep=st.integers(1, 5),
    page=st.integers(1, 3),
)
async def test_followers_that_begin_anywhere_and_at_any_time_see_each_entry_once(
    databases: Databases, writers: list[list[Step]], followers: list[tuple[int, int]], keep: int, page: int
) -> None:
    with databases.fresh() as dsn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "KEEP", keep)
        patch.setattr(feed, "PAGE", page)
        async with Log.open(dsn, SEALER, 4) as log, Log.open(dsn, SEALER, 4) as other:
            logs = (log, other)
            ends = [asyncio.create_task(observe(logs[n % 2], late, after)) for n, (late, after) in enumerate(followers)]
            await Run().write_all(logs, writers)
            await log.append([draft("end")])
            head = log.head
            async with asyncio.timeout(20):
                observed = await asyncio.gather(*ends)
        for after, positions in observed:
            assert positions == list(range(after + 1, head + 1))


async def observe(log: Log, late: int, after: int) -> tuple[int, list[int]]:
    """Begin somewhat later, somewhere before the end, and go on to the entry that is called the end."""
    for _ in range(late * 3):
        await asyncio.sleep(0.001)
    after = max(0, min(after, log.head - 1))
    positions: list[int] = []
    async for records in log.follow(after):
        positions += [record.position for record in records]
        if records[-1].entry.type == "end":
            break
    return after, positions


async def test_a_follower_of_another_process_is_told_at_once(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "POLL", 60)
    async with Log.open(dsn, SEALER) as log, Log.open(dsn, SEALER) as other:
        await asyncio.sleep(0.1)
        following = asyncio.create_task(follow_to(other, 0, 3))
        async with asyncio.timeout(5):
            for _ in range(3):
                await log.append([draft()])
            assert await following == [1, 2, 3]


async def test_a_notification_that_was_lost_is_made_up_for(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "POLL", 0.05)
    monkeypatch.setattr(Log, "_announce", say_nothing)
    async with Log.open(dsn, SEALER) as log, Log.open(dsn, SEALER) as other:
        await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            await log.append([draft()])
            assert await follow_to(other, 0, 1) == [1]


async def test_a_follower_waits_where_the_log_ends(log: Log) -> None:
    await log.append([draft()])
    following = asyncio.create_task(follow_to(log, 1, 2))
    await asyncio.sleep(0.05)
    assert not following.done()
    await log.append([draft()])
    assert await following == [2]


async def test_a_follower_that_goes_away_does_not_disturb_the_others(log: Log) -> None:
    leaving = asyncio.create_task(follow_to(log, 0, 100))
    staying = asyncio.create_task(follow_to(log, 0, 20))
    for n in range(20):
        await log.append([draft()])
        if n == 10:
            leaving.cancel()
    async with asyncio.timeout(5):
        assert await staying == list(range(1, 21))


async def test_what_is_read_is_what_matches_with_the_head_of_the_same_moment(log: Log) -> None:
    await log.append([draft("A", ["x"]), draft("B", ["x", "y"]), draft("A", ["y"]), draft("C")])

    async def positions(*selections: Selection, after: int = 0, limit: int | None = None) -> list[int]:
        page = await log.read(selections, after, limit)
        assert page.head == 4
        return [record.position for record in page.records]

    assert await positions() == [1, 2, 3, 4]
    assert await positions(Selection()) == [1, 2, 3, 4]
    assert await positions(Selection(("A",))) == [1, 3]
    assert await positions(Selection(("A", "B"), ("y",))) == [2, 3]
    assert await positions(Selection((), ("x", "y"))) == [2]
    assert await positions(Selection(("A",), ("x",)), Selection(("C",))) == [1, 4]
    assert await positions(Selection((), ("x",)), after=1) == [2]
    assert await positions(after=1, limit=2) == [2, 3]
    assert await positions(limit=0) == []
    assert await positions(Selection(("D",))) == []


async def test_an_empty_log_has_its_head_at_0(log: Log) -> None:
    page = await log.read()
    assert (page.records, page.head, log.head) == ([], 0, 0)


def a_record(position: int) -> Record:
    one = draft()
    return Record(
        position,
        b'{"actor":{"kind":"system"},"at":"2026-11-23T00:00:00Z","data":{},"id":"%s","outcome":"success","tags":[],"type":"A","v":1}'
        % one.id.encode(),
    )


@given(offers=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=20))
def test_a_feed_takes_what_follows_on_its_head_and_leaves_the_rest(offers: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "KEEP", 3)
        window, head = Feed(2, never), 2
        for start, count in offers:
            window.offer([a_record(position) for position in range(start, start + count)])
            if start <= head + 1 < start + count:
                head = start + count - 1
            assert window.head == head


async def never(after: int, limit: int) -> list[Record]:
    raise AssertionError("nothing has to be read")


async def test_who_waits_to_lead_keeps_no_old_versions_of_rows_and_leads_next(log: Log, dsn: str) -> None:
    """For whoever waits with a snapshot, what is erased stays in the database's files."""
    led: list[str] = []

    async def lead(other: Log) -> None:
        async with other.leading("test"):
            led.append("other")

    async with Log.open(dsn, SEALER) as other:
        async with log.leading("test"):
            waiting = asyncio.create_task(lead(other))
            await asyncio.sleep(0.5)
            async with log.pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL"
                )
                assert await cursor.fetchone() == (0,)
            assert led == []
        await asyncio.wait_for(waiting, 10)
    assert led == ["other"]
