"""Approvals: what takes two administrators takes two different ones, who want the same within a day."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from app.domain.approvals import (
    LIFE,
    About,
    Action,
    ApprovalGiven,
    ApprovalRequested,
    JointCommand,
    SecondAdministratorNeeded,
)
from app.domain.command import Caller
from app.domain.event import Event
from app.domain.subjects import SubjectErased
from app.domain.users import AdministratorsOnly, LoggedIn, UserRolesChanged
from tests.domain.cast import ADA, GRACE, account, accounts, ada, an_id, grace, grace_as_anybody
from tests.scenario import given

HOPPER = an_id("usr", 5)
hopper = Caller(HOPPER, administering=True)
two = (*accounts, account(HOPPER, "hopper", administrator=True))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DONE = LoggedIn(user=ADA, session="done")


class Rotate(JointCommand, frozen=True, kw_only=True):
    """Something that takes two."""

    log: str = "log"

    def needs(self) -> tuple[Action, About]:
        return "rotate", self.log

    def happen(self, *_: Any) -> Iterator[Event]:
        yield DONE


asked = ApprovalRequested(action="rotate", about="log", by=GRACE, until=NOON + LIFE)


def test_the_first_administrator_only_asks() -> None:
    given(*two).when(Rotate(by=grace, now=NOON)).then(asked)


def test_the_second_one_lets_it_happen() -> None:
    approved = ApprovalGiven(action="rotate", about="log", by=HOPPER, asked=GRACE)
    given(*two, asked).when(Rotate(by=hopper, now=NOON + LIFE - timedelta(seconds=1))).then(approved, DONE)


def test_the_same_one_again_is_not_a_second_one() -> None:
    given(*two, asked).when(Rotate(by=grace, now=NOON)).refused(SecondAdministratorNeeded)


def test_after_a_day_it_has_to_be_asked_for_anew() -> None:
    late = NOON + LIFE
    again = ApprovalRequested(action="rotate", about="log", by=HOPPER, until=late + LIFE)
    given(*two, asked).when(Rotate(by=hopper, now=late)).then(again)
    given(*two, asked).when(Rotate(by=grace, now=late)).then(
        ApprovalRequested(action="rotate", about="log", by=GRACE, until=late + LIFE)
    )


def test_an_approval_is_used_once() -> None:
    used = ApprovalGiven(action="rotate", about="log", by=HOPPER, asked=GRACE)
    given(*two, asked, used).when(Rotate(by=hopper, now=NOON)).then(
        ApprovalRequested(action="rotate", about="log", by=HOPPER, until=NOON + LIFE)
    )


@pytest.mark.parametrize(
    "other",
    [
        ApprovalRequested(action="prune", about="log", by=GRACE, until=NOON + LIFE),
        ApprovalRequested(action="rotate", about="another", by=GRACE, until=NOON + LIFE),
    ],
    ids=["action", "about"],
)
def test_what_was_asked_about_something_else_approves_nothing(other: ApprovalRequested) -> None:
    given(*two, other).when(Rotate(by=hopper, now=NOON)).then(
        ApprovalRequested(action="rotate", about="log", by=HOPPER, until=NOON + LIFE)
    )


@pytest.mark.parametrize("by", [ada, grace_as_anybody], ids=["a user", "an administrator without their power"])
def test_who_does_not_administer_neither_asks_nor_approves(by: Caller) -> None:
    given(*two).when(Rotate(by=by, now=NOON)).refused(AdministratorsOnly)
    given(*two, ApprovalRequested(action="rotate", about="log", by=HOPPER, until=NOON + LIFE)).when(
        Rotate(by=by, now=NOON)
    ).refused(AdministratorsOnly)


def test_who_is_an_administrator_no_more_approves_nothing() -> None:
    demoted = UserRolesChanged(
        user=HOPPER, administrator=False, auditor=False, was_administrator=True, was_auditor=False
    )
    given(*two, asked, demoted).when(Rotate(by=hopper, now=NOON)).refused(AdministratorsOnly)


REMOVED = UserRolesChanged(user=GRACE, administrator=False, auditor=True, was_administrator=True, was_auditor=False)
ANEW = ApprovalRequested(action="rotate", about="log", by=HOPPER, until=NOON + LIFE)


@pytest.mark.parametrize(
    "ended",
    [
        (REMOVED,),
        (SubjectErased(subject=f"user:{GRACE}"),),
        (REMOVED, replace(REMOVED, administrator=True, was_administrator=False)),
    ],
    ids=["removed", "erased", "removed and made one again"],
)
def test_what_was_asked_for_by_who_stopped_being_an_administrator_counts_no_more(ended: tuple[Event, ...]) -> None:
    given(*two, asked, *ended).when(Rotate(by=hopper, now=NOON)).then(ANEW)


def test_that_somebody_else_stopped_or_that_one_became_more_takes_nothing_back() -> None:
    approved = ApprovalGiven(action="rotate", about="log", by=HOPPER, asked=GRACE)
    more = UserRolesChanged(user=GRACE, administrator=True, auditor=True, was_administrator=True, was_auditor=False)
    other = UserRolesChanged(user=ADA, administrator=False, auditor=False, was_administrator=True, was_auditor=False)
    for history in ((more,), (other,), (SubjectErased(subject=f"user:{ADA}"),), (SubjectErased(subject="guest"),)):
        given(*two, asked, *history).when(Rotate(by=hopper, now=NOON)).then(approved, DONE)


def test_what_somebody_asked_about_something_else_is_no_word_about_themselves() -> None:
    """An entry is filed under who asked, too."""
    about_them = Rotate(by=hopper, now=NOON, log=f"user:{GRACE}")
    anew = ApprovalRequested(action="rotate", about=f"user:{GRACE}", by=HOPPER, until=NOON + LIFE)
    given(*two, asked).when(about_them).then(anew)
    given(*two, anew, ApprovalGiven(action="rotate", about="log", by=GRACE, asked=HOPPER)).when(about_them).refused(
        SecondAdministratorNeeded
    )


def test_an_approval_is_filed_under_what_it_is_about_and_under_who_gave_it() -> None:
    assert asked.tags == ("log", f"user:{GRACE}")
    assert Rotate(by=grace, now=NOON).tags == ("log",)
    assert Rotate(by=grace, now=NOON).acts_as() == "administrator"


def test_a_command_that_takes_two_says_what_for_and_what_then() -> None:
    unfinished = JointCommand(by=grace, now=NOON)
    for missing in (unfinished.needs, unfinished.happen):
        with pytest.raises(NotImplementedError):
            missing()
