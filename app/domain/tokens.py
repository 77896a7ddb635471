"""A token: a key for programs, that opens what its scopes name until it expires or is revoked."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from msgspec import Meta
from msgspec.structs import replace

from app.domain.audits import AuditorsOnly
from app.domain.command import Caller, Command
from app.domain.errors import Forbidden, NotFound
from app.domain.event import Access, Event
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import Title, UserId, identifier
from app.domain.users import Account, AdministratorsOnly

TokenId = Annotated[str, identifier("token", "tok")]


class Scope(StrEnum):
    """What a token opens. None includes another, but that `admin` reads the audit log too."""

    READ = "read"
    WRITE = "write"
    NOTEBOOKS = "notebooks"
    ADMIN = "admin"
    AUDIT = "audit"


Scopes = Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=5)]


class TokenIssued(Event, frozen=True, kw_only=True):
    """A token exists. Its secret was shown once and stands nowhere; its digest is in the vault."""

    whose = "user"

    token: TokenId
    user: UserId
    title: Title
    scopes: Scopes
    expires: datetime


class TokenRevoked(Event, frozen=True, kw_only=True):
    """A token opens nothing any more."""

    token: TokenId
    user: UserId


class TokenUsed(Access, frozen=True, kw_only=True):
    """A token opened something, for the first time in an hour."""

    token: TokenId
    user: UserId


class Token(DecisionModel, frozen=True):
    """What decisions about one token rest on."""

    user: UserId | None = None
    revoked: bool = False

    @classmethod
    def about(cls, token: TokenId) -> Basis[Self]:
        """Rest on one token."""
        return Basis(cls(), (events(TokenIssued, TokenRevoked, tags=(f"token:{token}",)),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            case TokenIssued(user=user):
                return replace(self, user=user)
            case TokenRevoked():
                return replace(self, revoked=True)
            case _:
                return self


class NoSuchToken(NotFound):
    """You have no token with this id."""


class SessionsOnly(Forbidden):
    """A token cannot make tokens: log in with your password to make one."""


class IssueToken(Command, frozen=True, kw_only=True):
    """Make a token for oneself. Nobody grants more than they hold."""

    by: Caller
    in_session: bool
    token: TokenId
    title: Title
    scopes: Scopes
    expires: datetime

    def rests_on(self) -> tuple[Basis[Account]]:
        """Rest on who asks."""
        return (Account.of(self.by.user),)

    def decide(self, caller: Account) -> Iterator[Event]:
        """Yield `TokenIssued`; raise `SessionsOnly`, `AdministratorsOnly` or `AuditorsOnly`."""
        if not self.in_session:
            raise SessionsOnly
        if Scope.ADMIN in self.scopes and not caller.administrator:
            raise AdministratorsOnly
        if Scope.AUDIT in self.scopes and not (caller.administrator or caller.auditor):
            raise AuditorsOnly
        yield TokenIssued(
            token=self.token, user=self.by.user, title=self.title, scopes=self.scopes, expires=self.expires
        )


class RevokeToken(Command, frozen=True, kw_only=True):
    """End one of one's own tokens."""

    by: Caller
    token: TokenId

    def rests_on(self) -> tuple[Basis[Token]]:
        """Rest on the token."""
        return (Token.about(self.token),)

    def decide(self, token: Token) -> Iterator[Event]:
        """Yield `TokenRevoked`, unless it is; raise `NoSuchToken`."""
        if token.user != self.by.user:
            raise NoSuchToken
        if not token.revoked:
            yield TokenRevoked(token=self.token, user=self.by.user)
