"""Erasure: two administrators make unreadable, for ever, what was sealed for a subject."""

from collections.abc import Iterator
from typing import Any, Self

from msgspec.structs import replace

from app.domain.approvals import About, Action, JointCommand
from app.domain.errors import Conflict
from app.domain.event import Event
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import UserId
from app.domain.retention import Holds
from app.domain.subjects import Subject, SubjectErased
from app.domain.tokens import TokenId, TokenIssued, TokenRevoked
from app.domain.users import Account, NoSuchUser


class AdministratorsAreNotErased(Conflict):
    """This user is an administrator, who may be one of the two that are needed: take that role away first."""


class LiveTokens(DecisionModel, frozen=True):
    """The tokens of a user that were not revoked."""

    tokens: tuple[TokenId, ...] = ()

    @classmethod
    def of(cls, user: UserId) -> Basis[Self]:
        """Rest on one user's tokens."""
        return Basis(cls(), (events(TokenIssued, TokenRevoked, tags=(f"user:{user}",)),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            case TokenIssued(token=token):
                return replace(self, tokens=(*self.tokens, token))
            case TokenRevoked(token=revoked):
                return replace(self, tokens=tuple(token for token in self.tokens if token != revoked))
            case _:
                return self


class EraseSubject(JointCommand, frozen=True, kw_only=True):
    """Make unreadable what was sealed for a subject. A user's sessions, tokens and password end with it.

    Two administrators do, unless it is under legal hold. A user is erased once; of a thing, a value that was sealed
    after its erasure can be erased by another one.
    """

    subject: Subject

    def needs(self) -> tuple[Action, About]:
        """Name what is to be approved."""
        return "erase", self.subject

    def grounds(self) -> tuple[Basis[Any], ...]:
        """Rest on legal holds, and on the user and their tokens."""
        kind, _, name = self.subject.partition(":")
        user = name if kind == "user" else "nobody"
        return Holds.on(self.subject), Account.of(user), LiveTokens.of(user)

    def check(self, holds: Holds, account: Account, _: LiveTokens) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Raise `UnderLegalHold`, `NoSuchUser` or `AdministratorsAreNotErased`; false for one who was erased."""
        holds.must_not_hold(self.subject)
        if not self.subject.startswith("user:"):
            return True
        if account.erased:
            return False
        if not account.exists:
            raise NoSuchUser(self.subject)
        if account.administrator:
            raise AdministratorsAreNotErased
        return True

    def happen(self, _: Holds, __: Account, live: LiveTokens) -> Iterator[Event]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield `TokenRevoked` for each token, and `SubjectErased`."""
        user = self.subject.removeprefix("user:")
        yield from (TokenRevoked(token=token, user=user) for token in live.tokens)
        yield SubjectErased(subject=self.subject)
