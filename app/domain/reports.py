"""What the runtime reports of a run: commands whose author is the runtime itself, and whose news may be late."""

from collections.abc import Iterator

from app.domain.command import Command
from app.domain.event import Event
from app.domain.model import Basis
from app.domain.names import NotebookName, Personal
from app.domain.notebooks import Notebook
from app.domain.runs import (
    FailureReason,
    NotebookContainerCreated,
    NotebookCreationBegan,
    NotebookFailed,
    NotebookStarted,
    NotebookStopped,
    NotebookStopRequested,
    RunId,
    Status,
    Upstream,
)


class Report(Command, frozen=True, kw_only=True):
    """What the runtime saw of a run. It is late news, and changes nothing, once the run is over or another began."""

    notebook: NotebookName
    run: RunId

    def rests_on(self) -> tuple[Basis[Notebook]]:
        """Rest on the notebook."""
        return (Notebook.about(self.notebook),)

    def decide(self, notebook: Notebook) -> Iterator[Event]:
        """Yield the observation, if it says anything new."""
        if notebook.run == self.run and self.is_news(notebook):
            yield self.observation()

    def is_news(self, notebook: Notebook) -> bool:
        """Whether the observation changes what is known of the run."""
        return notebook.status in self.while_()

    def while_(self) -> tuple[Status, ...]:
        """Name the statuses in which this is news."""
        raise NotImplementedError

    def observation(self) -> Event:
        """Give the event that was observed."""
        raise NotImplementedError


class ReportNotebookCreationBegan(Report, frozen=True, kw_only=True):
    """The runtime took the run up."""

    def while_(self) -> tuple[Status, ...]:
        """Name the statuses in which this is news."""
        return ("queued",)

    def observation(self) -> Event:
        """Give the event that was observed."""
        return NotebookCreationBegan(notebook=self.notebook, run=self.run)


class ReportNotebookContainerCreated(Report, frozen=True, kw_only=True):
    """The run has its container."""

    def while_(self) -> tuple[Status, ...]:
        """Name the statuses in which this is news."""
        return ("queued", "creating")

    def observation(self) -> Event:
        """Give the event that was observed."""
        return NotebookContainerCreated(notebook=self.notebook, run=self.run)


class ReportNotebookReady(Report, frozen=True, kw_only=True):
    """The run answers, at this place. A run that answers at another place than before is told again."""

    upstream: Upstream

    def is_news(self, notebook: Notebook) -> bool:
        """Whether the run was not known to answer there."""
        return notebook.status in self.while_() and notebook.upstream != self.upstream

    def while_(self) -> tuple[Status, ...]:
        """Name the statuses in which this is news."""
        return ("queued", "creating", "starting", "ready")

    def observation(self) -> Event:
        """Give the event that was observed."""
        return NotebookStarted(notebook=self.notebook, run=self.run, upstream=self.upstream)


class ReportNotebookFailed(Report, frozen=True, kw_only=True):
    """The run ended unasked, or never began."""

    reason: FailureReason
    exit_code: int | None = None
    log: Personal | None = None

    def while_(self) -> tuple[Status, ...]:
        """Name the statuses in which this is news."""
        return ("queued", "creating", "starting", "ready")

    def observation(self) -> Event:
        """Give the event that was observed."""
        return NotebookFailed(
            notebook=self.notebook, run=self.run, reason=self.reason, exit_code=self.exit_code, log=self.log
        )


class ReportNotebookStopped(Report, frozen=True, kw_only=True):
    """The run ended as asked, and its container is gone."""

    def while_(self) -> tuple[Status, ...]:
        """Name the statuses in which this is news."""
        return ("stopping",)

    def observation(self) -> Event:
        """Give the event that was observed."""
        return NotebookStopped(notebook=self.notebook, run=self.run)


class EndRun(Report, frozen=True, kw_only=True):
    """The installation is being stopped, and takes its runs with it."""

    def while_(self) -> tuple[Status, ...]:
        """Name the statuses in which there is something to end."""
        return ("queued", "creating", "starting", "ready")

    def observation(self) -> Event:
        """Give what is asked of the runtime."""
        return NotebookStopRequested(notebook=self.notebook, run=self.run)
