"""Identity: who asks. Passwords, sessions, tokens and the tickets that lead from the platform to a notebook."""

import secrets
import time
from collections import OrderedDict
from datetime import UTC, datetime

from app.audit.entry import Record
from app.audit.log import Log
from app.audit.sealing.vault import Key, KeyKind, Vault
from app.domain.errors import Forbidden
from app.domain.model import events
from app.domain.names import UserId
from app.domain.passwords import PasswordChanged, PasswordReset
from app.domain.subjects import SubjectErased
from app.domain.tokens import Scope, TokenRevoked
from app.domain.users import Account, LoggedOut, UserCreated, UsernameDigest, UserRolesChanged
from app.identifiers import new_id
from app.identity.hashing import Hashing
from app.identity.passes import Passes
from app.identity.principal import SESSION, Principal
from app.identity.throttle import Throttle
from app.keys import Keys, digest_of

REMEMBERED = 10_000
ENDING = ("LoggedOut", "TokenRevoked", "UserRolesChanged", "SubjectErased", "PasswordReset", "PasswordChanged")
"""What ends keys, or changes what they open, by stored name."""
TRUST = 60.0
"""Seconds after which a remembered key is looked up again. What ends a key is in the log, and ends it at once."""
UNSURE = 10.0
"""Seconds after somebody's new password in which nothing is remembered: the vault may end their sessions only now."""


class BadCredentials(Forbidden):
    """User name or password is wrong."""

    status = 401

    def __init__(self, user: UserId | None) -> None:
        super().__init__()
        self.user = user
        """Whose password it was not: for the log, never for the answer."""


class WrongPassword(Forbidden):
    """This is not your password."""

    field = "old"


class Identity:
    """Proves who asks. Keys are remembered, and forgotten as soon as the log says that they were ended."""

    def __init__(self, log: Log, vault: Vault, keys: Keys) -> None:
        self._log = log
        self._vault = vault
        self._keys = keys
        self.passes = Passes(vault, keys)
        self.cookie = f"__Host-sophon-{keys.installation}"
        """What a session's secret is called in a browser. Cookies know no ports: another installation has another."""
        self.hashing = Hashing()
        self._throttle = Throttle()
        self._remembered: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._live: dict[str, float] = {}
        self._roles_changed = 0
        self._unsure_until = 0.0

    def digest_of(self, username: str) -> UsernameDigest:
        """Give what stands for a user name in tags."""
        return self._keys.username_digest(username)

    async def set_password(self, user: UserId, password: str) -> None:
        """Keep the hash of a new account's password."""
        await self._vault.set_password(user, await self.hashing.hash(password))

    async def replace_password(self, user: UserId, password_hash: str, keeping: str | None = None) -> None:
        """Put another hash in its place, and end the user's sessions, but for one. Their entry in the log comes first.

        If we are killed in between, the old password holds, and nobody was told that it does not.
        """
        await self._vault.replace_password(user, password_hash, keeping)
        self._look_again(user)

    async def prove(self, user: UserId, password: str, source: str) -> None:
        """Check the password of somebody who is logged in; raises `WrongPassword` or `TooManyAttempts`."""
        with self._throttle.attempting(user, source):
            if not await self.hashing.verify(await self._vault.password(user), password):
                raise WrongPassword

    async def user_named(self, username: str) -> UserId | None:
        """Tell whose name this is, or was."""
        account = await self._account(self.digest_of(username))
        return account.user if account else None

    async def forget_password(self, user: UserId) -> None:
        """Delete the password of an account that was not made after all."""
        await self._vault.forget_password(user)

    async def log_in(self, username: str, password: str, source: str) -> tuple[str, Principal]:
        """Check a password and open a session; return its secret, which nobody keeps, and who it is for.

        Raises `BadCredentials` or `TooManyAttempts`.
        """
        with self._throttle.attempting(username, source):
            account = await self._account(self.digest_of(username))
            kept = await self._vault.password(account.user) if account else None
            if not await self.hashing.verify(kept, password) or not account:
                raise BadCredentials(account.user if account else None)
        opened = await self.open(account.user, "session", new_id("ses"), tuple(Scope), datetime.now(UTC) + SESSION)
        if await self._vault.password(account.user) != kept:
            # There is another one since we looked: what ended the sessions of the old one may have missed this.
            await self.end(opened[1].key)
            raise BadCredentials(account.user)
        return opened

    async def open(
        self, user: UserId, kind: KeyKind, id_: str, scopes: tuple[str, ...], expires: datetime
    ) -> tuple[str, Principal]:
        """Keep a new key, and return its secret (256 random bits) and who it is for."""
        secret = secrets.token_urlsafe(32)
        key = Key(kind, id_, user, scopes, expires)
        await self._vault.keep(digest_of(secret), key)
        return secret, await self._principal(key)

    async def who(self, secret: str, kind: KeyKind) -> Principal | None:
        """Tell whose key this is, if it is one that is open."""
        digest = digest_of(secret)
        known = self._remembered.get(digest)
        if known and known[0] > time.monotonic() and known[1].kind == kind:
            return known[1]
        key = await self._vault.find(digest, kind)
        if key is None or key.id in self._ended:
            self._remembered.pop(digest, None)
            return None
        before = self._roles_changed
        principal = await self._principal(key)
        if key.id in self._ended:
            return None
        if before != self._roles_changed or time.monotonic() < self._unsure_until:
            return principal  # it may say what was read before they changed: not to be remembered
        left = (key.expires - datetime.now(UTC)).total_seconds()
        self._remembered[digest] = (time.monotonic() + min(TRUST, left), principal)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return principal

    async def is_open(self, id_: str) -> bool:
        """Whether the session or token of this id still opens anything. Remembered like keys are."""
        if id_ in self._ended:
            return False
        if self._live.get(id_, 0) > time.monotonic():
            return True
        before = self._roles_changed
        left = await self._vault.seconds_left(id_)
        if left is None or id_ in self._ended:
            return False
        if before != self._roles_changed or time.monotonic() < self._unsure_until:
            return True  # somebody may have been erased since, or have another password: not to be remembered
        if len(self._live) > REMEMBERED:
            self._live.clear()
        self._live[id_] = time.monotonic() + min(TRUST, left)
        return True

    async def end(self, id_: str) -> None:
        """End a session or token. Its entry in the log ends it for the other processes too."""
        await self._vault.drop(id_)
        self._forget(id_)

    def forget_roles(self, user: UserId) -> None:
        """Look up again, with the next request, what a user may do."""
        self._roles_changed += 1
        for digest in [digest for digest, (_, known) in self._remembered.items() if known.user == user]:
            del self._remembered[digest]

    def apply(self, records: list[Record]) -> None:
        """Take in what the log says of keys that ended, of roles and passwords that changed, and of erased users."""
        for record in records:
            if record.entry.type in ENDING:
                match record.event:
                    case SubjectErased(subject=subject):
                        self._forget_user(subject.removeprefix("user:"))
                    case UserRolesChanged(user=user):
                        self.forget_roles(user)
                    case PasswordReset(user=user) | PasswordChanged(user=user):
                        self._look_again(user)
                    case LoggedOut(session=id_) | TokenRevoked(token=id_):
                        self._forget(id_)
                    case _:
                        pass

    async def run(self) -> None:
        """Follow the log, until cancelled."""
        async for records in self._log.follow(await self.catch_up()):
            self.apply(records)

    async def catch_up(self) -> int:
        """Drop the keys of tokens and sessions that the log says were ended: a killed process may have got no further.

        Erase again who was erased: the database may be a backup of a time when they were not. Returns up to where the
        log was read: what ends a key while this goes on comes after it, and is followed.
        """
        head = self._log.head
        await self._vault.erase_again()
        page = await self._log.read((events(TokenRevoked),))
        revoked = [event.token for one in page.records if isinstance(event := one.event, TokenRevoked)]
        for id_ in await self._vault.drop_ended(revoked):
            self._forget(id_)
        return head

    def csrf_token(self, principal: Principal) -> str:
        """Give what a page has to send with every change that it makes in this session."""
        return self._keys.csrf_token(principal.key)

    def _forget(self, id_: str) -> None:
        self._ended[id_] = None
        self._live.pop(id_, None)
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        for digest in [digest for digest, (_, principal) in self._remembered.items() if principal.key == id_]:
            del self._remembered[digest]

    def _look_again(self, user: UserId) -> None:
        """Ask the vault which of a user's sessions are open, as most of them may not be any more."""
        self._unsure_until = time.monotonic() + UNSURE
        self.forget_roles(user)
        self._live.clear()

    def _forget_user(self, user: UserId) -> None:
        """Forget a user's name and keys: in the vault there are none any more."""
        for _, principal in self._remembered.values():
            if principal.user == user:
                self._ended[principal.key] = None
        self.forget_roles(user)
        self._live.clear()

    async def _account(self, digest: str) -> UserCreated | None:
        page = await self._log.read(Account.named(digest).selections)
        return next((event for record in page.records if isinstance(event := record.event, UserCreated)), None)

    async def _principal(self, key: Key) -> Principal:
        basis = Account.of(key.user)
        page = await self._log.read(basis.selections)
        async with self._log.pool.connection() as connection:
            await self._log.reveal(connection, page.records)
        happened = [record.event for record in page.records]
        account = basis.fold(happened)
        created = next(event for event in happened if isinstance(event, UserCreated))
        return Principal(
            user=key.user,
            username=created.username.text,
            administrator=account.administrator,
            auditor=account.auditor,
            kind=key.kind,
            key=key.id,
            scopes=frozenset(key.scopes),
        )
