"""Given these events, when this is commanded, then that happens. Pure: no database, no clock."""

from typing import Self

import msgspec

from app.domain.command import Command
from app.domain.errors import Refusal
from app.domain.event import Event


class Scenario:
    """What has happened, and then what came of a command: `given(…).when(…).then(…)`."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        self._given = [_stored(event) for event in events]
        self._happened: list[Event] = []
        self._refusal: Refusal | None = None

    def when(self, command: Command) -> Self:
        """Let the command decide on what dispatch would let it decide on: the events that it says it rests on."""
        basis = command.rests_on()
        selections = [one for part in basis for one in part.selections]
        read = [event for event in self._given if any(one.matches(_type(event), event.tags) for one in selections)]
        try:
            self._happened = [_stored(event) for event in command.decide(*(part.fold(read) for part in basis))]
        except Refusal as refusal:
            self._refusal = refusal
        return self

    def then(self, *events: Event) -> None:
        """Exactly these events happened."""
        assert self._refusal is None, f"it was refused: {self._refusal}"
        assert self._happened == list(events)

    def nothing_happens(self) -> None:
        """It was allowed, and held already."""
        self.then()

    def refused(self, refusal: type[Refusal]) -> None:
        """A rule said no: this one and no other."""
        assert type(self._refusal) is refusal, f"expected {refusal.__name__}, not {self._refusal!r} {self._happened}"


def given(*events: Event) -> Scenario:
    """Begin with what has happened."""
    return Scenario(events)


def _stored(event: Event) -> Event:
    """Return the event as it is read back from the log, which holds only names and texts that are valid."""
    return msgspec.json.decode(msgspec.json.encode(event), type=type(event))


def _type(event: Event) -> str:
    return type(event).__name__
