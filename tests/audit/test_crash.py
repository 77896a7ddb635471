"""Kill what appends, or what stores, at any moment: what was answered is there, whole and once."""

import asyncio
import random
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from app.audit import writer
from app.audit.log import Log
from app.domain.model import Selection
from tests.audit.crowd import APPENDS, append_all, check, following
from tests.audit.drafts import draft, stored_ids
from tests.database import SEALER, Databases, PrivateServer

ROOT = Path(__file__).parents[2]


@dataclass
class Mortal:
    """A database on a server that makes everything durable, and may be killed."""

    server: PrivateServer
    dsn: str

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[tuple[PrivateServer, Databases]]:
    with PrivateServer("fsync = on") as server:
        databases = Databases(server.dsn)
        await databases.prepare()
        yield server, databases


@pytest.fixture
def mortal(servers: tuple[PrivateServer, Databases]) -> Iterator[Mortal]:
    server, databases = servers
    with databases.fresh() as dsn:
        yield Mortal(server, dsn)


@pytest.mark.parametrize("lines", [1, 40, 300, 700])
async def test_killing_the_process_that_appends_loses_nothing_that_was_answered(dsn: str, lines: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.audit.crowd", dsn, cwd=ROOT, stdout=PIPE, limit=2**20
    )
    assert process.stdout is not None
    said = [await process.stdout.readline() for _ in range(lines)]
    process.kill()
    said += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    answered = [line.decode().split() for line in said if line.endswith(b"\n")]
    assert lines <= len(answered) < APPENDS
    async with Log.open(dsn, SEALER) as log:
        assert await log.append([draft("B", ["append:3000", "part:0"])]) == log.head
        records = (await log.read((Selection(("A",)),))).records
        check(records, {int(number): int(position) for number, position in answered})


@pytest.mark.parametrize("attempt", range(3))
async def test_killing_the_database_loses_nothing_that_was_answered_and_doubles_nothing(
    mortal: Mortal, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    monkeypatch.setattr(writer, "BATCH", 16)
    after = random.randrange(1, 900)
    acknowledged: dict[int, int] = {}
    async with Log.open(mortal.dsn, SEALER) as log, Log.open(mortal.dsn, SEALER) as other:
        async with following(log), following(other) as seen, asyncio.timeout(60):
            appending = asyncio.create_task(append_all(log, acknowledged.__setitem__))
            while len(acknowledged) < after:
                await asyncio.sleep(0)
            mortal.server.kill()  # not from a thread: nothing must be answered in the meantime
            assert len(acknowledged) < APPENDS
            await asyncio.sleep(0.3)
            await mortal.start()
            await appending
            while other.head < log.head:
                await asyncio.sleep(0.01)
        assert len(seen) == sum(1 + number % 3 for number in range(APPENDS))
    assert len(acknowledged) == APPENDS
    async with Log.open(mortal.dsn, SEALER) as log:
        check((await log.read()).records, acknowledged)


async def test_reads_go_on_once_the_database_is_back(mortal: Mortal) -> None:
    async with Log.open(mortal.dsn, SEALER) as log:
        await log.append([draft()])
        await asyncio.gather(*(log.read() for _ in range(20)))
        await mortal.kill()
        await mortal.start()
        async with asyncio.timeout(20):
            assert await log.append([draft()]) == 2
            pages = await asyncio.gather(*(log.read() for _ in range(20)))
    assert [page.head for page in pages] == [2] * 20


async def test_ending_all_our_connections_again_and_again_does_no_harm(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BATCH", 16)
    acknowledged: dict[int, int] = {}
    ended = 0
    async with (
        Log.open(dsn, SEALER) as log,
        Log.open(dsn, SEALER) as other,
        following(log),
        following(other),
        asyncio.timeout(60),
    ):
        appending = asyncio.create_task(append_all(log, acknowledged.__setitem__))
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            while not appending.done():
                await asyncio.sleep(random.uniform(0, 0.1))
                cursor = await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                ended += cursor.rowcount
        await appending
        await other.append([draft("A", ["append:3000", "part:0"])])
        while log.head < other.head:
            await asyncio.sleep(0.01)
    assert ended > 5
    async with Log.open(dsn, SEALER) as log:
        check((await log.read()).records, acknowledged)
        assert len(acknowledged) == APPENDS


async def test_an_append_that_waits_for_a_dead_database_goes_through_when_it_is_back(mortal: Mortal) -> None:
    async with Log.open(mortal.dsn, SEALER) as log:
        await mortal.kill()
        waiting = asyncio.create_task(log.append([draft()]))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await mortal.start()
        async with asyncio.timeout(10):
            assert await waiting == 1


async def test_a_log_whose_database_stays_away_says_so(mortal: Mortal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 0.3)
    kept = draft()
    async with Log.open(mortal.dsn, SEALER) as log:
        await log.append([kept])
        await mortal.kill()
        try:
            with pytest.raises(writer.LogUnavailable):
                await log.append([draft()])
        finally:
            await mortal.start()
        async with asyncio.timeout(10):
            assert await log.append([draft()]) == 2
        assert (await stored_ids(log))[0] == kept.id
