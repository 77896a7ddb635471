"""A command: what somebody wants, in the imperative. It names what it rests on, and decides; nothing else."""

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from app.domain.event import Access, Event
from app.domain.model import Basis
from app.domain.names import UserId, tags_of

Power = Literal["administrator"]
"""A power that somebody uses who could not do it as the one they are to the group: its members can see each use."""


class Caller(Struct, frozen=True):
    """On whose word a command is given, and whether an administrator's power may be used for it."""

    user: UserId
    administering: bool = False


class Command(Struct, frozen=True, kw_only=True):
    """A wish. Identifiers and times come in as fields: `decide` makes none."""

    def rests_on(self) -> tuple[Basis[Any], ...]:
        """Name the models that `decide` is given, in its order."""
        raise NotImplementedError

    def decide(self, *models: Any, **_: Any) -> Iterator[Event]:
        """Yield what happened (nothing, if what was asked for already holds) or raise a `Refusal`."""
        raise NotImplementedError

    def acts_as(self, *models: Any) -> Power | None:
        """Name the power that it took to decide so on these models, if it took any; the entry says it."""
        return None

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of every entity that it mentions: a refusal of it is filed under them."""
        return tags_of(self)


class CommandRefused(Access, frozen=True, kw_only=True):
    """A rule said no. The reason is in the entry, its tags are the command's."""

    command: str
