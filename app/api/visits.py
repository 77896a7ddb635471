"""Visits: what was done in a group or a project with an administrator's power, for its members to see."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct

from app.api.addresses import GroupInPath, ProjectInPath
from app.api.answers import found
from app.api.auth import Asker
from app.api.pages import MOST, Limit
from app.api.problems import problems
from app.api.sight import Sight
from app.domain.audits import VisitsListed
from app.domain.groups import GroupName, MembersOnly, NoSuchGroup
from app.domain.names import UserId
from app.domain.projects import NoSuchProject
from app.projections.groups import Groups
from app.projections.projects import Projects
from app.projections.users import Users
from app.projections.visits import Visits

Before = Annotated[
    int | None,
    QueryParameter(ge=1, le=2**53, description="The `next` of the page before: a position.", required=False),
]


class VisitView(Struct, frozen=True):
    """One use of an administrator's power: when, who, what, and on which group, project or notebook."""

    position: int
    at: datetime
    user: UserId | None
    username: str | None
    action: str
    on: Sequence[str]


class VisitsPage(Struct, frozen=True):
    """Some visits, the newest first; ask for those `before` `next` to go on."""

    items: Sequence[VisitView]
    next: int | None


@get("/projects/{project:str}/visits", responses=problems(403, 404))
async def list_project_visits(
    project: ProjectInPath,
    projects: NamedDependency[Projects],
    groups: NamedDependency[Groups],
    users: NamedDependency[Users],
    visits: NamedDependency[Visits],
    sight: NamedDependency[Sight],
    asker: NamedDependency[Asker],
    limit: Limit = 50,
    before: Before = None,
) -> VisitsPage:
    """List what administrators did in a project and its notebooks. Members of its group may."""
    rows = await projects.visible_to(asker.caller, slug=project)
    if not rows:
        raise NoSuchProject
    await _must_belong(groups, asker, rows[0].group)
    await sight.saw(VisitsListed(), [f"project:{project}"])
    return await _page(visits, users, f"project:{project}", limit, before)


@get("/groups/{group:str}/visits", responses=problems(403, 404))
async def list_group_visits(
    group: GroupInPath,
    groups: NamedDependency[Groups],
    users: NamedDependency[Users],
    visits: NamedDependency[Visits],
    sight: NamedDependency[Sight],
    asker: NamedDependency[Asker],
    limit: Limit = 50,
    before: Before = None,
) -> VisitsPage:
    """List what administrators did in a group, its projects and their notebooks. Members may."""
    await found(groups.row_of(group), NoSuchGroup)
    await _must_belong(groups, asker, group)
    await sight.saw(VisitsListed(), [f"group:{group}"])
    return await _page(visits, users, f"group:{group}", limit, before)


async def _must_belong(groups: Groups, asker: Asker, group: GroupName) -> None:
    if not await groups.is_open_to(asker.caller, group):
        raise MembersOnly


async def _page(visits: Visits, users: Users, anchor: str, limit: int, before: int | None) -> VisitsPage:
    limit = min(limit, MOST)
    rows = await visits.of(anchor, limit + 1, before)
    names = await users.names_of(list({row.user for row in rows if row.user}))
    items = [
        VisitView(row.position, row.at, row.user, names.get(row.user or ""), row.action, row.on) for row in rows[:limit]
    ]
    return VisitsPage(items, items[-1].position if len(rows) > limit else None)


routes = Router("/api", route_handlers=[list_project_visits, list_group_visits], tags=["visits"])
