"""Retention: what has to be kept. Whatever is under legal hold is neither erased nor pruned."""

from collections.abc import Iterator
from typing import Any, Self

from msgspec.structs import replace

from app.domain.approvals import About, Action, JointCommand
from app.domain.command import Caller, Command, Power
from app.domain.errors import Conflict, NotFound
from app.domain.event import Event
from app.domain.groups import GroupCreated, NoSuchGroup
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import Personal
from app.domain.notebooks import NoSuchNotebook, NotebookCreated
from app.domain.projects import NoSuchProject, ProjectCreated
from app.domain.users import Account, AdministratorsOnly, NoSuchUser, UserCreated

BEGINNINGS: dict[str, tuple[type[Event], type[NotFound]]] = {
    "user": (UserCreated, NoSuchUser),
    "group": (GroupCreated, NoSuchGroup),
    "project": (ProjectCreated, NoSuchProject),
    "notebook": (NotebookCreated, NoSuchNotebook),
}
"""What there can be, by its kind: the event since which it is there, and what is said of one that never was."""


class LegalHoldPlaced(Event, frozen=True, kw_only=True):
    """What is about this has to be kept, until that is lifted. Why is sealed: it may name people."""

    about: About
    reason: Personal

    @property
    def tags(self) -> tuple[str, ...]:
        """File it under what it is about."""
        return (self.about,)


class LegalHoldLifted(Event, frozen=True, kw_only=True):
    """What is about this need not be kept any more."""

    about: About

    @property
    def tags(self) -> tuple[str, ...]:
        """File it under what it is about."""
        return (self.about,)


class UnderLegalHold(Conflict):
    """This is under legal hold, and has to be kept: two administrators can lift that."""


class Holds(DecisionModel, frozen=True):
    """What is under legal hold."""

    held: frozenset[About] = frozenset()

    @classmethod
    def on(cls, about: About) -> Basis[Self]:
        """Rest on one thing's holds."""
        return Basis(cls(), (events(LegalHoldPlaced, LegalHoldLifted, tags=(about,)),))

    @classmethod
    def all(cls) -> Basis[Self]:
        """Rest on all holds."""
        return Basis(cls(), (events(LegalHoldPlaced, LegalHoldLifted),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            case LegalHoldPlaced(about=about):
                return replace(self, held=self.held | {about})
            case LegalHoldLifted(about=about):
                return replace(self, held=self.held - {about})
            case _:
                return self

    def must_not_hold(self, about: About) -> None:
        """Raise `UnderLegalHold` if it has to be kept."""
        if about in self.held:
            raise UnderLegalHold(about)


class NothingToKeep(NotFound):
    """There is nothing of this kind; what can be kept is about a user, group, project or notebook, or about guests."""


class Known(DecisionModel, frozen=True):
    """Whether there is, or ever was, what something is about."""

    about: About
    there: bool = False

    @classmethod
    def of(cls, about: About) -> Basis[Self]:
        """Rest on how it began. Guests always were."""
        kind = about.partition(":")[0]
        began = (events(BEGINNINGS[kind][0], tags=(about,)),) if kind in BEGINNINGS else ()
        return Basis(cls(about, there=about == "guest"), began)

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        kind = self.about.partition(":")[0]
        return replace(self, there=True) if kind in BEGINNINGS and isinstance(event, BEGINNINGS[kind][0]) else self

    def must_be_there(self) -> None:
        """Raise `NoSuchUser`, `NoSuchGroup`, `NoSuchProject`, `NoSuchNotebook` or `NothingToKeep`."""
        kind, _, name = self.about.partition(":")
        if not self.there:
            raise BEGINNINGS[kind][1](name) if kind in BEGINNINGS else NothingToKeep(kind)


class PlaceHold(Command, frozen=True, kw_only=True):
    """Have something kept, that there is or was. One administrator is enough."""

    by: Caller
    about: About
    reason: Personal

    def rests_on(self) -> tuple[Basis[Account], Basis[Holds], Basis[Known]]:
        """Rest on who asks, on what is held, and on there being such a thing."""
        return Account.of(self.by.user), Holds.on(self.about), Known.of(self.about)

    def decide(self, caller: Account, holds: Holds, known: Known) -> Iterator[Event]:
        """Yield `LegalHoldPlaced`, unless it is; raise `AdministratorsOnly`, `NoSuchUser` and the like."""
        if not (caller.administrator and self.by.administering):
            raise AdministratorsOnly
        known.must_be_there()
        if self.about not in holds.held:
            yield LegalHoldPlaced(about=self.about, reason=self.reason)

    def acts_as(self, *_: Any) -> Power | None:
        """Name the administrator's power: nobody else has anything kept."""
        return "administrator"

    @property
    def tags(self) -> tuple[str, ...]:
        """Name what it is about: a refusal of it is filed under that."""
        return (self.about,)


class LiftHold(JointCommand, frozen=True, kw_only=True):
    """Have something no longer be kept. Two administrators do."""

    about: About

    def needs(self) -> tuple[Action, About]:
        """Name what is to be approved."""
        return "lift-hold", self.about

    def grounds(self) -> tuple[Basis[Any], ...]:
        """Rest on what is held."""
        return (Holds.on(self.about),)

    def check(self, holds: Holds) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether there is anything to lift."""
        return self.about in holds.held

    def happen(self, *_: Any) -> Iterator[Event]:
        """Yield `LegalHoldLifted`."""
        yield LegalHoldLifted(about=self.about)
