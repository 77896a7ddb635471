"""Users, as they are listed."""

from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from psycopg.sql import SQL

from app.audit.entry import Record
from app.domain.names import UserId
from app.domain.users import UserCreated, UserRolesChanged
from app.projections.read_model import ReadModel


class UserPage(Struct, frozen=True, gc=False):
    """A user as others see them."""

    user: UserId
    username: str
    administrator: bool
    auditor: bool
    created_at: datetime
    position: int


class Users(ReadModel[UserPage]):
    """Everybody with an account."""

    row = UserPage
    key = "user"
    events = (UserCreated, UserRolesChanged)
    sealed = ("username",)
    indexes = ("(username)",)

    def evolve(self, row: UserPage | None, event: UserCreated | UserRolesChanged, record: Record) -> UserPage | None:
        """Return the row after the event."""
        match event:
            case UserCreated(user=user, username=username, administrator=administrator, auditor=auditor):
                return UserPage(user, username.text, administrator, auditor, record.entry.at, record.position)
            case UserRolesChanged(administrator=administrator, auditor=auditor):
                return row and replace(row, administrator=administrator, auditor=auditor, position=record.position)

    async def listed(self, limit: int, after: str | None) -> list[UserPage]:
        """List users by their id, which is the order in which they came."""
        return await self.select(SQL("true"), {}, limit=limit, after=after)

    async def named(self, username: str) -> UserPage | None:
        """Find a user by name."""
        rows = await self.select(SQL("username = %(username)s"), {"username": username})
        return rows[0] if rows else None

    async def names_of(self, users: list[str]) -> dict[str, str]:
        """Give the names of some users."""
        values: dict[str, Any] = {"users": users}
        rows = await self.select(SQL('"user" = ANY(%(users)s)'), values, limit=len(users))
        return {row.user: row.username for row in rows}
