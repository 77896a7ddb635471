"""What the proxy forwards of a client's request, read: who asks, from where, and from whose page."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from app.dispatch import Actor, Context
from app.html import form_of, is_local_path
from app.identifiers import uuid7

Headers = dict[bytes, bytes]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

LARGEST_FORM = 4_096


def context_of(user: str, headers: Headers, via: Literal["session", "token"] = "session") -> Context:
    """Say who asks, as part of which request, and from which address: the last one, which the proxy saw."""
    source = headers.get(b"x-forwarded-for", b"").decode("ascii", "replace").rpartition(",")[2].strip()[:64]
    return Context(actor=Actor(kind="user", id=user, via=via), request=str(uuid7()), source=source or None)


def cookie_of(headers: Headers, cookie: bytes) -> bytes:
    """Give a cookie's value; nothing if there is none."""
    for part in headers.get(b"cookie", b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == cookie:
            return value
    return b""


def uri_of(headers: Headers) -> str:
    """Give the path and query that were asked for; the root, if they lead elsewhere."""
    uri = headers.get(b"x-forwarded-uri", b"/").decode("ascii", "replace")
    return uri if is_local_path(uri) else "/"


def is_navigation(headers: Headers) -> bool:
    """Whether a person's browser asks for a page to show, and not a script or a WebSocket."""
    return (
        headers.get(b"x-forwarded-method") == b"GET"
        and not headers.get(b"x-forwarded-upgrade")
        and b"text/html" in headers.get(b"accept", b"")
        and headers.get(b"sec-fetch-dest", b"document") == b"document"
    )


def is_own_page(headers: Headers, own: bytes) -> bool:
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


async def form_in(receive: Receive) -> dict[str, str] | None:
    """Read a form; none if it is too long, or no form."""
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
