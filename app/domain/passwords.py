"""A password: how its user, or whoever has the machine, gives an account another one. It stands in no event."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from app.domain.command import Caller, Command
from app.domain.errors import Forbidden
from app.domain.event import Event
from app.domain.model import Basis
from app.domain.names import UserId
from app.domain.users import Account, NoSuchUser

Password = Annotated[str, Meta(min_length=12, max_length=1024, description="At least 12 characters.")]
"""One that may be chosen."""

SessionId = Annotated[str, Meta(extra={"tag": "session"})]


class PasswordReset(Event, frozen=True, kw_only=True):
    """Whoever has the machine gave an account another password: all its sessions end."""

    user: UserId


class PasswordChanged(Event, frozen=True, kw_only=True):
    """A user, who knew the password, chose another one: their sessions end, but for the one in which they did."""

    user: UserId
    session: SessionId


class NotByToken(Forbidden):
    """A token cannot change a password: log in with the password to change it."""


class ResetPassword(Command, frozen=True, kw_only=True):
    """Give an account another password, of whoever lost theirs. The installation itself does: see `sophon admin`."""

    user: UserId

    def rests_on(self) -> tuple[Basis[Account]]:
        """Rest on the user."""
        return (Account.of(self.user),)

    def decide(self, user: Account) -> Iterator[Event]:
        """Yield `PasswordReset`, each time anew; raise `NoSuchUser`."""
        if not user.exists:
            raise NoSuchUser
        yield PasswordReset(user=self.user)


class ChangePassword(Command, frozen=True, kw_only=True):
    """Choose another password for oneself. That the old one was known is proved before."""

    by: Caller
    session: SessionId | None
    """In which it is asked for; none: it is asked for by a token."""

    def rests_on(self) -> tuple[Basis[Account]]:
        """Rest on who asks."""
        return (Account.of(self.by.user),)

    def decide(self, caller: Account) -> Iterator[Event]:
        """Yield `PasswordChanged`, each time anew; raise `NotByToken` or `NoSuchUser`."""
        if self.session is None:
            raise NotByToken
        if not caller.exists:
            raise NoSuchUser
        yield PasswordChanged(user=self.by.user, session=self.session)
