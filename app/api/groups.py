"""Groups and who belongs to them."""

from collections.abc import Sequence
from datetime import datetime

from litestar import Response, Router, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from app.api.addresses import GroupInPath, UserInPath
from app.api.answers import at, found
from app.api.auth import GUESTS, Asker
from app.api.pages import After, Limit, Page, page_of
from app.api.problems import PENDING, POSITION, problems
from app.api.sight import Sight
from app.domain.audits import GroupViewed
from app.domain.command import Caller
from app.domain.groups import AddMember, CreateGroup, GroupName, Membership, NoSuchGroup, RemoveMember
from app.domain.names import Title, UserId
from app.projections.groups import GroupPage, Groups
from app.projections.users import Users


class NewGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """A group to begin."""

    slug: GroupName
    title: Title


class NewMember(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody is to be in the group."""

    role: Membership = "member"


class Member(Struct, frozen=True):
    """Somebody who belongs to the group."""

    user: UserId
    username: str
    role: Membership


class GroupView(Struct, frozen=True, omit_defaults=True):
    """A group. `members` is there when one group is asked for, by a registered user."""

    slug: GroupName
    title: Title
    created_at: datetime
    members: Sequence[Member] | None = None


@post("/groups", responses=problems(403, 409, 413, 415) | {202: PENDING}, response_headers=[POSITION])
async def create_group(
    data: JSONBody[NewGroup],
    groups: NamedDependency[Groups],
    users: NamedDependency[Users],
    asker: NamedDependency[Asker],
) -> Response[GroupView]:
    """Begin a group, and own it."""
    command = CreateGroup(by=asker.caller, group=data.slug, title=data.title)
    receipt = await asker.ask(command)
    return at(receipt, await _view(groups, users, data.slug, asker.caller))


@get("/groups", opt={GUESTS: True}, responses=problems(403))
async def list_groups(groups: NamedDependency[Groups], limit: Limit = 50, after: After = None) -> Page[GroupView]:
    """List groups by their slug; guests may."""
    return page_of(await groups.listed(limit + 1, after), limit, lambda row: row.slug, _outside)


@get("/groups/{group:str}", opt={GUESTS: True}, responses=problems(403, 404))
async def show_group(
    group: GroupInPath,
    groups: NamedDependency[Groups],
    users: NamedDependency[Users],
    sight: NamedDependency[Sight],
) -> GroupView:
    """Show a group; registered users see who belongs to it."""
    view = await _view(groups, users, group, sight.viewer)
    if view.members is not None:
        await sight.saw(GroupViewed(group=group))
    return view


@put(
    "/groups/{group:str}/members/{user:str}",
    responses=problems(403, 404, 409, 413, 415) | {202: PENDING},
    response_headers=[POSITION],
)
async def add_member(
    group: GroupInPath,
    user: UserInPath,
    groups: NamedDependency[Groups],
    users: NamedDependency[Users],
    asker: NamedDependency[Asker],
    data: JSONBody[NewMember | None] = None,
) -> Response[GroupView]:
    """Let a user into the group, or change their role; owners do. Without a body: as a member."""
    role = (data or NewMember()).role
    receipt = await asker.ask(AddMember(by=asker.caller, group=group, user=user, role=role))
    return at(receipt, await _view(groups, users, group, asker.caller), 200)


@delete(
    "/groups/{group:str}/members/{user:str}",
    status_code=200,
    responses=problems(403, 404, 409) | {202: PENDING},
    response_headers=[POSITION],
)
async def remove_member(
    group: GroupInPath,
    user: UserInPath,
    groups: NamedDependency[Groups],
    users: NamedDependency[Users],
    asker: NamedDependency[Asker],
) -> Response[GroupView]:
    """Let a user go from the group; owners do, and everybody may leave. In force with the next request."""
    receipt = await asker.ask(RemoveMember(by=asker.caller, group=group, user=user))
    return at(receipt, await _view(groups, users, group, asker.caller), 200)


async def _view(groups: Groups, users: Users, slug: GroupName, viewer: Caller | None) -> GroupView:
    row = await found(groups.row_of(slug), NoSuchGroup)
    if viewer is None:
        return _outside(row)
    names = await users.names_of(list(row.members))
    members = [Member(user, names[user], role) for user, role in sorted(row.members.items())]
    return GroupView(row.slug, row.title, row.created_at, members)


def _outside(row: GroupPage) -> GroupView:
    return GroupView(row.slug, row.title, row.created_at)


routes = Router(
    "/api", route_handlers=[create_group, list_groups, show_group, add_member, remove_member], tags=["groups"]
)
