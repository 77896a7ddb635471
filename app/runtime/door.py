"""The door: asked by the proxy about every request to a notebook, and answering from memory.

Raw ASGI, because it stands in front of everything that a notebook does. It answers on a socket that only the proxy
reaches: `GET /authorise` about a client's request, and a client's own requests to `/.sophon/…` on a notebook's host.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from typing import Any, Literal
from urllib.parse import quote

import structlog
from msgspec import Struct

from app.acts import Acts
from app.dispatch import GUEST, Actor, Context, Dispatch, using
from app.domain.command import Caller
from app.domain.errors import Refusal
from app.domain.names import NotebookName
from app.domain.notebooks import NotebookEntered, StartNotebook
from app.domain.tokens import Scope, TokenUsed
from app.html import form_of, is_local_path, page, policy
from app.identifiers import new_id, uuid7
from app.identity import Identity
from app.keys import Keys
from app.runtime.admissions import Admissions, Admitted, NotAMember, NotReady, Unknown

_log = structlog.get_logger(__name__)

Headers = dict[bytes, bytes]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

COOKIE = "__Host-sophon-pass"
ENTER, START = "/.sophon/enter", "/.sophon/start"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LARGEST_FORM = 4_096
REMEMBERED = 20_000


class NotKnown(Exception):
    """The log is not followed just now, so who may enter is not known."""


class Visitor(Struct, frozen=True):
    """Who stands at the door, by what, and as whom the notebook will know them."""

    caller: Caller
    key: str
    username: str
    via: bytes


class Answer(Struct, frozen=True):
    """What the client is given instead of the notebook."""

    status: int
    title: str
    body: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    refresh: int | None = None


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
            await self._tell(answer, send)

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
        if visitor.via == b"session" and not _is_own_page(headers, self._own_origin(headers)):
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
                return _unknown(notebook)
            case NotAMember():
                await self._refused("members-only", headers, notebook, visitor.caller.user, visitor.via)
                return _not_a_member(notebook)
            case NotReady(status=status):
                return _not_ready(notebook, status)

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
        context = _context(visitor.caller.user, headers, "token")
        await self._dispatch.record(entered, using(context, "administrator" if administering else None))

    async def _refused(
        self, reason: str, headers: Headers, notebook: NotebookName, user: str | None = None, via: bytes = b"session"
    ) -> None:
        """Record who was not let in, or count them where nobody knows who it was."""
        context = _context(user, headers, "token" if via == b"token" else "session") if user else Context(actor=GUEST)
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
            await self._acts.saw(used, _context(principal.user, headers, "token"))
            return Visitor(principal.caller, principal.key, principal.username, b"token")
        visitor = self._bearer_of(_cookie(headers), notebook)
        return visitor if visitor and await self._identity.is_open(visitor.key) else None

    def _bearer_of(self, cookie: bytes, notebook: NotebookName) -> Visitor | None:
        if not cookie:
            return None
        known = self._visitors.get((cookie, notebook))
        if known is None or known[0] < time.time():
            found = self._identity.read_pass(cookie.decode("ascii", "replace"), notebook)
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
        if not _is_navigation(headers):
            return Answer(401, "Sign in first", "<p>Sign in at the platform, or send an API token.</p>")
        there = f"{self._platform}/open/{quote(notebook)}?next={quote(_uri(headers), safe='')}"
        return Answer(303, "Sign in first", "", ((b"location", there.encode()),))

    async def _own(self, path: str, method: str, headers: Headers, notebook: NotebookName, receive: Receive) -> Answer:
        if method != "POST" or path not in (ENTER, START):
            return Answer(404, "Nothing here", "<p>There is no such page.</p>")
        form = await _form(receive)
        if form is None:
            return Answer(413, "Too much", "<p>This form is too long.</p>")
        return await (self._enter(headers, form, notebook) if path == ENTER else self._start(headers, notebook))

    async def _enter(self, headers: Headers, form: dict[str, str], notebook: NotebookName) -> Answer:
        """Change a ticket, from the platform, into a pass: a cookie of this origin alone."""
        if headers.get(b"origin") != self._platform.encode():
            # Another page could bring its own user's ticket, and have its visitor work under that name.
            return Answer(403, "Not from there", "<p>The way into a notebook is from the platform.</p>")
        ticket = await self._identity.spend_ticket(form.get("ticket", ""), notebook)
        if ticket is None or not await self._identity.is_open(ticket.session):
            again = f'<p><a href="{self._platform}/open/{escape(notebook)}">Open it again</a> from the platform.</p>'
            return Answer(403, "This way in was used, or is too old", again)
        match self._admissions.ask(notebook, ticket.caller):
            case Unknown():
                return _unknown(notebook)
            case NotAMember():
                await self._refused("members-only", headers, notebook, ticket.user)
                return _not_a_member(notebook)
            case NotReady(group=group):
                administering = not self._admissions.is_member(ticket.user, group)
            case Admitted(administering=administering):
                pass
        entered = NotebookEntered(
            notebook=notebook, user=ticket.user, session=ticket.session, administering=administering
        )
        context = _context(ticket.user, headers)
        await self._dispatch.record(entered, using(context, "administrator" if administering else None))
        cookie = f"{COOKIE}={self._identity.make_pass(ticket)}; Path=/; Secure; HttpOnly; SameSite=Lax"
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
                    await self._dispatch(command, _context(visitor.caller.user, headers))
                except Refusal as refusal:
                    return Answer(refusal.status, "It cannot be started", f"<p>{escape(refusal.title())}</p>")
            case _:
                pass
        return Answer(303, "It starts", "", ((b"location", b"/"),))

    async def _tell(self, answer: Answer, send: Send) -> None:
        refresh = f'<meta http-equiv="refresh" content="{answer.refresh}">\n' if answer.refresh else ""
        back = f'<p><a href="{self._platform}/">To the platform</a></p>'
        body = page(answer.title, answer.body + back, refresh) if answer.body else b""
        sent = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"content-security-policy", policy("'self'").encode()),
            # Not no-referrer, with which a form of this page would come as from the origin `null`.
            (b"referrer-policy", b"same-origin"),
            (b"x-content-type-options", b"nosniff"),
            *answer.headers,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": sent})
        await send({"type": "http.response.body", "body": body})


def _context(user: str, headers: Headers, via: Literal["session", "token"] = "session") -> Context:
    """Say who asks, as part of which request, and from which address: the last one, which the proxy saw."""
    source = headers.get(b"x-forwarded-for", b"").decode("ascii", "replace").rpartition(",")[2].strip()[:64]
    return Context(actor=Actor(kind="user", id=user, via=via), request=str(uuid7()), source=source or None)


def _cookie(headers: Headers) -> bytes:
    for part in headers.get(b"cookie", b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == COOKIE.encode():
            return value
    return b""


def _uri(headers: Headers) -> str:
    uri = headers.get(b"x-forwarded-uri", b"/").decode("ascii", "replace")
    return uri if is_local_path(uri) else "/"


def _is_navigation(headers: Headers) -> bool:
    """Whether a person's browser asks for a page to show, and not a script or a WebSocket."""
    return (
        headers.get(b"x-forwarded-method") == b"GET"
        and not headers.get(b"x-forwarded-upgrade")
        and b"text/html" in headers.get(b"accept", b"")
        and headers.get(b"sec-fetch-dest", b"document") == b"document"
    )


def _is_own_page(headers: Headers, own: bytes) -> bool:
    """Whether no other site's page is behind a request that a cookie came with.

    JupyterLab's real-time collaboration takes WebSockets of any origin, so the origin is checked here, for each.
    """
    origin = headers.get(b"origin")
    if headers.get(b"x-forwarded-upgrade") or headers.get(b"x-forwarded-method") not in (b"GET", b"HEAD"):
        return origin == own
    if origin is not None and origin != own:
        return False
    return headers.get(b"sec-fetch-site", b"none") in (b"same-origin", b"none") or _is_top_level(headers)


def _is_top_level(headers: Headers) -> bool:
    return headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"


async def _form(receive: Receive) -> dict[str, str] | None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_FORM:
            return None
        if not message.get("more_body"):
            break
    try:
        return form_of(body)
    except ValueError:
        return None


def _unknown(notebook: NotebookName) -> Answer:
    return Answer(404, "There is no such notebook", f"<p>No notebook is called <b>{escape(notebook)}</b>.</p>")


def _not_a_member(notebook: NotebookName) -> Answer:
    why = (
        f"<p><b>{escape(notebook)}</b> belongs to a group, and you are no member of it.</p>"
        "<p>Ask one of the group's owners to let you in.</p>"
    )
    return Answer(403, "You may not enter this notebook", why)


_DOING = {
    "queued": "waits for its turn",
    "creating": "is being made",
    "starting": "is starting",
    "stopping": "is stopping",
}


def _not_ready(notebook: NotebookName, status: str) -> Answer:
    name = escape(notebook)
    if status in ("stopped", "failed"):
        said = "It does not run now." if status == "stopped" else "Its last run failed; the platform says why."
        button = f'<form method="post" action="{START}"><button>Start it</button></form>'
        return Answer(503, f"{notebook} is not running", f"<p>{said} Its files are kept.</p>{button}")
    return Answer(
        503,
        f"{notebook} {_DOING.get(status, 'is not there')}",
        f"<p><b>{name}</b> is not there yet. This page looks again by itself.</p>",
        ((b"retry-after", b"2"),),
        refresh=2,
    )
