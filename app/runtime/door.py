"""The door: asked by the proxy about every request to a notebook, and answering from memory.

Raw ASGI, because it stands in front of everything that a notebook does. It answers on a socket that only the proxy
reaches: `GET /authorise` about a client's request, and a client's own requests to `/.sophon/…` on a notebook's host.
"""

import time
from collections.abc import MutableMapping
from html import escape
from typing import Any
from urllib.parse import quote

import structlog
from msgspec import Struct

from app.acts import Acts
from app.dispatch import GUEST, Context, Dispatch, using
from app.domain.command import Caller
from app.domain.errors import Refusal
from app.domain.names import NotebookName
from app.domain.notebooks import NotebookEntered, StartNotebook
from app.domain.tokens import Scope, TokenUsed
from app.html import is_local_path
from app.identifiers import new_id
from app.identity.identity import Identity
from app.keys import Keys
from app.runtime.admissions import Admissions, Admitted, NotAMember, NotReady, Unknown
from app.runtime.answers import START, Answer, Send, not_a_member, not_ready, tell, unknown
from app.runtime.forwarded import (
    Headers,
    Receive,
    context_of,
    cookie_of,
    form_in,
    is_navigation,
    is_own_page,
    uri_of,
)

_log = structlog.get_logger(__name__)

ENTER = "/.sophon/enter"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
REMEMBERED = 20_000


class NotKnown(Exception):
    """The log is not followed just now, so who may enter is not known."""


class Visitor(Struct, frozen=True):
    """Who stands at the door, by what, and as whom the notebook will know them."""

    caller: Caller
    key: str
    username: str
    via: bytes


class Door:
    """Lets in who may enter now, and tells everybody else why not."""

    def __init__(
        self,
        identity: Identity,
        admissions: Admissions,
        dispatch: Dispatch,
        acts: Acts,
        keys: Keys,
        platform: str,
        domain: str,
    ) -> None:
        """`platform`: its origin, where people sign in; `domain`: what follows a notebook's name in its host."""
        self._identity = identity
        self._admissions = admissions
        self._dispatch = dispatch
        self._acts = acts
        self._keys = keys
        self._platform = platform
        self._cookie = identity.passes.cookie.encode()
        self._suffix = f".{domain}".encode()
        self._scheme = platform.partition("://")[0].encode()
        self._visitors: dict[tuple[bytes, NotebookName], tuple[int, Visitor]] = {}
        self._tokens: dict[str, bytes] = {}
        self._entered: set[tuple[str, str]] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request of the proxy's."""
        if scope["type"] != "http":
            return
        headers: Headers = dict(scope["headers"])
        try:
            answer = await self._answer(scope, headers, receive)
        except Exception:
            # Nobody is let in on a guess: whatever is away here, the answer is not now.
            _log.exception("door.failed", path=scope["path"])
            answer = Answer(503, "Not just now", "<p>Try again in a moment.</p>", ((b"retry-after", b"2"),))
        if isinstance(answer, list):
            await send({"type": "http.response.start", "status": 200, "headers": answer})
            await send({"type": "http.response.body", "body": b""})
        else:
            await tell(answer, self._platform, send)

    async def _answer(
        self, scope: MutableMapping[str, Any], headers: Headers, receive: Receive
    ) -> list[tuple[bytes, bytes]] | Answer:
        notebook = self._notebook(headers)
        if not self._admissions.ready.is_set():
            raise NotKnown
        if scope["path"] == "/authorise":
            return await self._authorise(headers, notebook)
        return await self._own(scope["path"], scope["method"], headers, notebook, receive)

    def _notebook(self, headers: Headers) -> NotebookName:
        host = headers.get(b"host", b"").partition(b":")[0].lower()
        return host.removesuffix(self._suffix).decode("ascii", "replace") if host.endswith(self._suffix) else ""

    async def _authorise(self, headers: Headers, notebook: NotebookName) -> list[tuple[bytes, bytes]] | Answer:
        visitor = await self._visitor(headers, notebook)
        if visitor is None:
            await self._refused("not-authenticated", headers, notebook)
            return self._to_sign_in(headers, notebook)
        if visitor.via == b"session" and not is_own_page(headers, self._own_origin(headers)):
            return Answer(403, "Not from there", "<p>This request comes from a page of another origin.</p>")
        match self._admissions.ask(notebook, visitor.caller):
            case Admitted(upstream, run, administering):
                if visitor.via == b"token" and (visitor.key, run) not in self._entered:
                    await self._record_entry(visitor, notebook, run, headers, administering=administering)
                return [
                    (b"x-sophon-upstream", upstream.encode()),
                    (b"x-sophon-token", self._token(run)),
                    (b"x-sophon-user", visitor.caller.user.encode()),
                    (b"x-sophon-name", quote(visitor.username).encode()),
                    (b"x-sophon-via", visitor.via),
                ]
            case Unknown():
                return unknown(notebook)
            case NotAMember():
                await self._refused("members-only", headers, notebook, visitor.caller.user, visitor.via)
                return not_a_member(notebook)
            case NotReady(status=status):
                return not_ready(notebook, status)

    async def _record_entry(
        self, visitor: Visitor, notebook: NotebookName, run: str, headers: Headers, *, administering: bool
    ) -> None:
        """Record that a token entered a run for the first time; a session's entry is its ticket's."""
        if len(self._entered) > REMEMBERED:
            self._entered.clear()
        self._entered.add((visitor.key, run))
        entered = NotebookEntered(
            notebook=notebook,
            user=visitor.caller.user,
            session=visitor.key,
            administering=administering,
        )
        context = context_of(visitor.caller.user, headers, "token")
        await self._dispatch.record(entered, using(context, "administrator" if administering else None))

    async def _refused(
        self, reason: str, headers: Headers, notebook: NotebookName, user: str | None = None, via: bytes = b"session"
    ) -> None:
        """Record who was not let in, or count them where nobody knows who it was."""
        context = context_of(user, headers, "token" if via == b"token" else "session") if user else Context(actor=GUEST)
        asked = headers.get(b"x-forwarded-method", b"POST").decode("ascii", "replace")
        method = asked if asked in METHODS else "OTHER"
        await self._acts.refused(method, "/ of a notebook", reason, context, [f"notebook:{notebook}"])

    async def _visitor(self, headers: Headers, notebook: NotebookName) -> Visitor | None:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            principal = await self._identity.who(token.strip().decode("ascii", "replace"), "token")
            if principal is None or Scope.NOTEBOOKS not in principal.scopes:
                return None
            used = TokenUsed(token=principal.key, user=principal.user)
            await self._acts.saw(used, context_of(principal.user, headers, "token"))
            return Visitor(principal.caller, principal.key, principal.username, b"token")
        visitor = self._bearer_of(cookie_of(headers, self._cookie), notebook)
        return visitor if visitor and await self._identity.is_open(visitor.key) else None

    def _bearer_of(self, cookie: bytes, notebook: NotebookName) -> Visitor | None:
        if not cookie:
            return None
        known = self._visitors.get((cookie, notebook))
        if known is None or known[0] < time.time():
            found = self._identity.passes.read(cookie.decode("ascii", "replace"), notebook)
            if found is None:
                return None
            known = (found.expires, Visitor(found.caller, found.session, found.username, b"session"))
            if len(self._visitors) > REMEMBERED:
                self._visitors.clear()
            self._visitors[cookie, notebook] = known
        return known[1]

    def _token(self, run: str) -> bytes:
        token = self._tokens.get(run)
        if token is None:
            if len(self._tokens) > REMEMBERED:
                self._tokens.clear()
            token = self._tokens[run] = self._keys.run_token(run).encode()
        return token

    def _own_origin(self, headers: Headers) -> bytes:
        return self._scheme + b"://" + headers.get(b"host", b"")

    def _to_sign_in(self, headers: Headers, notebook: NotebookName) -> Answer:
        if not is_navigation(headers):
            return Answer(401, "Sign in first", "<p>Sign in at the platform, or send an API token.</p>")
        there = f"{self._platform}/open/{quote(notebook)}?next={quote(uri_of(headers), safe='')}"
        return Answer(303, "Sign in first", "", ((b"location", there.encode()),))

    async def _own(self, path: str, method: str, headers: Headers, notebook: NotebookName, receive: Receive) -> Answer:
        if method != "POST" or path not in (ENTER, START):
            return Answer(404, "Nothing here", "<p>There is no such page.</p>")
        form = await form_in(receive)
        if form is None:
            return Answer(413, "Too much", "<p>This form is too long.</p>")
        return await (self._enter(headers, form, notebook) if path == ENTER else self._start(headers, notebook))

    async def _enter(self, headers: Headers, form: dict[str, str], notebook: NotebookName) -> Answer:
        """Change a ticket, from the platform, into a pass: a cookie of this origin alone."""
        if headers.get(b"origin") != self._platform.encode():
            # Another page could bring its own user's ticket, and have its visitor work under that name.
            return Answer(403, "Not from there", "<p>The way into a notebook is from the platform.</p>")
        ticket = await self._identity.passes.spend(form.get("ticket", ""), notebook)
        if ticket is None or not await self._identity.is_open(ticket.session):
            again = f'<p><a href="{self._platform}/open/{escape(notebook)}">Open it again</a> from the platform.</p>'
            return Answer(403, "This way in was used, or is too old", again)
        match self._admissions.ask(notebook, ticket.caller):
            case Unknown():
                return unknown(notebook)
            case NotAMember():
                await self._refused("members-only", headers, notebook, ticket.user)
                return not_a_member(notebook)
            case NotReady(group=group):
                administering = not self._admissions.is_member(ticket.user, group)
            case Admitted(administering=administering):
                pass
        entered = NotebookEntered(
            notebook=notebook, user=ticket.user, session=ticket.session, administering=administering
        )
        context = context_of(ticket.user, headers)
        await self._dispatch.record(entered, using(context, "administrator" if administering else None))
        passes = self._identity.passes
        cookie = f"{passes.cookie}={passes.signed(ticket)}; Path=/; Secure; HttpOnly; SameSite=Lax"
        there = form.get("next", "/")
        return Answer(
            303,
            "Welcome",
            "",
            ((b"location", (there if is_local_path(there) else "/").encode()), (b"set-cookie", cookie.encode())),
        )

    async def _start(self, headers: Headers, notebook: NotebookName) -> Answer:
        visitor = await self._visitor(headers, notebook)
        if visitor is None:
            return self._to_sign_in(headers, notebook)
        if visitor.via != b"session" or headers.get(b"origin") != self._own_origin(headers):
            return Answer(403, "Not from there", "<p>This request comes from a page of another origin.</p>")
        match self._admissions.ask(notebook, visitor.caller):
            case NotReady(group=group):
                command = StartNotebook(by=visitor.caller, notebook=notebook, group=group, run=new_id("run"))
                try:
                    await self._dispatch(command, context_of(visitor.caller.user, headers))
                except Refusal as refusal:
                    if not refusal.recorded and refusal.status < 500:
                        await self._refused(refusal.problem(), headers, notebook, visitor.caller.user)
                    return Answer(refusal.status, "It cannot be started", f"<p>{escape(refusal.title())}</p>")
            case _:
                pass
        return Answer(303, "It starts", "", ((b"location", b"/"),))
