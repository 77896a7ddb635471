"""The entrance for browsers, until the web app is there: a home page, signing in, and the way to a notebook."""

import base64
import hashlib
from html import escape
from typing import Annotated, Any
from urllib.parse import quote

from litestar import MediaType, Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.exceptions import ClientException
from litestar.params import QueryParameter
from litestar.response import Redirect

from app.api.addresses import NotebookInPath
from app.api.auth import FORM, GUESTS
from app.api.session import LogIn, open_session, session_cookie
from app.dispatch import Context, Dispatch
from app.domain.errors import Refusal
from app.html import form_of, is_local_path, page, policy
from app.identity.identity import Identity
from app.identity.principal import Principal
from app.settings import Settings

Next = Annotated[str, QueryParameter(max_length=2_000, required=False)]

_GO_ON = "document.forms[0].submit()"
_HASH = "sha256-" + base64.b64encode(hashlib.sha256(_GO_ON.encode()).digest()).decode()


@get("/", opt={GUESTS: True}, include_in_schema=False)
async def home(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Say what this is, and where to go on."""
    principal: Principal | None = request.state.principal
    who = f"<p>You are signed in as <b>{escape(principal.username)}</b>.</p>" if principal else ""
    sign_in = "" if principal else '<li><a href="/sign-in">Sign in</a></li>'
    links = f'<ul>{sign_in}<li><a href="/schema">Documentation of the API</a></li></ul>'
    return _html("Sophon", f"<p>Notebooks of research groups, and a log of everything that happened.</p>{who}{links}")


@get("/sign-in", opt={GUESTS: True}, include_in_schema=False)
async def show_sign_in(next: Next = "/") -> Response[bytes]:  # noqa: A002
    """Ask for a user name and a password."""
    return _sign_in(next)


@post("/sign-in", opt={GUESTS: True, FORM: True}, include_in_schema=False)
async def sign_in(
    request: Request[Any, Any, Any],
    identity: NamedDependency[Identity],
    dispatch: NamedDependency[Dispatch],
    context: NamedDependency[Context],
) -> Response[Any]:
    """Open a session, and go on to where the visitor was going: a path of this origin, or the home page."""
    try:
        given = form_of(await request.body())
    except ValueError:
        raise ClientException("This form has too many fields.") from None
    there = given.get("next", "/")
    try:
        login = LogIn(given.get("username", "")[:64], given.get("password", "")[:1024])
        secret, _ = await open_session(request, login, identity, dispatch, context)
    except Refusal as refusal:
        request.state.refusal = refusal  # answered as a page, and recorded like any other
        return _sign_in(there, refusal.title(), refusal.status, given.get("username", ""))
    there = there if is_local_path(there) else "/"
    return Redirect(there, status_code=303, cookies=[session_cookie(identity, secret)])


@get("/open/{notebook:str}", opt={GUESTS: True}, include_in_schema=False)
async def open_notebook(
    request: Request[Any, Any, Any],
    notebook: NotebookInPath,
    identity: NamedDependency[Identity],
    settings: NamedDependency[Settings],
    next: Next = "/",  # noqa: A002
) -> Response[Any]:
    """Lead a signed-in user to a notebook's origin, with a ticket that is spent there. Whether to let in, it decides.

    The ticket goes in a form's body, so that it stands in no address, history or log.
    """
    principal: Principal | None = request.state.principal
    there = next if is_local_path(next) else "/"
    if principal is None or principal.kind != "session":
        back = f"/open/{quote(notebook)}?next={quote(there, safe='')}"
        return Redirect(f"/sign-in?next={quote(back, safe='')}", status_code=303)
    origin = settings.notebook_address(notebook)
    form = (
        f'<form method="post" action="{origin}/.sophon/enter">'
        f'<input type="hidden" name="ticket" value="{identity.passes.ticket(principal, notebook)}">'
        f'<input type="hidden" name="next" value="{escape(there)}">'
        f"<button>Open {escape(notebook)}</button></form><script>{_GO_ON}</script>"
    )
    # The notebook's door asks for our origin, so that no other page can sign somebody in as somebody else there.
    return _html(f"Opening {notebook}", form, policy(origin, _HASH), referrer="strict-origin")


def _sign_in(there: str, problem: str = "", status: int = 200, username: str = "") -> Response[bytes]:
    said = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    form = (
        f'{said}<form method="post" action="/sign-in">'
        "<label>User name "
        f'<input name="username" value="{escape(username)}" autocomplete="username" autocapitalize="none" required '
        "autofocus></label>"
        '<label>Password <input name="password" type="password" autocomplete="current-password" required></label>'
        f'<input type="hidden" name="next" value="{escape(there)}"><button>Sign in</button></form>'
    )
    # Chromium holds `form-action` against where the answer redirects to as well: on to a notebook, and back.
    return _html("Sign in", form, status=status)


def _html(title: str, body: str, csp: str = "", status: int = 200, referrer: str = "same-origin") -> Response[bytes]:
    headers = {"Content-Security-Policy": csp or policy("'self'"), "Referrer-Policy": referrer}
    return Response(page(title, body), media_type=MediaType.HTML, status_code=status, headers=headers)


routes = Router("/", route_handlers=[home, show_sign_in, sign_in, open_notebook])
