"""The door: asked by the proxy about every request to a notebook, and answering from memory.

Raw ASGI, because it stands in front of everything that a notebook does. It answers on a socket that only the proxy
reaches: `GET /authorise` about a client's request, and a client's own requests to `/.sophon/…` on a notebook's host.
"""

import asyncio
from collections.abc import MutableMapping
from html import escape
from typing import Any
from urllib.parse import quote

import structlog

from app.acts import Acts
from app.dispatch import GUEST, Context, Dispatch, using
from app.domain.errors import Refusal
from app.domain.groups import MembersOnly
from app.domain.names import NotebookName, is_a
from app.domain.notebooks import NoSuchNotebook, NotebookEntered, StartNotebook
from app.domain.tokens import Scope
from app.html import is_local_path
from app.identifiers import new_id
from app.identity.identity import Identity
from app.identity.passes import Pass
from app.identity.refusals import BadTicket, BadToken, CrossOrigin, NotAuthenticated, ScopeMissing
from app.keys import Keys
from app.runtime.admissions import Admissions, Admitted, NotAMember, NotReady, Unknown
from app.runtime.answers import START, Answer, Send, not_a_member, not_ready, refused, tell, unknown
from app.runtime.forwarded import (
    Headers,
    Receive,
    context_of,
    form_in,
    is_navigation,
    is_own_page,
    uri_of,
)
from app.runtime.visitors import Visitor, Visitors

_log = structlog.get_logger(__name__)

ENTER = "/.sophon/enter"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
REMEMBERED = 20_000


class NotKnown(Exception):
    """The log is not followed just now, so who may enter is not known."""


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
        self._suffix = f".{domain}".encode()
        self._scheme = platform.partition("://")[0].encode()
        self._visitors = Visitors(identity, acts)
        self._tokens: dict[str, bytes] = {}
        self._entered: set[tuple[str, str]] = set()
        self._entering = asyncio.Lock()

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
        visitor = await self._visitors.at(headers, notebook)
        if visitor is None:
            return await self._nobody(headers, notebook)
        if not visitor.has_scope:
            return await self._refused(ScopeMissing(Scope.NOTEBOOKS), headers, notebook, visitor)
        if visitor.via == b"session" and not is_own_page(headers, self._own_origin(headers)):
            return await self._refused(CrossOrigin(), headers, notebook, visitor)
        match self._admissions.ask(notebook, visitor.caller):
            case Admitted(upstream, run, administering):
                if visitor.via == b"token":
                    await self._record_entry(visitor, notebook, run, headers, administering=administering)
                return [
                    (b"x-sophon-upstream", upstream.encode()),
                    (b"x-sophon-token", self._token(run)),
                    (b"x-sophon-user", visitor.caller.user.encode()),
                    (b"x-sophon-name", quote(visitor.username).encode()),
                    (b"x-sophon-via", visitor.via),
                ]
            case NotReady(status=status):
                return not_ready(notebook, status)
            case turned_away:
                return await self._turned_away(turned_away, headers, notebook, visitor)

    async def _record_entry(
        self, visitor: Visitor, notebook: NotebookName, run: str, headers: Headers, *, administering: bool
    ) -> None:
        """Record that a token entered a run for the first time; a session's entry is its ticket's.

        Whoever comes while it is being recorded waits for that: it may not succeed.
        """
        if (visitor.key, run) in self._entered:
            return
        async with self._entering:
            if (visitor.key, run) not in self._entered:
                await self._record_first(visitor, notebook, headers, administering=administering)
                if len(self._entered) > REMEMBERED:
                    self._entered.clear()
                self._entered.add((visitor.key, run))

    async def _record_first(
        self, visitor: Visitor, notebook: NotebookName, headers: Headers, *, administering: bool
    ) -> None:
        entered = NotebookEntered(
            notebook=notebook,
            user=visitor.caller.user,
            session=visitor.key,
            administering=administering,
        )
        context = context_of(visitor.caller.user, headers, "token")
        await self._dispatch.record(entered, using(context, "administrator" if administering else None))

    async def _nobody(self, headers: Headers, notebook: NotebookName) -> Answer:
        refusal = BadToken() if headers.get(b"authorization") else NotAuthenticated()
        return await self._refused(refusal, headers, notebook, answer=self._to_sign_in(headers, notebook))

    async def _turned_away(
        self, found: Unknown | NotAMember, headers: Headers, notebook: NotebookName, who: Visitor | Pass
    ) -> Answer:
        if isinstance(found, Unknown):
            return await self._refused(NoSuchNotebook(), headers, notebook, who, unknown(notebook))
        return await self._refused(MembersOnly(), headers, notebook, who, not_a_member(notebook))

    async def _refused(
        self,
        refusal: Refusal,
        headers: Headers,
        notebook: NotebookName,
        who: Visitor | Pass | None = None,
        answer: Answer | None = None,
    ) -> Answer:
        """Record who was not let in, or count them where nobody knows who it was; then answer."""
        via = "token" if isinstance(who, Visitor) and who.via == b"token" else "session"
        context = context_of(who.caller.user, headers, via) if who else Context(actor=GUEST)
        asked = headers.get(b"x-forwarded-method", b"POST").decode("ascii", "replace")
        method = asked if asked in METHODS else "OTHER"
        tags = [f"notebook:{notebook}"] if is_a(NotebookName, notebook) else []
        await self._acts.refused(method, "/ of a notebook", refusal.problem(), context, tags)
        return answer or refused(refusal)

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
            return await self._refused(CrossOrigin(), headers, notebook)
        passes, sent = self._identity.passes, form.get("ticket", "")
        ticket = passes.read(sent, notebook, "ticket")
        if ticket is None or not await self._identity.is_open(ticket.session):
            return await self._refused(BadTicket(), headers, notebook, answer=self._open_again(notebook))
        if await passes.spend(sent, notebook) is None:
            return await self._refused(BadTicket(), headers, notebook, ticket, self._open_again(notebook))
        match self._admissions.ask(notebook, ticket.caller):
            case NotReady(group=group):
                administering = not self._admissions.is_member(ticket.user, group)
            case Admitted(administering=administering):
                pass
            case turned_away:
                return await self._turned_away(turned_away, headers, notebook, ticket)
        entered = NotebookEntered(
            notebook=notebook, user=ticket.user, session=ticket.session, administering=administering
        )
        context = context_of(ticket.user, headers)
        await self._dispatch.record(entered, using(context, "administrator" if administering else None))
        cookie = f"{passes.cookie}={passes.signed(ticket)}; Path=/; Secure; HttpOnly; SameSite=Lax"
        there = form.get("next", "/")
        return Answer(
            303,
            "Welcome",
            "",
            ((b"location", (there if is_local_path(there) else "/").encode()), (b"set-cookie", cookie.encode())),
        )

    def _open_again(self, notebook: NotebookName) -> Answer:
        again = f'<p><a href="{self._platform}/open/{escape(notebook)}">Open it again</a> from the platform.</p>'
        return Answer(403, "This way in was used, or is too old", again)

    async def _start(self, headers: Headers, notebook: NotebookName) -> Answer:
        visitor = await self._visitors.at(headers, notebook)
        if visitor is None:
            return await self._nobody(headers, notebook)
        if visitor.via != b"session" or headers.get(b"origin") != self._own_origin(headers):
            return await self._refused(CrossOrigin(), headers, notebook, visitor)
        match self._admissions.ask(notebook, visitor.caller):
            case NotReady(group=group):
                command = StartNotebook(by=visitor.caller, notebook=notebook, group=group, run=new_id("run"))
                try:
                    await self._dispatch(command, context_of(visitor.caller.user, headers))
                except Refusal as refusal:
                    if not refusal.recorded and refusal.status < 500:
                        await self._refused(refusal, headers, notebook, visitor)
                    return Answer(refusal.status, "It cannot be started", f"<p>{escape(refusal.title())}</p>")
            case Admitted():
                pass
            case turned_away:
                return await self._turned_away(turned_away, headers, notebook, visitor)
        return Answer(303, "It starts", "", ((b"location", b"/"),))
