"""Notebooks, what each is doing, and why, for those who may see them."""

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace
from psycopg.sql import SQL

from app.audit.entry import Record
from app.domain.command import Caller
from app.domain.event import Event
from app.domain.groups import GroupName
from app.domain.names import NotebookName, Title
from app.domain.notebooks import NOTEBOOK_EVENTS, NotebookCreated, NotebookDeleted
from app.domain.projects import ProjectName
from app.domain.runs import FailureReason, NotebookFailed, NotebookStartRequested, RunId, Status, status_after
from app.projections.projects import VISIBLE, eyes_of
from app.projections.read_model import ReadModel, of_those


class NotebookPage(Struct, frozen=True, gc=False):
    """A notebook and its newest run."""

    slug: NotebookName
    project: ProjectName
    group: GroupName
    title: Title
    created_at: datetime
    status_at: datetime
    position: int
    status: Status = "stopped"
    run: RunId | None = None
    reason: FailureReason | None = None
    exit_code: int | None = None
    log: str | None = None


class Notebooks(ReadModel[NotebookPage]):
    """All notebooks that were not deleted."""

    row = NotebookPage
    key = "notebook"
    events = NOTEBOOK_EVENTS
    sealed = ("title", "log")
    indexes = ("(project, slug)",)

    def evolve(self, row: NotebookPage | None, event: Event, record: Record) -> NotebookPage | None:
        """Return the row after the event; news of an older run than the newest changes nothing."""
        at, position = record.entry.at, record.position
        match event:
            case NotebookCreated(notebook=notebook, project=project, group=group, title=title):
                return NotebookPage(notebook, project, group, title, at, at, position)
            case NotebookDeleted():
                return None
            case NotebookStartRequested(run=run) if row:
                cleared = replace(row, run=run, reason=None, exit_code=None, log=None)
                return replace(cleared, status="queued", status_at=at, position=position)
            case _ if row is None or getattr(event, "run", None) != row.run:
                return row
            case NotebookFailed(reason=reason, exit_code=exit_code, log=log):
                failed = replace(row, reason=reason, exit_code=exit_code, log=log and log.text)
                return replace(failed, status="failed", status_at=at, position=position)
            case _:
                return replace(row, status=status_after(event), status_at=at, position=position)

    async def visible_to(
        self,
        viewer: Caller | None,
        limit: int = 1,
        after: str | None = None,
        *,
        project: str | None = None,
        slug: str | None = None,
    ) -> list[NotebookPage]:
        """List what a viewer (none: a guest) may see, by slug: a notebook is seen by whoever sees its project."""
        where = of_those(project=project, slug=slug) + SQL(
            "EXISTS (SELECT FROM read.projects AS p WHERE p.slug = t.project AND " + VISIBLE.format(project="p") + ")"
        )
        return await self.select(where, {**eyes_of(viewer), "project": project, "slug": slug}, limit=limit, after=after)
