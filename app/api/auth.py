"""Who asks: by session cookie or bearer token. Everything is denied to guests unless a route says otherwise."""

import hmac
import re
from typing import Any, cast, get_args

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.handlers.base import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.acts import Acts
from app.api.problems import NotYetReadable
from app.dispatch import GUEST, Context, Dispatch, Receipt
from app.domain.audits import AuditorsOnly
from app.domain.command import Caller, Command
from app.domain.errors import Forbidden, Refusal
from app.domain.event import Access
from app.domain.groups import GroupName
from app.domain.names import NotebookName, UserId
from app.domain.projects import ProjectName
from app.domain.tokens import Scope as TokenScope
from app.domain.tokens import TokenId, TokenUsed
from app.identifiers import uuid7
from app.identity.identity import Identity
from app.identity.principal import Principal
from app.identity.refusals import BadToken, CrossOrigin, NotAuthenticated, ScopeMissing

CSRF = "X-CSRF-Token"
SAFE = ("GET", "HEAD", "OPTIONS")
_NAMES = {
    kind: re.compile(str(meta.pattern))
    for name in (GroupName, ProjectName, NotebookName, UserId, TokenId)
    for meta in get_args(name)[1:]
    for kind in meta.extra.values()
}
"""Which parts of an address are names, by their kind: a refusal is filed under those that could be a thing's.

The address was not looked at yet: what stands in the place of a user's id may be anything, a person's name too.
"""
_TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

GUESTS = "guests"
"""Route option: guests may ask too."""
FORM = "form"
"""Route option: the body is a form's, not JSON."""
SCOPE = "scope"
"""Route option: the token scope that it needs (of several, one), if not `read` for safe methods, else `write`."""


class CsrfTokenMissing(Forbidden):
    """Changes in a session need the header `X-CSRF-Token` with the value that `GET /api/session` gives."""


class JsonOnly(Refusal):
    """Send the body as `Content-Type: application/json`."""

    status = 415


class Authentication:
    """ASGI middleware: finds out who asks, gives the request its id, and puts both where handlers find them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with `state.principal` (or none), `state.credential` and `state.request_id`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)
        identity: Identity = connection.app.state.identity
        state = connection.state
        state.request_id = str(uuid7())
        state.credential, state.principal = await _authenticate(connection, identity)
        state.refusal = None
        acts: Acts = connection.app.state.acts
        principal: Principal | None = state.principal
        if principal is not None and principal.kind == "token":
            await acts.saw(TokenUsed(token=principal.key, user=principal.user), context_of(connection))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                await _record_refusal(connection, acts)
                headers = MutableScopeHeaders.from_message(message)
                headers["X-Request-Id"] = state.request_id
                if "Cache-Control" not in headers:
                    headers["Cache-Control"] = "no-store"
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Frame-Options"] = "DENY"
            await send(message)

        await self._app(scope, receive, send_with_id)


async def _record_refusal(connection: ASGIConnection[Any, Any, Any, Any], acts: Acts) -> None:
    """Record what this request was refused for, unless dispatch or the login did."""
    refusal: Refusal | None = connection.state.refusal
    if refusal is None or refusal.status >= 500:
        return
    # What is hidden is answered as not found, in place of the reason: that is recorded already, and is the true one.
    if refusal.recorded or getattr(refusal.__context__, "recorded", False):
        return
    scope = cast("dict[str, Any]", connection.scope)
    route: str = scope.get("path_template", "")[:200]
    names: dict[str, str] = scope.get("path_params", {})
    tags = [f"{kind}:{name}" for kind, name in names.items() if kind in _NAMES and _NAMES[kind].fullmatch(name)]
    await acts.refused(scope["method"], route, refusal.problem(), context_of(connection), tags)


async def who_now(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal | None:
    """Tell anew who asks, for an answer that goes on: the session may have ended since, or the role."""
    return (await _authenticate(connection, connection.app.state.identity))[1]


async def _authenticate(
    connection: ASGIConnection[Any, Any, Any, Any], identity: Identity
) -> tuple[str | None, Principal | None]:
    scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return "token", await identity.who(token.strip(), "token")
    if cookie := connection.cookies.get(identity.cookie):
        return "session", await identity.who(cookie, "session")
    return None, None


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse who may not ask at all: guests, narrow tokens, other origins' pages, and bodies that are no JSON."""
    principal: Principal | None = connection.state.principal
    method = str(connection.scope["method"])  # pyright: ignore
    if principal is None and not handler.opt.get(GUESTS):
        raise BadToken if connection.state.credential else NotAuthenticated
    if principal is None and connection.state.credential == "token":
        raise BadToken
    if principal is not None:
        given = handler.opt.get(SCOPE, TokenScope.READ if method in SAFE else TokenScope.WRITE)
        needed = cast("TokenScope | tuple[TokenScope, ...]", given)
        any_of = needed if isinstance(needed, tuple) else (needed,)
        if not any(map(principal.has, any_of)):
            raise ScopeMissing(any_of[0])
    if method not in SAFE:
        _check_origin(connection)
        if principal is not None and principal.kind == "session":
            _check_csrf(connection, principal)
        if not handler.opt.get(FORM):
            _check_content_type(connection)


def _is_login(connection: ASGIConnection[Any, Any, Any, Any], method: str) -> bool:
    return method == "POST" and connection.url.path in ("/api/session", "/sign-in")


def _check_origin(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    origin = connection.headers.get("Origin")
    if origin is not None and origin != connection.app.state.address:
        raise CrossOrigin
    if connection.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise CrossOrigin


def _check_csrf(connection: ASGIConnection[Any, Any, Any, Any], principal: Principal) -> None:
    if _is_login(connection, "POST"):
        return
    expected = connection.app.state.identity.csrf_token(principal)
    if not hmac.compare_digest(connection.headers.get(CSRF, "").encode(), expected.encode()):
        raise CsrfTokenMissing


def _check_content_type(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    has_body = connection.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in connection.headers
    if has_body and connection.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
        raise JsonOnly


class Asker:
    """Who asks, and their way to have something done. Given to routes that are denied to guests."""

    def __init__(self, principal: Principal, context: Context, dispatch: Dispatch, acts: Acts) -> None:
        self.principal = principal
        self.context = context
        self._dispatch = dispatch
        self._acts = acts

    @property
    def caller(self) -> Caller:
        """On whose word commands are given."""
        return self.principal.caller

    async def check(self, command: Command) -> None:
        """Raise the `Refusal` that a command would meet now, before something costly is done for it."""
        await self._dispatch.check(command, self.context)

    async def tell(self, command: Command) -> Receipt:
        """Have a command carried out, whether reads know of it yet or not; raises its `Refusal`."""
        return await self._dispatch(command, self.context)

    async def ask(self, command: Command) -> Receipt:
        """Have a command carried out, and reads know of it; raises its `Refusal`, or `NotYetReadable`."""
        receipt = await self.tell(command)
        if not receipt.seen:
            raise NotYetReadable(receipt.position)
        return receipt

    async def audit(self, access: Access) -> None:
        """Record that the log is read, before it is, each time; raises `AuditorsOnly`, which is recorded too."""
        if not self.principal.audits:
            refusal = AuditorsOnly()
            refusal.recorded = await self._acts.refused_access(access, self.context, refusal.problem())
            raise refusal
        await self._acts.note(access, self.context)

    async def note(self, access: Access) -> None:
        """Record that somebody reads of the log what is about themselves, before it is."""
        await self._acts.note(access, self.context)


def asker_of(request: Request[Any, Any, Any], dispatch: Dispatch, acts: Acts) -> Asker:
    """Give who asks; the guard let nobody through who is nobody."""
    return Asker(request.state.principal, context_of(request), dispatch, acts)


async def provide_context(request: Request[Any, Any, Any]) -> Context:
    """Give what all entries of this request have in common."""
    return context_of(request)


def context_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Context:
    """Say who asks, in which request, as part of which trace, and from where."""
    principal: Principal | None = connection.state.principal
    trace = connection.headers.get("traceparent", "")
    return Context(
        actor=principal.actor if principal else GUEST,
        request=connection.state.request_id,
        trace=trace if _TRACE.fullmatch(trace) else None,
        source=source_of(connection) or None,
    )


def source_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Give the address that the proxy saw; the proxy is the only one that can reach us."""
    return connection.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()[:64]
