"""Replaying: however long the log, a page of it is in memory, and is folded in the time that its own rows take."""

import asyncio
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from app.audit.entry import Record
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.domain.names import ERASED
from app.domain.notebooks import NotebookCreated
from app.domain.runs import NotebookStartRequested
from app.domain.subjects import SubjectErased
from app.domain.users import LoggedOut
from app.keys import Keys
from app.platform import Platform
from app.projections import generation as generation_module
from app.projections import replay as replay_module
from app.projections.guarded import SEALING
from app.projections.notebooks import Notebooks
from app.projections.rebuild import rebuild
from app.projections.seals import keep_sealing
from app.settings import Settings
from app.tasks import end
from tests.database import SEALER
from tests.domain.cast import ADA, APOLLO, LAB, an_id
from tests.projections.test_read_models import happen

PAGE, NOTEBOOKS = 20, 400
AT_MOST = 2 * 2 * PAGE
"""Records in memory: of two pages, what was read, and copies of those entries that hold something sealed."""


@pytest.fixture
async def notebooks(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of many notebooks, and small pages."""
    monkeypatch.setattr(replay_module, "PAGE", PAGE)
    monkeypatch.setattr(generation_module, "PAGE", PAGE)
    named = (f"notebook-{number}" for number in range(NOTEBOOKS))
    await happen(log, *(NotebookCreated(notebook=name, project=APOLLO, group=LAB, title="Plots") for name in named))


def in_memory() -> int:
    """Count the records that something holds, of any log."""
    return len({id(one) for one in gc.get_referents(*gc.get_objects()) if type(one) is Record})


@pytest.mark.usefixtures("notebooks")
async def test_two_pages_of_the_log_are_in_memory_and_no_more(dsn: str) -> None:
    counts: list[int] = []
    async with Log.open(dsn, SEALER) as other:  # it has appended nothing, and keeps nothing of it for its followers
        before = in_memory()
        done = await rebuild(other, lambda position, head: counts.append(in_memory()))
    assert done.entries == NOTEBOOKS
    assert 0 < max(counts) - before <= AT_MOST


@pytest.mark.usefixtures("notebooks")
async def test_so_it_is_when_a_row_that_rests_on_many_entries_is_folded_again(
    log: Log, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, write, counts = "notebook-7", Notebooks.write, list[int]()
    history = [NotebookStartRequested(notebook=name, run=an_id("run", number)) for number in range(5 * PAGE)]
    position = await happen(log, *history, SubjectErased(subject=f"notebook:{name}"))

    async def look(model: Notebooks, connection: AsyncConnection, schema: str, rows: Mapping[str, Any]) -> None:
        counts.append(in_memory())
        await write(model, connection, schema, rows)

    monkeypatch.setattr(Notebooks, "write", look)
    async with Log.open(dsn, SEALER) as other:
        before = in_memory()
        assert (await rebuild(other)).position == position
        row = await Notebooks(other.pool).row_of(name)
    assert row is not None
    assert (row.title, row.run) == (ERASED, history[-1].run)
    assert max(counts) - before <= AT_MOST


@pytest.mark.usefixtures("notebooks")
async def test_rows_are_looked_up_and_no_table_is_read_through_for_a_page(dsn: str) -> None:
    async with Log.open(dsn, SEALER) as other:
        await rebuild(other)
    query = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE schemaname = 'read' AND relname = 'notebooks'"
    read_through, looked_up = 0, 0
    async with asyncio.timeout(10):
        while looked_up < NOTEBOOKS:  # a backend tells what it did when it ends
            with psycopg.connect(dsn) as connection:
                read_through, looked_up = connection.execute(query).fetchone() or (0, 0)
            await asyncio.sleep(0.05)
    assert read_through <= 5, "to compare, to seal, and to write it and its two indexes for good: not for each page"


@pytest.mark.usefixtures("notebooks")
async def test_it_rests_after_short_pages_while_the_platform_is_up_in_any_process_and_only_then(
    log: Log, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE_BESIDE", PAGE // 2)
    monkeypatch.setattr(replay_module, "REST", 3_600)
    async with Log.open(dsn, SEALER) as other:
        sealing = asyncio.create_task(keep_sealing(other))
        while not await log.is_led(SEALING):
            await asyncio.sleep(0.01)
        told: list[int] = []
        beside = asyncio.create_task(rebuild(log, lambda position, head: told.append(position)))
        while not told:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert told == [PAGE // 2]
        await end([beside, sealing])
    assert not await log.is_led(SEALING)
    done = await asyncio.wait_for(rebuild(log), 30)
    assert (done.began_at, done.entries) == (PAGE // 2, NOTEBOOKS - PAGE // 2)


async def test_whoever_starts_makes_what_is_missing_without_a_rest_and_is_up_then(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", PAGE)
    monkeypatch.setattr(replay_module, "REST", 3_600)
    keys = Keys(b"k" * 32)
    async with Log.open(dsn, Sealer(keys.vault_key())) as log, asyncio.timeout(30):
        position = await happen(log, *[LoggedOut(user=ADA, session=f"session-{number}") for number in range(3 * PAGE)])
        async with Platform.open(Settings(data=tmp_path), keys, dsn) as platform:
            assert platform.projector.position >= position
            while not await log.is_led(SEALING):
                await asyncio.sleep(0.01)
