"""Groups and who belongs to them."""

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace
from psycopg.sql import SQL

from app.audit.entry import Record
from app.domain.command import Caller
from app.domain.groups import GroupCreated, GroupName, MemberAdded, MemberRemoved, Membership
from app.domain.names import Title, UserId
from app.projections.read_model import ReadModel


class GroupPage(Struct, frozen=True, gc=False):
    """A group. Its members are for registered users' eyes."""

    slug: GroupName
    title: Title
    members: dict[UserId, Membership]
    created_at: datetime
    position: int


class Groups(ReadModel[GroupPage]):
    """All groups."""

    row = GroupPage
    key = "group"
    events = (GroupCreated, MemberAdded, MemberRemoved)
    sealed = ("title",)
    indexes = ("USING gin (members)",)

    def evolve(
        self, row: GroupPage | None, event: GroupCreated | MemberAdded | MemberRemoved, record: Record
    ) -> GroupPage | None:
        """Return the row after the event."""
        match event:
            case GroupCreated(group=group, title=title, owner=owner):
                return GroupPage(group, title, {owner: "owner"}, record.entry.at, record.position)
            case MemberAdded(user=user, role=role):
                return row and replace(row, members={**row.members, user: role}, position=record.position)
            case MemberRemoved(user=left):
                members = row and {user: role for user, role in row.members.items() if user != left}
                return row and replace(row, members=members, position=record.position)

    async def is_open_to(self, viewer: Caller | None, group: GroupName) -> bool:
        """Whether a viewer belongs to a group, or administers all of them."""
        if viewer is None or viewer.administering:
            return viewer is not None
        where = SQL("slug = %(group)s AND members ? %(member)s")
        return bool(await self.select(where, {"group": group, "member": viewer.user}))

    async def listed(self, limit: int, after: str | None, member: UserId | None = None) -> list[GroupPage]:
        """List groups by their slug; with a member, only those that the user belongs to."""
        where = SQL("true" if member is None else "members ? %(member)s")
        return await self.select(where, {"member": member}, limit=limit, after=after)
