"""Users: administrators make them, everybody with an account sees them."""

from datetime import datetime
from typing import Annotated

from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct

from app.api.answers import at, found
from app.api.auth import SCOPE, Asker
from app.api.pages import After, Limit, Page, page_of
from app.api.problems import PENDING, POSITION, problems
from app.dispatch import LogCannotBeWritten
from app.domain.errors import Refusal
from app.domain.names import Personal, UserId
from app.domain.tokens import Scope
from app.domain.users import CreateUser, NoSuchUser, Username
from app.identifiers import new_id
from app.identity import Identity
from app.projections.users import UserPage, Users


class NewUser(Struct, frozen=True, forbid_unknown_fields=True):
    """An account to be made. Give the password to its user by a safe way."""

    username: Username
    password: Annotated[str, Meta(min_length=12, max_length=1024, description="At least 12 characters.")]
    administrator: bool = False


class UserView(Struct, frozen=True):
    """A user."""

    user: UserId
    username: Username
    administrator: bool
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
    # The password first: an account without one could never be entered, a password without an account harms nobody.
    await identity.set_password(user, data.password)
    command = CreateUser(
        by=asker.caller,
        user=user,
        username=Personal(data.username),
        digest=identity.digest_of(data.username),
        administrator=data.administrator,
    )
    try:
        receipt = await asker.ask(command)
    except LogCannotBeWritten:
        raise  # it may be made after all, and is then entered with this password
    except Refusal:
        await identity.forget_password(user)
        raise
    return at(receipt, _view(await found(users.row_of(user), NoSuchUser)))


@get("/users", responses=problems(403))
async def list_users(users: NamedDependency[Users], limit: Limit = 50, after: After = None) -> Page[UserView]:
    """List everybody with an account, in the order in which they came."""
    return page_of(await users.listed(limit + 1, after), limit, lambda row: row.user, _view)


def _view(row: UserPage) -> UserView:
    return UserView(row.user, row.username, row.administrator, row.created_at)


routes = Router("/api", route_handlers=[create_user, list_users], tags=["users"])
