"""Dispatch: of many who want the same at once, one gets it; what is refused is recorded; who wrote reads it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from app.audit.entry import GUEST, Actor, Context, Record
from app.audit.log import Log
from app.dispatch import Dispatch, Receipt
from app.domain.command import Caller, Command
from app.domain.errors import Refusal
from app.domain.event import Event
from app.domain.groups import AddMember, CreateGroup, GroupSlugTaken, LastOwner, MemberAdded, MembersOnly, RemoveMember
from app.domain.names import Personal
from app.domain.notebooks import (
    CreateNotebook,
    DeleteNotebook,
    NotebookCreated,
    NotebookSlugTaken,
    NotebookStartRequested,
    StartNotebook,
)
from app.domain.projects import CreateProject, ProjectCreated
from app.domain.users import AlreadySetUp, CreateFirstAdministrator, CreateUser, LoggedIn, LoginRefused
from app.projections.notebooks import Notebooks
from app.projections.projector import Projector
from tests.database import SEALER, end
from tests.domain.cast import (
    ADA,
    APOLLO,
    BOB,
    GRACE,
    LAB,
    PLOTS,
    RUN,
    a_digest,
    ada,
    an_id,
    apollo,
    bob,
    eve,
    grace,
    lab,
    plots,
    wanted,
)

BY_ADA = Context(actor=Actor(kind="user", id=ADA, via="session"), request="req_1")


async def has_happened(log: Log, events: Sequence[Event]) -> None:
    await log.append([Context().draft(event) for event in events])


async def after(log: Log, position: int) -> list[Record]:
    return (await log.read(after=position)).records


def by_somebody(number: int) -> Context:
    """Each is somebody else: one who is refused more often than so many times a minute is counted."""
    return Context(actor=Actor(kind="user", id=an_id("usr", 100 + number), via="session"), request="req_1")


async def try_all(log: Log, commands: Sequence[Command]) -> Counter[type[Any]]:
    """Carry all out at once; count what came of them, by its type."""
    dispatch = Dispatch(log)
    asked = (dispatch(command, by_somebody(number)) for number, command in enumerate(commands))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    return Counter(type(outcome) for outcome in outcomes)


def types(records: Sequence[Record]) -> Counter[str]:
    return Counter(record.entry.type for record in records)


async def test_fifty_who_start_a_notebook_at_once_start_it_once(log: Log) -> None:
    await has_happened(log, plots)
    commands = [StartNotebook(by=bob, notebook=PLOTS, group=LAB, run=an_id("run", n)) for n in range(50)]
    assert await try_all(log, commands) == {Receipt: 50}
    assert types(await after(log, len(plots))) == {"NotebookStartRequested": 1}


async def test_fifty_who_start_a_notebook_in_two_processes_start_it_once(dsn: str) -> None:
    commands = [StartNotebook(by=bob, notebook=PLOTS, group=LAB, run=an_id("run", n)) for n in range(50)]
    async with Log.open(dsn, SEALER) as log, Log.open(dsn, SEALER) as other:
        await has_happened(log, plots)
        await asyncio.gather(try_all(log, commands[:25]), try_all(other, commands[25:]))
        assert types(await after(log, len(plots))) == {"NotebookStartRequested": 1}


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (CreateGroup(by=ada, group="mars", title="Mars"), GroupSlugTaken),
        (CreateNotebook(by=ada, notebook=PLOTS, project=APOLLO, group=LAB, title="Plots"), NotebookSlugTaken),
        (CreateFirstAdministrator(user=GRACE, username=Personal("grace"), digest=a_digest(4)), AlreadySetUp),
    ],
    ids=lambda one: getattr(one, "__name__", type(one).__name__),
)
async def test_of_fifty_who_want_one_name_one_gets_it_and_each_refusal_is_recorded(
    log: Log, command: Command, refusal: type[Refusal]
) -> None:
    if not isinstance(command, CreateFirstAdministrator):
        await has_happened(log, apollo)
    before = log.head
    assert await try_all(log, [command] * 50) == {Receipt: 1, refusal: 49}
    records = await after(log, before)
    refusals = [record for record in records if record.entry.type == "CommandRefused"]
    assert len(records) == 50
    assert len(refusals) == 49
    for record in refusals:
        entry = record.entry
        assert (entry.outcome, entry.reason) == ("refused", refusal.problem())
        assert (entry.actor.kind, entry.request) == ("user", "req_1")
        assert entry.tags == command.tags
        assert getattr(record.event, "command", None) == type(command).__name__


async def test_two_owners_who_both_leave_at_once_do_not_leave_a_group_without_one(log: Log) -> None:
    await has_happened(log, (*lab, MemberAdded(group=LAB, user=BOB, role="owner")))
    leaving = [RemoveMember(by=ada, group=LAB, user=ADA), RemoveMember(by=bob, group=LAB, user=BOB)]
    assert await try_all(log, leaving) == {Receipt: 1, LastOwner: 1}


async def test_a_notebook_is_not_started_after_it_was_deleted_nor_by_whom_has_been_let_go(log: Log) -> None:
    await has_happened(log, plots)
    wishes: list[Command] = [DeleteNotebook(by=ada, notebook=PLOTS, group=LAB)]
    wishes += [RemoveMember(by=ada, group=LAB, user=BOB)]
    wishes += [StartNotebook(by=bob, notebook=PLOTS, group=LAB, run=an_id("run", n)) for n in range(20)]
    await try_all(log, wishes)
    story = [record.entry.type for record in await after(log, len(plots)) if record.event.fact]
    assert story.index("NotebookStartRequested") == 0 if "NotebookStartRequested" in story else True
    assert sorted(set(story) - {"NotebookStartRequested"}) == ["MemberRemoved", "NotebookDeleted"]


async def test_twenty_who_are_let_in_at_once_are_all_in(log: Log) -> None:
    await has_happened(log, lab)
    newcomers = [
        CreateUser(by=grace, user=an_id("usr", n), username=Personal(f"u{n}"), digest=a_digest(n))
        for n in range(10, 30)
    ]
    assert await try_all(log, newcomers) == {Receipt: 20}
    assert await try_all(log, [AddMember(by=ada, group=LAB, user=one.user) for one in newcomers]) == {Receipt: 20}


async def test_a_refused_command_changes_nothing_but_is_recorded(log: Log) -> None:
    await has_happened(log, plots)
    with pytest.raises(MembersOnly):
        await Dispatch(log)(StartNotebook(by=eve, notebook=PLOTS, group=LAB, run=RUN), Context(actor=GUEST))
    (record,) = await after(log, len(plots))
    assert (record.entry.type, record.entry.outcome, record.entry.reason) == (
        "CommandRefused",
        "refused",
        "members-only",
    )
    assert not record.event.fact
    assert set(record.entry.tags) == {f"notebook:{PLOTS}", f"group:{LAB}", f"run:{RUN}"}


async def test_what_holds_already_appends_nothing_and_says_where_the_log_is(log: Log) -> None:
    await has_happened(log, (*plots, wanted))
    receipt = await Dispatch(log)(StartNotebook(by=bob, notebook=PLOTS, group=LAB, run=an_id("run", 9)), BY_ADA)
    assert (receipt.events, receipt.position) == ([], len(plots) + 1)
    assert log.head == len(plots) + 1


async def test_what_happened_is_said_and_stands_in_the_log_under_who_did_it(log: Log) -> None:
    await has_happened(log, plots)
    receipt = await Dispatch(log)(StartNotebook(by=ada, notebook=PLOTS, group=LAB, run=RUN), BY_ADA)
    (record,) = await after(log, len(plots))
    assert receipt == Receipt([NotebookStartRequested(notebook=PLOTS, run=RUN)], record.position)
    assert (record.event, record.entry.actor, record.entry.outcome) == (wanted, BY_ADA.actor, "success")


async def test_accesses_are_recorded_with_their_outcome(log: Log) -> None:
    dispatch = Dispatch(log)
    await dispatch.record(LoggedIn(user=ADA, session="ses_1"), BY_ADA)
    await dispatch.record(LoginRefused(user=ADA), Context(actor=GUEST), refused="bad-credentials")
    first, second = await after(log, 0)
    assert (first.entry.outcome, first.entry.reason) == ("success", None)
    assert (second.entry.outcome, second.entry.reason) == ("refused", "bad-credentials")


async def test_whoever_wrote_reads_what_they_wrote(log: Log) -> None:
    projector = Projector(log)
    projecting = asyncio.create_task(projector.run())
    await has_happened(log, apollo)
    dispatch, notebooks = Dispatch(log, projector), Notebooks(log.pool)

    async def write_and_read(n: int, by: Caller) -> None:
        command = CreateNotebook(by=by, notebook=f"plots-{n}", project=APOLLO, group=LAB, title="Plots")
        receipt = await dispatch(command, BY_ADA)
        page = await notebooks.row_of(f"plots-{n}")
        assert receipt.seen
        assert page is not None
        assert page.position == receipt.position

    await asyncio.gather(*(write_and_read(n, (ada, bob)[n % 2]) for n in range(40)))
    await end(projecting)


async def test_whoever_cannot_read_yet_what_they_wrote_is_told(log: Log) -> None:
    class Behind:
        async def reach(self, position: int) -> bool:
            return False

    await has_happened(log, lab)
    command = CreateProject(by=bob, project=APOLLO, group=LAB, title="Apollo 11")
    receipt = await Dispatch(log, Behind())(command, BY_ADA)
    expected = ProjectCreated(project=APOLLO, group=LAB, title="Apollo 11", visibility="private")
    assert receipt == Receipt([expected], len(lab) + 1, seen=False)


async def test_a_notebook_of_a_project_that_is_made_at_the_same_time_is_made_or_refused(
    log: Log,
) -> None:
    await has_happened(log, lab)
    wishes: list[Command] = [CreateProject(by=bob, project=APOLLO, group=LAB, title="Apollo 11")]
    wishes += [CreateNotebook(by=bob, notebook=f"n-{n}", project=APOLLO, group=LAB, title="N") for n in range(10)]
    await try_all(log, wishes)
    records = await after(log, len(lab))
    made = next(record.position for record in records if record.entry.type == "ProjectCreated")
    assert all(record.position > made for record in records if isinstance(record.event, NotebookCreated))
