"""Users: administrators make them, everybody with an account sees them."""

from datetime import datetime

from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from app.api.addresses import UserInPath
from app.api.answers import at, found
from app.api.auth import SCOPE, Asker
from app.api.pages import After, Limit, Page, page_of
from app.api.problems import PENDING, POSITION, NotYetReadable, problems
from app.api.sight import Sight
from app.dispatch import LogCannotBeWritten
from app.domain.audits import UsersListed
from app.domain.errors import Refusal
from app.domain.names import Personal, UserId
from app.domain.passwords import Password
from app.domain.tokens import Scope
from app.domain.users import ChangeRoles, CreateUser, NoSuchUser, Username
from app.identifiers import new_id
from app.identity.identity import Identity
from app.projections.users import UserPage, Users


class NewUser(Struct, frozen=True, forbid_unknown_fields=True):
    """An account to be made. Give the password to its user by a safe way."""

    username: Username
    password: Password
    administrator: bool = False
    auditor: bool = False


class Roles(Struct, frozen=True, forbid_unknown_fields=True):
    """What a user is to the whole platform: may do everything, may read the whole audit log."""

    administrator: bool
    auditor: bool


class UserView(Struct, frozen=True):
    """A user. Of one who was erased there is no name any more."""

    user: UserId
    username: str
    administrator: bool
    auditor: bool
    created_at: datetime


@post(
    "/users",
    opt={SCOPE: Scope.ADMIN},
    responses=problems(403, 409, 413, 415) | {202: PENDING},
    response_headers=[POSITION],
)
async def create_user(
    data: JSONBody[NewUser],
    identity: NamedDependency[Identity],
    users: NamedDependency[Users],
    asker: NamedDependency[Asker],
) -> Response[UserView]:
    """Make an account. Administrators only."""
    user = new_id("usr")
    command = CreateUser(
        by=asker.caller,
        user=user,
        username=Personal(data.username),
        digest=identity.digest_of(data.username),
        administrator=data.administrator,
        auditor=data.auditor,
    )
    await asker.check(command)
    # The password first: an account without one could not be entered, a password without an account harms nobody.
    await identity.set_password(user, data.password)
    try:
        receipt = await asker.ask(command)
    except LogCannotBeWritten:
        raise  # it may be made after all, and is then entered with this password
    except Refusal:
        await identity.forget_password(user)
        raise
    return at(receipt, _view(await found(users.row_of(user), NoSuchUser)))


@put(
    "/users/{user:str}/roles",
    opt={SCOPE: Scope.ADMIN},
    responses=problems(403, 404, 409, 413, 415) | {202: PENDING},
    response_headers=[POSITION],
)
async def change_roles(
    user: UserInPath,
    data: JSONBody[Roles],
    identity: NamedDependency[Identity],
    users: NamedDependency[Users],
    asker: NamedDependency[Asker],
) -> Response[UserView]:
    """Make a user an administrator or an auditor, or no longer one. Administrators only; with the next request."""
    command = ChangeRoles(by=asker.caller, user=user, administrator=data.administrator, auditor=data.auditor)
    receipt = await asker.tell(command)
    identity.forget_roles(user)  # the log will say so in a moment, but the next request may be here before
    if not receipt.seen:
        raise NotYetReadable(receipt.position)
    return at(receipt, _view(await found(users.row_of(user), NoSuchUser)), 200)


@get("/users", responses=problems(403))
async def list_users(
    users: NamedDependency[Users], sight: NamedDependency[Sight], limit: Limit = 50, after: After = None
) -> Page[UserView]:
    """List everybody with an account, in the order in which they came."""
    await sight.saw(UsersListed())
    return page_of(await users.listed(limit + 1, after), limit, lambda row: row.user, _view)


def _view(row: UserPage) -> UserView:
    return UserView(row.user, row.username, row.administrator, row.auditor, row.created_at)


routes = Router("/api", route_handlers=[create_user, change_roles, list_users], tags=["users"])
