"""An engine: what can hold runs. Two are there: containers, and child processes where there is no Docker."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from app.domain.names import NotebookName
from app.domain.runs import RunId, Upstream


class Instance(Struct, frozen=True, kw_only=True):
    """What an engine holds for one run, as it was seen."""

    id: str
    notebook: NotebookName
    run: RunId
    state: Literal["created", "running", "exited"]
    upstream: Upstream | None = None
    started_at: datetime | None = None
    exit_code: int | None = None
    out_of_memory: bool = False


class EngineError(Exception):
    """An engine could not do what it was asked; the message says why, in its own words."""


class EngineAway(EngineError):
    """The engine does not answer. What it holds may go on, and is looked at again when it is back."""


class Engine(Protocol):
    """All of these may be called again after a crash: what is already so, is left so."""

    @property
    def name(self) -> Literal["docker", "process"]:
        """Say which one it is."""
        ...

    async def instances(self, notebook: NotebookName | None = None) -> list[Instance]:
        """List what is held, for one notebook or for all; raises `EngineAway`."""
        ...

    async def create(self, notebook: NotebookName, run: RunId, token: str) -> None:
        """Hold a run, not yet started, with its notebook's volume; at most one for each run. Raises `EngineError`."""
        ...

    async def start(self, instance: Instance) -> None:
        """Start what was created. Raises `EngineError`."""
        ...

    async def remove(self, instance: Instance) -> None:
        """Stop what runs, giving it some seconds to save, and remove it; its volume is kept. Raises `EngineError`."""
        ...

    async def last_words(self, instance: Instance) -> str:
        """Give the last lines that it wrote; empty if they cannot be had."""
        ...

    def happenings(self) -> AsyncIterator[NotebookName | None]:
        """Tell whose instance something happened to, at once; None: anything may have, look at all. Never ends."""
        ...

    async def close(self) -> None:
        """Let go of the engine; what it holds goes on."""
        ...
