"""Tickets, which lead from the platform to a notebook, and the passes that they are changed into there."""

import secrets
import time
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from app.audit.sealing.vault import Key, Vault
from app.domain.command import Caller
from app.domain.names import UserId
from app.identity.principal import SESSION, Principal
from app.keys import Keys, digest_of

TICKET = timedelta(seconds=30)


class Pass(Struct, frozen=True):
    """What a ticket or a pass says: who may ask one notebook, in which session, until when (Unix seconds)."""

    nonce: str
    notebook: str
    session: str
    user: UserId
    username: str
    administering: bool
    expires: int

    @property
    def caller(self) -> Caller:
        """On whose word a notebook is entered."""
        return Caller(self.user, self.administering)


class Passes:
    """Makes and reads them. A ticket is kept once it is spent, and a pass nowhere: both are signed."""

    def __init__(self, vault: Vault, keys: Keys) -> None:
        self._vault = vault
        self._keys = keys
        self.cookie = f"__Host-sophon-pass-{keys.installation}"
        """What a pass is called in a browser."""

    def ticket(self, principal: Principal, notebook: str) -> str:
        """Make what leads one user, in this session, to one notebook, once, within half a minute. Keeps nothing."""
        return self._sign("ticket", self._pass(principal, notebook, TICKET))

    async def spend(self, ticket: str, notebook: str) -> Pass | None:
        """Give what a ticket was made for, the first time; nothing if it is for another notebook, or too late."""
        found = self.read(ticket, notebook, "ticket")
        if found is None:
            return None
        expires = datetime.fromtimestamp(found.expires, UTC)
        spent = Key("ticket", found.nonce, found.user, (), expires)
        return found if await self._vault.keep(digest_of(ticket), spent) else None

    def signed(self, ticket: Pass) -> str:
        """Make what a ticket is changed into: it opens one notebook for as long as its session is open."""
        until = int((datetime.now(UTC) + SESSION).timestamp())
        return self._sign("pass", replace(ticket, expires=until))

    def read(self, signed: str, notebook: str, purpose: str = "pass") -> Pass | None:
        """Read a pass, or a ticket, for one notebook; none if it is not ours, or has expired."""
        if len(signed) > 2_000 or (message := self._keys.verify(purpose, signed)) is None:
            return None
        found = msgspec.json.decode(message, type=Pass)
        return found if found.notebook == notebook and found.expires > time.time() else None

    def _pass(self, principal: Principal, notebook: str, life: timedelta) -> Pass:
        return Pass(
            nonce=secrets.token_hex(16),
            notebook=notebook,
            session=principal.key,
            user=principal.user,
            username=principal.username,
            administering=principal.caller.administering,
            expires=int((datetime.now(UTC) + life).timestamp()),
        )

    def _sign(self, purpose: str, what: Pass) -> str:
        return self._keys.sign(purpose, msgspec.json.encode(what))
