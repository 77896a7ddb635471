"""Passwords: who gives an account another one."""

from app.domain.passwords import ChangePassword, NotByToken, PasswordChanged, PasswordReset, ResetPassword
from app.domain.subjects import SubjectErased
from app.domain.users import NoSuchUser
from tests.domain.cast import ADA, BOB, accounts, ada, an_id
from tests.scenario import given

SESSION = an_id("ses", 1)
erased = SubjectErased(subject=f"user:{ADA}")
reset, changed = PasswordReset(user=ADA), PasswordChanged(user=ADA, session=SESSION)
by_ada = ChangePassword(by=ada, session=SESSION)


def test_whoever_has_the_machine_gives_an_account_another_password() -> None:
    given(*accounts).when(ResetPassword(user=ADA)).then(reset)


def test_a_password_is_reset_each_time_anew() -> None:
    given(*accounts, reset).when(ResetPassword(user=ADA)).then(reset)


def test_nobody_unknown_is_given_a_password() -> None:
    given(*accounts).when(ResetPassword(user=an_id("usr", 9))).refused(NoSuchUser)


def test_who_was_erased_is_given_no_password() -> None:
    given(*accounts, erased).when(ResetPassword(user=ADA)).refused(NoSuchUser)
    given(*accounts, erased).when(ResetPassword(user=BOB)).then(PasswordReset(user=BOB))


def test_a_user_changes_their_password_and_stays_in_that_session() -> None:
    given(*accounts).when(by_ada).then(changed)


def test_a_password_is_changed_each_time_anew() -> None:
    given(*accounts, changed).when(by_ada).then(changed)


def test_a_token_changes_no_password() -> None:
    given(*accounts).when(ChangePassword(by=ada, session=None)).refused(NotByToken)


def test_who_was_erased_or_is_unknown_changes_no_password() -> None:
    given(*accounts, erased).when(by_ada).refused(NoSuchUser)
    given().when(by_ada).refused(NoSuchUser)


def test_a_password_is_filed_under_its_user_and_the_session_that_stays() -> None:
    assert reset.tags == (f"user:{ADA}",)
    assert changed.tags == (f"user:{ADA}", f"session:{SESSION}")
