"""A Postgres server of our own for a run of figures: the one from the wheel, as it is configured there, fsync on."""

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from app.audit.sealing.sealer import Sealer
from app.postgres import library

SEALER = Sealer(b"bench" * 6 + b"s!")


class Server:
    """A running server. Every measurement asks for databases of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._made = 0

    def database(self) -> str:
        """Create an empty database; return its connection string."""
        self._made += 1
        name = f"bench_{self._made}"
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return make_conninfo(self._dsn, dbname=name)

    def checkpoint(self) -> None:
        """Write out what earlier rounds left in memory, so that none pays for another."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("CHECKPOINT")


@contextlib.contextmanager
def server() -> Generator[Server]:
    """Start a server in a new directory; stop it and remove the directory."""
    with tempfile.TemporaryDirectory(prefix="bench-") as data:
        running = library().get_server(Path(data) / "postgres", cleanup_mode="stop")
        try:
            found = Server(running.get_uri())
            with psycopg.connect(running.get_uri()) as connection:
                row = connection.execute("SHOW fsync").fetchone()
                assert row == ("on",)
            yield found
        finally:
            running.cleanup()


def parts(dsn: str) -> dict[str, str]:
    """Take a connection string apart: dbname, host, port, user."""
    return {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
