"""Rebuilding: it goes on where it was killed, tells what had been different, keeps the old, and shows any position."""

import asyncio
import random
import signal
import sys

import pytest
from psycopg.errors import InvalidSchemaName, UndefinedTable

from app.audit.log import Log
from app.domain.states import StateRebuilt, StateSealed
from app.projections import replay as replay_module
from app.projections.differences import NothingToCompare, TableMissing, find_differences
from app.projections.generation import MODELS, Generation
from app.projections.notebooks import Notebooks
from app.projections.projects import Projects
from app.projections.rebuild import drop_old, rebuild, rebuild_to
from tests.database import FAST, SEALER, Databases, PrivateServer
from tests.domain.cast import APOLLO, PLOTS, apollo, plots
from tests.projections.histories import History
from tests.projections.test_read_models import TABLES, happen, projecting, tables


async def lived(log: Log, commands: int = 120, seed: int = 3) -> int:
    """Let things happen and be projected; give where the log ends."""
    history = History(log, seed)
    await history.begin()
    await history.go_on(commands)
    async with projecting(log) as projector:
        assert await projector.reach(log.head)
    return log.head


async def start(dsn: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.projections.rebuilding", dsn, stdout=asyncio.subprocess.PIPE
    )


async def words(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().split()


async def test_a_rebuild_that_is_killed_at_any_point_goes_on_from_there(log: Log, dsn: str) -> None:
    head, chance, reached = await lived(log, 250), random.Random(7), 0
    before = await tables(log)
    for _ in range(4):
        process = await start(dsn)
        line = await words(process)
        assert line[0] == "at"
        assert int(line[1]) > reached, "it began anew"
        for _ in range(chance.randrange(3)):
            line = await words(process)
        reached = int(line[1])
        assert reached < head, "too short a history"
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert await tables(log) == before
    process = await start(dsn)
    assert process.stdout is not None
    told = (await process.stdout.read()).decode().splitlines()
    assert await process.wait() == 0
    began_at, position, differences = map(int, told[-1].split()[1:])
    assert began_at >= reached > 0
    assert (position, differences) == (head, 0)
    assert await tables(log) == before


@pytest.mark.parametrize("only", [None, Projects])
async def test_what_was_rebuilt_is_written_for_good(log: Log, only: type[Projects] | None) -> None:
    await lived(log)
    await rebuild(log, only=only)
    schema = await rebuild_to(log, 20)
    async with log.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT oid::regclass::text, relpersistence FROM pg_class"
            " WHERE relkind IN ('r', 'i') AND relnamespace::regnamespace::text IN ('read', %s)",
            (schema,),
        )
        kept = dict(await cursor.fetchall())
    assert len(kept) > 2 * len(MODELS)
    assert {table for table, how in kept.items() if how != "p"} == set()


async def test_a_rebuild_begins_anew_if_the_database_crashed_meanwhile() -> None:
    with PrivateServer(*FAST) as server:
        databases = Databases(server.dsn)
        await databases.prepare()
        with databases.fresh() as dsn:
            async with Log.open(dsn, SEALER) as log:
                head = await lived(log)
                before = await tables(log)
                async with log.pool.connection() as connection:
                    replay = replay_module.Replay(log, Generation(log, "read_next"), connection)
                    await replay.begin()
                    await replay.go_on(head // 2)
                    await connection.execute("CHECKPOINT")  # whatever survives a crash is on the disk now
                server.kill()
                await asyncio.to_thread(server.start)
            async with Log.open(dsn, SEALER) as log:
                done = await rebuild(log)
                assert (done.began_at, done.position, done.differences) == (0, head, 0)
                assert await tables(log) == before


async def test_a_rebuild_of_another_shape_is_not_gone_on_with(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await lived(log)
    async with log.pool.connection() as connection:
        generation = Generation(log, "read_next")
        replay = replay_module.Replay(log, generation, connection)
        await replay.begin()
        await replay.go_on(30)
    monkeypatch.setattr(Notebooks, "version", 2)
    assert (await rebuild(log)).began_at == 0


async def test_a_rebuild_is_recorded_with_what_had_been_different_and_sealed(log: Log) -> None:
    head = await lived(log)
    async with log.pool.connection() as connection:
        await connection.execute("UPDATE read.groups SET members = '{}'")
        await connection.execute("DELETE FROM read.projects WHERE slug = (SELECT min(slug) FROM read.projects)")
    done = await rebuild(log)
    assert done.compared
    assert {table: count for table, count in done.counts.items() if count} == {"groups": 2, "projects": 1}
    assert [(row.table, row.found is None) for row in done.rows] == [
        ("groups", False),
        ("groups", False),
        ("projects", True),
    ]
    rebuilt, sealed = [record.event for record in (await log.read(after=head)).records]
    assert isinstance(rebuilt, StateRebuilt)
    assert (rebuilt.position, rebuilt.entries, rebuilt.differences) == (head, head, 3)
    assert isinstance(sealed, StateSealed)
    assert sealed.position == head
    assert [one.table for one in sealed.digests] == list(TABLES)


async def test_making_read_models_for_the_first_time_is_no_rebuild(log: Log) -> None:
    head = await happen(log, *plots)
    assert not (await rebuild(log)).compared
    assert log.head == head


async def test_one_table_is_rebuilt_and_the_others_are_not(log: Log) -> None:
    head = await lived(log)
    before = await tables(log)
    async with log.pool.connection() as connection:
        await connection.execute("DROP TABLE read.projects")
        await connection.execute("DELETE FROM read.notebooks")
    done = await rebuild(log, only=Projects)
    assert done.position == head
    assert list(done.counts) == ["projects"]
    after = await tables(log)
    assert after["projects"] == before["projects"]
    assert after["notebooks"] == []
    async with projecting(log) as projector:
        assert await projector.reach(log.head)
    await rebuild(log, only=Notebooks)
    assert await tables(log) == before


async def test_what_was_live_before_is_kept_until_told_otherwise(log: Log) -> None:
    await lived(log)
    before = await tables(log)
    async with log.pool.connection() as connection:
        await connection.execute("DELETE FROM read.tokens")
    await rebuild(log)
    assert (await tables(log, "read_old"))["tokens"] == []
    assert await tables(log) == before
    assert await drop_old(log) == ["read_old"]
    with pytest.raises((UndefinedTable, InvalidSchemaName)):
        await tables(log, "read_old")
    await rebuild(log, keep_old=False)
    assert await drop_old(log) == []


async def test_a_drop_that_waits_for_a_reader_holds_nothing_that_the_reader_may_want(log: Log) -> None:
    await lived(log)
    waiting = "SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"
    held = (
        "SELECT relname FROM pg_locks JOIN pg_class AS c ON c.oid = relation"
        " WHERE pid = %s AND mode = 'AccessExclusiveLock' AND granted AND relkind = 'r'"
    )
    async with log.pool.connection() as reading, asyncio.timeout(20):
        async with reading.transaction():
            await reading.execute("SELECT FROM read.groups")
            rebuilding = asyncio.create_task(rebuild(log, keep_old=False))
            while (row := await (await reading.execute(waiting)).fetchone()) is None:
                assert not rebuilding.done()
                await asyncio.sleep(0.01)
            assert await (await reading.execute(held, row)).fetchall() == []
        await rebuilding
    assert await drop_old(log) == []


async def test_the_state_of_a_position_is_folded_into_a_schema_of_its_own(log: Log) -> None:
    position = await happen(log, *apollo)
    async with projecting(log) as projector:
        assert await projector.reach(position)
        then = await tables(log, "read", "bookmark")
        assert await projector.reach(await happen(log, *plots[len(apollo) :]))
        now = await tables(log)
    schema = await rebuild_to(log, position)
    assert schema == f"read_at_{position}"
    assert await tables(log, schema, "bookmark") == then
    assert await tables(log) == now
    assert await drop_old(log) == [schema]


async def test_a_comparison_needs_something_to_compare(log: Log) -> None:
    await happen(log, *plots)
    with pytest.raises(NothingToCompare):
        await find_differences(log)


async def test_a_table_that_is_gone_is_all_different_and_is_not_mended_row_by_row(log: Log) -> None:
    await lived(log)
    async with log.pool.connection() as connection:
        await connection.execute("DROP TABLE read.projects")
    found = await find_differences(log)
    assert found.count == found.counts["projects"] > 0
    assert all(row.found is None for row in found.rows)
    with pytest.raises(TableMissing, match="state rebuild projects"):
        await find_differences(log, repair=True)


async def test_rows_are_compared_as_of_one_position_while_the_log_grows(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 50)
    history = History(log, 8)
    await history.begin()
    async with projecting(log) as projector:
        assert await projector.reach(log.head)
        growing = asyncio.create_task(history.go_on(300))
        compared = 0
        while not growing.done():
            assert (await find_differences(log)).rows == []
            compared += 1
        await growing
        assert compared > 1


async def test_a_projector_that_stopped_at_a_missing_table_goes_on_once_it_was_rebuilt(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.projections.projector.TRY_AGAIN", 0.05)
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, *apollo))
        async with log.pool.connection() as connection:
            await connection.execute("DROP TABLE read.notebooks")
        position = await happen(log, *plots[len(apollo) :])
        assert not await projector.reach(position)
        assert projector.failure is not None
        await rebuild(log)
        async with asyncio.timeout(5):
            while not await projector.reach(log.head):
                await asyncio.sleep(0.01)
        assert projector.failure is None
    found = await Notebooks(log.pool).row_of(PLOTS)
    assert found is not None
    assert found.project == APOLLO
