"""Approvals: nobody erases, restores or rotates keys alone. One administrator asks, another one lets it happen.

A command that needs two is given by each of them. The first is recorded as `ApprovalRequested`, and changes nothing
else; the same from another administrator, before it expires, is recorded as `ApprovalGiven`, with what it allows.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from msgspec import Meta
from msgspec.structs import replace

from app.domain.command import Caller, Command, Power
from app.domain.errors import Conflict
from app.domain.event import Event
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import UserId
from app.domain.subjects import SubjectErased
from app.domain.users import Account, AdministratorsOnly, UserRolesChanged

Action = Literal["erase", "rotate", "recover", "prune", "lift-hold"]

About = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.:@/+=-]{1,200}(?!\n)$",
        description="What it would be done to: a subject, a position, a log's name.",
        examples=["user:usr_06dmq5v1c9t72r8k3f4g5h6j0n"],
    ),
]

LIFE = timedelta(hours=24)


class Approval(Event, frozen=True, kw_only=True):
    """What an administrator said about something that none of them does alone."""

    action: Action
    about: About
    by: UserId

    @property
    def tags(self) -> tuple[str, ...]:
        """File it under what it is about, and under whoever said it."""
        return (self.about, f"user:{self.by}")


class ApprovalRequested(Approval, frozen=True, kw_only=True):
    """An administrator asks another one to let something happen, until then."""

    until: datetime


class ApprovalGiven(Approval, frozen=True, kw_only=True):
    """Another administrator than the one who asked lets it happen. What it allowed follows at once."""

    asked: UserId


class SecondAdministratorNeeded(Conflict):
    """This was asked for already; now another administrator has to ask for the same, within 24 hours."""


class Approvals(DecisionModel, frozen=True):
    """Who asked for one thing, and has administered ever since."""

    action: Action
    about: About
    asked: tuple[tuple[UserId, datetime], ...] = ()

    @classmethod
    def of(cls, action: Action, about: About) -> Basis[Self]:
        """Rest on what was asked about one thing, on what came of it, and on who stopped being an administrator."""
        asked = events(ApprovalRequested, ApprovalGiven, tags=(about,))
        return Basis(cls(action, about), (asked, events(UserRolesChanged, SubjectErased)))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            # An entry is filed under who asked, too: what they asked about something else is no word on them.
            case ApprovalRequested(action=self.action, about=self.about, by=user, until=until):
                return replace(self, asked=(*self.asked, (user, until)))
            case ApprovalGiven(action=self.action, about=self.about):
                return replace(self, asked=())
            case UserRolesChanged(user=user, administrator=False):
                return self._without(user)
            case SubjectErased(subject=subject):
                return self._without(subject.removeprefix("user:"))
            case _:
                return self

    def _without(self, user: UserId) -> Self:
        return replace(self, asked=tuple(one for one in self.asked if one[0] != user))

    def decide(self, by: UserId, now: datetime) -> Iterator[Approval]:
        """Yield what this administrator's word comes to; raise `SecondAdministratorNeeded` if they said it before."""
        open_ = [user for user, until in self.asked if until > now]
        if other := next((user for user in open_ if user != by), None):
            yield ApprovalGiven(action=self.action, about=self.about, by=by, asked=other)
        elif open_:
            raise SecondAdministratorNeeded
        else:
            yield ApprovalRequested(action=self.action, about=self.about, by=by, until=now + LIFE)


class JointCommand(Command, frozen=True, kw_only=True):
    """A wish that two administrators have to have. `now`: the time at which it is expressed."""

    by: Caller
    now: datetime

    def needs(self) -> tuple[Action, About]:
        """Name what is to be approved."""
        raise NotImplementedError

    def grounds(self) -> tuple[Basis[Any], ...]:
        """Name what else it rests on."""
        return ()

    def check(self, *grounds: Any) -> bool:
        """Raise a `Refusal` if it may not be at all; false if it holds already, so that nobody has to approve."""
        return True

    def happen(self, *grounds: Any) -> Iterator[Event]:
        """Yield what happens, now that two want it."""
        raise NotImplementedError

    def rests_on(self) -> tuple[Basis[Any], ...]:
        """Rest on who asks, on what was asked before, and on its grounds."""
        return Account.of(self.by.user), Approvals.of(*self.needs()), *self.grounds()

    def decide(self, caller: Account, approvals: Approvals, *grounds: Any) -> Iterator[Event]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield `ApprovalRequested`, or `ApprovalGiven` and what happens; raise `AdministratorsOnly`."""
        if not (caller.administrator and self.by.administering):
            raise AdministratorsOnly
        if not self.check(*grounds):
            return
        for said in approvals.decide(self.by.user, self.now):
            yield said
            if isinstance(said, ApprovalGiven):
                yield from self.happen(*grounds)

    def acts_as(self, *_: Any) -> Power | None:
        """Name the administrator's power: nobody else has a say in it."""
        return "administrator"

    @property
    def tags(self) -> tuple[str, ...]:
        """Name what it is about: a refusal of it is filed under that."""
        return (self.needs()[1],)
