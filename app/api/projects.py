"""Projects, to those who may see them."""

from datetime import datetime

from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from app.api.addresses import OnlyGroup, ProjectInPath
from app.api.answers import at, found
from app.api.auth import GUESTS, Asker
from app.api.pages import After, Limit, Page, page_of
from app.api.problems import PENDING, POSITION, problems
from app.api.sight import Sight
from app.domain.groups import GroupName
from app.domain.names import Title
from app.domain.projects import CreateProject, NoSuchProject, ProjectName, Visibility
from app.projections.projects import ProjectPage, Projects


class NewProject(Struct, frozen=True, forbid_unknown_fields=True):
    """A project to begin."""

    slug: ProjectName
    group: GroupName
    title: Title
    visibility: Visibility = "private"


class ProjectView(Struct, frozen=True):
    """A project."""

    slug: ProjectName
    group: GroupName
    title: Title
    visibility: Visibility
    created_at: datetime


@post("/projects", responses=problems(403, 404, 409, 413, 415) | {202: PENDING}, response_headers=[POSITION])
async def create_project(
    data: JSONBody[NewProject],
    projects: NamedDependency[Projects],
    asker: NamedDependency[Asker],
) -> Response[ProjectView]:
    """Begin a project in a group that you belong to."""
    command = CreateProject(
        by=asker.caller, project=data.slug, group=data.group, title=data.title, visibility=data.visibility
    )
    receipt = await asker.ask(command)
    return at(receipt, _view(await found(projects.row_of(data.slug), NoSuchProject)))


@get("/projects", opt={GUESTS: True}, responses=problems(403))
async def list_projects(
    projects: NamedDependency[Projects],
    sight: NamedDependency[Sight],
    limit: Limit = 50,
    after: After = None,
    group: OnlyGroup = None,
) -> Page[ProjectView]:
    """List the projects that you may see, by slug."""
    rows = await projects.visible_to(sight.viewer, limit + 1, after, group=group)
    await sight.saw_projects(row.slug for row in rows[:limit] if row.visibility == "private")
    return page_of(rows, limit, lambda row: row.slug, _view)


@get("/projects/{project:str}", opt={GUESTS: True}, responses=problems(403, 404))
async def show_project(
    project: ProjectInPath, projects: NamedDependency[Projects], sight: NamedDependency[Sight]
) -> ProjectView:
    """Show a project; one that you may not see is not found."""
    rows = await projects.visible_to(sight.viewer, slug=project)
    if not rows:
        raise NoSuchProject
    await sight.saw_project(rows[0])
    return _view(rows[0])


def _view(row: ProjectPage) -> ProjectView:
    return ProjectView(row.slug, row.group, row.title, row.visibility, row.created_at)


routes = Router("/api", route_handlers=[create_project, list_projects, show_project], tags=["projects"])
