"""A decision model: what a decision rests on, folded from the events that a selection names."""

from typing import Generic, Self, TypeVar

from msgspec import Struct

from app.domain.event import Event


class Selection(Struct, frozen=True, gc=False):
    """Events of any of these types (none: of every type) that carry all of these tags (none: whatever tags)."""

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def matches(self, type_: str, tags: tuple[str, ...] | frozenset[str]) -> bool:
        """Whether an event of this type, with these tags, is meant."""
        return (not self.types or type_ in self.types) and all(tag in tags for tag in self.tags)


def events(*types: type[Event], tags: tuple[str, ...] = ()) -> Selection:
    """Select events by class instead of by stored name."""
    return Selection(tuple(cls.__name__ for cls in types), tags)


class DecisionModel(Struct, frozen=True):
    """A fold over some events. The instance with nothing but defaults is what holds before the first of them."""

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event; an event that says nothing to this model returns it as it is."""
        raise NotImplementedError


M = TypeVar("M", bound=DecisionModel)


class Basis(Struct, Generic[M], frozen=True):
    """A model before its first event, and the events that it is to be folded from."""

    model: M
    selections: tuple[Selection, ...]

    def fold(self, events: list[Event]) -> M:
        """Fold those of the events that this basis selects."""
        model = self.model
        for event in events:
            if any(one.matches(type(event).__name__, event.tags) for one in self.selections):
                model = model.evolve(event)
        return model
