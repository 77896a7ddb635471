"""A user: a person with an account. Known by an opaque id; the name is personal, and in one event only."""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from msgspec import Meta
from msgspec.structs import replace

from app.domain.command import Caller, Command, Power
from app.domain.errors import Conflict, Forbidden, NotFound
from app.domain.event import Access, Event
from app.domain.model import Basis, DecisionModel, events
from app.domain.names import Personal, UserId
from app.domain.subjects import SubjectErased

Username = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9._-]{0,31}(?!\n)$",
        max_length=32,
        description="Lower-case letters, digits, dots, underscores and hyphens; begins with a letter; at most 32.",
        examples=["ada"],
    ),
]

UsernameDigest = Annotated[str, Meta(pattern=r"^[0-9a-v]{26}(?!\n)$", extra={"tag": "username"})]
"""A keyed digest of a user name: names are unique, and tags are not personal data."""


class UserCreated(Event, frozen=True, kw_only=True):
    """An account exists."""

    whose = "user"

    user: UserId
    username: Personal
    digest: UsernameDigest
    administrator: bool
    auditor: bool = False


class UserRolesChanged(Event, frozen=True, kw_only=True):
    """A user may do more, or less, than before; in force with the next request. What they were stands beside it."""

    user: UserId
    administrator: bool
    auditor: bool
    was_administrator: bool
    was_auditor: bool


class LoggedIn(Access, frozen=True, kw_only=True):
    """A password was right, and a session began."""

    user: UserId
    session: Annotated[str, Meta(extra={"tag": "session"})]


class LoginRefused(Access, frozen=True, kw_only=True):
    """A password was wrong. The user is absent where the name is nobody's: it may be a password typed too early."""

    user: UserId | None = None


class LoggedOut(Access, frozen=True, kw_only=True):
    """A session was ended by its user: from here on it opens nothing."""

    user: UserId
    session: Annotated[str, Meta(extra={"tag": "session"})]


class Account(DecisionModel, frozen=True):
    """Whether a user, or anybody under a name, exists, and may administer."""

    exists: bool = False
    administrator: bool = False
    auditor: bool = False
    erased: bool = False

    @classmethod
    def of(cls, user: UserId) -> Basis[Self]:
        """Rest on one user."""
        return Basis(cls(), (events(UserCreated, UserRolesChanged, SubjectErased, tags=(f"user:{user}",)),))

    @classmethod
    def named(cls, digest: UsernameDigest) -> Basis[Self]:
        """Rest on whoever has a name."""
        return Basis(cls(), (events(UserCreated, tags=(f"username:{digest}",)),))

    @classmethod
    def any(cls) -> Basis[Self]:
        """Rest on everybody."""
        return Basis(cls(), (events(UserCreated),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            case UserCreated(administrator=administrator, auditor=auditor):
                return replace(self, exists=True, administrator=administrator, auditor=auditor)
            case UserRolesChanged(administrator=administrator, auditor=auditor):
                return replace(self, administrator=administrator, auditor=auditor)
            case SubjectErased():
                return replace(self, exists=False, administrator=False, auditor=False, erased=True)
            case _:
                return self


class Administrators(DecisionModel, frozen=True):
    """Who administers the platform."""

    users: frozenset[UserId] = frozenset()

    @classmethod
    def all(cls) -> Basis[Self]:
        """Rest on everybody's roles."""
        return Basis(cls(), (events(UserCreated, UserRolesChanged, SubjectErased),))

    def evolve(self, event: Event) -> Self:
        """Return what holds after the event."""
        match event:
            case UserCreated(user=user, administrator=True) | UserRolesChanged(user=user, administrator=True):
                return replace(self, users=self.users | {user})
            case UserRolesChanged(user=user):
                return replace(self, users=self.users - {user})
            case SubjectErased(subject=subject):
                return replace(self, users=self.users - {subject.removeprefix("user:")})
            case _:
                return self


class NoSuchUser(NotFound):
    """There is no user with this id."""


class UsernameTaken(Conflict):
    """This user name is taken; choose another one."""

    field = "username"


class AdministratorsOnly(Forbidden):
    """Only an administrator may do this."""


class AuditorsChangeNothing(Forbidden):
    """An auditor changes nothing but their own session and tokens; ask a member or an administrator to do it."""


class AdministratorOrAuditor(Conflict):
    """Nobody is both: an auditor changes nothing, and an administrator reads the audit log as it is."""

    field = "auditor"


class LastAdministrator(Conflict):
    """The platform needs an administrator: make somebody else one first."""


class AlreadySetUp(Conflict):
    """This installation has its first account already."""


class CreateUser(Command, frozen=True, kw_only=True):
    """Open an account for somebody. Administrators do."""

    by: Caller
    user: UserId
    username: Personal
    digest: UsernameDigest
    administrator: bool = False
    auditor: bool = False

    def rests_on(self) -> tuple[Basis[Account], Basis[Account]]:
        """Rest on who asks, and on who has the name."""
        return Account.of(self.by.user), Account.named(self.digest)

    def decide(self, caller: Account, namesake: Account) -> Iterator[Event]:
        """Yield `UserCreated`; raise `AdministratorsOnly`, `AdministratorOrAuditor` or `UsernameTaken`."""
        if not (caller.administrator and self.by.administering):
            raise AdministratorsOnly
        if self.administrator and self.auditor:
            raise AdministratorOrAuditor
        if namesake.exists:
            raise UsernameTaken
        yield UserCreated(
            user=self.user,
            username=self.username,
            digest=self.digest,
            administrator=self.administrator,
            auditor=self.auditor,
        )

    def acts_as(self, *_: Any) -> Power | None:
        """Name the administrator's power: nobody else makes accounts."""
        return "administrator"


class ChangeRoles(Command, frozen=True, kw_only=True):
    """Make somebody an administrator or an auditor, or no longer one. Administrators do."""

    by: Caller
    user: UserId
    administrator: bool
    auditor: bool

    def rests_on(self) -> tuple[Basis[Account], Basis[Account], Basis[Administrators]]:
        """Rest on who asks, whom it is about, and who else administers."""
        return Account.of(self.by.user), Account.of(self.user), Administrators.all()

    def decide(self, caller: Account, user: Account, administrators: Administrators) -> Iterator[Event]:
        """Yield `UserRolesChanged`, unless they are that; raise `NoSuchUser` and the like."""
        if not (caller.administrator and self.by.administering):
            raise AdministratorsOnly
        if not user.exists:
            raise NoSuchUser(self.user)
        if (self.administrator, self.auditor) == (user.administrator, user.auditor):
            return
        if self.administrator and self.auditor:
            raise AdministratorOrAuditor
        if not self.administrator and administrators.users == frozenset((self.user,)):
            raise LastAdministrator
        yield UserRolesChanged(
            user=self.user,
            administrator=self.administrator,
            auditor=self.auditor,
            was_administrator=user.administrator,
            was_auditor=user.auditor,
        )

    def acts_as(self, *_: Any) -> Power | None:
        """Name the administrator's power: nobody else changes roles."""
        return "administrator"


class CreateFirstAdministrator(Command, frozen=True, kw_only=True):
    """Open the account with which a new installation begins. The installation itself does, once."""

    user: UserId
    username: Personal
    digest: UsernameDigest

    def rests_on(self) -> tuple[Basis[Account]]:
        """Rest on there being nobody."""
        return (Account.any(),)

    def decide(self, anybody: Account) -> Iterator[Event]:
        """Yield `UserCreated`; raise `AlreadySetUp`."""
        if anybody.exists:
            raise AlreadySetUp
        yield UserCreated(user=self.user, username=self.username, digest=self.digest, administrator=True)
