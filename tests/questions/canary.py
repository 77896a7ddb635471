"""A canary: a text that is put wherever personal or free text goes, and looked for wherever it could have got to."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from app.audit.evidence.export import export_log
from app.audit.evidence.exported import Format
from app.audit.evidence.trust import trust_of
from tests.questions.looking import CANARY, addresses
from tests.questions.platform import Town

ADDRESS = "2001:db8:ca4a:47::1"
LOOKED_FOR = (CANARY, ADDRESS)
FORMATS: tuple[Format, ...] = get_args(Format)

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
            cursor = await connection.execute("SELECT pg_read_binary_file(%s, true)", (path,), binary=True)
            octets = await cursor.fetchone()
            found[path] = octets[0] if octets and octets[0] is not None else b""
    return found


async def answers(town: Town) -> dict[str, bytes]:
    """Give what the API answers to an administrator and to who else is there, whatever is asked of it."""
    few = asyncio.Semaphore(16)

    async def asked(address: str) -> dict[str, bytes]:
        eyes = (town.admin,) if "/audit/" in address else (town.admin, *town.people)
        async with few:
            seen = [await who.ask("GET", address) for who in eyes]
        assert any(answer.status_code == 200 for answer in seen), (address, [answer.text for answer in seen])
        return {f"{address} ({number})": answer.content for number, answer in enumerate(seen)}

    found = await asyncio.gather(*map(asked, await addresses(town.admin, await town.signed())))
    return {where: octets for one in found for where, octets in one.items()}


async def exports(town: Town) -> dict[str, bytes]:
    """Export the log in every format, and give each file of that."""
    await town.signed()
    trust = trust_of(town.platform.settings.signer_directory)
    assert trust is not None
    with TemporaryDirectory() as directory:
        async with connected(town) as connection:
            for format_ in FORMATS:
                await export_log(connection, Path(directory, format_), format_, trust)
        return {
            str(path.relative_to(directory)): path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()
        }


PLACES: list[Place] = [tables, files, answers, exports]
"""Where a canary is looked for."""


async def sightings(town: Town) -> list[str]:
    """Name every place in which a canary is."""
    return [
        f"{where}: {one}"
        for place in PLACES
        for where, octets in (await place(town)).items()
        for one in LOOKED_FOR
        if one.encode() in octets
    ]
