"""A canary: a text that is put wherever personal or free text goes, and looked for wherever it could have got to."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from tests.questions.platform import Town

CANARY = "xcanaryx"
ADDRESS = "2001:db8:ca4a:47::1"
LOOKED_FOR = (CANARY, ADDRESS)

Place = Callable[[Town], Awaitable[dict[str, bytes]]]
"""Gives what lies in one kind of place, by where exactly: tables, files, answers, bundles of an export."""


@asynccontextmanager
async def connected(town: Town) -> AsyncGenerator[AsyncConnection]:
    dsn = town.platform.log._dsn  # pyright: ignore[reportPrivateUsage]
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        yield connection


async def tables(town: Town) -> dict[str, bytes]:
    """Give every row of every table of every schema as text: a dump, with the catalogues and their statistics."""
    found: dict[str, bytes] = {}
    async with connected(town) as connection:
        cursor = await connection.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'm', 'v') AND n.nspname <> 'information_schema'"
            " AND c.relname NOT LIKE 'pg_stat%activity' AND c.relname <> 'pg_config'"
        )
        for schema, table in await cursor.fetchall():
            query = SQL("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {} AS t")
            try:
                row = await (await connection.execute(query.format(Identifier(schema, table)))).fetchone()
            except psycopg.Error:
                assert schema == "pg_catalog", f"{schema}.{table} cannot be read"
                continue
            found[f"{schema}.{table}"] = str(row and row[0]).encode()
    return found


async def files(town: Town) -> dict[str, bytes]:
    """Give the files of the database's tables and indexes, dead rows and free space and all, and the server's log.

    Not the WAL: it holds what was written for as long as it is kept, as backups do. `docs/privacy.md` says so.
    """
    found: dict[str, bytes] = {}
    async with connected(town) as connection:
        await connection.execute("CHECKPOINT")
        cursor = await connection.execute("SELECT oid::text FROM pg_database WHERE datname = current_database()")
        row = await cursor.fetchone()
        assert row is not None
        cursor = await connection.execute("SELECT pg_ls_dir(%s)", (f"base/{row[0]}",))
        paths = [f"base/{row[0]}/{name}" for (name,) in await cursor.fetchall()]
        for path in [*paths, "log"]:
            cursor = await connection.execute("SELECT pg_read_binary_file(%s, true)", (path,))
            octets = await cursor.fetchone()
            found[path] = octets[0] if octets and octets[0] is not None else b""
    return found


async def answers(town: Town) -> dict[str, bytes]:
    """Give what the API answers to an administrator, whatever is asked of it."""
    found: dict[str, bytes] = {}
    users = [row["user"] for row in await _all(town, "/api/users")]
    for path in (
        *("/api/users", "/api/tokens", "/api/groups", "/api/projects", "/api/notebooks", "/api/session"),
        *("/api/groups/lab", "/api/projects/apollo", "/api/notebooks/plots", "/api/audit/entries?limit=200"),
        *(f"/api/audit/subjects/{kind}" for kind in ("group/lab", "project/apollo", "notebook/plots", "guest/all")),
        *(f"/api/audit/subjects/user/{user}?limit=200" for user in users),
    ):
        answer = await town.admin.ask("GET", path)
        assert answer.status_code == 200, (path, answer.text)
        found[path] = answer.content
    return found


PLACES: list[Place] = [tables, files, answers]
"""Where a canary is looked for. An export is one more: a function that makes one and gives its files."""


async def sightings(town: Town) -> list[str]:
    """Name every place in which a canary is."""
    return [
        f"{where}: {one}"
        for place in PLACES
        for where, octets in (await place(town)).items()
        for one in LOOKED_FOR
        if one.encode() in octets
    ]


async def _all(town: Town, path: str) -> list[dict[str, str]]:
    return (await town.admin.get(f"{path}?limit=200"))["items"]
