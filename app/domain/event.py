"""An event: one fact that happened, in the past tense. Stored names are promises: they are read for ever."""

from typing import ClassVar

from msgspec import Struct

from app.domain.names import tags_of


# `gc=False`: frozen words make no circle, and whoever folds a log would have the collector look through all of them.
class Event(Struct, frozen=True, kw_only=True, gc=False):
    """A fact. Its type is its class's name; its tags are the names in its fields.

    A new optional field needs a default; any other change is a new event and an upcast.
    """

    fact: ClassVar[bool] = True
    """Whether models may fold it. An access (a login, a refusal) is recorded and folded by nothing."""

    whose: ClassVar[str | None] = None
    """The field that names whose its sealed values are; if none, they are the user's on whose behalf it happened."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of every entity that it concerns, as `kind:value`."""
        return tags_of(self)


class Access(Event, frozen=True, kw_only=True):
    """Something that was done and changed no state: recorded for the auditor, folded by nothing."""

    fact: ClassVar[bool] = False


def event_types() -> dict[str, type[Event]]:
    """Map every event's stored name to its class; the modules that define them have to be imported before."""
    return {cls.__name__: cls for cls in _leaves(Event)}


def _leaves(cls: type[Event]) -> list[type[Event]]:
    below = cls.__subclasses__()
    return [leaf for sub in below for leaf in _leaves(sub)] if below else [cls]
