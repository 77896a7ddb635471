"""Accounts: who may open one, and under which name."""

from app.domain.command import Caller
from app.domain.groups import AddMember, MemberAdded
from app.domain.names import Personal
from app.domain.subjects import SubjectErased
from app.domain.users import (
    Account,
    AdministratorOrAuditor,
    Administrators,
    AdministratorsOnly,
    AlreadySetUp,
    ChangeRoles,
    CreateFirstAdministrator,
    CreateUser,
    LastAdministrator,
    LoggedIn,
    LoggedOut,
    LoginRefused,
    NoSuchUser,
    UserCreated,
    UsernameTaken,
    UserRolesChanged,
)
from tests.domain.cast import (
    ADA,
    BOB,
    EVE,
    GRACE,
    LAB,
    a_digest,
    account,
    accounts,
    ada,
    an_id,
    grace,
    grace_as_anybody,
    lab,
)
from tests.scenario import given

MAY = an_id("usr", 9)
first = CreateFirstAdministrator(user=GRACE, username=Personal("grace"), digest=a_digest(4))


def create_may(by: Caller, digest: str = a_digest(9), *, administrator: bool = False) -> CreateUser:
    return CreateUser(by=by, user=MAY, username=Personal("may"), digest=digest, administrator=administrator)


def test_an_administrator_opens_an_account() -> None:
    given(*accounts).when(create_may(grace)).then(account(MAY, "may"))


def test_an_administrator_opens_an_account_for_another_administrator() -> None:
    given(*accounts).when(create_may(grace, administrator=True)).then(account(MAY, "may", administrator=True))


def test_a_name_is_one_persons() -> None:
    given(*accounts).when(create_may(grace, a_digest(1))).refused(UsernameTaken)


def test_the_same_account_is_not_opened_twice() -> None:
    given(*accounts, account(MAY, "may")).when(create_may(grace)).refused(UsernameTaken)


def test_only_administrators_open_accounts() -> None:
    given(*accounts).when(create_may(ada)).refused(AdministratorsOnly)


def test_claiming_to_administer_does_not_make_an_administrator() -> None:
    given(*accounts).when(create_may(Caller(ADA, administering=True))).refused(AdministratorsOnly)


def test_an_administrator_whose_token_is_not_for_that_opens_no_account() -> None:
    given(*accounts).when(create_may(grace_as_anybody)).refused(AdministratorsOnly)


def test_somebody_unknown_opens_no_account() -> None:
    given().when(create_may(grace)).refused(AdministratorsOnly)


def test_a_new_installation_begins_with_an_administrator() -> None:
    given().when(first).then(account(GRACE, "grace", administrator=True))


def test_an_installation_begins_once() -> None:
    given(account(GRACE, "grace", administrator=True)).when(first).refused(AlreadySetUp)


def test_an_installation_with_an_account_of_whatever_kind_has_begun() -> None:
    given(account(ADA, "ada")).when(first).refused(AlreadySetUp)


def test_an_account_is_filed_under_its_id_and_a_digest_of_its_name_and_never_under_the_name() -> None:
    assert account(ADA, "ada").tags == (f"user:{ADA}", f"username:{a_digest(1)}")


def test_logins_are_recorded_and_change_no_state() -> None:
    accesses = (
        LoggedIn(user=ADA, session="ses_1"),
        LoginRefused(),
        LoginRefused(user=ADA),
        LoggedOut(user=ADA, session="s"),
    )
    assert [access.fact for access in accesses] == [False] * 4
    assert [access.tags for access in accesses] == [
        (f"user:{ADA}", "session:ses_1"),
        (),
        (f"user:{ADA}",),
        (f"user:{ADA}", "session:s"),
    ]


def test_an_account_folds_nothing_but_its_creation() -> None:
    nobody = Account()
    assert nobody.evolve(LoginRefused()) is nobody
    assert nobody.evolve(account(GRACE, "grace", administrator=True)) == Account(exists=True, administrator=True)


def test_a_user_name_stands_in_no_tag() -> None:
    event = UserCreated(user=ADA, username=Personal("augusta"), digest=a_digest(1), administrator=False)
    assert not any("augusta" in tag for tag in event.tags)


def change(by: Caller, user: str, *, administrator: bool = False, auditor: bool = False) -> ChangeRoles:
    return ChangeRoles(by=by, user=user, administrator=administrator, auditor=auditor)


def changed(user: str, before: tuple[bool, bool], after: tuple[bool, bool]) -> UserRolesChanged:
    """Roles are told as (administrator, auditor)."""
    return UserRolesChanged(
        user=user, administrator=after[0], auditor=after[1], was_administrator=before[0], was_auditor=before[1]
    )


promoted = changed(ADA, (False, False), (True, False))


def test_an_administrator_opens_an_account_for_an_auditor() -> None:
    command = CreateUser(by=grace, user=MAY, username=Personal("may"), digest=a_digest(9), auditor=True)
    given(*accounts).when(command).then(account(MAY, "may", auditor=True))


def test_an_administrator_makes_somebody_an_auditor() -> None:
    given(*accounts).when(change(grace, ADA, auditor=True)).then(changed(ADA, (False, False), (False, True)))


def test_an_auditor_is_made_an_administrator_and_the_entry_says_what_they_were() -> None:
    auditor = changed(ADA, (False, False), (False, True))
    given(*accounts, auditor).when(change(grace, ADA, administrator=True)).then(
        changed(ADA, (False, True), (True, False))
    )


def test_roles_that_somebody_has_change_nothing() -> None:
    given(*accounts).when(change(grace, GRACE, administrator=True)).nothing_happens()
    given(*accounts, promoted).when(change(grace, ADA, administrator=True)).nothing_happens()


def test_the_last_administrator_stays_one() -> None:
    given(*accounts).when(change(grace, GRACE, auditor=True)).refused(LastAdministrator)
    demoted = changed(ADA, (True, False), (False, False))
    given(*accounts, promoted, demoted).when(change(grace, GRACE)).refused(LastAdministrator)


def test_one_of_two_administrators_may_go() -> None:
    given(*accounts, promoted).when(change(grace, GRACE)).then(changed(GRACE, (True, False), (False, False)))


def test_nobody_is_administrator_and_auditor() -> None:
    given(*accounts).when(change(grace, GRACE, administrator=True, auditor=True)).refused(AdministratorOrAuditor)
    both = CreateUser(
        by=grace, user=MAY, username=Personal("may"), digest=a_digest(9), administrator=True, auditor=True
    )
    given(*accounts).when(both).refused(AdministratorOrAuditor)


def test_who_once_became_both_is_an_administrator_until_they_are_one_of_them() -> None:
    both = changed(GRACE, (True, False), (True, True))
    given(*lab, both).when(AddMember(by=grace, group=LAB, user=EVE)).then(
        MemberAdded(group=LAB, user=EVE, role="member")
    )
    given(*accounts, both).when(change(grace, GRACE, administrator=True, auditor=True)).nothing_happens()
    given(*accounts, both).when(change(grace, GRACE, administrator=True)).then(
        changed(GRACE, (True, True), (True, False))
    )


def test_nobody_unknown_is_given_a_role() -> None:
    given(*accounts).when(change(grace, MAY, auditor=True)).refused(NoSuchUser)


def test_only_administrators_change_roles() -> None:
    given(*accounts).when(change(ada, ADA, administrator=True)).refused(AdministratorsOnly)
    given(*accounts).when(change(grace_as_anybody, ADA, auditor=True)).refused(AdministratorsOnly)


def test_who_was_an_administrator_opens_no_account() -> None:
    demoted = changed(GRACE, (True, False), (False, False))
    given(*accounts, promoted, demoted).when(create_may(grace)).refused(AdministratorsOnly)


def test_an_auditor_changes_nothing_by_that() -> None:
    auditor = changed(BOB, (False, False), (False, True))
    given(*accounts, auditor).when(create_may(Caller(BOB, administering=True))).refused(AdministratorsOnly)


def test_what_only_administrators_do_is_marked_as_done_with_their_power() -> None:
    assert create_may(grace).acts_as() == change(grace, ADA).acts_as() == "administrator"
    assert first.acts_as() is None


def test_who_administers_is_folded_from_nothing_else() -> None:
    nobody = Administrators()
    assert nobody.evolve(LoginRefused()) is nobody
    assert nobody.evolve(account(ADA, "ada")) is nobody
    assert nobody.evolve(promoted).evolve(promoted).users == {ADA}


def test_who_was_erased_administers_no_more_and_does_not_count_as_the_last_who_does() -> None:
    erased = SubjectErased(subject=f"user:{ADA}")
    assert Account().evolve(promoted).evolve(erased) == Account(erased=True)
    given(*accounts, promoted, erased).when(change(grace, GRACE)).refused(LastAdministrator)
    given(*accounts, promoted, erased).when(change(Caller(ADA, administering=True), BOB)).refused(AdministratorsOnly)
