"""Read models: rows evolve by events, are rebuilt to the same bytes, and show to each what each may see."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from msgspec import Raw
from msgspec.structs import replace

from app.audit.entry import Context, Record, encode
from app.audit.log import Log
from app.domain.command import Caller
from app.domain.event import Event
from app.domain.groups import GroupCreated, MemberAdded, MemberRemoved
from app.domain.names import Personal
from app.domain.notebooks import NotebookCreated, NotebookDeleted
from app.domain.projects import ProjectCreated, Visibility
from app.domain.runs import NotebookFailed, NotebookStartRequested
from app.domain.tokens import Scope, TokenIssued, TokenRevoked
from app.domain.users import LoginRefused
from app.identifiers import uuid7
from app.projections import projector as projector_module
from app.projections import replay as replay_module
from app.projections import standing as standing_module
from app.projections.generation import MODELS
from app.projections.groups import Groups
from app.projections.notebooks import NotebookPage, Notebooks
from app.projections.projector import Projector
from app.projections.projects import Projects
from app.projections.rebuild import rebuild
from app.projections.timeline import Timeline
from app.projections.tokens import Tokens
from app.projections.users import Users
from tests.audit.drafts import draft
from tests.audit.stored import SOON
from tests.database import FAST, SEALER, Databases, PrivateServer, end
from tests.domain.cast import (
    ADA,
    APOLLO,
    BOB,
    EVE,
    GRACE,
    HERE,
    LAB,
    NEXT_RUN,
    PLOTS,
    RUN,
    accounts,
    ada,
    an_id,
    apollo,
    began,
    bob,
    created,
    eve,
    failed,
    grace,
    grace_as_anybody,
    plots,
    ready,
    stopped,
    stopping,
    wanted,
)
from tests.projections.histories import History

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TABLES = tuple(model.table() for model in MODELS)


def fold(events: Sequence[Event]) -> NotebookPage | None:
    """Evolve the notebook's row by each event, at the position where it stands."""
    row: NotebookPage | None = None
    for position, event in enumerate(events, 1):
        if isinstance(event, Notebooks.events):
            row = Notebooks.evolve(None, row, event, record_of(event, position))  # pyright: ignore[reportArgumentType]
    return row


def record_of(event: Event, position: int) -> Record:
    return Record(position, encode(Context().draft(event).entry(NOON)))


async def happen(log: Log, *events: Event) -> int:
    return await log.append([Context().draft(event) for event in events])


async def tables(log: Log, schema: str = "read", *also: str) -> dict[str, list[str]]:
    """Give every row of every read model, as text."""
    found: dict[str, list[str]] = {}
    async with log.pool.connection() as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for table in (*TABLES, *also):
            cursor = await connection.execute(f"SELECT t::text FROM {schema}.{table} AS t ORDER BY 1".encode())
            found[table] = [text for (text,) in await cursor.fetchall()]
    return found


@contextlib.asynccontextmanager
async def projecting(log: Log) -> AsyncGenerator[Projector]:
    projector = Projector(log)
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        await end(task)


@pytest.fixture
async def projector(log: Log) -> AsyncIterator[Projector]:
    async with projecting(log) as projector:
        yield projector


def test_a_notebook_rests_until_somebody_wants_it() -> None:
    page = fold(plots)
    assert page is not None
    assert (page.slug, page.project, page.group, page.title) == (PLOTS, APOLLO, LAB, "Plots")
    assert (page.status, page.run, page.position) == ("stopped", None, len(plots))


def test_a_notebook_is_what_its_run_is() -> None:
    story = [wanted, began, created, ready, stopping, stopped]
    pages = [fold((*plots, *story[:length])) for length in range(1, 7)]
    assert [page and page.status for page in pages] == [
        "queued",
        "creating",
        "starting",
        "ready",
        "stopping",
        "stopped",
    ]
    assert [page and page.position for page in pages] == list(range(len(plots) + 1, len(plots) + 7))


def test_a_notebook_that_failed_says_why_until_it_is_started_again() -> None:
    killed = NotebookFailed(notebook=PLOTS, run=RUN, reason="out-of-memory", exit_code=137, log=Personal("Killed"))
    page = fold((*plots, wanted, killed))
    assert page is not None
    assert (page.status, page.reason, page.exit_code, page.log) == ("failed", "out-of-memory", 137, "Killed")
    again = fold((*plots, wanted, killed, NotebookStartRequested(notebook=PLOTS, run=NEXT_RUN)))
    assert again is not None
    assert (again.status, again.run, again.reason, again.exit_code, again.log) == ("queued", NEXT_RUN, None, None, None)


def test_late_news_of_an_older_run_changes_no_row() -> None:
    before = (*plots, wanted, failed, NotebookStartRequested(notebook=PLOTS, run=NEXT_RUN))
    assert fold((*before, began, created, ready, failed, stopping, stopped)) == fold(before)


def test_a_deleted_notebook_has_no_row_whatever_its_run_does_then() -> None:
    deleted = NotebookDeleted(notebook=PLOTS, project=APOLLO, group=LAB)
    assert fold((*plots, deleted)) is None
    assert fold((*plots, wanted, ready, deleted, stopped)) is None
    assert fold((wanted,)) is None


@pytest.mark.parametrize("position", [-5, 2**62])
async def test_read_models_that_stand_where_the_log_has_nothing_are_told_of_and_rebuilt(
    dsn: str, log: Log, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_module, "PATIENCE", 0.1)
    async with projecting(log) as projector:
        await projector.reach(await happen(log, *apollo))
    async with log.pool.connection() as connection:
        await connection.execute("UPDATE read.bookmark SET position = %s", (position,))
    assert [one.code for one in await standing_module.standing(dsn) if one.faults] == ["SPH-READ-001"]
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, MemberAdded(group=LAB, user=BOB, role="owner")))
        page = await Groups(log.pool).row_of(LAB)
        assert await projector.reach(log.head)
        assert [one.code for one in await standing_module.standing(dsn) if one.faults] == []
    assert page is not None
    assert page.members == {ADA: "owner", BOB: "owner"}


@pytest.mark.parametrize(
    "harm",
    [
        "DROP SCHEMA read CASCADE",
        "DROP TABLE read.bookmark",
        "ALTER TABLE read.bookmark RENAME position TO at",
        "UPDATE read.bookmark SET shape = 'another'",
        "UPDATE read.bookmark SET position = position - 1",
        "DELETE FROM read.bookmark",
    ],
)
async def test_whatever_becomes_of_the_bookmark_a_projector_that_runs_gets_on(
    log: Log, projector: Projector, harm: str
) -> None:
    assert await projector.reach(await happen(log, *apollo))
    async with log.pool.connection() as connection:
        await connection.execute(harm.encode())
    assert await projector.reach(await happen(log, MemberAdded(group=LAB, user=BOB, role="owner")))
    page = await Groups(log.pool).row_of(LAB)
    assert page is not None
    assert page.members == {ADA: "owner", BOB: "owner"}
    assert projector.failure is None


async def test_the_members_of_a_group_come_and_go(log: Log, projector: Projector) -> None:
    groups = Groups(log.pool)
    await projector.reach(await happen(log, *apollo))
    page = await groups.row_of(LAB)
    assert page is not None
    assert (page.title, page.members) == ("Space Lab", {ADA: "owner", BOB: "member"})
    await projector.reach(await happen(log, MemberAdded(group=LAB, user=BOB, role="owner")))
    await projector.reach(await happen(log, MemberRemoved(group=LAB, user=ADA)))
    page = await groups.row_of(LAB)
    assert page is not None
    assert page.members == {BOB: "owner"}
    assert page.position == log.head
    assert [one.slug for one in await groups.listed(10, None, member=BOB)] == [LAB]
    assert await groups.listed(10, None, member=ADA) == []


async def test_a_token_is_listed_until_it_is_revoked(log: Log, projector: Projector) -> None:
    tokens = Tokens(log.pool)
    one, other = an_id("tok", 1), an_id("tok", 2)
    issued = [
        TokenIssued(token=id_, user=ADA, title="t", scopes=(Scope.READ, Scope.WRITE), expires=SOON)
        for id_ in (one, other)
    ]
    await projector.reach(await happen(log, *accounts, *issued))
    pages = await tokens.of(ADA, 10, None)
    assert [page.token for page in pages] == [one, other]
    assert (pages[0].scopes, pages[0].expires) == ((Scope.READ, Scope.WRITE), SOON)
    assert await tokens.of(BOB, 10, None) == []
    await projector.reach(await happen(log, TokenRevoked(token=one, user=ADA)))
    assert [page.token for page in await tokens.of(ADA, 10, None)] == [other]


async def test_users_are_listed_in_pages_and_found_by_name(log: Log, projector: Projector) -> None:
    users = Users(log.pool)
    await projector.reach(await happen(log, *accounts))
    first = await users.listed(3, None)
    rest = await users.listed(3, first[-1].user)
    assert [page.user for page in first + rest] == [ADA, BOB, EVE, GRACE]
    found = await users.named("grace")
    assert found is not None
    assert found.administrator
    assert await users.named("mallory") is None
    assert await users.names_of([ADA, BOB]) == {ADA: "ada", BOB: "bob"}


GUEST, MEMBER, OWNER, STRANGER, ADMINISTRATOR, READING_ADMINISTRATOR = None, bob, ada, eve, grace, grace_as_anybody
ALL: tuple[Visibility, ...] = ("internal", "private", "public")
SEEN: list[tuple[Caller | None, list[Visibility]]] = [
    (GUEST, ["public"]),
    (STRANGER, ["internal", "public"]),
    (READING_ADMINISTRATOR, ["internal", "public"]),
    (MEMBER, ["internal", "private", "public"]),
    (OWNER, ["internal", "private", "public"]),
    (ADMINISTRATOR, ["internal", "private", "public"]),
]


@pytest.mark.parametrize(
    ("viewer", "seen"), SEEN, ids=["guest", "stranger", "reading administrator", "member", "owner", "administrator"]
)
async def test_projects_and_their_notebooks_are_seen_by_whom_they_are_for(
    log: Log, projector: Projector, viewer: Caller | None, seen: list[Visibility]
) -> None:
    happened: list[Event] = [*apollo]
    for kind in ALL:
        happened.append(ProjectCreated(project=kind, group=LAB, title=kind, visibility=kind))
        happened.append(NotebookCreated(notebook=f"n-{kind}", project=kind, group=LAB, title=kind))
    other = GroupCreated(group="other", title="Other", owner=GRACE)
    hidden = ProjectCreated(project="zzz", group="other", title="Other", visibility="private")
    await projector.reach(await happen(log, *happened, other, hidden))
    projects, notebooks = Projects(log.pool), Notebooks(log.pool)
    listed = [page.slug for page in await projects.visible_to(viewer, 10) if page.slug in ALL]
    assert listed == seen
    assert [page.slug for page in await notebooks.visible_to(viewer, 10)] == [f"n-{kind}" for kind in seen]
    for kind in ALL:
        assert bool(await projects.visible_to(viewer, slug=kind)) == (kind in seen)
        assert bool(await notebooks.visible_to(viewer, slug=f"n-{kind}")) == (kind in seen)
        assert bool(await notebooks.visible_to(viewer, project=kind)) == (kind in seen)
    assert [page.slug for page in await projects.visible_to(viewer, 1, after="internal", group=LAB)] == [
        kind for kind in seen if kind > "internal"
    ][:1]
    assert bool(await projects.visible_to(viewer, slug="zzz")) == (viewer in (ADMINISTRATOR, READING_ADMINISTRATOR))


async def test_who_left_a_group_sees_its_private_things_no_more(log: Log, projector: Projector) -> None:
    await projector.reach(await happen(log, *plots))
    assert await Notebooks(log.pool).visible_to(bob, slug=PLOTS)
    await projector.reach(await happen(log, MemberRemoved(group=LAB, user=BOB)))
    assert not await Notebooks(log.pool).visible_to(bob, slug=PLOTS)
    assert not await Projects(log.pool).visible_to(bob, slug=APOLLO)


@pytest.mark.parametrize("seed", range(3))
async def test_a_rebuild_gives_the_same_bytes_as_what_grew(
    log: Log, projector: Projector, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", (7, 100, 5_000)[seed])
    history = History(log, seed)
    await history.begin()
    await history.go_on(250)
    assert await projector.reach(log.head)
    grown = await tables(log)
    assert all(grown[table] for table in TABLES)
    head = log.head
    assert (await rebuild(log)).position == head
    assert await tables(log) == grown
    await history.go_on(20)
    assert await projector.reach(log.head)
    grown = await tables(log)
    await rebuild(log)
    assert await tables(log) == grown


async def test_a_rebuild_while_the_log_grows_loses_nothing_and_disturbs_no_reader(
    log: Log, projector: Projector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 50)
    history = History(log, 9)
    await history.begin()
    await history.go_on(100)
    rebuilt = asyncio.Event()

    async def grow() -> None:
        while not rebuilt.is_set():
            await history.go_on(10)

    growing = asyncio.create_task(grow())
    for _ in range(4):
        began = log.head
        await rebuild(log)
        assert log.head > began
        assert len(await Users(log.pool).listed(10, None)) == len(accounts)
    rebuilt.set()
    await growing
    assert await projector.reach(log.head)
    grown = await tables(log)
    await rebuild(log)
    assert await tables(log) == grown


async def test_a_swap_takes_back_nothing_that_could_be_read(
    log: Log, projector: Projector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something is appended, applied and read after the rebuild caught up and before it swaps."""
    go_on = replay_module.Replay.go_on

    async def go_on_too_early(self: replay_module.Replay, until: int | None = None) -> None:
        await go_on(self, until)
        if until is None and await Notebooks(log.pool).row_of(PLOTS) is None:
            assert await projector.reach(await happen(log, *plots[len(apollo) :]))
            assert await Notebooks(log.pool).row_of(PLOTS) is not None

    assert await projector.reach(await happen(log, *apollo))
    monkeypatch.setattr(replay_module.Replay, "go_on", go_on_too_early)
    assert (await rebuild(log)).position == len(plots)
    assert await Notebooks(log.pool).row_of(PLOTS) is not None


async def test_readers_are_not_disturbed_by_a_swap(log: Log, projector: Projector) -> None:
    await projector.reach(await happen(log, *plots))
    rebuilding = asyncio.create_task(_rebuild_again_and_again(log, 15))
    reads = 0
    while not rebuilding.done():
        pages = await asyncio.gather(*(Notebooks(log.pool).visible_to(bob, slug=PLOTS) for _ in range(3)))
        assert [len(page) for page in pages] == [1] * 3
        reads += 1
    await rebuilding
    assert reads > 15


async def _rebuild_again_and_again(log: Log, times: int) -> None:
    for _ in range(times):
        await rebuild(log)


async def test_rebuilds_that_are_asked_for_at_once_are_done_one_after_the_other(log: Log, projector: Projector) -> None:
    position = await happen(log, *plots)
    assert await projector.reach(position)
    both = await asyncio.gather(rebuild(log), rebuild(log))
    assert sorted(rebuilt.position for rebuilt in both) == [position, position + 2]  # whichever of them came first


async def test_what_an_interrupted_rebuild_left_is_no_hindrance(log: Log, projector: Projector) -> None:
    position = await happen(log, *plots)
    assert await projector.reach(position)
    async with log.pool.connection() as connection:
        await connection.execute("CREATE SCHEMA read_next CREATE TABLE bookmark (x int)")
        await connection.execute("CREATE SCHEMA read_old CREATE TABLE bookmark (x int)")
    assert (await rebuild(log)).position == position


@pytest.mark.parametrize("late", [0, 1, 30])
async def test_a_projector_that_begins_at_any_time_catches_up(log: Log, late: int) -> None:
    history = History(log, 4)
    await history.begin()
    await history.go_on(late)
    growing = asyncio.create_task(history.go_on(60))
    async with projecting(log) as projector:
        await growing
        assert await projector.reach(log.head)
        grown = await tables(log)
    await rebuild(log)
    assert await tables(log) == grown


async def test_a_projector_that_begins_again_goes_on_where_the_last_one_stopped(log: Log) -> None:
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, *apollo))
    position = await happen(log, *plots[len(apollo) :])
    async with projecting(log) as projector:
        assert await projector.reach(position)
        assert await Notebooks(log.pool).row_of(PLOTS) is not None


async def test_rows_are_loaded_by_a_plan_that_is_made_once(log: Log, projector: Projector) -> None:
    assert await projector.reach(await happen(log, *plots))
    async with log.pool.connection() as connection:
        for _ in range(20):
            await Notebooks(log.pool).apply(connection, "read", [])
        cursor = await connection.execute(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
            """ WHERE statement LIKE 'SELECT%"read"."notebooks"%ANY%'"""
        )
        [(generic, custom)] = await cursor.fetchall()
    assert custom == 5
    assert generic >= 5


async def test_what_was_just_sealed_is_projected_without_a_question_to_the_vault(
    log: Log, projector: Projector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await projector.reach(await happen(log, *accounts))
    monkeypatch.setattr(Log, "reveal", pytest.fail)
    title = "Seen by nobody else"
    position = await happen(log, ProjectCreated(project="secret", group=LAB, title=title, visibility="private"))
    assert await projector.reach(position)
    row = await Projects(log.pool).row_of("secret")
    assert row is not None
    assert row.title == title
    assert (await log.read(after=position - 1)).records[0].disclosures == ()


async def test_two_projectors_apply_each_entry_once(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[int] = []
    apply = projector_module.Generation.apply

    async def note(self: projector_module.Generation, connection: object, records: Sequence[Record]) -> set[str]:
        applied.extend(record.position for record in records)
        return await apply(self, connection, records)  # pyright: ignore[reportArgumentType]

    async with Log.open(dsn, SEALER) as log, Log.open(dsn, SEALER) as other:
        async with projecting(log) as first:
            assert await first.reach(await happen(log, *accounts))
        monkeypatch.setattr(projector_module.Generation, "apply", note)
        start = log.head
        async with projecting(log) as one, projecting(other) as two:
            history = History(log, 5)
            await history.begin()
            await history.go_on(150)
            assert await one.reach(log.head)
            assert await two.reach(log.head)
            grown = await tables(log)
        assert applied == list(range(start + 1, log.head + 1))
        await rebuild(log)
        assert await tables(log) == grown


async def test_two_projectors_that_begin_on_an_empty_database_both_get_on(dsn: str) -> None:
    async with Log.open(dsn, SEALER) as log, Log.open(dsn, SEALER) as other:
        await happen(log, *plots)
        async with projecting(log) as one, projecting(other) as two:
            position = await happen(log, wanted)
            assert await asyncio.gather(one.reach(position), two.reach(position)) == [True, True]
            page = await Notebooks(log.pool).row_of(PLOTS)
    assert page is not None
    assert page.status == "queued"


async def test_a_projector_stops_loudly_at_what_it_cannot_read_and_reads_go_on(log: Log, projector: Projector) -> None:
    position = await happen(log, *plots)
    assert await projector.reach(position)
    waiting = asyncio.create_task(projector.reach(position + 3))
    await log.append([draft("NotebookTeleported", [f"notebook:{PLOTS}"])])
    async with asyncio.timeout(2):
        assert not await waiting
        assert not await projector.reach(await happen(log, wanted))
    assert projector.failure is not None
    assert "NotebookTeleported" in projector.failure
    assert str(position) in projector.failure
    assert await projector.reach(position)
    page = await Notebooks(log.pool).row_of(PLOTS)
    assert page is not None
    assert page.status == "stopped"


BROKEN = replace(Context().draft(wanted), data=Raw(b'{"notebook":"NO NAME","run":"x"}'))


async def test_what_stands_before_an_entry_that_cannot_be_read_is_applied(log: Log, projector: Projector) -> None:
    assert await projector.reach(await happen(log, *apollo))
    await log.append([Context().draft(plots[-1]), replace(BROKEN, id=str(uuid7()))])
    assert await projector.reach(len(plots))
    assert not await projector.reach(len(plots) + 1)
    assert await Notebooks(log.pool).row_of(PLOTS) is not None


async def test_a_log_that_cannot_be_read_to_its_end_is_read_up_to_there_by_a_new_installation(log: Log) -> None:
    await log.append([*[Context().draft(event) for event in plots], replace(BROKEN, id=str(uuid7()))])
    async with projecting(log) as projector:
        async with asyncio.timeout(5):
            while projector.failure is None:
                await asyncio.sleep(0.01)
        assert not await projector.reach(len(plots) + 1)
        assert await Notebooks(log.pool).row_of(PLOTS) is not None


async def test_accesses_move_the_bookmark_and_nothing_else(log: Log, projector: Projector) -> None:
    assert await projector.reach(await happen(log, *plots))
    before = await tables(log, "read", "bookmark")
    position = await happen(log, LoginRefused())
    assert await projector.reach(position)
    after = await tables(log, "read", "bookmark")
    assert before.pop("bookmark") != after.pop("bookmark")
    assert before == after


async def test_another_shape_is_rebuilt_at_the_next_start(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    async with projecting(log) as projector:
        assert await projector.reach(await happen(log, *plots))
    async with log.pool.connection() as connection:
        await connection.execute("DELETE FROM read.notebooks")
    monkeypatch.setattr(Notebooks, "version", 2)
    async with projecting(log) as projector:
        assert await projector.reach(log.head)
        assert await Notebooks(log.pool).row_of(PLOTS) is not None


async def test_whoever_watches_a_tag_is_told_once_it_was_applied(log: Log, projector: Projector) -> None:
    assert await projector.reach(await happen(log, *plots))
    with projector.watch(f"notebook:{PLOTS}") as changed, projector.watch("notebook:other") as unchanged:
        await happen(log, wanted)
        async with asyncio.timeout(2):
            await changed.wait()
        page = await Notebooks(log.pool).row_of(PLOTS)
        assert page is not None
        assert page.status == "queued"
        assert not unchanged.is_set()


async def test_waiting_for_what_does_not_come_ends(
    log: Log, projector: Projector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "PATIENCE", 0.1)
    assert not await projector.reach(log.head + 1)


async def test_a_database_that_restarts_is_survived() -> None:
    with PrivateServer(*FAST) as server:
        databases = Databases(server.dsn)
        await databases.prepare()
        with databases.fresh() as dsn:
            async with Log.open(dsn, SEALER) as log, projecting(log) as projector:
                history = History(log, 6)
                await history.begin()
                await history.go_on(20)
                assert await projector.reach(log.head)
                server.kill()
                await asyncio.to_thread(server.start)
                async with asyncio.timeout(20):
                    await happen(log, *plots[len(accounts) :])
                    while not await projector.reach(log.head):
                        pass
                grown = await tables(log)
                await rebuild(log)
                assert await tables(log) == grown
                assert projector.failure is None


async def test_the_timeline_is_the_log_to_the_byte(log: Log) -> None:
    await happen(log, *plots, wanted)
    timeline, records = Timeline(log), (await log.read()).records
    assert [bytes(one.entry) for one in await timeline.entries(100, 0)] == [record.octets for record in records]
    assert [one.position for one in await timeline.entries(2, 3)] == [4, 5]
    assert [one.position for one in await timeline.entries(10, 0, type_="NotebookStartRequested")] == [len(records)]
    tagged = await timeline.entries(10, 0, type_="NotebookCreated", tag=f"notebook:{PLOTS}")
    assert [one.position for one in tagged] == [len(plots)]


def test_where_a_run_answers_is_for_the_proxy_only() -> None:
    page = fold((*plots, wanted, ready))
    assert page is not None
    assert HERE not in str(page)
