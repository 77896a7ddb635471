"""PostgreSQL for tests: one server a session with a fresh database for each test, and servers that may be killed."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from app.audit.database.provision import create_schema
from app.audit.sealing.sealer import Sealer
from app.postgres import library

FAST = ("fsync = off", "full_page_writes = off")
"""For data that nobody will miss: durability costs most of the time that a small test takes."""

SEALER = Sealer(b"s" * 32)
"""What tests seal with: the same in every process."""

MEMORY, ROOM = Path("/dev/shm"), 4 << 30

_TEMPLATE = "sophon_template"


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it ends: before Python 3.12, `wait_for` may swallow a cancellation (gh-86296)."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)


def memory() -> Path | None:
    """Name a directory whose files are in memory, if there is one with room: to make a database takes 10 ms there.

    On a disk it takes up to 300, which is more than most of the tests that have one.
    """
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM else None


class PrivateServer:
    """A PostgreSQL of one's own: to be configured, killed with all its processes, and started again."""

    def __init__(self, *settings: str, below: Path | None = None) -> None:
        # Not under pytest's own directory, whose permissions each session takes back: root's server is another user's.
        self._directory = Path(tempfile.mkdtemp(prefix="sophon-test-", dir=below))
        self._server = library().get_server(self._directory, cleanup_mode="delete")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for setting in settings:
                connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            connection.execute("SELECT pg_reload_conf()")

    @property
    def dsn(self) -> str:
        return self._server.get_uri()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def kill(self) -> None:
        """Kill every process of it at once: what was not made durable is lost."""
        postmaster: Any = self._server.get_postmaster_info().process
        os.kill(postmaster.pid, signal.SIGSTOP)  # so that it begets no more
        processes = [*postmaster.children(recursive=True), postmaster]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)


class Databases:
    """Makes databases that have the log's tables already, by copying a template."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._template = f"{_TEMPLATE}_{uuid.uuid4().hex}"

    async def prepare(self) -> None:
        self._run("CREATE DATABASE {}", self._template)
        await create_schema(make_conninfo(self._dsn, dbname=self._template))

    def discard(self) -> None:
        self._run("DROP DATABASE {} WITH (FORCE)", self._template)

    @contextlib.contextmanager
    def fresh(self) -> Generator[str]:
        """Give the DSN of a database that nobody else uses; it is dropped afterwards, whoever is still connected."""
        name = f"sophon_{uuid.uuid4().hex}"
        self._run("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, self._template)
        try:
            yield make_conninfo(self._dsn, dbname=name)
        finally:
            self._run("DROP DATABASE {} WITH (FORCE)", name)

    def _run(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(SQL(statement).format(*map(Identifier, names)))  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def server() -> Generator[str]:
    """Give the DSN of a server: the one that `SOPHON_TEST_DATABASE_URL` names, or one made for the occasion."""
    if url := os.environ.get("SOPHON_TEST_DATABASE_URL"):
        yield url
        return
    with PrivateServer(*FAST, below=memory()) as private:
        yield private.dsn


def takes_changes(dsn: str, *, yes: bool) -> None:
    """Have a database take changes, or none, from whoever connects from now on."""
    with psycopg.connect(dsn, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        names = Identifier(connection.info.dbname), Literal("off" if yes else "on")
        connection.execute(SQL("ALTER DATABASE {} SET default_transaction_read_only = {}").format(*names))


def disconnect_all(dsn: str) -> None:
    """End every other connection to a database."""
    with psycopg.connect(dsn, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
