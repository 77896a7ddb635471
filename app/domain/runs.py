"""A run: one start of a notebook, from being asked for to its end. Told in events as it happens."""

from typing import Annotated, Literal

from msgspec import Meta

from app.domain.event import Event
from app.domain.names import NotebookName, Personal, identifier

RunId = Annotated[str, identifier("run", "run")]

Upstream = Annotated[str, Meta(pattern=r"^(127\.0\.0\.1:[0-9]{1,5}|unix//[^\s]{1,200})(?!\n)$", max_length=210)]
"""Where a run answers: `127.0.0.1:<port>` or `unix//<path>`; the words in which the proxy dials it."""

Status = Literal["stopped", "queued", "creating", "starting", "ready", "stopping", "failed"]

FailureReason = Literal["create-failed", "start-failed", "not-ready-in-time", "exited", "out-of-memory", "vanished"]


class NotebookStartRequested(Event, frozen=True, kw_only=True):
    """Somebody wants it to run; it waits for its turn."""

    notebook: NotebookName
    run: RunId


class NotebookCreationBegan(Event, frozen=True, kw_only=True):
    """The runtime took the run up, and makes a container for it."""

    notebook: NotebookName
    run: RunId


class NotebookContainerCreated(Event, frozen=True, kw_only=True):
    """The run has its container, and JupyterLab starts in it."""

    notebook: NotebookName
    run: RunId


class NotebookStarted(Event, frozen=True, kw_only=True):
    """The run was seen to answer."""

    notebook: NotebookName
    run: RunId
    upstream: Upstream


class NotebookFailed(Event, frozen=True, kw_only=True):
    """The run ended, and nobody had asked for that."""

    notebook: NotebookName
    run: RunId
    reason: FailureReason
    exit_code: int | None = None
    log: Personal | None = None


class NotebookStopRequested(Event, frozen=True, kw_only=True):
    """Somebody wants the run to end."""

    notebook: NotebookName
    run: RunId


class NotebookStopped(Event, frozen=True, kw_only=True):
    """The run ended as was asked, and its container is gone. The volume is kept."""

    notebook: NotebookName
    run: RunId


RUN_EVENTS = (
    NotebookStartRequested,
    NotebookCreationBegan,
    NotebookContainerCreated,
    NotebookStarted,
    NotebookFailed,
    NotebookStopRequested,
    NotebookStopped,
)


def status_after(event: Event) -> Status | None:
    """Tell what a run is after the event, if the event says anything of that."""
    match event:
        case NotebookStartRequested():
            return "queued"
        case NotebookCreationBegan():
            return "creating"
        case NotebookContainerCreated():
            return "starting"
        case NotebookStarted():
            return "ready"
        case NotebookFailed():
            return "failed"
        case NotebookStopRequested():
            return "stopping"
        case NotebookStopped():
            return "stopped"
        case _:
            return None
