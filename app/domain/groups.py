"""A group: people who work together. What belongs to a group is its members', and no one person's."""

from collections.abc import Iterator
from enum import IntEnum
from typing import Annotated, Any, Literal, Self

from msgspec.structs import replace

from app.domain.command import Caller, Command, Power
from app.domain.errors import Conflict, Forbidden, NotFound
from app.domain.event import Event
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import Title, UserId, slug
from app.domain.users import Account, AuditorsChangeNothing, NoSuchUser, UserCreated, UserRolesChanged

GroupName = Annotated[str, slug("group")]

Membership = Literal["member", "owner"]


class GroupCreated(Event, frozen=True, kw_only=True):
    """A group exists, and has its first owner."""

    whose = "group"

    group: GroupName
    title: Title
    owner: UserId


class MemberAdded(Event, frozen=True, kw_only=True):
    """Somebody belongs to the group, or belongs to it in another role than before."""

    group: GroupName
    user: UserId
    role: Membership


class MemberRemoved(Event, frozen=True, kw_only=True):
    """Somebody belongs to the group no more."""

    group: GroupName
    user: UserId


class Role(IntEnum):
    """What somebody is to a group. Each may do what those below it may."""

    NOBODY = 0
    MEMBER = 1
    OWNER = 2
    ADMINISTRATOR = 3


class NoSuchGroup(NotFound):
    """There is no group with this slug."""

    field = "group"


class GroupSlugTaken(Conflict):
    """This slug is, or once was, a group's; choose another one."""

    field = "slug"


class MembersOnly(Forbidden):
    """Only members of the group may do this; ask one of its owners to let you in."""


class OwnersOnly(Forbidden):
    """Only owners of the group may do this."""


class LastOwner(Conflict):
    """A group needs an owner: make somebody else one first."""


class Standing(DecisionModel, frozen=True):
    """What one user is to one group."""

    caller: Caller
    group: bool = False
    membership: Role = Role.NOBODY
    administrator: bool = False
    auditor: bool = False

    @classmethod
    def of(cls, caller: Caller, group: GroupName) -> Basis[Self]:
        """Rest on the group's existence and on the caller's part in it."""
        here, who = f"group:{group}", f"user:{caller.user}"
        return Basis(
            cls(caller),
            (
                events(GroupCreated, tags=(here,)),
                events(MemberAdded, MemberRemoved, tags=(here, who)),
                events(UserCreated, UserRolesChanged, tags=(who,)),
            ),
        )

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            case GroupCreated(owner=owner):
                mine = owner == self.caller.user
                return replace(self, group=True, membership=Role.OWNER if mine else Role.NOBODY)
            case MemberAdded(role=role):
                return replace(self, membership=Role.OWNER if role == "owner" else Role.MEMBER)
            case MemberRemoved():
                return replace(self, membership=Role.NOBODY)
            case UserCreated() | UserRolesChanged():
                return replace(self, administrator=event.administrator, auditor=event.auditor)
            case _:
                return self

    @property
    def role(self) -> Role:
        """The highest role that the caller has here."""
        return Role.ADMINISTRATOR if self.administrator and self.caller.administering else self.membership

    def must_be_no_auditor(self) -> None:
        """Raise `AuditorsChangeNothing` for one, whatever they are to the group."""
        if self.auditor and not self.administrator:  # once, somebody could be both
            raise AuditorsChangeNothing

    def must_be(self, role: Role) -> None:
        """Raise `NoSuchGroup`, `MembersOnly` or `OwnersOnly`, unless the caller is that or more, and no auditor."""
        self.must_be_no_auditor()
        if not self.group:
            raise NoSuchGroup
        if self.role < role:
            raise OwnersOnly if role == Role.OWNER else MembersOnly

    def power_to_be(self, role: Role) -> Power | None:
        """Name the power that the caller needs to pass for this, whose own part in the group is less."""
        return "administrator" if self.membership < role <= self.role else None


class Roster(DecisionModel, frozen=True):
    """Who owns a group."""

    owners: frozenset[UserId] = frozenset()
    members: frozenset[UserId] = frozenset()

    @classmethod
    def of(cls, group: GroupName) -> Basis[Self]:
        """Rest on everybody's part in the group."""
        return Basis(cls(), (events(GroupCreated, MemberAdded, MemberRemoved, tags=(f"group:{group}",)),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            case GroupCreated(owner=user) | MemberAdded(user=user, role="owner"):
                return replace(self, owners=self.owners | {user}, members=self.members - {user})
            case MemberAdded(user=user):
                return replace(self, owners=self.owners - {user}, members=self.members | {user})
            case MemberRemoved(user=user):
                return replace(self, owners=self.owners - {user}, members=self.members - {user})
            case _:
                return self

    def role_of(self, user: UserId) -> Membership | None:
        """Tell what a user is to the group."""
        return "owner" if user in self.owners else "member" if user in self.members else None

    def must_keep_an_owner_without(self, user: UserId) -> None:
        """Raise `LastOwner` if the group would have none."""
        if self.owners == frozenset((user,)):
            raise LastOwner


class CreateGroup(Command, frozen=True, kw_only=True):
    """Begin a group and own it. Every user may who is no auditor."""

    by: Caller
    group: GroupName
    title: Title

    def rests_on(self) -> tuple[Basis[Standing]]:
        """Rest on the slug never having been a group's."""
        return (Standing.of(self.by, self.group),)

    def decide(self, standing: Standing) -> Iterator[Event]:
        """Yield `GroupCreated`; raise `AuditorsChangeNothing` or `GroupSlugTaken`."""
        standing.must_be_no_auditor()
        if standing.group:
            raise GroupSlugTaken
        yield GroupCreated(group=self.group, title=self.title, owner=self.by.user)


class GroupCommand(Command, frozen=True, kw_only=True):
    """A wish about something that is a group's. Who has it needs a part in the group, or an administrator's power."""

    by: Caller

    @property
    def needs(self) -> Role:
        """What the caller has to be to the group, or more."""
        return Role.MEMBER

    def acts_as(self, *models: Any) -> Power | None:
        """Name the power that was used in place of a part in the group."""
        return next(model.power_to_be(self.needs) for model in models if isinstance(model, Standing))


class AddMember(GroupCommand, frozen=True, kw_only=True):
    """Let somebody into a group, or change their role in it. Owners do."""

    group: GroupName
    user: UserId
    role: Membership = "member"

    def rests_on(self) -> tuple[Basis[Standing], Basis[Roster], Basis[Account]]:
        """Rest on who asks, who belongs, and whether the newcomer exists."""
        return Standing.of(self.by, self.group), Roster.of(self.group), Account.of(self.user)

    def decide(self, standing: Standing, roster: Roster, newcomer: Account) -> Iterator[Event]:
        """Yield `MemberAdded`, unless they are that; raise `NoSuchUser`, `OwnersOnly`, `LastOwner`."""
        standing.must_be(self.needs)
        if not newcomer.exists:
            raise NoSuchUser(self.user)
        if roster.role_of(self.user) == self.role:
            return
        if self.role == "member":
            roster.must_keep_an_owner_without(self.user)
        yield MemberAdded(group=self.group, user=self.user, role=self.role)

    @property
    def needs(self) -> Role:
        """What the caller has to be to the group, or more."""
        return Role.OWNER


class RemoveMember(GroupCommand, frozen=True, kw_only=True):
    """Let somebody go from a group. Owners do; and everybody may leave."""

    group: GroupName
    user: UserId

    def rests_on(self) -> tuple[Basis[Standing], Basis[Roster]]:
        """Rest on who asks and who belongs."""
        return Standing.of(self.by, self.group), Roster.of(self.group)

    def decide(self, standing: Standing, roster: Roster) -> Iterator[Event]:
        """Yield `MemberRemoved`, unless they are none; raise `OwnersOnly` or `LastOwner`."""
        standing.must_be(self.needs)
        if roster.role_of(self.user) is None:
            return
        roster.must_keep_an_owner_without(self.user)
        yield MemberRemoved(group=self.group, user=self.user)

    @property
    def needs(self) -> Role:
        """What the caller has to be to the group, or more."""
        return Role.MEMBER if self.user == self.by.user else Role.OWNER
