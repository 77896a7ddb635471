"""The notebook image, on a real container with every restriction that the runtime puts on it."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.runtime.containers import connect
from app.runtime.images import IMAGES, ensure_image

SOURCE = IMAGES / "jupyter"
HARDENING = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "1g", "--pids-limit", "256", "--publish", "127.0.0.1::8888"),
)
PUBLIC = "plots.localhost:8000"
ELSEWHERE = {"Origin": "http://elsewhere.example"}

SEARCH = """
import os, pathlib
found = [name for name, value in os.environ.items() if token in value or name.startswith("SOPHON")]
for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
    try:
        if token.encode() in environ.read_bytes():
            found.append(str(environ))
    except PermissionError:
        pass
print(found)
"""


def docker(*arguments: str) -> str:
    done = subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


@dataclass
class Server:
    """A running JupyterLab, asked as the proxy asks it: under its public name."""

    token: str
    port: int = 0
    socket: Path | None = None
    container: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.headers = {"Host": PUBLIC, "X-Sophon-Token": self.token}

    @property
    def script(self) -> dict[str, str]:
        """The headers of a request that an API token authenticated."""
        return {**self.headers, "X-Sophon-Via": "token"}

    def session(self) -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(str(self.socket)) if self.socket else None
        return aiohttp.ClientSession(f"http://127.0.0.1:{self.port}", connector=connector)

    async def ask(self, method: str, path: str, headers: dict[str, str], **body: Any) -> tuple[int, str]:
        async with self.session() as http, http.request(method, path, headers=headers, **body) as answer:
            return answer.status, await answer.text()

    async def until_it_answers(self) -> "Server":
        for _ in range(1500):
            try:
                if (await self.ask("GET", "/api/status", self.headers))[0] == 200:
                    return self
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.02)
        pytest.fail(docker("logs", self.container) if self.container else "the server did not answer in 30 s")

    async def kernel(self) -> str:
        status, answer = await self.ask("POST", "/api/kernels", self.script, json={})
        assert status == 201, answer
        return json.loads(answer)["id"]

    async def execute(self, code: str) -> str:
        """What a new kernel prints."""
        request: dict[str, Any] = {
            "header": {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "s", "version": "5.3"},
            "content": {"code": code, "silent": False},
            "channel": "shell",
            "parent_header": {},
            "metadata": {},
        }
        path = f"/api/kernels/{await self.kernel()}/channels"
        printed = ""
        async with self.session() as http, http.ws_connect(path, headers=self.headers) as channels:
            await channels.send_json(request)
            async with asyncio.timeout(30):
                while True:
                    message = await channels.receive_json()
                    if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                        continue
                    match message["msg_type"]:
                        case "stream":
                            printed += message["content"]["text"]
                        case "error":
                            pytest.fail("\n".join(message["content"]["traceback"]))
                        case "status" if message["content"]["execution_state"] == "idle":
                            return printed.strip()
                        case _:
                            pass


@pytest.fixture(scope="module")
def engine() -> None:
    asked = subprocess.run(("docker", "version"), capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        absent = pytest.fail if "docker" in os.environ.get("SOPHON_REQUIRE", "") else pytest.skip
        absent(f"no Docker engine answers: {asked.stderr.strip()}")


@pytest.fixture(scope="module")
async def jupyter_image(engine: None) -> str:
    """The image of the recipe as it stands: what is run is what is tested."""
    async with connect() as docker_engine:
        return await ensure_image(docker_engine, print)


@contextmanager
def new_volume() -> Generator[str, None, None]:
    name = docker("volume", "create")
    try:
        yield name
    finally:
        docker("volume", "rm", name)


@asynccontextmanager
async def running(image: str, volume: str) -> AsyncGenerator[Server, None]:
    token, mount = secrets.token_urlsafe(32), f"{volume}:/home/researcher"
    container = docker("run", "--detach", "--env", f"SOPHON_TOKEN={token}", "--volume", mount, *HARDENING, image)
    try:
        port = int(docker("port", container, "8888/tcp").rpartition(":")[2])
        yield await Server(token, port, container=container).until_it_answers()
    finally:
        docker("rm", "--force", container)


@pytest.fixture
def volume(jupyter_image: str) -> Iterator[str]:
    with new_volume() as name:
        yield name


@pytest.fixture(scope="module")
async def server(jupyter_image: str) -> AsyncIterator[Server]:
    with new_volume() as volume:
        async with running(jupyter_image, volume) as started:
            yield started


async def test_whoever_knows_the_token_is_answered(server: Server) -> None:
    assert (await server.ask("GET", "/api/status", server.headers))[0] == 200


@pytest.mark.parametrize("token", [None, "", "wrong"])
@pytest.mark.parametrize(
    "path", ["/api/status", "/", "/lab", "/login", "/files/a", "/static/favicons/favicon.ico", "/nowhere"]
)
async def test_nothing_is_answered_without_the_token(server: Server, path: str, token: str | None) -> None:
    headers = {"Host": PUBLIC} | ({} if token is None else {"X-Sophon-Token": token})
    assert (await server.ask("GET", path, headers))[0] == 403


async def test_jupyters_own_ways_of_sending_a_token_are_refused(server: Server) -> None:
    headers = {"Host": PUBLIC, "Authorization": f"token {server.token}"}
    assert (await server.ask("GET", f"/api/status?token={server.token}", headers))[0] == 403


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_a_kernels_websocket_is_refused_without_the_token(server: Server, token: str | None) -> None:
    path = f"/api/kernels/{await server.kernel()}/channels"
    headers = {"Host": PUBLIC} | ({} if token is None else {"X-Sophon-Token": token})
    async with server.session() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(path, headers=headers)
    assert refused.value.status == 403


async def test_a_kernel_computes(server: Server) -> None:
    assert await server.execute("print(6 * 7)") == "42"


async def test_a_kernel_works_at_home_as_nobody_special(server: Server) -> None:
    assert await server.execute("import os; print(os.getcwd(), os.getuid())") == "/home/researcher 1000"


async def test_a_kernel_finds_the_token_neither_in_its_environment_nor_in_another_process(server: Server) -> None:
    assert await server.execute(f"token = {server.token!r}\n{SEARCH}") == "[]"


async def test_the_page_does_not_show_the_token(server: Server) -> None:
    status, page = await server.ask("GET", "/lab", server.headers)
    assert status == 200
    assert "jupyter-config-data" in page
    assert server.token not in page


async def test_the_page_does_not_ask_whether_the_reader_wants_news(server: Server) -> None:
    assert "@jupyterlab/apputils-extension:announcements" in (await server.ask("GET", "/lab", server.headers))[1]


async def test_collaborators_appear_under_their_own_names(server: Server) -> None:
    ada = {**server.headers, "X-Sophon-User": "usr_01", "X-Sophon-Name": "Ada%20K%C3%B6nig%0A"}
    identity = json.loads((await server.ask("GET", "/api/me", ada))[1])["identity"]
    assert (identity["username"], identity["name"], identity["display_name"]) == ("usr_01", "Ada König", "Ada König")
    assert identity["initials"] == "AK"
    assert identity["color"] == json.loads((await server.ask("GET", "/api/me", ada))[1])["identity"]["color"]


async def test_another_sites_page_cannot_act_with_somebodys_cookie(server: Server) -> None:
    cookie = {"Cookie": "_xsrf=known", "X-XSRFToken": "known"}
    status, _ = await server.ask("POST", "/api/kernels", {**server.headers, **cookie, **ELSEWHERE}, json={})
    assert status in (403, 404)


@pytest.mark.parametrize(
    "path", ["/api/kernels/{kernel}/channels", "/api/collaboration/room/JupyterLab:globalAwareness"]
)
async def test_another_sites_page_cannot_open_a_websocket(server: Server, path: str) -> None:
    path = path.format(kernel=await server.kernel())
    async with server.session() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(path, headers={**server.headers, **ELSEWHERE})
        async with http.ws_connect(path, headers={**server.headers, "Origin": f"http://{PUBLIC}"}) as own:
            assert not own.closed
    assert refused.value.status == 403


async def test_a_browser_acts_with_the_xsrf_cookie_and_not_without(server: Server) -> None:
    browser = {**server.headers, "Origin": f"http://{PUBLIC}"}
    with_cookie = {**browser, "Cookie": "_xsrf=known", "X-XSRFToken": "known"}
    assert (await server.ask("POST", "/api/kernels", browser, json={}))[0] == 403
    assert (await server.ask("POST", "/api/kernels", with_cookie, json={}))[0] == 201


async def test_a_script_needs_no_xsrf_cookie(server: Server) -> None:
    assert (await server.ask("POST", "/api/kernels", server.script, json={}))[0] == 201


async def test_a_file_survives_its_container_even_one_that_shadows_a_module(jupyter_image: str, volume: str) -> None:
    path, text = "/api/contents/json.py", "raise SystemExit('this must not keep the server from starting')"
    async with running(jupyter_image, volume) as first:
        await first.ask("PUT", path, first.script, json={"type": "file", "format": "text", "content": text})
    async with running(jupyter_image, volume) as second:
        _, answer = await second.ask("GET", path, second.headers)
    assert json.loads(answer)["content"] == text


async def test_a_container_with_a_kernel_stops_cleanly_within_five_seconds(jupyter_image: str, volume: str) -> None:
    async with running(jupyter_image, volume) as server:
        await server.execute("print()")
        began = time.monotonic()
        docker("stop", server.container)
        took = time.monotonic() - began
        status = docker("inspect", "--format", "{{.State.ExitCode}}", server.container)
    assert status == "0"
    assert took < 5


@pytest.mark.parametrize("environment", [(), ("--env", "SOPHON_TOKEN="), ("--env", "SOPHON_TOKEN= ")])
def test_without_a_token_the_server_does_not_start(jupyter_image: str, environment: tuple[str, ...]) -> None:
    run = ("docker", "run", "--rm", "--memory", "1g", *environment, jupyter_image)
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "SOPHON_TOKEN is unset or empty" in done.stderr


@pytest.fixture
def near() -> Iterator[Path]:
    """A directory with a short path: a Unix socket's has at most 107 bytes, and pytest's own names are long."""
    with tempfile.TemporaryDirectory(prefix="sophon-") as path:
        yield Path(path)


async def test_the_same_configuration_serves_a_socket_without_a_container(near: Path) -> None:
    pytest.importorskip("jupyterlab", reason="the dependency group `process` is not installed")
    token, home, socket = secrets.token_urlsafe(32), near / "home", near / "jupyter.sock"
    home.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "jupyterlab", f"--config={SOURCE / 'jupyter_server_config.py'}"),
        *(f"--ServerApp.sock={socket}", "--KernelManager.transport=ipc", f"--ServerApp.root_dir={home}"),
        *(("--ServerApp.allow_root=True",) if os.getuid() == 0 else ()),
        cwd=home,
        stderr=asyncio.subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "SOPHON_TOKEN": token,
            **{f"JUPYTER_{kind.upper()}_DIR": str(near / kind) for kind in ("config", "data", "runtime")},
        },
    )
    try:
        child = await Server(token, socket=socket).until_it_answers()
        assert (await child.ask("GET", "/api/status", {"Host": PUBLIC}))[0] == 403
        code = "import os; print(6 * 7, 'SOPHON_TOKEN' in os.environ, os.getcwd() == os.environ['HOME'])"
        assert await child.execute(code) == "42 False True"
    finally:
        process.terminate()
        assert await process.wait() == 0
