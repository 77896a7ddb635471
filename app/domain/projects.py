"""A project: what a group works on. It holds notebooks, and says who may see them."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from msgspec.structs import replace

from app.domain.errors import Conflict, NotFound
from app.domain.event import Event
from app.domain.groups import GroupCommand, GroupName, Standing
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import Title, slug

ProjectName = Annotated[str, slug("project")]

Visibility = Literal["public", "internal", "private"]
"""Who may see it: guests too, registered users, or the group's members only."""


class ProjectCreated(Event, frozen=True, kw_only=True):
    """A project exists in a group."""

    whose = "project"

    project: ProjectName
    group: GroupName
    title: Title
    visibility: Visibility


class Project(DecisionModel, frozen=True):
    """What decisions about one project rest on."""

    group: GroupName | None = None

    @classmethod
    def about(cls, project: ProjectName) -> Basis[Self]:
        """Rest on one project."""
        return Basis(cls(), (events(ProjectCreated, tags=(f"project:{project}",)),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            case ProjectCreated(group=group):
                return replace(self, group=group)
            case _:
                return self

    def must_exist_in(self, group: GroupName) -> None:
        """Raise `NoSuchProject`, unless it does: the group whose members were asked is the one that is written to."""
        if self.group is None or self.group != group:
            raise NoSuchProject


class NoSuchProject(NotFound):
    """There is no project with this slug."""

    field = "project"


class ProjectSlugTaken(Conflict):
    """This slug is, or once was, a project's; choose another one."""

    field = "slug"


class CreateProject(GroupCommand, frozen=True, kw_only=True):
    """Begin a project in a group. Members do."""

    project: ProjectName
    group: GroupName
    title: Title
    visibility: Visibility = "private"

    def rests_on(self) -> tuple[Basis[Standing], Basis[Project]]:
        """Rest on who asks, and on the slug never having been a project's."""
        return Standing.of(self.by, self.group), Project.about(self.project)

    def decide(self, standing: Standing, project: Project) -> Iterator[Event]:
        """Yield `ProjectCreated`; raise `MembersOnly` or `ProjectSlugTaken`."""
        standing.must_be(self.needs)
        if project.group is not None:
            raise ProjectSlugTaken
        yield ProjectCreated(project=self.project, group=self.group, title=self.title, visibility=self.visibility)
