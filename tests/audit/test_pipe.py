"""Appending ahead: what is sent before the answer to what it rests on, and what becomes of it if that is another."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from app.audit import pipe, writer
from app.audit.batch import Batch, ConditionViolated
from app.audit.log import Log
from app.audit.pipe import Pipe
from tests.audit.drafts import draft, stored_ids, unless
from tests.database import SEALER

Send = Callable[[Pipe, Batch, bytes], None]


def sending(monkeypatch: pytest.MonkeyPatch, instead: Callable[[Send, Pipe, Batch, bytes], None]) -> None:
    """Have something happen when a batch is sent."""
    send = Pipe.send
    monkeypatch.setattr(Pipe, "send", lambda *given: instead(send, *given))  # pyright: ignore


@pytest.fixture
async def sent(log: Log, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Note of each batch after which position it was sent, and how many entries it had; the first is sent before."""
    found: list[tuple[int, int]] = []

    def look(send: Send, pipe: Pipe, batch: Batch, upon: bytes) -> None:
        found.append((batch.after, len(batch.records)))
        send(pipe, batch, upon)

    await log.append([draft()])
    sending(monkeypatch, look)
    return found


async def append_again(log: Log, times: int) -> None:
    for _ in range(times):
        await log.append([draft()])


async def test_the_next_batch_is_sent_while_one_is_under_way(log: Log, sent: list[tuple[int, int]]) -> None:
    assert await asyncio.gather(*(log.append([draft()]) for _ in range(writer.ALONE))) == list(range(2, 10))
    half = writer.ALONE // 2
    assert sent == [(1, half), (1 + half, half)]


async def test_few_go_together(log: Log, sent: list[tuple[int, int]]) -> None:
    await asyncio.gather(*(append_again(log, 5) for _ in range(3)))
    assert [size for _, size in sent] == [3] * 5


async def test_whoever_is_answered_joins_those_who_waited_meanwhile(
    log: Log, dsn: str, sent: list[tuple[int, int]]
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(7305796)")  # which an append waits for
        callers = [asyncio.create_task(append_again(log, 3))]
        while not sent:
            await asyncio.sleep(0)
        callers.append(asyncio.create_task(append_again(log, 3)))
        await asyncio.sleep(0.01)
    await asyncio.gather(*callers)
    assert [size for _, size in sent] == [1, 2, 2, 1]


async def test_what_was_sent_on_top_of_what_the_database_refused_is_decided_on_anew(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ALONE", 1)
    monkeypatch.setattr(writer, "BATCH", 1)
    known = draft("start")
    await log.append([known])
    outcomes = await asyncio.gather(
        log.append([replace(draft("first"), id=known.id)]),
        log.append([draft("second")], unless("first")),
        log.append([draft("third")], unless("second", after=1)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [psycopg.errors.UniqueViolation, int, ConditionViolated]
    assert [record.entry.type for record in (await log.read()).records] == ["start", "second"]


async def test_what_was_sent_ahead_is_not_appended_upon_as_many_entries_of_somebody_else(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process is faster than the first of two batches: the second's place is free, and not what it rests on."""
    monkeypatch.setattr(writer, "ALONE", 1)
    monkeypatch.setattr(writer, "BATCH", 1)
    async with Log.open(dsn, SEALER) as other, Log.open(dsn, SEALER) as log:
        await log.append([draft("start")])
        (theirs,) = (await log.read()).records
        lines = theirs.octets.replace(b'"type":"start"', b'"type":"theirs"').replace(theirs.entry.id.encode(), b"%s")
        sent: list[int] = []

        def overtake(send: Send, pipe: Pipe, batch: Batch, upon: bytes) -> None:
            if not sent:
                text = (lines % draft().id.encode()).decode()
                with psycopg.connect(dsn, autocommit=True) as connection:
                    connection.execute("SELECT audit.append(1, %s, %s, NULL)", (text, bytes(32)))
            sent.append(batch.after)
            send(pipe, batch, upon)

        sending(monkeypatch, overtake)
        outcomes = await asyncio.gather(
            log.append([draft("first")]),
            log.append([draft("second")], unless("theirs")),
            return_exceptions=True,
        )
        assert sent[:2] == [1, 2]
        assert [type(outcome) for outcome in outcomes] == [int, ConditionViolated]
        assert [one.entry.type for one in (await other.read()).records] == ["start", "theirs", "first"]


@pytest.mark.parametrize("committed", [True, False])
async def test_an_answer_that_is_lost_on_the_way_is_looked_up(
    log: Log, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    count = {"sent": 0, "ended": 0}
    take: Callable[[Pipe, PGresult | None], None] = Pipe._take  # pyright: ignore[reportPrivateUsage]

    def fail(send: Send, pipe: Pipe, batch: Batch, upon: bytes) -> None:
        count["sent"] += 1
        if not committed and count["sent"] % 3 == 0:
            pipe._loop.call_soon(pipe._lose)  # pyright: ignore[reportPrivateUsage]
        else:
            send(pipe, batch, upon)

    def lose(pipe: Pipe, result: PGresult | None) -> None:
        if committed and result and result.status == ExecStatus.PIPELINE_SYNC:
            count["ended"] += 1
            if count["ended"] % 3 == 0:
                raise psycopg.OperationalError("the connection was lost")
        take(pipe, result)

    sending(monkeypatch, fail)
    monkeypatch.setattr(Pipe, "_take", lose)
    drafts = [[draft("A", [f"n:{n}"]), draft("B"), draft("C")] for n in range(60)]
    await asyncio.gather(*(log.append(three, unless(tags=[f"n:{n}"])) for n, three in enumerate(drafts[:12])))
    for start in range(12, 60, 12):
        some = enumerate(drafts[start : start + 12], start)
        positions = await asyncio.gather(*(log.append(three, unless(tags=[f"n:{n}"])) for n, three in some))
        assert positions == list(range(3 * start + 3, 3 * start + 39, 3))
    assert await stored_ids(log) == [one.id for three in drafts for one in three]
    assert max(count.values()) >= 6


async def test_an_append_that_the_database_keeps_for_too_long_stands_in_the_log_once(
    log: Log, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the lock lets go of it while the first try still waits for it, and the second one, too."""
    await log.append([draft()])
    monkeypatch.setattr(pipe, "ANSWER_WITHIN", 0.1)
    waiting = [draft() for _ in range(12)]
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("SELECT pg_advisory_lock(7305796)")
        appends = [asyncio.create_task(log.append([one])) for one in waiting]
        await asyncio.sleep(0.4)
        assert not any(append.done() for append in appends)
    await asyncio.gather(*appends)
    assert (await stored_ids(log))[1:] == [one.id for one in waiting]


async def test_a_batch_that_is_larger_than_what_a_socket_takes_is_sent_bit_by_bit(log: Log) -> None:
    await log.append([draft()])
    large = [draft(data={"text": "x" * 60_000}) for _ in range(40)]
    assert await asyncio.gather(*(log.append([one]) for one in large)) == list(range(2, 42))
    assert (await stored_ids(log))[1:] == [one.id for one in large]


async def test_a_connection_that_ends_while_nothing_is_under_way_is_made_anew(log: Log, dsn: str) -> None:
    await log.append([draft()])
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%audit.append%'"
                           " AND pid <> pg_backend_pid()")  # fmt: skip
    await asyncio.sleep(0.1)
    assert await log.append([draft()]) == 2


async def test_a_log_that_is_closed_has_appended_what_was_asked_for(dsn: str) -> None:
    async with Log.open(dsn, SEALER) as log:
        await log.append([draft()])
        appends: list[asyncio.Task[Any]] = [asyncio.create_task(log.append([draft()])) for _ in range(40)]
        await asyncio.sleep(0)
    assert [append.result() for append in appends] == list(range(2, 42))
