"""Erasure: what was sealed for somebody goes from every read model and every generation, however it was made."""

import asyncio
from collections.abc import Sequence

import pytest
from psycopg import AsyncConnection

from app.audit.entry import Record
from app.audit.log import Log
from app.domain.names import ERASED, Personal
from app.domain.notebooks import NotebookCreated
from app.domain.runs import NotebookFailed
from app.domain.subjects import SubjectErased
from app.projections import replay as replay_module
from app.projections.differences import find_differences
from app.projections.generation import MODELS, Generation
from app.projections.moments import Moments, Resource
from app.projections.notebooks import Notebooks
from app.projections.projects import Projects
from app.projections.rebuild import rebuild, rebuild_to
from app.projections.seals import seal_generation, verify_seals
from app.projections.users import Users
from tests.domain.cast import ADA, APOLLO, BOB, LAB, PLOTS, RUN, plots, wanted
from tests.projections.histories import History
from tests.projections.test_read_models import happen, projecting, tables

CANARY = "Ada's secret canary"
died = NotebookFailed(notebook=PLOTS, run=RUN, reason="exited", exit_code=1, log=Personal(CANARY))
renamed = NotebookCreated(notebook="canary", project=APOLLO, group=LAB, title=CANARY)


async def schemas(log: Log) -> list[str]:
    async with log.pool.connection() as connection:
        cursor = await connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'read%' ORDER BY 1")
        return [name for (name,) in await cursor.fetchall()]


async def holding(log: Log, text: str) -> list[str]:
    """Name every table of every generation in which a text stands."""
    found: list[str] = []
    async with log.pool.connection() as connection:
        for schema in await schemas(log):
            for model in MODELS:
                name = f"{schema}.{model.table()}"
                cursor = await connection.execute(
                    f"SELECT FROM {name} AS t WHERE strpos(t::text, %s) > 0".encode(), (text,)
                )
                found += [name] * cursor.rowcount
    return found


async def test_a_live_read_model_forgets_what_was_sealed_for_somebody(log: Log) -> None:
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, *plots))
        user = await Users(log.pool).row_of(ADA)
        assert user is not None
        assert user.username == "ada"
        assert await projector.reach(await happen(log, SubjectErased(subject=f"user:{ADA}")))
        user, other = await Users(log.pool).row_of(ADA), await Users(log.pool).row_of(BOB)
        assert user is not None
        assert other is not None
        assert (user.username, other.username) == (ERASED, "bob")
        assert await Users(log.pool).named("ada") is None
    grown = await tables(log)
    await rebuild(log)
    assert await tables(log) == grown


async def test_what_happened_since_is_kept_when_a_row_is_folded_again(log: Log) -> None:
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, *plots, renamed, wanted, died))
        page = await Notebooks(log.pool).row_of(PLOTS)
        assert page is not None
        assert page.log == CANARY
        assert await holding(log, CANARY) != []
        subjects = await subjects_of(log)
        assert await projector.reach(await happen(log, *(SubjectErased(subject=one) for one in subjects)))
        page = await Notebooks(log.pool).row_of(PLOTS)
        assert page is not None
        assert (page.log, page.title, page.status, page.reason) == (ERASED, ERASED, "failed", "exited")
        assert await holding(log, CANARY) == []
        project = await Projects(log.pool).row_of(APOLLO)
        assert project is not None
        assert project.title == ERASED


async def subjects_of(log: Log) -> list[str]:
    async with log.pool.connection() as connection:
        cursor = await connection.execute("SELECT DISTINCT subject FROM vault.disclosures ORDER BY 1")
        return [subject for (subject,) in await cursor.fetchall()]


async def test_generations_that_were_kept_are_dropped_at_an_erasure(log: Log) -> None:
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, *plots, renamed))
        await rebuild(log)
        await rebuild_to(log, len(plots))
        assert await schemas(log) == ["read", f"read_at_{len(plots)}", "read_old"]
        assert await projector.reach(await happen(log, SubjectErased(subject=f"user:{ADA}")))
        assert await schemas(log) == ["read"]


async def test_a_rebuild_that_was_interrupted_before_an_erasure_forgets_as_it_goes_on(log: Log) -> None:
    before = await happen(log, *plots, renamed, wanted, died)
    async with projecting(log) as projector:
        assert await projector.reach(before)
    async with log.pool.connection() as connection:
        replay = replay_module.Replay(log, Generation(log, "read_next"), connection)
        await replay.begin()
        await replay.go_on(before)
    assert "read_next.notebooks" in await holding(log, CANARY)
    await happen(log, *(SubjectErased(subject=one) for one in await subjects_of(log)))
    done = await rebuild(log, keep_old=False)
    assert done.began_at == before
    assert await holding(log, CANARY) == []


async def test_a_rebuild_forgets_what_was_erased_after_it_had_read_it_and_before_it_was_folded(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, ahead, apply, reveal = (
        await happen(log, *plots, renamed, wanted, died),
        set[int](),
        Generation.apply,
        Log.reveal,
    )

    async def read(log: Log, connection: AsyncConnection, records: Sequence[Record]) -> Sequence[Record]:
        revealed = await reveal(log, connection, records)
        ahead.update(one.position for one in revealed if one.event == died)
        return revealed

    async def fold(generation: Generation, connection: AsyncConnection, records: Sequence[Record]) -> set[str]:
        while not ahead and records[-1].position == before - 1:
            await asyncio.sleep(0.01)
        if ahead and log.head == before:
            await happen(log, *(SubjectErased(subject=one) for one in await subjects_of(log)))
        assert all(one.position == before or one.event != died for one in records)
        return await apply(generation, connection, records)

    monkeypatch.setattr(replay_module, "PAGE", 1)
    monkeypatch.setattr(Log, "reveal", read)
    monkeypatch.setattr(Generation, "apply", fold)
    async with asyncio.timeout(20):
        done = await rebuild(log)
    assert ahead == {before}
    assert done.position > before
    assert await holding(log, CANARY) == []


async def test_what_an_interrupted_rebuild_left_does_not_outlive_an_erasure(log: Log) -> None:
    before = await happen(log, *plots, renamed)
    async with projecting(log) as projector:
        assert await projector.reach(before)
        for at_the_start in (False, True):
            async with log.pool.connection() as connection:
                replay = replay_module.Replay(log, Generation(log, "read_next"), connection)
                await replay.begin()
                await replay.go_on(before)
            if at_the_start:
                break
            assert await projector.reach(await happen(log, SubjectErased(subject="guest")))
            assert await schemas(log) == ["read"]
    async with projecting(log) as projector:
        assert await projector.reach(log.head)
        assert await schemas(log) == ["read"]


@pytest.mark.parametrize("seed", range(2))
async def test_live_rebuilt_and_compared_read_models_forget_alike(log: Log, seed: int) -> None:
    history = History(log, seed)
    await history.begin()
    await history.go_on(80)
    async with projecting(log) as projector:
        for subject in (await subjects_of(log))[seed::2]:
            await happen(log, SubjectErased(subject=subject))
            await history.go_on(5)
        assert await projector.reach(log.head)
        grown = await tables(log)
        assert ERASED in str(grown)
        assert (await find_differences(log)).rows == []
        await rebuild(log)
        assert await tables(log) == grown


async def test_a_seal_stays_good_when_somebody_is_erased(log: Log) -> None:
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, *plots, renamed, wanted, died))
        async with log.pool.connection() as connection:
            await seal_generation(log, connection)
        await happen(log, *(SubjectErased(subject=one) for one in await subjects_of(log)))
        assert await projector.reach(log.head)
        async with log.pool.connection() as connection:
            await seal_generation(log, connection)
    checked = await verify_seals(log)
    assert (checked.seals, checked.mismatches) == (2, [])


async def test_moments_show_nothing_of_whom_was_erased(log: Log) -> None:
    created = await happen(log, *plots, renamed)
    await happen(log, *(SubjectErased(subject=one) for one in await subjects_of(log)))
    moments = Moments(log)
    moment = await moments.as_of(Resource("user", ADA), created)
    assert moment.state is not None
    assert moment.state["username"] == ERASED
    told = await moments.explain(created)
    assert CANARY not in str(told)
    assert ERASED in told.sentence
