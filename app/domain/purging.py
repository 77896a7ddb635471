"""Purging: an administrator has the files of a deleted notebook removed, which were kept until then."""

from collections.abc import Iterator
from typing import Self

from msgspec.structs import replace

from app.domain.command import Caller, Command
from app.domain.errors import Conflict
from app.domain.event import Event
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import NotebookName
from app.domain.notebooks import NoSuchNotebook, Notebook
from app.domain.retention import Holds
from app.domain.users import Account, AdministratorsOnly


class NotebookPurged(Event, frozen=True, kw_only=True):
    """An administrator has the volume of a deleted notebook removed. Recorded before it is: if we die, ask again."""

    notebook: NotebookName


class NotebookNotDeleted(Conflict):
    """This notebook is there: delete it first, if its files are to go."""


class NotebookStillEnding(Conflict):
    """The last run of this notebook is still ending; try again in a moment."""


class Purge(DecisionModel, frozen=True):
    """Whether a notebook's volume was purged."""

    done: bool = False

    @classmethod
    def of(cls, notebook: NotebookName) -> Basis[Self]:
        """Rest on one notebook's purging."""
        return Basis(cls(), (events(NotebookPurged, tags=(f"notebook:{notebook}",)),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        return replace(self, done=True)


class PurgeNotebook(Command, frozen=True, kw_only=True):
    """Have the volume of a deleted notebook removed, for good. An administrator does."""

    by: Caller
    notebook: NotebookName

    def rests_on(self) -> tuple[Basis[Account], Basis[Notebook], Basis[Holds], Basis[Purge]]:
        """Rest on who asks, on the notebook, and on what has to be kept."""
        return Account.of(self.by.user), Notebook.about(self.notebook), Holds.all(), Purge.of(self.notebook)

    def decide(self, caller: Account, notebook: Notebook, holds: Holds, purge: Purge) -> Iterator[Event]:
        """Yield `NotebookPurged`, unless it was; raise what keeps the volume."""
        if not (caller.administrator and self.by.administering):
            raise AdministratorsOnly
        if notebook.group is None:
            raise NoSuchNotebook
        if not notebook.deleted:
            raise NotebookNotDeleted
        if notebook.status == "stopping":
            raise NotebookStillEnding
        for about in (f"notebook:{self.notebook}", f"project:{notebook.project}", f"group:{notebook.group}"):
            holds.must_not_hold(about)
        if not purge.done:
            yield NotebookPurged(notebook=self.notebook)
