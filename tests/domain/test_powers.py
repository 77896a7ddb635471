"""An administrator's power: it is named where it was used, and only there."""

import pytest

from app.domain.audits import (
    AuditQueried,
    ClockSteppedBack,
    GroupViewed,
    GuestsRefused,
    Heartbeat,
    NotebooksListed,
    NotebookViewed,
    ProjectsListed,
    ProjectViewed,
    RequestRefused,
    UsersListed,
    VisitsListed,
)
from app.domain.command import Caller, Command, Power
from app.domain.event import Access
from app.domain.groups import AddMember, CreateGroup, MemberAdded, RemoveMember
from app.domain.names import Personal
from app.domain.notebooks import CreateNotebook, DeleteNotebook, StartNotebook, StopNotebook
from app.domain.projects import CreateProject
from app.domain.users import UserRolesChanged
from tests.audit.stored import SOON
from tests.domain.cast import ADA, APOLLO, EVE, GRACE, LAB, PLOTS, RUN, ada, bob, eve, grace, grace_as_anybody, plots

demoted = UserRolesChanged(user=GRACE, administrator=False, auditor=False, was_administrator=True, was_auditor=False)
joined = MemberAdded(group=LAB, user=GRACE, role="member")


def power(command: Command, *more: MemberAdded | UserRolesChanged) -> Power | None:
    """Name the power that a command would be carried out by."""
    return command.acts_as(*(part.fold([*plots, *more]) for part in command.rests_on()))


def everything(by: Caller) -> tuple[Command, ...]:
    return (
        AddMember(by=by, group=LAB, user=EVE),
        RemoveMember(by=by, group=LAB, user=ADA),
        CreateProject(by=by, project="gemini", group=LAB, title="Gemini"),
        CreateNotebook(by=by, notebook="more", project=APOLLO, group=LAB, title="More"),
        StartNotebook(by=by, notebook=PLOTS, group=LAB, run=RUN),
        StopNotebook(by=by, notebook=PLOTS, group=LAB),
        DeleteNotebook(by=by, notebook=PLOTS, group=LAB),
    )


def test_what_an_administrator_does_in_somebody_elses_group_is_marked() -> None:
    assert [power(command) for command in everything(grace)] == ["administrator"] * 7


@pytest.mark.parametrize("by", [ada, bob, eve, grace_as_anybody], ids=["owner", "member", "stranger", "unused"])
def test_what_others_do_is_not(by: Caller) -> None:
    assert [power(command) for command in everything(by)] == [None] * 7


def test_an_administrator_who_is_a_member_needs_the_power_for_what_owners_do_and_for_nothing_else() -> None:
    assert [power(command, joined) for command in everything(grace)] == ["administrator"] * 2 + [None] * 5


def test_leaving_needs_no_more_than_to_be_a_member() -> None:
    assert power(RemoveMember(by=grace, group=LAB, user=GRACE), joined) is None


def test_a_power_that_was_taken_is_not_used() -> None:
    assert [power(command, demoted) for command in everything(grace)] == [None] * 7


def test_beginning_a_group_takes_no_power() -> None:
    assert power(CreateGroup(by=grace, group="other", title="Other")) is None


def test_accesses_are_filed_under_what_was_looked_at_and_change_no_state() -> None:
    filed: dict[Access, tuple[str, ...]] = {
        ProjectViewed(project=APOLLO, group=LAB): (f"project:{APOLLO}", f"group:{LAB}"),
        NotebookViewed(notebook=PLOTS, project=APOLLO, group=LAB): (
            f"notebook:{PLOTS}",
            f"project:{APOLLO}",
            f"group:{LAB}",
        ),
        GroupViewed(group=LAB): (f"group:{LAB}",),
        AuditQueried(question="entries", about=Personal("ada")): (),
        ProjectsListed(): (),
        NotebooksListed(): (),
        UsersListed(): (),
        VisitsListed(): (),
        RequestRefused(method="GET", route="/"): (),
        GuestsRefused(reason="not-authenticated", count=1, since=SOON, until=SOON): (),
        Heartbeat(): (),
        ClockSteppedBack(seconds=1): (),
    }
    assert {access: access.tags for access in filed} == filed
    assert not any(access.fact for access in filed)
