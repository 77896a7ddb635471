"""The session: log in, see who you are, log out."""

from typing import Annotated, Any

from litestar import Request, Response, Router, delete, get, post, put
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct
from msgspec.structs import replace

from app.api.answers import at
from app.api.auth import GUESTS, Asker, source_of
from app.api.problems import NOTHING, problems
from app.dispatch import Actor, Context, Dispatch
from app.domain.names import UserId
from app.domain.passwords import ChangePassword, Password
from app.domain.users import LoggedIn, LoggedOut, LoginRefused
from app.identity.identity import BadCredentials, Identity
from app.identity.principal import SESSION, Principal


class LogIn(Struct, frozen=True, forbid_unknown_fields=True):
    """A user name and a password."""

    username: Annotated[str, Meta(max_length=64, examples=["ada"])]
    password: Annotated[str, Meta(max_length=1024)]


class NewPassword(Struct, frozen=True, forbid_unknown_fields=True):
    """The password that you have, and the one that you want."""

    old: Annotated[str, Meta(max_length=1024)]
    new: Password


class SessionPage(Struct, frozen=True):
    """Who you are here. Changes have to carry `csrf_token` in the header `X-CSRF-Token`."""

    user: UserId
    username: str
    administrator: bool
    auditor: bool
    csrf_token: str


@post("/session", status_code=200, opt={GUESTS: True}, responses=problems(403, 413, 415))
async def log_in(
    request: Request[Any, Any, Any],
    data: JSONBody[LogIn],
    identity: NamedDependency[Identity],
    dispatch: NamedDependency[Dispatch],
    context: NamedDependency[Context],
) -> Response[SessionPage]:
    """Open a session: the answer sets its cookie."""
    secret, principal = await open_session(request, data, identity, dispatch, context)
    return Response(_page(identity, principal), cookies=[session_cookie(identity, secret)])


async def open_session(
    request: Request[Any, Any, Any], given: LogIn, identity: Identity, dispatch: Dispatch, context: Context
) -> tuple[str, Principal]:
    """Check a password, and record what came of it; return the session's secret and whose it is."""
    try:
        secret, principal = await identity.log_in(given.username, given.password, source_of(request))
    except BadCredentials as refusal:
        if dispatch.tells(context.actor):  # else it is counted, with the other refusals of requests
            await dispatch.record(LoginRefused(user=refusal.user), context, refused=refusal.problem())
            refusal.recorded = True
        raise
    opened = replace(context, actor=Actor(kind="user", id=principal.user, via="session"))
    await dispatch.record(LoggedIn(user=principal.user, session=principal.key), opened)
    return secret, principal


def session_cookie(identity: Identity, secret: str, seconds: int = int(SESSION.total_seconds())) -> Cookie:
    """Make the cookie that a session is known by; it is sent to this origin and to no other."""
    return Cookie(identity.cookie, value=secret, path="/", secure=True, httponly=True, samesite="lax", max_age=seconds)


@get("/session", responses=problems())
async def show_session(identity: NamedDependency[Identity], asker: NamedDependency[Asker]) -> SessionPage:
    """Tell who you are."""
    return _page(identity, asker.principal)


@put("/session/password", status_code=204, responses=problems(403, 404, 413, 415) | {204: NOTHING})
async def change_password(
    request: Request[Any, Any, Any],
    data: JSONBody[NewPassword],
    identity: NamedDependency[Identity],
    asker: NamedDependency[Asker],
) -> Response[None]:
    """Choose another password. Your other sessions end; tokens do not. Only in a session, not with a token."""
    principal = asker.principal
    command = ChangePassword(by=asker.caller, session=principal.key if principal.kind == "session" else None)
    await asker.check(command)
    await identity.prove(principal.user, data.old, source_of(request))
    password_hash = await identity.hashing.hash(data.new)
    receipt = await asker.tell(command)
    await identity.replace_password(principal.user, password_hash, keeping=principal.key)
    return at(receipt, None, 204)


@delete("/session", status_code=204, responses=problems(403) | {204: NOTHING})
async def log_out(
    identity: NamedDependency[Identity],
    dispatch: NamedDependency[Dispatch],
    asker: NamedDependency[Asker],
) -> Response[None]:
    """End the session, at once and everywhere. (Tokens are ended at `DELETE /api/tokens/{token}`.)"""
    principal = asker.principal
    if principal.kind == "session":
        # Recorded first: if we are killed in between, the entry ends the session, here at the next start.
        await dispatch.record(LoggedOut(user=principal.user, session=principal.key), asker.context)
        await identity.end(principal.key)
    return Response(None, cookies=[session_cookie(identity, "", 0)], status_code=204)


def _page(identity: Identity, principal: Principal) -> SessionPage:
    csrf_token = identity.csrf_token(principal) if principal.kind == "session" else ""
    return SessionPage(principal.user, principal.username, principal.administrator, principal.auditor, csrf_token)


routes = Router("/api", route_handlers=[log_in, show_session, change_password, log_out], tags=["session"])
