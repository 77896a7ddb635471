"""Tokens: made in a session, for oneself, and ended by oneself."""

from datetime import UTC, datetime

from app.domain.audits import AuditorsOnly
from app.domain.command import Caller
from app.domain.errors import Refusal
from app.domain.tokens import (
    IssueToken,
    NoSuchToken,
    RevokeToken,
    Scope,
    SessionsOnly,
    Token,
    TokenIssued,
    TokenRevoked,
    TokenUsed,
)
from app.domain.users import AdministratorsOnly, UserRolesChanged
from tests.domain.cast import ADA, GRACE, accounts, ada, an_id, bob, grace, wanted
from tests.scenario import given

TOKEN = an_id("tok", 1)
SOON = datetime(2030, 1, 1, tzinfo=UTC)
issued = TokenIssued(token=TOKEN, user=ADA, title="laptop", scopes=(Scope.READ,), expires=SOON)
revoked = TokenRevoked(token=TOKEN, user=ADA)


def issue(by: Caller, *scopes: Scope, in_session: bool = True) -> IssueToken:
    return IssueToken(by=by, in_session=in_session, token=TOKEN, title="laptop", scopes=scopes, expires=SOON)


def test_a_user_makes_a_token_for_themselves() -> None:
    given(*accounts).when(issue(ada, Scope.READ)).then(issued)


def test_an_administrator_makes_a_token_that_administers() -> None:
    given(*accounts).when(issue(grace, Scope.ADMIN)).then(
        TokenIssued(token=TOKEN, user=GRACE, title="laptop", scopes=(Scope.ADMIN,), expires=SOON)
    )


def test_nobody_grants_more_than_they_hold() -> None:
    given(*accounts).when(issue(ada, Scope.READ, Scope.ADMIN)).refused(AdministratorsOnly)


def test_auditors_and_administrators_make_tokens_that_audit_and_nobody_else() -> None:
    auditor = UserRolesChanged(user=ADA, administrator=False, auditor=True, was_administrator=False, was_auditor=False)
    made = TokenIssued(token=TOKEN, user=ADA, title="laptop", scopes=(Scope.AUDIT,), expires=SOON)
    given(*accounts, auditor).when(issue(ada, Scope.AUDIT)).then(made)
    given(*accounts).when(issue(ada, Scope.AUDIT)).refused(AuditorsOnly)
    given(*accounts).when(issue(grace, Scope.AUDIT)).then(
        TokenIssued(token=TOKEN, user=GRACE, title="laptop", scopes=(Scope.AUDIT,), expires=SOON)
    )


def test_the_use_of_a_token_is_filed_like_the_token_and_changes_no_state() -> None:
    used = TokenUsed(token=TOKEN, user=ADA)
    assert used.tags == issued.tags
    assert not used.fact


def test_a_token_makes_no_token() -> None:
    given(*accounts).when(issue(grace, Scope.READ, in_session=False)).refused(SessionsOnly)


def test_a_user_revokes_their_token() -> None:
    given(*accounts, issued).when(RevokeToken(by=ada, token=TOKEN)).then(revoked)


def test_a_token_is_revoked_once() -> None:
    given(*accounts, issued, revoked).when(RevokeToken(by=ada, token=TOKEN)).nothing_happens()


def test_a_token_that_never_was_is_not_revoked() -> None:
    given(*accounts).when(RevokeToken(by=ada, token=TOKEN)).refused(NoSuchToken)


def test_nobody_revokes_or_learns_of_anothers_token() -> None:
    given(*accounts, issued).when(RevokeToken(by=bob, token=TOKEN)).refused(NoSuchToken)


def test_a_token_is_filed_under_itself_and_its_user() -> None:
    assert issued.tags == revoked.tags == (f"token:{TOKEN}", f"user:{ADA}")


def test_a_token_folds_nothing_of_other_things() -> None:
    assert Token().evolve(wanted) == Token()


def test_not_finding_a_token_is_a_refusal() -> None:
    assert issubclass(NoSuchToken, Refusal)
    assert NoSuchToken.status == 404
