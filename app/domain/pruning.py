"""Pruning: two administrators remove accesses that were kept long enough; their hashes stay, and so do all proofs.

Facts are never pruned: state is folded from them. What is removed lies in an export, which was verified before.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from app.domain.approvals import About, Action, JointCommand
from app.domain.errors import Conflict
from app.domain.event import Access, Event
from app.domain.exports import Root, Size
from app.domain.model import Basis
from app.domain.retention import Holds
from app.domain.states import Position

Prunable = Literal["security", "reads", "pulse"]
"""Classes of accesses: logins, tokens and refusals; who looked at what; that the platform was alive."""

Classes = Annotated[tuple["PrunedClass", ...], Meta(min_length=1, max_length=3)]


class PrunedClass(Struct, frozen=True):
    """A class of entries, and the time before which an entry of it was kept long enough."""

    name: Prunable
    until: datetime


class LogPruned(Event, frozen=True, kw_only=True):
    """So many accesses up to a position were removed. Their content is in an export of `size` entries with this root.

    Each of them is a `Pruned` now, beside the hash of what was there. `positions`: SHA-256 of where they stand, in
    decimal digits, with commas between them.
    """

    before: Position
    entries: Size
    positions: Root
    size: Size
    root: Root
    classes: Classes

    @property
    def tags(self) -> tuple[str, ...]:
        """File it under what was approved."""
        return (about(self.before),)


class Pruned(Access, frozen=True, kw_only=True):
    """What stands in the place of an access that was removed: by the `LogPruned` at a position, as one of a class."""

    by: Position
    of: Prunable


class HoldsChanged(Conflict):
    """What is under legal hold has changed meanwhile; ask again."""


class PruneLog(JointCommand, frozen=True, kw_only=True):
    """Have accesses up to a position removed that were kept long enough. Two administrators do.

    `held`: what was under legal hold when the entries were counted.
    """

    before: Position
    entries: Size
    positions: Root
    size: Size
    root: Root
    classes: Classes
    held: frozenset[About] = frozenset()

    def needs(self) -> tuple[Action, About]:
        """Name what is to be approved: up to where."""
        return "prune", about(self.before)

    def grounds(self) -> tuple[Basis[Any], ...]:
        """Rest on all legal holds."""
        return (Holds.all(),)

    def check(self, holds: Holds) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether there is anything to remove; raises `HoldsChanged`."""
        if holds.held != self.held:
            raise HoldsChanged
        return self.entries > 0

    def happen(self, *_: Any) -> Iterator[Event]:
        """Yield `LogPruned`."""
        yield LogPruned(
            before=self.before,
            entries=self.entries,
            positions=self.positions,
            size=self.size,
            root=self.root,
            classes=self.classes,
        )


def about(before: Position) -> About:
    """Name the entries up to a position, as those who approve do."""
    return f"log-entries:{before}"
