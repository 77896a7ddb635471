"""`sophon up`: starts everything, in an order in which each part finds what it needs, and stops it in the other."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from msgspec import Struct

from app.audit.sealing.vault import Vault
from app.installation import database, keys_of, only_one
from app.keys import Keys
from app.main import create_app
from app.platform import Platform
from app.runtime.admissions import Admissions
from app.runtime.containers import Containers, Limits, ask, connect
from app.runtime.door import Door
from app.runtime.engine import Engine, EngineAway
from app.runtime.evictions import Evictions
from app.runtime.images import Say, ensure_image
from app.runtime.processes import LONGEST_SOCKETS, Processes
from app.runtime.routes import Proxy, must_be_free
from app.runtime.supervisor import Supervisor
from app.settings import BadSetting, Settings, is_local

NOT_ISOLATED = "Notebooks run as processes of this machine: their code can do whatever you can. Not for production."


class Running(Struct, frozen=True):
    """What is told to whoever started it, and how its notebooks are ended."""

    address: str
    username: str
    password: str | None
    """There once: when the first account was made, with a password that nobody had preset."""
    runtime: str
    why: str
    stop_notebooks: Callable[[], Awaitable[None]]
    proxy_died: Callable[[], Awaitable[Exception]]


@contextlib.asynccontextmanager
async def running(settings: Settings, say: Say) -> AsyncGenerator[Running]:
    """Start everything; stop it when left. Notebooks go on, unless they were stopped before."""
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(only_one(settings.data))
        must_be_free(settings.port, settings.bind)
        sockets = socket_directory(settings.data)
        keys = keys_of(settings, anew=True)
        dsn = await stack.enter_async_context(database(settings, say, anew=True))
        platform = await stack.enter_async_context(Platform.open(settings, keys, dsn))
        engine, why = await stack.enter_async_context(choose_engine(settings, keys, sockets, say))
        supervisor = Supervisor(platform.log, engine, keys, timedelta(seconds=settings.start_timeout))
        platform.start("supervisor", supervisor.run)
        door = await open_door(platform)
        await stack.enter_async_context(serving(create_app(platform), sockets / "api.sock"))
        await stack.enter_async_context(serving(door, sockets / "door.sock"))
        proxy = await stack.enter_async_context(
            Proxy(
                port=settings.port,
                api=sockets / "api.sock",
                door=sockets / "door.sock",
                state=settings.data / "caddy",
                public_host=settings.host,
                notebook_domain=settings.notebook_domain,
                addresses=settings.bind,
                tls=(settings.tls_certificate, settings.tls_key)
                if settings.tls_certificate and settings.tls_key
                else None,
            )
        )
        # Last: whoever is told the password has a platform to use it on, and a failed start has given none away.
        password = settings.admin_password or secrets.token_urlsafe(12)
        is_new = await platform.set_up(settings.admin_username, password)
        yield Running(
            address=settings.address,
            username=settings.admin_username,
            password=password if is_new and not settings.admin_password else None,
            runtime=engine.name,
            why=why,
            stop_notebooks=supervisor.stop_all,
            proxy_died=proxy.died,
        )


async def open_door(platform: Platform) -> Door:
    """Make the door, once it knows whom to let in."""
    settings = platform.settings
    admissions = Admissions(platform.log)
    evictions = Evictions(admissions, platform.keys, Vault(platform.log.pool))
    platform.start("door", evictions.run)
    platform.start("expiries", evictions.expire)
    await admissions.ready.wait()
    return Door(
        platform.identity,
        admissions,
        platform.dispatch,
        platform.acts,
        platform.keys,
        settings.address,
        settings.notebook_domain,
    )


@contextlib.asynccontextmanager
async def choose_engine(settings: Settings, keys: Keys, sockets: Path, say: Say) -> AsyncGenerator[tuple[Engine, str]]:
    """Open the runtime that was set, or Docker where it answers and child processes where not; and say why."""
    if settings.runtime != "process":
        try:
            async with connect() as docker:
                await ask(docker, "GET", "version")
                image = await ensure_image(docker, say)
        except EngineAway as away:
            if settings.runtime == "docker":
                raise
            why = f"{away} {NOT_ISOLATED}"
        else:
            limits = Limits(settings.notebook_memory, settings.notebook_cpus, settings.notebook_pids)
            async with Containers.open(keys.installation, image, limits) as containers:
                yield containers, f"Docker answers; notebooks are containers of {image}."
            return
    else:
        why = f"SOPHON_RUNTIME is process. {NOT_ISOLATED}"
    if not is_local(settings.host):
        raise BadSetting(
            f"There is no Docker, and notebooks without isolation are not offered under {settings.host}. "
            "Install Docker Engine, or see that this user may use it."
        )
    processes = Processes(settings.data / "processes", sockets)
    try:
        yield processes, why
    finally:
        await processes.close()


@contextlib.asynccontextmanager
async def serving(app: Any, path: Path) -> AsyncGenerator[None]:
    """Serve an ASGI application on a Unix socket that only this user can reach."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve([listening]), name=path.name)
    while not server.started and not task.done():
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await task
        path.unlink(missing_ok=True)


class QuietServer(uvicorn.Server):
    """A server among others in one process: signals are not its business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


def socket_directory(data: Path) -> Path:
    """Give a directory for Unix sockets: in the data directory or, where its path is too long, the system's."""
    directory = data / "run"
    if len(os.fsencode(directory)) > LONGEST_SOCKETS or " " in str(directory):
        digest = hashlib.sha256(str(data).encode()).hexdigest()[:12]
        directory = Path(tempfile.gettempdir()) / f"sophon-{os.getuid()}-{digest}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise BadSetting(f"{directory} belongs to somebody else. Remove it, or set SOPHON_DATA to a shorter path.")
    directory.chmod(0o700)
    return directory
