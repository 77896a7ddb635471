"""Who asks, as far as they proved it."""

from datetime import timedelta

from msgspec import Struct

from app.audit.entry import Actor
from app.audit.sealing.vault import KeyKind
from app.domain.command import Caller
from app.domain.names import UserId
from app.domain.tokens import Scope

SESSION = timedelta(days=7)
"""How long a session is open."""


class Principal(Struct, frozen=True):
    """Somebody who proved who they are, and by what."""

    user: UserId
    username: str
    administrator: bool
    kind: KeyKind
    key: str
    scopes: frozenset[str]
    auditor: bool = False

    def has(self, scope: Scope) -> bool:
        """Whether this key opens what needs a scope; who may administer with it may read the audit log too."""
        return scope in self.scopes or (scope == Scope.AUDIT and Scope.ADMIN in self.scopes)

    @property
    def audits(self) -> bool:
        """Whether they may read everything in the audit log, with this key."""
        return (self.auditor or self.administrator) and self.has(Scope.AUDIT)

    @property
    def caller(self) -> Caller:
        """On whose word commands are given."""
        return Caller(self.user, administering=self.administrator and Scope.ADMIN in self.scopes)

    @property
    def actor(self) -> Actor:
        """As whom they stand in the log."""
        return Actor(kind="user", id=self.user, via="token" if self.kind == "token" else "session")
