"""Accounts: who may open one, and under which name."""

from app.domain.command import Caller
from app.domain.names import Personal
from app.domain.users import (
    Account,
    AdministratorsOnly,
    AlreadySetUp,
    CreateFirstAdministrator,
    CreateUser,
    LoggedIn,
    LoggedOut,
    LoginRefused,
    UserCreated,
    UsernameTaken,
)
from tests.domain.cast import ADA, GRACE, a_digest, account, accounts, ada, an_id, grace, grace_as_anybody
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
