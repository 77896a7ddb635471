"""State seals: a replay comes to what was sealed, and where it does not, the table is named."""

from datetime import timedelta
from typing import Any

import pytest

from app.audit.log import Log
from app.domain.notebooks import NotebookCreated
from app.domain.states import StateSealed
from app.projections import read_model as read_model_module
from app.projections import seals as seals_module
from app.projections.generation import MODELS, Generation
from app.projections.notebooks import Notebooks
from app.projections.rebuild import rebuild
from app.projections.seals import seal_generation, seals_of, verify_seals
from tests.domain.cast import APOLLO, LAB, plots
from tests.projections.histories import History
from tests.projections.test_read_models import happen, projecting


async def sealed_at(log: Log, *commands: int) -> list[int]:
    """Let things happen, and seal the state now and then; give the positions."""
    history, positions = History(log, 5), list[int]()
    await history.begin()
    async with projecting(log) as projector:
        for number in commands:
            await history.go_on(number)
            assert await projector.reach(log.head)
            async with log.pool.connection() as connection:
                position = await seal_generation(log, connection)
            assert position is not None
            positions.append(position)
    return positions


async def test_a_replay_comes_to_every_state_that_was_sealed(log: Log) -> None:
    positions = await sealed_at(log, 40, 0, 60, 10)
    assert [seal.position for seal in await seals_of(log)] == positions
    checked = await verify_seals(log)
    assert (checked.seals, checked.mismatches, checked.not_compared) == (4, [], [])


async def test_an_entry_that_folds_differently_is_found_and_the_table_named(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = await sealed_at(log, 60, 400)
    evolve = Notebooks.evolve

    def wrong(self: Notebooks, row: Any, event: Any, record: Any) -> Any:
        return evolve(self, row, event, record) if record.position <= positions[0] else row

    monkeypatch.setattr(Notebooks, "evolve", wrong)
    checked = await verify_seals(log)
    assert [(one.table, one.position) for one in checked.mismatches] == [("notebooks", positions[1])]
    done = await rebuild(log, check_seals=True)
    assert done.checked is not None
    assert list(done.checked.mismatches) == list(checked.mismatches)
    assert done.counts["notebooks"] > 0


async def test_a_new_version_of_a_model_leaves_the_seals_of_the_others_good(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed_at(log, 60)
    monkeypatch.setattr(Notebooks, "version", 2)
    checked = await verify_seals(log)
    assert (checked.seals, checked.mismatches, checked.not_compared) == (1, [], ["notebooks 1"])


async def test_a_digest_is_of_the_rows_and_not_of_the_clock_or_the_place(log: Log, dsn: str) -> None:
    await sealed_at(log, 60)
    async with log.pool.connection() as connection:
        await connection.execute("SET TimeZone = 'Asia/Kolkata'")
        await seal_generation(log, connection)
        await connection.execute("RESET TimeZone")
    one, other = await seals_of(log)
    assert one.digests == other.digests


async def test_a_table_that_was_just_filled_is_digested_along_its_key_and_not_sorted_for_each_page(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_model_module, "PAGE", 100)
    named = (f"notebook-{number}" for number in range(400))
    await happen(log, *(NotebookCreated(notebook=name, project=APOLLO, group=LAB, title="Plots") for name in named))
    await rebuild(log)
    query = "SELECT seq_scan FROM pg_stat_user_tables WHERE schemaname = 'read' AND relname = 'notebooks'"
    async with log.pool.connection() as connection:
        told: list[tuple[int]] = []
        for _ in range(2):
            await connection.execute("SELECT pg_stat_force_next_flush()")
            told += await (await connection.execute(query)).fetchall()
            await seal_generation(log, connection)
    assert told[0] == told[1]


async def test_a_digest_depends_on_every_row_and_column(log: Log) -> None:
    await sealed_at(log, 60)
    for statement in (
        "UPDATE read.groups SET members = '{}' WHERE slug = 'lab'",
        "DELETE FROM read.users WHERE username = 'bob'",
        "UPDATE read.projects SET visibility = 'public', position = position + 1",
    ):
        async with log.pool.connection() as connection:
            await connection.execute(statement.encode())
            await seal_generation(log, connection)
    changed = [
        [one.table for one, other in zip(before.digests, after.digests, strict=True) if one != other]
        for before, after in zip(await seals_of(log), (await seals_of(log))[1:], strict=False)
    ]
    assert changed == [["groups"], ["users"], ["projects"]]


async def test_the_columns_that_are_sealed_are_masked_and_no_others(log: Log) -> None:
    """A fold without disclosures gives the masked rows: `evolve` decides nothing by what is sealed."""
    await sealed_at(log, 80)
    live = Generation(log)
    records = (await log.read()).records  # nothing is revealed in these
    async with log.pool.connection() as connection:
        for model in live.models:
            bare: dict[str, Any] = {}
            for record in records:
                if isinstance(record.event, model.events):
                    key = getattr(record.event, model.key)
                    bare[key] = model.evolve(bare.get(key), record.event, record)
            rows = [row async for page in model.pages(connection, "read") for row in page]
            shown = [model.masked(row) for row in rows]
            assert shown == [row for _, row in sorted(bare.items()) if row is not None]
            assert (rows != shown) == bool(rows)


async def test_there_is_a_seal_once_a_day_if_anything_happened(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    is_due = seals_module._is_due  # pyright: ignore[reportPrivateUsage]
    assert not await is_due(log)
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, *plots))
        assert not await is_due(log)
        monkeypatch.setattr(seals_module, "EVERY", timedelta(0))
        assert await is_due(log)
        async with log.pool.connection() as connection:
            await seal_generation(log, connection)
        assert not await is_due(log)
        await happen(log, plots[0])
        assert await is_due(log)
        monkeypatch.setattr(seals_module, "EVERY", timedelta(days=1))
        assert not await is_due(log)


def test_every_model_says_which_of_its_columns_are_sealed() -> None:
    for model in MODELS:
        assert set(model.sealed) <= set(model.row.__struct_fields__)
        texts = {"title", "username", "log"} & set(model.row.__struct_fields__)
        assert set(model.sealed) == texts


async def test_a_seal_is_of_the_newest_shape(log: Log) -> None:
    await sealed_at(log, 5)
    [seal] = await seals_of(log)
    assert isinstance(seal, StateSealed)
    assert {(one.table, one.version) for one in seal.digests} == {(model.table(), model.version) for model in MODELS}
