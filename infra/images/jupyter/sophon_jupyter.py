"""Who asks: only Sophon's proxy, which proves itself by the run's token and says which person it speaks for.

The proxy sets these headers and deletes every copy that a client sent:
  X-Sophon-Token  the run's token; a request without it gets 403, whatever it asks for
  X-Sophon-User   the person's opaque id
  X-Sophon-Name   the person's name, percent-encoded UTF-8
  X-Sophon-Via    "token" if the person came by an API token and not by a cookie

Sophon itself, which speaks for nobody, may end a person's open connections: POST /sophon/evict?user=<id>.
"""

import colorsys
import ctypes
import hashlib
import hmac
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote
from weakref import WeakSet

from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.serverapp import ServerApp
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream
from tornado.web import ErrorHandler, RequestHandler

LONGEST = 200  # characters of an id or a name that are kept
EVICT = "/sophon/evict"
PR_SET_DUMPABLE = 4  # prctl(2)


class SophonIdentityProvider(IdentityProvider):
    """Takes the proxy's word for who somebody is, and nobody else's."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._secret = take_token().encode()
        self.token = ""  # Jupyter's own, which it would print into its pages: there is none
        self._open: dict[str, WeakSet[IOStream]] = {}
        self.updatable_fields = []  # names and colours are Sophon's to change

    def get_user(self, handler: RequestHandler) -> User | None:
        """The person that the proxy speaks for; for the proxy's own questions, the platform."""
        if not self._comes_from_proxy(handler.request):
            return None
        headers = handler.request.headers
        user = headers.get("X-Sophon-User", "")[:LONGEST] or "sophon"
        name = printable(unquote(headers.get("X-Sophon-Name", "")))[:LONGEST].strip() or user
        return User(user, name, name, initials(name), None, colour(user))

    def is_token_authenticated(self, handler: RequestHandler) -> bool:
        """Whether Jupyter may leave out its XSRF and Origin checks."""
        return bool(handler.current_user) and is_by_api_token(handler.request)

    @property
    def login_available(self) -> bool:
        """No page asks for a password: the platform signs people in."""
        return False

    @property
    def logout_available(self) -> bool:
        """Nor does one sign out here."""
        return False

    def validate_security(self, app: ServerApp, ssl_options: dict[str, Any] | None = None) -> None:
        """Put the gate in front of the finished application; Jupyter calls this between building and serving it."""
        application = app.web_app
        find: Callable[..., Any] = application.find_handler

        def gate(request: HTTPServerRequest, **kwargs: Any) -> Any:
            # Jupyter asks nobody who reads static files or a path that does not exist, and the WebSockets of
            # real-time collaboration accept any Origin.
            if self._comes_from_proxy(request) and not is_foreign_websocket(request):
                if request.path == EVICT and "X-Sophon-User" not in request.headers:
                    return application.get_handler_delegate(request, Evict, {"sockets": self._open})
                if is_websocket(request):
                    self._keep(request)
                return find(request, **kwargs)
            return application.get_handler_delegate(request, ErrorHandler, {"status_code": 403})

        application.find_handler = gate

    def _keep(self, request: HTTPServerRequest) -> None:
        """Remember whose a WebSocket is: it is asked about once, and may stay open for days."""
        user = request.headers.get("X-Sophon-User", "")[:LONGEST]
        stream = getattr(request.connection, "stream", None)
        if stream is not None:
            self._open.setdefault(user, WeakSet()).add(stream)

    def _comes_from_proxy(self, request: HTTPServerRequest) -> bool:
        return hmac.compare_digest(request.headers.get("X-Sophon-Token", "").encode(), self._secret)


class Evict(RequestHandler):
    """Ends every WebSocket of one person; whoever may still come in, connects again by itself."""

    def initialize(self, sockets: dict[str, WeakSet[IOStream]]) -> None:
        """Take what tornado hands over to each request."""
        self._sockets = sockets

    def check_xsrf_cookie(self) -> None:
        """No browser is behind this."""

    def post(self) -> None:
        """Close them."""
        for stream in list(self._sockets.pop(self.get_query_argument("user"), ())):
            stream.close()
        self.set_status(204)


def is_websocket(request: HTTPServerRequest) -> bool:
    """Whether this opens a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def is_by_api_token(request: HTTPServerRequest) -> bool:
    """Whether a script asks: no browser sends an API token unasked, so no other site's page can be behind it."""
    return request.headers.get("X-Sophon-Via") == "token"


def is_foreign_websocket(request: HTTPServerRequest) -> bool:
    """Whether another site's page opens a WebSocket with somebody's cookie."""
    origin = request.headers.get("Origin")
    if origin is None or is_by_api_token(request) or not is_websocket(request):
        return False
    return origin.partition("://")[2].lower() != request.headers.get("Host", "").lower()


def take_token() -> str:
    """The run's token, which after this nobody else can take, a kernel's code included. Exits if there is none."""
    token, pipe = os.environ.pop("SOPHON_TOKEN", ""), os.environ.pop("SOPHON_TOKEN_FD", "")
    if pipe:
        with open(int(pipe), encoding="utf-8") as source:
            token = source.read()
    if not token.strip():
        sys.exit("sophon: SOPHON_TOKEN is unset or empty. Start this server with the token that its proxy will send.")
    if sys.platform == "linux":
        # Kernels run as the same user: without this they could read our memory and the environment we started with.
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    return token.strip()


def printable(text: str) -> str:
    """The text without what would break a log line or turn a cursor's label around."""
    return "".join(letter for letter in text if letter.isprintable())


def initials(name: str) -> str:
    """Two letters at most: of the first word and of the last."""
    words = name.split()
    return "".join(word[0] for word in (words[0], *words[1:][-1:])).upper()


def colour(user: str) -> str:
    """A person's own hue, the same in every notebook: #rrggbb, dark enough for white text."""
    hue = int.from_bytes(hashlib.sha256(user.encode()).digest()[:2], "big") / 0x10000
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, 0.4, 0.65))
