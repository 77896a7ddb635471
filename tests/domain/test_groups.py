"""Groups: anybody begins one, its owners say who is in it, and one of them has to stay."""

import pytest

from app.domain.command import Caller
from app.domain.groups import (
    AddMember,
    CreateGroup,
    GroupCreated,
    GroupSlugTaken,
    LastOwner,
    MemberAdded,
    MemberRemoved,
    Membership,
    MembersOnly,
    NoSuchGroup,
    OwnersOnly,
    RemoveMember,
    Role,
    Roster,
    Standing,
)
from app.domain.notebooks import CreateNotebook, DeleteNotebook, StartNotebook, StopNotebook
from app.domain.projects import CreateProject
from app.domain.users import AuditorsChangeNothing, NoSuchUser, UserRolesChanged
from tests.domain.cast import (
    ADA,
    APOLLO,
    BOB,
    EVE,
    LAB,
    PLOTS,
    RUN,
    accounts,
    ada,
    an_id,
    bob,
    eve,
    grace,
    grace_as_anybody,
    lab,
    plots,
    wanted,
)
from tests.scenario import given

create = CreateGroup(by=ada, group=LAB, title="Space Lab")
bob_owns_too = MemberAdded(group=LAB, user=BOB, role="owner")
bob_left = MemberRemoved(group=LAB, user=BOB)


def add(by: Caller, user: str, role: Membership = "member", group: str = LAB) -> AddMember:
    return AddMember(by=by, group=group, user=user, role=role)


def remove(by: Caller, user: str, group: str = LAB) -> RemoveMember:
    return RemoveMember(by=by, group=group, user=user)


def test_whoever_begins_a_group_owns_it() -> None:
    given(*accounts).when(create).then(GroupCreated(group=LAB, title="Space Lab", owner=ADA))


def test_a_groups_slug_is_used_once() -> None:
    given(*lab).when(create).refused(GroupSlugTaken)


def test_a_groups_slug_is_used_once_by_whomever() -> None:
    given(*lab).when(CreateGroup(by=grace, group=LAB, title="Mine")).refused(GroupSlugTaken)


def test_a_slug_of_another_kind_is_no_groups() -> None:
    given(*lab).when(CreateGroup(by=ada, group="apollo", title="Apollo")).then(
        GroupCreated(group="apollo", title="Apollo", owner=ADA)
    )


def test_an_owner_lets_somebody_in() -> None:
    given(*lab).when(add(ada, EVE)).then(MemberAdded(group=LAB, user=EVE, role="member"))


def test_an_administrator_lets_somebody_in() -> None:
    given(*lab).when(add(grace, EVE)).then(MemberAdded(group=LAB, user=EVE, role="member"))


def test_an_administrator_whose_token_is_not_for_that_lets_nobody_in() -> None:
    given(*lab).when(add(grace_as_anybody, EVE)).refused(OwnersOnly)


def test_a_member_who_is_let_in_again_is_in_already() -> None:
    given(*lab).when(add(ada, BOB)).nothing_happens()


def test_an_owner_who_is_made_one_again_is_one_already() -> None:
    given(*lab).when(add(ada, ADA, "owner")).nothing_happens()


def test_a_member_becomes_an_owner() -> None:
    given(*lab).when(add(ada, BOB, "owner")).then(bob_owns_too)


def test_an_owner_becomes_a_member_if_another_owner_stays() -> None:
    given(*lab, bob_owns_too).when(add(ada, ADA)).then(MemberAdded(group=LAB, user=ADA, role="member"))


def test_the_last_owner_does_not_become_a_member() -> None:
    given(*lab).when(add(ada, ADA)).refused(LastOwner)


def test_nobody_is_let_in_who_has_no_account() -> None:
    given(*lab).when(add(ada, an_id("usr", 77))).refused(NoSuchUser)


def test_a_member_lets_nobody_in() -> None:
    given(*lab).when(add(bob, EVE)).refused(OwnersOnly)


def test_a_former_owner_lets_nobody_in() -> None:
    given(*lab, bob_owns_too, bob_left).when(add(bob, EVE)).refused(OwnersOnly)


def test_nobody_is_let_into_a_group_that_is_not() -> None:
    given(*accounts).when(add(grace, EVE)).refused(NoSuchGroup)


def test_owning_one_group_gives_no_right_in_another() -> None:
    theirs = GroupCreated(group="other", title="Other", owner=BOB)
    given(*lab, theirs).when(add(ada, EVE, group="other")).refused(OwnersOnly)


def test_an_owner_lets_a_member_go() -> None:
    given(*lab).when(remove(ada, BOB)).then(bob_left)


def test_a_member_leaves() -> None:
    given(*lab).when(remove(bob, BOB)).then(bob_left)


def test_an_owner_leaves_if_another_stays() -> None:
    given(*lab, bob_owns_too).when(remove(ada, ADA)).then(MemberRemoved(group=LAB, user=ADA))


def test_the_last_owner_does_not_leave() -> None:
    given(*lab).when(remove(ada, ADA)).refused(LastOwner)


def test_an_administrator_does_not_take_a_group_its_last_owner() -> None:
    given(*lab).when(remove(grace, ADA)).refused(LastOwner)


def test_somebody_who_is_not_in_is_not_let_go() -> None:
    given(*lab).when(remove(ada, EVE)).nothing_happens()


def test_somebody_is_let_go_once() -> None:
    given(*lab, bob_left).when(remove(ada, BOB)).nothing_happens()


def test_a_member_lets_nobody_else_go() -> None:
    given(*lab).when(remove(bob, ADA)).refused(OwnersOnly)


def test_a_stranger_leaves_nothing() -> None:
    given(*lab).when(remove(eve, EVE)).refused(MembersOnly)


def test_nobody_leaves_a_group_that_is_not() -> None:
    given(*accounts).when(remove(ada, ADA)).refused(NoSuchGroup)


@pytest.mark.parametrize("role", ["member", "owner"])
def test_an_auditor_changes_nothing_whatever_they_are_to_the_group(role: Membership) -> None:
    auditor = UserRolesChanged(user=BOB, administrator=False, auditor=True, was_administrator=False, was_auditor=False)
    audited = (*plots, MemberAdded(group=LAB, user=BOB, role=role), auditor)
    for command in (
        CreateGroup(by=bob, group="mine", title="Mine"),
        AddMember(by=bob, group=LAB, user=EVE),
        remove(bob, BOB),
        CreateProject(by=bob, project="mine", group=LAB, title="Mine"),
        CreateNotebook(by=bob, notebook="mine", project=APOLLO, group=LAB, title="Mine"),
        StartNotebook(by=bob, notebook=PLOTS, group=LAB, run=RUN),
        StopNotebook(by=bob, notebook=PLOTS, group=LAB),
        DeleteNotebook(by=bob, notebook=PLOTS, group=LAB),
    ):
        given(*audited).when(command).refused(AuditorsChangeNothing)


def test_who_is_an_auditor_no_more_is_what_they_were() -> None:
    auditor = UserRolesChanged(user=BOB, administrator=False, auditor=True, was_administrator=False, was_auditor=False)
    no_more = UserRolesChanged(user=BOB, administrator=False, auditor=False, was_administrator=False, was_auditor=True)
    given(*lab, auditor, no_more).when(remove(bob, BOB)).then(bob_left)


def test_a_roster_and_a_standing_fold_nothing_of_other_things() -> None:
    assert Roster().evolve(wanted) == Roster()
    assert Standing(ada).evolve(wanted) == Standing(ada)


def test_a_group_of_somebody_else_is_a_group_to_a_stranger() -> None:
    standing = Standing.of(eve, LAB).fold(list(lab))
    assert (standing.group, standing.role) == (True, Role.NOBODY)


def test_changes_of_membership_are_filed_under_the_group_and_the_user() -> None:
    assert bob_left.tags == bob_owns_too.tags == (f"group:{LAB}", f"user:{BOB}")
    assert GroupCreated(group=LAB, title="Space Lab", owner=ADA).tags == (f"group:{LAB}", f"user:{ADA}")
