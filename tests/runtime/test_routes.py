"""A real Caddy between a raw client, a door and notebooks of our own."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import textwrap
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    MutableMapping,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import uvicorn
from aiohttp import web

from app.runtime import routes
from app.runtime.routes import CADDYFILE, Proxy, ProxyFailed
from tests.certificates import certificate

Headers = list[tuple[str, str]]
NOTEBOOK = "plots.localhost"


@dataclass
class Reply:
    """An answer as it came over the wire."""

    status: int
    headers: Headers
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        return self.all(name)[0]

    @property
    def echo(self) -> "Echo":
        assert self.status == 200, self
        return Echo(**json.loads(self.body))


@dataclass
class Echo:
    """What a notebook was asked."""

    method: str
    uri: str
    headers: list[list[str]]
    length: int

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Asked:
    """What the door was asked."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Door:
    """A raw ASGI door that answers what a test tells it to."""

    status: int = 200
    headers: Headers = field(default_factory=list[tuple[str, str]])
    body: bytes = b""
    asked: list[Asked] = field(default_factory=list[Asked])
    given_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        assert scope["type"] == "http", "the door never sees a WebSocket"
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.given_up.set()
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
        self.asked.append(Asked(scope["method"], scope["path"], scope["query_string"].decode(), headers, body))
        answer = [(key.encode(), value.encode("latin-1")) for key, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": answer})
        await send({"type": "http.response.body", "body": self.body})

    def admit(self, upstream: str, **more: str) -> None:
        admitted = {"Upstream": upstream, "Token": "s3cret", "User": "usr_ada", "Name": "Ada", "Via": "session", **more}
        self.status, self.headers, self.body = 200, [(f"X-Sophon-{k}", v) for k, v in admitted.items()], b""

    def refuse(self, status: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        self.status, self.headers, self.body = status, list(headers), body


async def echo(request: web.Request) -> web.StreamResponse:
    length = 0
    async for chunk in request.content.iter_any():
        length += len(chunk)
    headers = [[key.decode(), value.decode("latin-1")] for key, value in request.raw_headers]
    return web.json_response({"method": request.method, "uri": request.raw_path, "headers": headers, "length": length})


async def plant(request: web.Request) -> web.StreamResponse:
    cookies = ["a=1", "__Host-sophon-session=evil; Path=/; Secure", "=__host-sophon=evil", "__Host-other=2"]
    return web.Response(headers=[("X-Sophon-Token", "s3cret"), *(("Set-Cookie", each) for each in cookies)])


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": request.query.get("type", "text/event-stream")})
    await response.prepare(request)
    await response.write(b"data: first\n\n")
    await asyncio.sleep(float(request.query.get("seconds", 30)))
    await response.write(b"data: second\n\n")
    return response


async def slow(request: web.Request) -> web.StreamResponse:
    length = len(await request.read())
    await asyncio.sleep(3)
    return web.Response(text=str(length))


async def broken(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    assert request.transport
    request.transport.abort()
    return response


async def websocket(request: web.Request) -> web.StreamResponse:
    response = web.WebSocketResponse()
    response.headers["Set-Cookie"] = "__Host-sophon-session=evil"
    response.headers["X-Sophon-Token"] = "s3cret"
    await response.prepare(request)
    await response.send_json([[key.decode(), value.decode()] for key, value in request.raw_headers])
    async for message in response:
        await response.send_str(message.data)
    return response


@contextlib.asynccontextmanager
async def notebook(path: Path | None = None, name: str = "tcp") -> AsyncGenerator[str]:
    """A notebook that echoes; yields its address as the door would say it."""

    async def say_name(_: web.Request) -> web.StreamResponse:
        return web.Response(text=name)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/plant", plant)
    app.router.add_get("/broken", broken)
    app.router.add_get("/events", events)
    app.router.add_post("/slow", slow)
    app.router.add_get("/websocket", websocket)
    app.router.add_get("/name", say_name)
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        if path is None:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"127.0.0.1:{runner.addresses[0][1]}"
        else:
            await web.UnixSite(runner, str(path)).start()
            yield f"unix/{path}"
    finally:
        await runner.cleanup()


class Server(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def served(app: Any, path: Path) -> AsyncGenerator[None]:
    config = uvicorn.Config(app, uds=str(path), lifespan="off", ws="none", log_level="error", loop="asyncio")
    server = Server(config)
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await running


@dataclass
class Town:
    """Everything that stands while the tests of this module run."""

    port: int
    door: Door
    api: Door
    notebook: str
    sockets: Path

    async def send(self, raw: bytes, seconds: float = 15) -> Reply:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(raw)
                return await read_reply(reader)
            finally:
                writer.close()

    async def ask(
        self, uri: str = "/", *headers: str, host: str = NOTEBOOK, method: str = "GET", body: bytes = b""
    ) -> Reply:
        lines = [f"{method} {uri} HTTP/1.1", f"Host: {host}:{self.port}", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        if not any(each.lower().startswith("connection:") for each in headers):
            lines.append("Connection: close")
        return await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = [(key, value) for key, _, value in (line.partition(": ") for line in head[1:] if line)]
    reply = Reply(int(head[0].split()[1]), headers, b"")
    if length := reply.all("Content-Length"):
        reply.body = await reader.readexactly(int(length[0]))
    elif reply.all("Transfer-Encoding"):
        while size := int(await reader.readline(), 16):
            reply.body += await reader.readexactly(size)
            await reader.readline()
    return reply


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sophon-") as folder:  # tmp_path may be too long for a Unix socket
        yield Path(folder)


@pytest.fixture(scope="module")
async def standing(sockets: Path) -> AsyncIterator[Town]:
    door, api = Door(), Door()
    async with (
        served(door, sockets / "door"),
        served(api, sockets / "api"),
        notebook() as address,
        Proxy(port=0, api=sockets / "api", door=sockets / "door", state=sockets / "caddy") as proxy,
    ):
        yield Town(proxy.port, door, api, address, sockets)


@pytest.fixture
def town(standing: Town) -> Town:
    standing.door.asked.clear()
    standing.api.asked.clear()
    standing.door.admit(standing.notebook)
    standing.api.refuse(200, body=b"the platform")
    return standing


# The platform


async def test_the_public_host_is_answered_by_the_api(town: Town) -> None:
    reply = await town.ask("/api/x?y=%20z", "Authorization: Bearer t", host="localhost", method="POST", body=b"hello")
    assert (reply.status, reply.body) == (200, b"the platform")
    (asked,) = town.api.asked
    assert (asked.method, asked.path, asked.query, asked.body) == ("POST", "/api/x", "y=%20z", b"hello")
    assert asked.headers["authorization"] == "Bearer t"
    assert asked.headers["host"] == f"localhost:{town.port}"
    assert not town.door.asked


async def test_the_api_is_told_who_asks_by_the_proxy_and_not_by_the_client(town: Town) -> None:
    forged = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Forwarded-Port: 1"]
    await town.ask("/", *forged, "X-Sophon-User: root", "x_sophon_user: root", host="localhost")
    headers = town.api.asked[0].headers
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == f"localhost:{town.port}"
    assert "x-forwarded-port" not in headers
    assert not [name for name in headers if "sophon" in name]


async def test_the_public_host_is_written_in_any_case(town: Town) -> None:
    assert (await town.ask(host="LocalHost")).body == b"the platform"


async def test_ipv6_loopback_is_served_too(town: Town) -> None:
    try:
        reader, writer = await asyncio.open_connection("::1", town.port)
    except OSError:
        pytest.skip("this machine has no ::1")
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await read_reply(reader)).body == b"the platform"
    writer.close()


async def test_a_body_for_the_api_may_have_16_megabytes(town: Town) -> None:
    assert (await town.ask(host="localhost", method="POST", body=bytes(15_000_000))).status == 200
    assert len(town.api.asked[0].body) == 15_000_000
    with contextlib.suppress(ConnectionError):  # the answer may come before all is sent
        assert (await town.ask(host="localhost", method="POST", body=bytes(17_000_000))).status == 413


async def test_an_api_that_is_down_for_long_is_said_to_be_so_as_a_problem(sockets: Path) -> None:
    proxy = Proxy(port=0, api=sockets / "none", door=sockets / "none", state=sockets / "lonely")
    async with proxy:
        town = Town(proxy.port, Door(), Door(), "", sockets)
        api, door = await asyncio.gather(town.ask(host="localhost"), town.ask())
    assert api.status == door.status == 503
    assert int(api["Retry-After"]) > 0
    assert json.loads(api.body)["status"] == 503
    assert b"Sophon is not answering" in door.body


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "a.plots.localhost", "localhost.evil.org", "[::1]"])
async def test_any_other_host_is_refused(town: Town, host: str) -> None:
    reply = await town.ask(host=host)
    assert reply.status == 421
    assert f"http://localhost:{town.port}".encode() in reply.body
    assert not town.door.asked
    assert not town.api.asked


# What the door is asked


async def test_the_door_is_asked_about_method_and_uri_but_gets_no_body(town: Town) -> None:
    reply = await town.ask("/api/contents/a%2Fb?x=1&y=%7B", "Expect: 100-continue", method="PUT", body=b"hello")
    (asked,) = town.door.asked
    assert (asked.method, asked.path, asked.query, asked.body) == ("GET", "/authorise", "", b"")
    assert asked.headers["x-forwarded-method"] == "PUT"
    assert asked.headers["x-forwarded-uri"] == "/api/contents/a%2Fb?x=1&y=%7B"
    assert asked.headers["x-forwarded-upgrade"] == ""
    assert "content-length" not in asked.headers
    assert "expect" not in asked.headers
    assert reply.status in {100, 200}


async def test_the_door_sees_what_it_decides_by(town: Town) -> None:
    kept = {
        "origin": "http://evil.example",
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "cors",
        "cookie": "a=1; __Host-sophon-session=s",
        "authorization": "Bearer t",
        "accept": "text/html",
    }
    await town.ask("/", *(f"{key}: {value}" for key, value in kept.items()))
    headers = town.door.asked[0].headers
    assert {key: headers[key] for key in kept} == kept
    assert headers["host"] == f"{NOTEBOOK}:{town.port}"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"


async def test_the_door_is_not_told_lies(town: Town) -> None:
    lies = ["X-Forwarded-Uri: /lie", "X-Forwarded-Method: LIE", "X-Forwarded-Upgrade: lie", "X-Sophon-User: root"]
    await town.ask("/lab", *lies, "X-Forwarded-Host: lie", "X-Forwarded_Uri: lie")
    headers = town.door.asked[0].headers
    assert not [value for value in headers.values() if "lie" in value.lower()]
    assert not [name for name in headers if "sophon" in name]
    assert headers["x-forwarded-uri"] == "/lab"


@pytest.mark.parametrize("uri", ["/authorise", "/authorise?", "//authorise", "/.sophon/../authorise", "/%61uthorise"])
async def test_the_authorising_path_is_a_path_like_any_other_from_outside(town: Town, uri: str) -> None:
    reply = await town.ask(uri)
    assert town.door.asked[0].headers["x-forwarded-uri"] == uri
    assert town.door.asked[0].headers["x-forwarded-method"] == "GET"
    assert reply.echo.uri == uri
    assert not reply.all("X-Sophon-Token")


async def test_an_absolute_uri_counts_with_its_own_host(town: Town) -> None:
    raw = f"GET http://{NOTEBOOK}/lab?x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert (await town.send(raw.encode())).status == 200
    assert town.door.asked[0].headers["host"] == NOTEBOOK
    assert town.door.asked[0].headers["x-forwarded-uri"] == "/lab?x"


# What the notebook is asked


async def test_an_admitted_request_reaches_the_notebook_as_it_is(town: Town) -> None:
    reply = await town.ask("/a%2Fb/?x=%20&y", "X-XSRFToken: t", method="PATCH", body=b"hello")
    echo = reply.echo
    assert (echo.method, echo.uri, echo.length) == ("PATCH", "/a%2Fb/?x=%20&y", 5)
    assert echo.all("Host") == [f"{NOTEBOOK}:{town.port}"]
    assert echo.all("X-XSRFToken") == ["t"]
    assert echo.all("X-Forwarded-Proto") == ["http"]
    assert not echo.all("X-Forwarded-Uri")
    assert not echo.all("X-Forwarded-Method")


async def test_the_notebook_is_told_who_asks(town: Town) -> None:
    echo = (await town.ask()).echo
    assert {name: echo.all(f"X-Sophon-{name}") for name in ("Token", "User", "Name", "Via")} == {
        "Token": ["s3cret"],
        "User": ["usr_ada"],
        "Name": ["Ada"],
        "Via": ["session"],
    }
    assert not echo.all("X-Sophon-Upstream")


@pytest.mark.parametrize(
    "name", ["X-Sophon-Token", "x-sophon-token", "X_Sophon_Token", "x-sophon_token", "X-SOPHON-ADMIN"]
)
async def test_a_client_cannot_say_who_it_is(town: Town, name: str) -> None:
    echo = (await town.ask("/", f"{name}: forged", f"{name}: twice")).echo
    assert not [value for _, value in echo.headers if value in {"forged", "twice"}]
    assert echo.all("X-Sophon-Token") == ["s3cret"]


@pytest.mark.parametrize(
    "connection", ["X-Sophon-Token, X-Sophon-User", "close, x-sophon-token", "keep-alive, X-Sophon-User"]
)
async def test_a_client_cannot_have_our_headers_removed(town: Town, connection: str) -> None:
    echo = (await town.ask("/", f"Connection: {connection}")).echo
    assert echo.all("X-Sophon-Token") == ["s3cret"]
    assert echo.all("X-Sophon-User") == ["usr_ada"]


async def test_what_the_door_says_is_taken_literally(town: Town) -> None:
    town.door.admit(town.notebook, Name="{env.HOME} {http.request.host} {vars.sophon_token} %C3%89mile")
    echo = (await town.ask()).echo
    assert echo.all("X-Sophon-Name") == ["{env.HOME} {http.request.host} {vars.sophon_token} %C3%89mile"]


async def test_what_the_door_does_not_say_is_empty(town: Town) -> None:
    town.door.refuse(204, ("X-Sophon-Upstream", town.notebook))
    assert (await town.ask()).echo.all("X-Sophon-User") in ([""], [])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("__Host-sophon-session=s; a=1; b=2", ["a=1; b=2"]),
        ("a=1; __Host-sophon-session=s; b=2", ["a=1; b=2"]),
        ("a=1; b=2; __Host-sophon-session=s", ["a=1; b=2"]),
        ("__Host-sophon-session=s; a=1; __Host-sophon-csrf=c; __Host-sophon=x; b=2", ["a=1; b=2"]),
        ("__Host-sophon-session=s;a=1;__Host-sophon=x;b=2", ["a=1;b=2"]),
        ("__Host-sophon-session=s", []),
        ("__Host-sophon-session=s; __Host-sophon-csrf=c", []),
        ("__Host-sophon=s ;; __Host-sophon=t", []),
        ("_xsrf=2|3; username-localhost-8888=4", ["_xsrf=2|3; username-localhost-8888=4"]),
        ("a=__Host-sophon-session; not__Host-sophon=1", ["a=__Host-sophon-session; not__Host-sophon=1"]),
    ],
)
async def test_our_cookies_are_kept_from_the_notebook_and_others_are_not(
    town: Town, sent: str, kept: list[str]
) -> None:
    assert (await town.ask("/", f"Cookie: {sent}")).echo.all("Cookie") == kept
    assert town.door.asked[0].headers["cookie"] == sent


async def test_our_cookies_are_taken_from_every_cookie_line(town: Town) -> None:
    echo = (await town.ask("/", "Cookie: a=1; __Host-sophon=s", "Cookie: b=2")).echo
    assert echo.all("Cookie") == ["a=1", "b=2"]


async def test_credentials_are_kept_from_the_notebook(town: Town) -> None:
    assert not (await town.ask("/", "Authorization: Bearer t")).echo.all("Authorization")


async def test_an_upload_to_a_notebook_has_no_limit(town: Town) -> None:
    assert (await town.ask("/api/contents/big", method="PUT", body=bytes(64_000_000))).echo.length == 64_000_000


async def test_a_notebook_may_listen_on_a_unix_socket(town: Town) -> None:
    async with (
        notebook(town.sockets / "one", name="one") as one,
        notebook(town.sockets / "two", name="two") as two,
    ):
        for _ in range(3):  # kept connections are not confused
            for address, name in ((one, b"one"), (two, b"two"), (town.notebook, b"tcp")):
                town.door.admit(address)
                assert (await town.ask("/name")).body == name
        town.door.admit(one)
        assert (await town.ask()).echo.all("X-Sophon-Token") == ["s3cret"]


# What the client gets


async def test_the_answer_is_the_notebooks_without_our_headers_and_cookies(town: Town) -> None:
    reply = await town.ask("/plant")
    assert reply.status == 200
    assert not [name for name, _ in reply.headers if "sophon" in name.lower()]
    assert [each for each in reply.all("Set-Cookie") if each] == ["a=1", "__Host-other=2"]


@pytest.mark.parametrize("status", [302, 401, 403, 404, 409, 500, 503])
async def test_what_the_door_refuses_is_answered_in_its_own_words(town: Town, status: int) -> None:
    said = [
        ("Set-Cookie", "__Host-sophon=1; Path=/"),
        ("Set-Cookie", "b=2"),
        ("Location", "/?x=1"),
        ("Retry-After", "2"),
    ]
    town.door.refuse(status, *said, ("Content-Type", "text/html"), ("X-Sophon-Token", "slip"), body=b"<p>No.</p>")
    reply = await town.ask("/", method="POST", body=b"hello")
    assert (reply.status, reply.body) == (status, b"<p>No.</p>")
    assert [reply.all(name) for name in ("Set-Cookie", "Location", "Retry-After", "Content-Type")] == [
        ["__Host-sophon=1; Path=/", "b=2"],
        ["/?x=1"],
        ["2"],
        ["text/html"],
    ]
    assert not reply.all("X-Sophon-Token")


async def unreachable(town: Town) -> list[str]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{closed.getsockname()[1]}", f"unix/{town.sockets}/nobody"]


async def test_a_notebook_that_cannot_be_reached_is_said_so(town: Town) -> None:
    for upstream in await unreachable(town):
        town.door.admit(upstream)
        reply = await town.ask("/lab")
        assert reply.status == 502
        assert int(reply["Retry-After"]) > 0
        assert reply["Content-Type"].startswith("text/html")
        assert b"This notebook does not answer" in reply.body
        assert upstream.encode() not in reply.body
        assert len(town.door.asked) == 1, "a notebook that does not answer is not asked for again"
        town.door.asked.clear()


@pytest.mark.parametrize("nonsense", ["", "nonsense", "127.0.0.1:1-9", "http://127.0.0.1:80"])
async def test_an_admission_to_nowhere_is_a_failure(town: Town, nonsense: str) -> None:
    town.door.refuse(200, *([("X-Sophon-Upstream", nonsense)] if nonsense else []), body=b"secret")
    reply = await town.ask()
    assert reply.status in {500, 502, 503}
    assert b"secret" not in reply.body


async def test_what_a_client_sends_is_never_logged(town: Town) -> None:
    async def fail(uri: str) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await town.ask(uri, "Authorization: Bearer t1cket", "X-Other: t1cket")

    await fail("/t1cket?token=t1cket")
    await fail("/broken?token=t1cket")
    for upstream in ["", *(await unreachable(town))]:
        town.door.admit(upstream)
        await fail("/lab?token=t1cket")
    log = town.sockets / "caddy" / "caddy.log"
    assert "t1cket" not in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
@pytest.mark.parametrize("host", [NOTEBOOK, "localhost"])
async def test_events_arrive_when_they_are_sent(town: Town, host: str, kind: str) -> None:
    async def stream(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", kind.encode()), (b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with served(stream, town.sockets / "streams"):
        state = town.sockets / "streaming"
        proxy = Proxy(port=0, api=town.sockets / "streams", door=town.sockets / "door", state=state)
        async with proxy, asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(f"GET /events?type={kind} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            await reader.readuntil(b"data: first\n\n")
            writer.close()


# WebSockets


@contextlib.asynccontextmanager
async def websocket_to(town: Town, **headers: str) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{town.port}/websocket"
        asked: Mapping[str, str] = {"Host": NOTEBOOK, "Origin": "http://" + NOTEBOOK, **headers}
        async with session.ws_connect(url, headers=asked) as connection:
            yield connection


async def test_a_websocket_that_is_allowed_is_open_in_both_directions(town: Town) -> None:
    async with websocket_to(town, Cookie="a=1; __Host-sophon=s") as connection:
        headers = Echo("", "", await connection.receive_json(), 0)
        assert headers.all("X-Sophon-Token") == ["s3cret"]
        assert headers.all("Cookie") == ["a=1"]
        await connection.send_str("hello")
        assert await connection.receive_str() == "hello"
    asked = town.door.asked[0].headers
    assert asked["x-forwarded-upgrade"] == "websocket"
    assert asked["origin"] == "http://" + NOTEBOOK
    assert "upgrade" not in asked
    assert "upgrade" not in asked.get("connection", "").lower()
    assert not [name for name in asked if name.startswith("sec-websocket")]


async def test_a_websocket_that_is_refused_is_never_opened(town: Town) -> None:
    town.door.refuse(403, body=b"no")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with websocket_to(town):
            pass
    assert refused.value.status == 403


async def test_the_answer_that_opens_a_websocket_carries_nothing_of_ours(town: Town) -> None:
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    reply = await town.ask("/websocket", *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    assert reply.status == 101
    assert not reply.all("X-Sophon-Token")
    assert not [each for each in reply.all("Set-Cookie") if each]


# Patience


@pytest.fixture
async def hasty(town: Town, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """The same town behind a proxy whose timeouts are all a second."""
    text, changed = re.subn(r"\b(read_header|read_body_idle|write_idle|idle) \d+[ms]", r"\1 1s", CADDYFILE.read_text())
    assert changed == 4
    (town.sockets / "Caddyfile").write_text(text)
    monkeypatch.setattr(routes, "CADDYFILE", town.sockets / "Caddyfile")
    state = town.sockets / "hasty"
    async with Proxy(port=0, api=town.sockets / "api", door=town.sockets / "door", state=state) as proxy:
        yield Town(proxy.port, town.door, town.api, town.notebook, town.sockets)


async def test_a_client_that_never_ends_its_headers_is_cut_off(hasty: Town) -> None:
    async with asyncio.timeout(4):
        reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        await reader.read()  # to the end
        writer.close()


@pytest.mark.parametrize(("host", "path"), [("localhost", "/"), (NOTEBOOK, "/.sophon/enter")])
async def test_nobody_behind_waits_for_a_body_that_stands_still(hasty: Town, host: str, path: str) -> None:
    asked = hasty.api if host == "localhost" else hasty.door
    asked.given_up.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", hasty.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhel".encode())
    async with asyncio.timeout(4):
        await asked.given_up.wait()
    writer.close()


async def test_whoever_waits_for_an_answer_or_an_event_or_a_message_is_not(hasty: Town) -> None:
    async def connected() -> None:
        async with websocket_to(hasty) as connection:
            await connection.receive()
            await asyncio.sleep(3)
            await connection.send_str("hello")
            assert await connection.receive_str() == "hello"
            await asyncio.sleep(2)
            await connection.send_str("still here")
            assert await connection.receive_str() == "still here"

    async def answered() -> None:
        assert (await hasty.ask("/slow", method="POST", body=bytes(100_000))).body == b"100000"

    async def told() -> None:
        assert (await hasty.ask("/events?seconds=3")).body == b"data: first\n\ndata: second\n\n"

    async with asyncio.TaskGroup() as waiting:
        for each in (connected, answered, told):
            waiting.create_task(each())


# The door's own pages


@pytest.mark.parametrize(
    "uri", ["/.sophon/enter", "/.sophon/enter?next=%2Flab", "/.sophon", "/.SOPHON/x", "//.sophon/x"]
)
async def test_the_doors_own_pages_are_answered_by_the_door(town: Town, uri: str) -> None:
    town.door.refuse(303, ("Location", "/lab"), ("Set-Cookie", "__Host-sophon=s; Path=/; Secure"))
    reply = await town.ask(uri, "X-Sophon-User: root", "X-Forwarded-Uri: lie", method="POST", body=b"ticket=t")
    assert (reply.status, reply["Location"], reply["Set-Cookie"]) == (303, "/lab", "__Host-sophon=s; Path=/; Secure")
    (asked,) = town.door.asked
    assert (asked.method, asked.body) == ("POST", b"ticket=t")
    assert asked.path + ("?" + asked.query if asked.query else "") == uri.replace("%2F", "%2F")
    assert asked.headers["x-forwarded-method"] == "POST"
    assert asked.headers["x-forwarded-uri"] == uri
    assert asked.headers["host"] == f"{NOTEBOOK}:{town.port}"
    assert "x-sophon-user" not in asked.headers


async def test_the_doors_own_pages_may_be_200(town: Town) -> None:
    town.door.refuse(200, ("X-Sophon-Upstream", town.notebook), body=b"a page")
    reply = await town.ask("/.sophon/x")
    assert (reply.status, reply.body) == (200, b"a page")
    assert not reply.all("X-Sophon-Upstream")


async def test_a_form_for_the_door_has_at_most_4_kibibytes(town: Town) -> None:
    assert (await town.ask("/.sophon/enter", method="POST", body=bytes(4096))).status == 200
    assert (await town.ask("/.sophon/enter", method="POST", body=bytes(4097))).status == 413


async def test_on_the_public_host_these_paths_are_the_apis(town: Town) -> None:
    await town.ask("/.sophon/enter", host="localhost")
    assert len(town.api.asked) == 1
    assert not town.door.asked


# Starting, stopping, dying


async def test_a_restart_of_the_door_is_only_a_pause(town: Town) -> None:
    path = town.sockets / "restarting"
    proxy = Proxy(port=0, api=path, door=path, state=town.sockets / "patient")
    async with proxy:
        behind = Town(proxy.port, town.door, town.api, town.notebook, town.sockets)
        async with served(town.door, path):
            assert (await behind.ask()).status == 200
        asking = [
            asyncio.create_task(behind.ask()),
            asyncio.create_task(behind.ask("/.sophon/enter", method="POST", body=b"ticket=t")),
            asyncio.create_task(behind.ask(host="localhost", method="POST", body=b"hello")),
        ]
        await asyncio.sleep(2)
        assert not any(each.done() for each in asking)
        async with served(town.door, path):
            assert [(await each).status for each in asking] == [200, 200, 200]
    assert [each.body for each in town.door.asked if each.body] in (
        [b"ticket=t", b"hello"],
        [b"hello", b"ticket=t"],
    )


async def test_a_port_in_use_is_said_before_caddy_is_started(sockets: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ProxyFailed, match=f"port {port} is in use; set SOPHON_PORT"):
            async with Proxy(port=port, api=sockets / "a", door=sockets / "d", state=sockets / "taken"):
                pass


async def test_a_port_in_use_by_another_caddy_is_in_use_too(town: Town, sockets: Path) -> None:
    with pytest.raises(ProxyFailed, match="is in use"):
        async with Proxy(port=town.port, api=sockets / "a", door=sockets / "d", state=sockets / "second"):
            pass


async def test_two_proxies_stand_side_by_side(town: Town) -> None:
    async with Proxy(
        port=0, api=town.sockets / "api", door=town.sockets / "door", state=town.sockets / "other"
    ) as other:
        beside = Town(other.port, town.door, town.api, town.notebook, town.sockets)
        assert (await beside.ask()).status == (await town.ask()).status == 200
    assert (await town.ask()).status == 200


async def test_a_state_that_cannot_be_written_is_said_too(sockets: Path) -> None:
    (sockets / "full" / "caddy.log").mkdir(parents=True)
    with pytest.raises(ProxyFailed, match=r"caddy\.log: is a directory"):
        async with Proxy(port=0, api=sockets / "a", door=sockets / "d", state=sockets / "full"):
            pass


async def test_caddy_says_itself_why_it_does_not_start(sockets: Path) -> None:
    proxy = Proxy(port=0, api=sockets / "a", door=sockets / "d", state=sockets / "odd", public_host="a b{")
    with pytest.raises(ProxyFailed, match=r"Caddy did not start: .*does not qualify for certificate"):
        async with proxy:
            pass


async def test_the_port_is_free_once_it_is_stopped(town: Town) -> None:
    for _ in range(2):
        async with Proxy(
            port=0, api=town.sockets / "api", door=town.sockets / "door", state=town.sockets / "again"
        ) as one:
            port = one.port
            async with websocket_to(Town(port, town.door, town.api, "", town.sockets)) as connection:
                await connection.receive()
                leaving = asyncio.get_running_loop().time()
                await one.__aexit__(None, None, None)
        assert asyncio.get_running_loop().time() - leaving < 4.5, "an open WebSocket does not hold it up"
        assert is_free(port)


async def test_its_death_is_noticed(town: Town) -> None:
    async with Proxy(
        port=0, api=town.sockets / "api", door=town.sockets / "door", state=town.sockets / "mortal"
    ) as proxy:
        watching = asyncio.create_task(proxy.died())
        await asyncio.sleep(0.1)
        assert not watching.done()
        (child,) = caddies(town.sockets / "mortal")
        os.kill(child, signal.SIGKILL)
        async with asyncio.timeout(5):
            assert "Caddy ended with -9" in str(await watching)


def is_free(port: int) -> bool:
    with socket.socket() as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            mine.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def caddies(state: Path) -> list[int]:
    """The process ids of the Caddies that work in `state`."""
    mine = f"SOPHON_CADDY_STATE={state}\0".encode()
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mine in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


@dataclass
class Parent:
    """A Python process that runs a proxy and nothing else."""

    process: asyncio.subprocess.Process
    port: int

    @classmethod
    async def start(cls, sockets: Path, loop: str) -> Self:
        script = f"""
            import asyncio, {loop}
            from pathlib import Path
            from app.runtime.routes import Proxy
            async def main():
                folder = Path({str(sockets)!r})
                async with Proxy(port=0, api=folder / "a", door=folder / "d", state=folder / "orphan") as proxy:
                    print(proxy.port, flush=True)
                    await asyncio.sleep(60)
            {loop}.run(main())
        """
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(script), stdout=pipe)
        assert process.stdout
        return cls(process, int(await process.stdout.readline()))


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_killed_parent_leaves_no_caddy(sockets: Path, loop: str) -> None:
    parent = await Parent.start(sockets, loop)
    assert len(caddies(sockets / "orphan")) == 1
    parent.process.kill()
    await parent.process.wait()
    async with asyncio.timeout(3):
        while not is_free(parent.port) or caddies(sockets / "orphan"):
            await asyncio.sleep(0.02)


async def test_with_a_certificate_it_answers_https_and_only_that(sockets: Path, tmp_path: Path) -> None:
    files = certificate(tmp_path / 'a "quoted" place', "localhost", NOTEBOOK)
    door, api = Door(), Door(body=b"the platform")
    async with (
        served(door, sockets / "door-s"),
        served(api, sockets / "api-s"),
        notebook() as address,
        Proxy(port=0, api=sockets / "api-s", door=sockets / "door-s", state=sockets / "caddy-s", tls=files) as proxy,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=files[0]))) as http,
    ):
        door.admit(address)
        async with http.get(f"https://localhost:{proxy.port}/") as answer:
            assert await answer.read() == b"the platform"
        assert api.asked[0].headers["x-forwarded-proto"] == "https"
        there = {"Host": f"{NOTEBOOK}:{proxy.port}"}
        url = f"https://localhost:{proxy.port}/websocket"
        async with http.ws_connect(url, headers=there, server_hostname=NOTEBOOK) as opened:
            await opened.receive_json()
            await opened.send_str("hello")
            assert (await opened.receive()).data == "hello"
        async with http.get(f"http://localhost:{proxy.port}/") as answer:
            assert answer.status == 400


async def test_files_that_are_no_certificate_and_its_key_are_named(sockets: Path, tmp_path: Path) -> None:
    (_, key), (other, _) = certificate(tmp_path / "a", "localhost"), certificate(tmp_path / "b", "localhost")
    for wrong in ((tmp_path / "none.pem", key), (key, key), (other, key)):
        with pytest.raises(ProxyFailed, match="are no certificate"):
            async with Proxy(port=0, api=sockets / "a", door=sockets / "d", state=sockets / "caddy-n", tls=wrong):
                pass
