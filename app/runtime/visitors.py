"""Visitors: who stands at the door of a notebook, by what, and as whom the notebook will know them."""

import time

from msgspec import Struct

from app.acts import Acts
from app.domain.command import Caller
from app.domain.names import NotebookName
from app.domain.tokens import Scope, TokenUsed
from app.identity.identity import Identity
from app.runtime.forwarded import Headers, context_of, cookie_of

REMEMBERED = 20_000


class Visitor(Struct, frozen=True):
    """Who stands at the door, by what, and as whom the notebook will know them."""

    caller: Caller
    key: str
    username: str
    via: bytes
    has_scope: bool = True
    """Whether their key is for notebooks; a session's is for all."""


class Visitors:
    """Tells who asks; passes that were read are remembered."""

    def __init__(self, identity: Identity, acts: Acts) -> None:
        self._identity = identity
        self._acts = acts
        self._cookie = identity.passes.cookie.encode()
        self._passes: dict[tuple[bytes, NotebookName], tuple[int, Visitor]] = {}

    async def at(self, headers: Headers, notebook: NotebookName) -> Visitor | None:
        """Tell who is there, by an API token or by a pass for this notebook; none, if nobody proved who they are."""
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            principal = await self._identity.who(token.strip().decode("ascii", "replace"), "token")
            if principal is None:
                return None
            if has_scope := Scope.NOTEBOOKS in principal.scopes:
                used = TokenUsed(token=principal.key, user=principal.user)
                await self._acts.saw(used, context_of(principal.user, headers, "token"))
            return Visitor(principal.caller, principal.key, principal.username, b"token", has_scope)
        visitor = self._bearer_of(cookie_of(headers, self._cookie), notebook)
        return visitor if visitor and await self._identity.is_open(visitor.key) else None

    def _bearer_of(self, cookie: bytes, notebook: NotebookName) -> Visitor | None:
        if not cookie:
            return None
        known = self._passes.get((cookie, notebook))
        if known is None or known[0] < time.time():
            found = self._identity.passes.read(cookie.decode("ascii", "replace"), notebook)
            if found is None:
                return None
            known = (found.expires, Visitor(found.caller, found.session, found.username, b"session"))
            if len(self._passes) > REMEMBERED:
                self._passes.clear()
            self._passes[cookie, notebook] = known
        return known[1]
