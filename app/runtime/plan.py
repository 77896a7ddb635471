"""The plan. Pure: from what ought to run and what was seen to run, the next step."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from app.domain.notebooks import Notebook
from app.domain.runs import FailureReason, RunId
from app.runtime.engine import Instance


class Remove(Struct, frozen=True):
    """Stop and remove what ought not to be there."""

    instance: Instance


class SayCreationBegan(Struct, frozen=True):
    """Say that the run was taken up."""

    run: RunId


class Create(Struct, frozen=True):
    """Make what is to hold the run."""

    run: RunId


class Start(Struct, frozen=True):
    """Start what was made."""

    instance: Instance


class SayContainerCreated(Struct, frozen=True):
    """Say that what holds the run is there."""

    run: RunId


class AwaitAnswer(Struct, frozen=True):
    """Ask it until it answers, then say where; or until the deadline."""

    instance: Instance
    until: datetime


class SayFailed(Struct, frozen=True):
    """Say that the run ended unasked, and what its last words were."""

    run: RunId
    reason: FailureReason
    instance: Instance | None = None


class SayStopped(Struct, frozen=True):
    """Say that the run ended as asked, and that nothing of it is left but its volume."""

    run: RunId


Step = Remove | SayCreationBegan | Create | Start | SayContainerCreated | AwaitAnswer | SayFailed | SayStopped


def next_step(notebook: Notebook, seen: Sequence[Instance], now: datetime, deadline: datetime) -> Step | None:
    """Give what is to be done next about one notebook, or nothing. After the deadline it is not asked any more.

    First goes away what must not be there: two runs would write to one volume. A container that is not the newest
    run's is never this notebook's business, whoever made it.
    """
    for instance in seen:
        if not notebook.is_wanted or instance.run != notebook.run:
            return Remove(instance)
    if notebook.run is None:
        return None
    if not notebook.is_wanted:
        return SayStopped(notebook.run) if notebook.status == "stopping" else None
    return _bring_up(notebook, notebook.run, seen[0], now, deadline) if seen else _bring_about(notebook, notebook.run)


def _bring_about(notebook: Notebook, run: RunId) -> Step:
    match notebook.status:
        case "queued":
            return SayCreationBegan(run)
        case "creating":
            return Create(run)
        case _:
            return SayFailed(run, "vanished")


def _bring_up(notebook: Notebook, run: RunId, instance: Instance, now: datetime, deadline: datetime) -> Step | None:
    match instance.state:
        case "created":
            return Start(instance)
        case "exited":
            return SayFailed(run, "out-of-memory" if instance.out_of_memory else "exited", instance)
        case "running" if notebook.status in ("queued", "creating"):
            return SayContainerCreated(run)
        case "running" if notebook.status == "ready" and instance.upstream in (None, notebook.upstream):
            return None  # none: it is paused, by somebody who will know why
        case "running":
            return AwaitAnswer(instance, deadline) if now < deadline else SayFailed(run, "not-ready-in-time", instance)
