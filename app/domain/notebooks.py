"""A notebook: a JupyterLab of its own, that belongs to a project."""

from collections.abc import Iterator
from typing import Annotated, Self

from msgspec import Meta
from msgspec.structs import replace

from app.domain.errors import Conflict, NotFound
from app.domain.event import Access, Event
from app.domain.groups import GroupCommand, GroupName, Standing
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import NotebookName, Title, UserId
from app.domain.projects import Project, ProjectName
from app.domain.runs import (
    RUN_EVENTS,
    NotebookStarted,
    NotebookStartRequested,
    NotebookStopRequested,
    RunId,
    Status,
    Upstream,
    status_after,
)


class NotebookCreated(Event, frozen=True, kw_only=True):
    """A notebook exists in a project."""

    whose = "notebook"

    notebook: NotebookName
    project: ProjectName
    group: GroupName
    title: Title


class NotebookDeleted(Event, frozen=True, kw_only=True):
    """The notebook is no more. Its volume is kept until an administrator purges it."""

    notebook: NotebookName
    project: ProjectName
    group: GroupName


class NotebookEntered(Access, frozen=True, kw_only=True):
    """Somebody came in from the platform, in a session; `administering`: without being a member of its group."""

    notebook: NotebookName
    user: UserId
    session: Annotated[str, Meta(extra={"tag": "session"})]
    administering: bool


NOTEBOOK_EVENTS = (NotebookCreated, *RUN_EVENTS, NotebookDeleted)


class Notebook(DecisionModel, frozen=True):
    """What decisions about one notebook rest on."""

    project: ProjectName | None = None
    group: GroupName | None = None
    deleted: bool = False
    run: RunId | None = None
    status: Status = "stopped"
    upstream: Upstream | None = None

    @classmethod
    def about(cls, notebook: NotebookName) -> Basis[Self]:
        """Rest on one notebook."""
        return Basis(cls(), (events(*NOTEBOOK_EVENTS, tags=(f"notebook:{notebook}",)),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event; what is told of an older run than the newest changes nothing."""
        match event:
            case NotebookCreated(project=project, group=group):
                return replace(self, project=project, group=group)
            case NotebookStartRequested(run=run):
                return replace(self, run=run, status="queued", upstream=None)
            case NotebookDeleted():
                return replace(self, deleted=True, status="stopping" if self.is_wanted else self.status)
            case NotebookStarted(run=self.run, upstream=upstream):
                return replace(self, status="ready", upstream=upstream)
            case _ if getattr(event, "run", None) == self.run:
                return replace(self, status=status_after(event) or self.status)
            case _:
                return self

    @property
    def exists(self) -> bool:
        """Whether it was made and not deleted since."""
        return self.group is not None and not self.deleted

    @property
    def is_wanted(self) -> bool:
        """Whether its newest run ought to run."""
        return self.status in ("queued", "creating", "starting", "ready")

    def must_exist_in(self, group: GroupName) -> None:
        """Raise `NoSuchNotebook`, unless it does: whose members were asked is whose notebook is acted on."""
        if not self.exists or self.group != group:
            raise NoSuchNotebook


class NoSuchNotebook(NotFound):
    """There is no notebook with this slug."""

    field = "notebook"


class NotebookSlugTaken(Conflict):
    """This slug is, or once was, a notebook's; choose another one."""

    field = "slug"


class CreateNotebook(GroupCommand, frozen=True, kw_only=True):
    """Make a notebook in a project. Members of its group do."""

    notebook: NotebookName
    project: ProjectName
    group: GroupName
    title: Title

    def rests_on(self) -> tuple[Basis[Standing], Basis[Project], Basis[Notebook]]:
        """Rest on who asks, on the project, and on the slug never having been a notebook's."""
        return Standing.of(self.by, self.group), Project.about(self.project), Notebook.about(self.notebook)

    def decide(self, standing: Standing, project: Project, notebook: Notebook) -> Iterator[Event]:
        """Yield `NotebookCreated`; raise `NoSuchProject`, `MembersOnly` or `NotebookSlugTaken`."""
        project.must_exist_in(self.group)
        standing.must_be(self.needs)
        if notebook.group is not None:
            raise NotebookSlugTaken
        yield NotebookCreated(notebook=self.notebook, project=self.project, group=self.group, title=self.title)


class NotebookCommand(GroupCommand, frozen=True, kw_only=True):
    """A wish about a notebook that exists. Members of its group may have it."""

    notebook: NotebookName
    group: GroupName

    def rests_on(self) -> tuple[Basis[Standing], Basis[Notebook]]:
        """Rest on who asks and on the notebook."""
        return Standing.of(self.by, self.group), Notebook.about(self.notebook)

    def decide(self, standing: Standing, notebook: Notebook) -> Iterator[Event]:
        """Raise `NoSuchNotebook` or `MembersOnly`, or yield what the wish changes."""
        notebook.must_exist_in(self.group)
        standing.must_be(self.needs)
        yield from self.change(notebook)

    def change(self, notebook: Notebook) -> Iterator[Event]:
        """Yield what the wish changes, now that it may."""
        raise NotImplementedError


class StartNotebook(NotebookCommand, frozen=True, kw_only=True):
    """Have it run. A run that is on its way is not begun twice."""

    run: RunId

    def change(self, notebook: Notebook) -> Iterator[Event]:
        """Yield `NotebookStartRequested`, unless it runs or is about to."""
        if not notebook.is_wanted:
            yield NotebookStartRequested(notebook=self.notebook, run=self.run)


class StopNotebook(NotebookCommand, frozen=True, kw_only=True):
    """Have its run end."""

    def change(self, notebook: Notebook) -> Iterator[Event]:
        """Yield `NotebookStopRequested`, unless nothing runs or it is stopping."""
        if notebook.is_wanted and notebook.run is not None:
            yield NotebookStopRequested(notebook=self.notebook, run=notebook.run)


class DeleteNotebook(NotebookCommand, frozen=True, kw_only=True):
    """Have it be no more, running or not."""

    def change(self, notebook: Notebook) -> Iterator[Event]:
        """Yield `NotebookDeleted`."""
        yield NotebookDeleted(notebook=self.notebook, project=notebook.project or "", group=self.group)
