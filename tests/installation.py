"""A real installation for tests: `sophon up` as a process of its own, in a directory and on a port that are free."""

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import psutil
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from app.keys import Keys

ROOT = Path(__file__).parents[1]
ADMINISTRATOR, PASSWORD = "admin", "correct horse battery staple"
READY_WITHIN = 200.0
"""Seconds: the first start of all may have to build the image."""
ENDS_WITHIN = 40.0
GREETING = "Ctrl-C stops everything"
"""The last that a start says."""
ALL_SCOPES = ("read", "write", "notebooks", "admin")

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """An answer as it came, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def page(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    def expect(self, *statuses: int) -> Self:
        assert self.status in (statuses or range(200, 300)), f"{self.status} {self.text[:2000]}"
        return self


class Visitor:
    """Somebody who asks, and what they prove themselves with. Knows no cookies but those among the headers."""

    def __init__(self, http: aiohttp.ClientSession, domain: str, headers: Headers, user: str = "") -> None:
        self.http = http
        self.headers = dict(headers)
        self.user = user
        self._domain = domain

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        at: str | None = None,
        data: bytes | None = None,
        headers: Headers | None = None,
    ) -> Answer:
        """Ask the platform, or the notebook `at`; `body` goes as JSON, `data` as it is, and no redirect is followed."""
        sent = self._headers(at, headers)
        if body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        skipped = () if "Content-Type" in sent else ("Content-Type",)
        large = io.BytesIO(data) if data and len(data) > 1_000_000 else data
        async with self.http.request(
            method, self._url(path), data=large, headers=sent, allow_redirects=False, skip_auto_headers=skipped
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, *, at: str | None = None) -> Any:
        """Get a page that has to be there."""
        return (await self.ask("GET", path, at=at)).expect().page

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        """Change something that may be changed."""
        answer = (await self.ask(method, path, body)).expect()
        return answer.page if answer.body else None

    async def knock(self, path: str, *, at: str, headers: Headers | None = None) -> int:
        """Try to open a WebSocket; give the status that it was answered with, 101 if it opened."""
        try:
            async with self.http.ws_connect(self._url(path), headers=self._headers(at, headers)):
                return 101
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status

    async def enter(self, notebook: str, follow: str = "/") -> "Visitor":
        """Go in by the ticket that the platform gives; return who holds the pass that it is changed into."""
        answer = await self.spend(await self.ticket(notebook), notebook, follow)
        answer.expect(303)
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return Visitor(self.http, self._domain, {"Cookie": cookie, "Origin": self.origin(notebook)}, self.user)

    async def ticket(self, notebook: str) -> str:
        """Read a ticket out of the page that a browser would send on."""
        answer = (await self.ask("GET", f"/open/{notebook}")).expect(200)
        return unescape(re.findall(r'name="ticket" value="([^"]*)"', answer.text)[0])

    async def spend(self, ticket: str, notebook: str, follow: str = "/") -> Answer:
        """Spend a ticket at a notebook's origin, as the page's form does."""
        form = urlencode({"ticket": ticket, "next": follow}).encode()
        form_type = "application/x-www-form-urlencoded"
        headers = {"Content-Type": form_type, "Cookie": "", "Origin": f"http://{self._domain}"}
        return await self.ask("POST", "/.sophon/enter", data=form, at=notebook, headers=headers)

    @contextlib.asynccontextmanager
    async def socket(self, path: str, *, at: str) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket that has to open."""
        async with self.http.ws_connect(self._url(path), headers=self._headers(at, None)) as opened:
            yield opened

    def origin(self, notebook: str) -> str:
        """Give a notebook's origin."""
        return f"http://{notebook}.{self._domain}"

    async def until(self, notebook: str, *statuses: str, within: float = 60.0) -> dict[str, Any]:
        """Wait for one of some statuses of a notebook."""
        page: dict[str, Any] = {}
        give_up = time.monotonic() + within
        while time.monotonic() < give_up:
            page = await self.get(f"/api/notebooks/{notebook}")
            if page["status"] in statuses:
                return page
            await asyncio.sleep(0.05)
        raise AssertionError(f"{notebook} is not {' or '.join(statuses)} after {within} s: {page}")

    async def start(self, notebook: str) -> dict[str, Any]:
        """Start a notebook, and wait until it is ready."""
        await self.do("POST", f"/api/notebooks/{notebook}/start")
        page = await self.until(notebook, "ready", "failed")
        assert page["status"] == "ready", page
        return page

    def _url(self, path: str) -> URL:
        return URL(f"http://{self._domain}{path}", encoded=True)

    def _headers(self, notebook: str | None, more: Headers | None) -> CIMultiDict[str]:
        headers = CIMultiDict(self.headers)
        headers.update(more or {})
        if notebook is not None:
            headers["Host"] = f"{notebook}.{self._domain}"
        return headers


@dataclass
class Installation:
    """One data directory, and whatever runs on it."""

    data: Path
    port: int
    options: dict[str, str] = field(default_factory=dict[str, str])
    process: "subprocess.Popen[bytes] | None" = None
    http: aiohttp.ClientSession = field(init=False)

    def __post_init__(self) -> None:
        self.http = aiohttp.ClientSession(
            self.address, cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
        )

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def domain(self) -> str:
        """What follows a notebook's name in its host."""
        return f"localhost:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What `sophon` is given: nothing of ours that it would take for a setting."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SOPHON_")}
        chosen = {
            "SOPHON_DATA": str(self.data),
            "SOPHON_PORT": str(self.port),
            "SOPHON_ADMIN_PASSWORD": PASSWORD,
            **self.options,
        }
        return inherited | {name: value for name, value in chosen.items() if value} | {"COLUMNS": "200"}

    @property
    def keys(self) -> Keys:
        return Keys.kept_in(self.data / "secret")

    @property
    def id(self) -> str:
        """What goes into the names and labels of all that it has in Docker."""
        return self.keys.installation

    @property
    def output(self) -> str:
        """Everything that its runs have said."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    @property
    def _said(self) -> Path:
        return self.data.with_suffix(".out")

    def launch(self) -> "subprocess.Popen[bytes]":
        """Begin to start it."""
        with self._said.open("ab") as said:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "app", "up"),
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        return self.process

    async def start(self) -> float:
        """Start it, and wait until it says that it has started, and is ready; return the seconds that this took."""
        began = time.monotonic()
        said = len(self.output)
        process = self.launch()
        while not (GREETING in self.output[said:] and await self._is_ready()):
            assert process.poll() is None, f"it ended with {process.returncode}: {self.output}"
            assert time.monotonic() < began + READY_WITHIN, f"it is not ready: {self.output}"
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def _is_ready(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            return (await self.guest.ask("GET", "/health/ready")).status == 200
        return False

    async def end(self, how: signal.Signals) -> int:
        """Send it a signal, and wait for its end; return its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, ENDS_WITHIN)

    async def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another `sophon …` on the same data."""
        return await asyncio.to_thread(
            subprocess.run,
            (sys.executable, "-m", "app", *arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def guest(self) -> Visitor:
        return Visitor(self.http, self.domain, {})

    async def log_in(self, username: str = ADMINISTRATOR, password: str = PASSWORD) -> Visitor:
        """Open a session."""
        answer = await self.guest.ask("POST", "/api/session", {"username": username, "password": password})
        page = answer.expect(200).page
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return Visitor(self.http, self.domain, {"Cookie": cookie, "X-CSRF-Token": page["csrf_token"]}, page["user"])

    async def bearer(self, session: Visitor, *scopes: str) -> Visitor:
        """Make a token, and give who holds it."""
        made = await session.do("POST", "/api/tokens", {"title": "test", "scopes": scopes or ALL_SCOPES[:3]})
        return Visitor(self.http, self.domain, {"Authorization": f"Bearer {made['secret']}"}, session.user)

    async def administrator(self) -> Visitor:
        """Give the administrator, by a token with every scope."""
        return await self.bearer(await self.log_in(), *ALL_SCOPES)

    def containers(self, notebook: str | None = None) -> list[dict[str, Any]]:
        """Inspect its containers, running or not."""
        label = f"label=sophon.notebook={notebook}"
        found = docker("ps", "-aq", "--no-trunc", *self._mine, *(("--filter", label) if notebook else ())).split()
        return json.loads(docker("inspect", *found)) if found else []

    def volumes(self) -> list[dict[str, Any]]:
        """Inspect its volumes."""
        found = docker("volume", "ls", "-q", *self._mine).split()
        return json.loads(docker("volume", "inspect", *found)) if found else []

    def processes(self) -> list[psutil.Process]:
        """List every process that belongs to it: the directory is in its arguments, variables or place."""
        return [process for process in psutil.process_iter() if any(str(self.data) in word for word in _words(process))]

    def files(self) -> Iterator[Path]:
        """Give every file that it keeps, and what it has said."""
        yield self._said
        for path in self.data.rglob("*"):
            if path.is_file():
                yield path

    @property
    def _mine(self) -> tuple[str, str]:
        return "--filter", f"label=sophon.installation={self.id}"

    async def discard(self) -> None:
        """End and remove everything of it, whatever state a test left it in."""
        await self.http.close()
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await self.end(signal.SIGINT)
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if (self.data / "secret").exists() and shutil.which("docker"):
            self._remove_containers()
        shutil.rmtree(self.data, ignore_errors=True)
        self._said.unlink(missing_ok=True)

    def _remove_containers(self) -> None:
        for container in self.containers():
            docker("rm", "--force", container["Id"])
        for volume in self.volumes():
            docker("volume", "rm", "--force", volume["Name"])
        for network in docker("network", "ls", "-q", *self._mine).split():
            docker("network", "rm", network)


@contextlib.asynccontextmanager
async def installation(**options: str) -> AsyncGenerator[Installation]:
    """Give an installation that was not started yet; `options` are its settings, an empty one is left out."""
    # Not under pytest's own directory, which another user's PostgreSQL cannot reach; and short, for Unix sockets.
    directory = Path(tempfile.mkdtemp(prefix="sophon-test-"))
    made = Installation(directory, free_port(), options)
    try:
        yield made
    finally:
        await made.discard()


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def docker(*arguments: str) -> str:
    """Run `docker …`, and give what it prints."""
    done = subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _words(process: psutil.Process) -> list[str]:
    """Give a process's arguments, variables and place, as far as they can be read."""
    words: list[str] = []
    with contextlib.suppress(psutil.Error, OSError):
        words += process.cmdline()
        words += process.environ().values()
        words.append(process.cwd())
    return words
