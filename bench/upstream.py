"""A server that does nothing, in the way that a notebook's server is one: Python, HTTP/1.1, kept-open connections."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any


async def app(_: Any, __: Any, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
    """Answer `ok`."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
