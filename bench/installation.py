"""A whole installation, as a newcomer starts it: `python -m app up` in a new directory, and a client of its API."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from app.up import socket_directory

PASSWORD = "a password for a bench"
SECONDS_TO_START = 120


class Client(http.client.HTTPConnection):
    """One connection to the API, kept open: over its Unix socket where a path is given, else through the proxy."""

    def __init__(self, port: int, path: Path | None = None) -> None:
        super().__init__("localhost", port, timeout=60)
        self._path = path
        self.known: dict[str, str] = {}

    def connect(self) -> None:
        """Connect to the socket, or as usual."""
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Ask once; return the status and the body of the answer."""
        given = {"Content-Type": "application/json"} if body is not None else {}
        self.request(
            method, path, json.dumps(body) if body is not None else None, {**given, **self.known, **(headers or {})}
        )
        answer = self.getresponse()
        self.cookies = SimpleCookie("; ".join(answer.headers.get_all("Set-Cookie") or ()))
        return answer.status, answer.read()

    def do(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for something that has to succeed; return the decoded body."""
        status, content = self.ask(method, path, body)
        assert status < 300, f"{method} {path}: {status} {content.decode(errors='replace')}"
        return json.loads(content) if content else None


class Installation:
    """What was started, and how it is reached."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, port: int) -> None:
        self.process, self.data, self.port = process, data, port
        self.token = ""

    def client(self, *, proxied: bool = False) -> Client:
        """Give a connection that bears the administrator's token, straight to the API or through the proxy."""
        client = Client(self.port, None if proxied else socket_directory(self.data) / "api.sock")
        if self.token:
            client.known = {"Authorization": f"Bearer {self.token}"}
        return client

    def log_in(self) -> None:
        """Make a token for everything that follows."""
        client = self.client(proxied=True)
        session = client.do("POST", "/api/session", {"username": "admin", "password": PASSWORD})
        cookie = next(iter(client.cookies.values()))
        client.known = {"Cookie": f"{cookie.key}={cookie.value}", "X-CSRF-Token": session["csrf_token"]}
        wanted = {"title": "Bench", "scopes": ["read", "write", "notebooks"], "days": 1}
        self.token = client.do("POST", "/api/tokens", wanted)["secret"]
        client.close()


@contextlib.contextmanager
def installation(**settings: str) -> Generator[Installation]:
    """Start one, log in as its administrator, and stop it; its log is shown if it does not come up."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        data, port, said = Path(place) / "data", free_port(), Path(place) / "log"
        chosen = {
            "SOPHON_DATA": str(data),
            "SOPHON_PORT": str(port),
            "SOPHON_ADMIN_USERNAME": "admin",
            "SOPHON_ADMIN_PASSWORD": PASSWORD,
            "SOPHON_LOG_FORMAT": "json",
            **settings,
        }
        with said.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "up"], env={**os.environ, **chosen}, stdout=output, stderr=output
            )
        try:
            started = Installation(process, data, port)
            _wait_until_ready(started, said)
            started.log_in()
            yield started
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_until_ready(started: Installation, said: Path) -> None:
    give_up = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < give_up and started.process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            client = started.client(proxied=True)
            if client.ask("GET", "/health/ready")[0] == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"It did not start: {said.read_text(errors='replace')}")


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
