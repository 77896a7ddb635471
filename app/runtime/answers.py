"""What the door says to a client instead of letting it in."""

from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from typing import Any

from msgspec import Struct

from app.domain.errors import Refusal
from app.domain.names import NotebookName
from app.html import page, policy

START = "/.sophon/start"

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Answer(Struct, frozen=True):
    """What the client is given instead of the notebook."""

    status: int
    title: str
    body: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    refresh: int | None = None


async def tell(answer: Answer, platform: str, send: Send) -> None:
    """Send it, as a page that leads back to the platform."""
    refresh = f'<meta http-equiv="refresh" content="{answer.refresh}">\n' if answer.refresh else ""
    back = f'<p><a href="{platform}/">To the platform</a></p>'
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


def unknown(notebook: NotebookName) -> Answer:
    """Say that it is not there."""
    return Answer(404, "There is no such notebook", f"<p>No notebook is called <b>{escape(notebook)}</b>.</p>")


def not_a_member(notebook: NotebookName) -> Answer:
    """Say whom to ask."""
    why = (
        f"<p><b>{escape(notebook)}</b> belongs to a group, and you are no member of it.</p>"
        "<p>Ask one of the group's owners to let you in.</p>"
    )
    return Answer(403, "You may not enter this notebook", why)


def refused(refusal: Refusal) -> Answer:
    """Say what a rule said."""
    return Answer(refusal.status, "Refused", f"<p>{escape(refusal.title())}</p>")


_DOING = {
    "queued": "waits for its turn",
    "creating": "is being made",
    "starting": "is starting",
    "stopping": "is stopping",
}


def not_ready(notebook: NotebookName, status: str) -> Answer:
    """Say what it is doing, and look again; or how to start it."""
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
