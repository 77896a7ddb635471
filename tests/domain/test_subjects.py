"""Erasing: two administrators do it, to whoever is not one of them, unless that has to be kept."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from app.domain.approvals import LIFE, ApprovalGiven, ApprovalRequested, SecondAdministratorNeeded
from app.domain.command import Caller
from app.domain.erasure import AdministratorsAreNotErased, EraseSubject, LiveTokens
from app.domain.errors import Refusal
from app.domain.groups import NoSuchGroup
from app.domain.names import Personal
from app.domain.notebooks import NoSuchNotebook, NotebookDeleted
from app.domain.projects import NoSuchProject
from app.domain.retention import (
    Holds,
    Known,
    LegalHoldLifted,
    LegalHoldPlaced,
    LiftHold,
    NothingToKeep,
    PlaceHold,
    UnderLegalHold,
)
from app.domain.subjects import Subject, SubjectErased
from app.domain.tokens import Scope, TokenIssued, TokenRevoked
from app.domain.users import Account, AdministratorsOnly, NoSuchUser, UserRolesChanged
from tests.domain.cast import (
    ADA,
    APOLLO,
    BOB,
    EVE,
    GRACE,
    LAB,
    PLOTS,
    account,
    ada,
    an_id,
    apollo,
    bob,
    eve,
    grace,
    plots,
)
from tests.scenario import given

HOPPER = an_id("usr", 5)
hopper = Caller(HOPPER, administering=True)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
WHY = Personal("Case 42")
TOKENS = [an_id("tok", number) for number in (1, 2)]

two = (*apollo, account(HOPPER, "hopper", administrator=True))


def asked(subject: str, by: str = GRACE) -> ApprovalRequested:
    return ApprovalRequested(action="erase", about=subject, by=by, until=NOON + LIFE)


def approved(subject: str) -> ApprovalGiven:
    return ApprovalGiven(action="erase", about=subject, by=HOPPER, asked=GRACE)


def erase(subject: str, by: Caller) -> EraseSubject:
    return EraseSubject(by=by, now=NOON, subject=subject)


def issued(token: str, user: str = ADA) -> TokenIssued:
    return TokenIssued(token=token, user=user, title="laptop", scopes=(Scope.READ,), expires=NOON)


ADAS, APOLLOS = f"user:{ADA}", f"project:{APOLLO}"


@pytest.mark.parametrize("subject", [ADAS, APOLLOS, "guest"])
def test_two_administrators_erase_a_subject(subject: str) -> None:
    given(*two).when(erase(subject, grace)).then(asked(subject))
    given(*two, asked(subject)).when(erase(subject, grace)).refused(SecondAdministratorNeeded)
    given(*two, asked(subject)).when(erase(subject, hopper)).then(approved(subject), SubjectErased(subject=subject))


def test_a_users_tokens_end_with_them() -> None:
    history = (
        issued(TOKENS[0]),
        issued(TOKENS[1]),
        TokenRevoked(token=TOKENS[0], user=ADA),
        issued(an_id("tok", 3), BOB),
    )
    given(*two, *history, asked(ADAS)).when(erase(ADAS, hopper)).then(
        approved(ADAS), TokenRevoked(token=TOKENS[1], user=ADA), SubjectErased(subject=ADAS)
    )


def test_only_tokens_make_tokens() -> None:
    one = LiveTokens().evolve(issued(TOKENS[0]))
    assert one.evolve(SubjectErased(subject=APOLLOS)) == one == LiveTokens((TOKENS[0],))


def test_who_was_erased_is_not_erased_again_and_needs_nobodys_approval() -> None:
    given(*two, SubjectErased(subject=ADAS)).when(erase(ADAS, grace)).nothing_happens()


def test_a_thing_can_be_erased_again() -> None:
    given(*two, SubjectErased(subject=APOLLOS)).when(erase(APOLLOS, grace)).then(asked(APOLLOS))


def test_nobody_else_erases_not_even_themselves() -> None:
    for by in (ada, bob, eve):
        given(*two, asked(ADAS)).when(erase(ADAS, by)).refused(AdministratorsOnly)


def test_who_does_not_exist_is_not_erased() -> None:
    given(*two).when(erase(f"user:{an_id('usr', 9)}", grace)).refused(NoSuchUser)


def test_an_administrator_has_to_be_none_before_they_are_erased() -> None:
    given(*two).when(erase(f"user:{HOPPER}", grace)).refused(AdministratorsAreNotErased)
    demoted = UserRolesChanged(user=EVE, administrator=False, auditor=False, was_administrator=True, was_auditor=False)
    promoted = UserRolesChanged(user=EVE, administrator=True, auditor=False, was_administrator=False, was_auditor=False)
    given(*two, promoted).when(erase(f"user:{EVE}", grace)).refused(AdministratorsAreNotErased)
    given(*two, promoted, demoted).when(erase(f"user:{EVE}", grace)).then(asked(f"user:{EVE}"))


def test_who_was_erased_has_no_account_any_more() -> None:
    before = Account(exists=True, administrator=True, auditor=True)
    assert before.evolve(SubjectErased(subject=ADAS)) == Account(erased=True)


def test_what_is_under_legal_hold_is_not_erased_until_that_is_lifted() -> None:
    held = LegalHoldPlaced(about=ADAS, reason=WHY)
    given(*two, held).when(erase(ADAS, grace)).refused(UnderLegalHold)
    given(*two, asked(ADAS), held).when(erase(ADAS, hopper)).refused(UnderLegalHold)
    given(*two, held, LegalHoldLifted(about=ADAS)).when(erase(ADAS, grace)).then(asked(ADAS))
    given(*two, held).when(erase(APOLLOS, grace)).then(asked(APOLLOS))


def test_one_administrator_places_a_hold_and_no_auditor() -> None:
    auditor = UserRolesChanged(user=EVE, administrator=False, auditor=True, was_administrator=False, was_auditor=False)
    placed = LegalHoldPlaced(about=ADAS, reason=WHY)
    given(*two).when(PlaceHold(by=grace, about=ADAS, reason=WHY)).then(placed)
    given(*two, auditor).when(PlaceHold(by=eve, about=ADAS, reason=WHY)).refused(AdministratorsOnly)
    given(*two, placed).when(PlaceHold(by=grace, about=ADAS, reason=WHY)).nothing_happens()
    given(*two).when(PlaceHold(by=bob, about=ADAS, reason=WHY)).refused(AdministratorsOnly)
    hold = PlaceHold(by=grace, about=ADAS, reason=WHY)
    assert (hold.tags, hold.acts_as()) == (placed.tags, "administrator") == ((ADAS,), "administrator")


@pytest.mark.parametrize(
    ("about", "refusal"),
    [
        (f"user:{an_id('usr', 9)}", NoSuchUser),
        ("user:usr_typo", NoSuchUser),
        ("group:nowhere", NoSuchGroup),
        ("project:nothing", NoSuchProject),
        ("notebook:nothing", NoSuchNotebook),
        ("log-keys:0123", NothingToKeep),
        ("session:ses_1", NothingToKeep),
    ],
)
def test_nobody_is_told_that_something_is_kept_which_never_was(about: str, refusal: type[Refusal]) -> None:
    given(*plots).when(PlaceHold(by=grace, about=about, reason=WHY)).refused(refusal)
    given(*plots).when(PlaceHold(by=ada, about=about, reason=WHY)).refused(AdministratorsOnly)


@pytest.mark.parametrize("about", [ADAS, f"group:{LAB}", APOLLOS, f"notebook:{PLOTS}", "guest"])
def test_whatever_is_there_or_was_there_can_be_kept(about: str) -> None:
    gone = (SubjectErased(subject=ADAS), NotebookDeleted(notebook=PLOTS, project=APOLLO, group=LAB))
    for history in (plots, (*plots, *gone)):
        placed = LegalHoldPlaced(about=about, reason=WHY)
        given(*history).when(PlaceHold(by=grace, about=about, reason=WHY)).then(placed)


@given_any(st.sampled_from([ADAS, f"group:{LAB}", APOLLOS, f"notebook:{PLOTS}", "guest", "other:x"]))
def test_what_something_was_not_begun_by_does_not_make_it_known(about: str) -> None:
    before = Known.of(about).model
    assert before.evolve(SubjectErased(subject=about)) == before


def test_two_administrators_lift_a_hold() -> None:
    placed, lifted = LegalHoldPlaced(about=ADAS, reason=WHY), LegalHoldLifted(about=ADAS)
    first = ApprovalRequested(action="lift-hold", about=ADAS, by=GRACE, until=NOON + LIFE)
    lift = LiftHold(by=grace, now=NOON, about=ADAS)
    given(*two).when(lift).nothing_happens()
    given(*two, placed).when(lift).then(first)
    given(*two, placed, first).when(lift).refused(SecondAdministratorNeeded)
    given(*two, placed, first).when(LiftHold(by=hopper, now=NOON, about=ADAS)).then(
        ApprovalGiven(action="lift-hold", about=ADAS, by=HOPPER, asked=GRACE), lifted
    )
    assert lifted.tags == (ADAS,)


def test_all_holds_are_known_together() -> None:
    placed = [LegalHoldPlaced(about=about, reason=WHY) for about in (ADAS, APOLLOS)]
    assert Holds.all().fold([*placed, LegalHoldLifted(about=ADAS), SubjectErased(subject=ADAS)]).held == {APOLLOS}
    assert Holds().evolve(SubjectErased(subject=ADAS)) == Holds()


@given_any(st.from_regex(r"(user|group|project|notebook):[a-z0-9-]{1,63}|guest", fullmatch=True))
def test_a_subject_is_its_own_tag(subject: str) -> None:
    assert msgspec.convert(subject, Subject) == subject
    assert SubjectErased(subject=subject).tags == (subject,)


@pytest.mark.parametrize("bad", ["", "user:", ":x", "user:a b", "guest\n", "User:x", "a:b:c", "x" * 101])
def test_nothing_else_is_a_subject(bad: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, Subject)
