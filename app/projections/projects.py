"""Projects, for those who may see them."""

from datetime import datetime

from msgspec import Struct
from psycopg.sql import SQL

from app.audit.entry import Record
from app.domain.command import Caller
from app.domain.groups import GroupName
from app.domain.names import Title
from app.domain.projects import ProjectCreated, ProjectName, Visibility
from app.projections.read_model import ReadModel, of_those

VISIBLE = """(
    {project}.visibility = 'public'
    OR (%(user)s::text IS NOT NULL AND {project}.visibility = 'internal')
    OR %(administering)s
    OR EXISTS (SELECT FROM read.groups AS g WHERE g.slug = {project}."group" AND g.members ? %(user)s)
)"""
"""Guests see public projects, registered users internal ones too, members and administrators private ones as well."""


def eyes_of(viewer: Caller | None) -> dict[str, object]:
    """Give the values that `VISIBLE` asks for."""
    return {
        "user": viewer.user if viewer else None,
        "administering": viewer.administering if viewer else False,
    }


class ProjectPage(Struct, frozen=True, gc=False):
    """A project."""

    slug: ProjectName
    group: GroupName
    title: Title
    visibility: Visibility
    created_at: datetime
    position: int


class Projects(ReadModel[ProjectPage]):
    """All projects."""

    row = ProjectPage
    key = "project"
    events = (ProjectCreated,)
    sealed = ("title",)
    indexes = ('("group", slug)',)

    def evolve(self, row: ProjectPage | None, event: ProjectCreated, record: Record) -> ProjectPage:
        """Return the row after the event."""
        return ProjectPage(
            slug=event.project,
            group=event.group,
            title=event.title,
            visibility=event.visibility,
            created_at=record.entry.at,
            position=record.position,
        )

    async def visible_to(
        self,
        viewer: Caller | None,
        limit: int = 1,
        after: str | None = None,
        *,
        group: str | None = None,
        slug: str | None = None,
    ) -> list[ProjectPage]:
        """List what a viewer (none: a guest) may see, by slug."""
        where = of_those(group=group, slug=slug) + SQL(VISIBLE.format(project="t"))
        return await self.select(where, {**eyes_of(viewer), "group": group, "slug": slug}, limit=limit, after=after)
