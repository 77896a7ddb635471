"""Whether the log's tables and functions are still those that our own SQL makes."""

import re

from psycopg import AsyncConnection
from psycopg.sql import SQL

from app.audit.database.provision import PARTS

_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS (audit|vault|stream)\.(\w+) (\(.*?^\))", re.MULTILINE | re.DOTALL)
_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull, attgenerated::text, pg_get_expr(adbin, adrelid),
       attcollation
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
"""
_CHECKS = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('c', 'p')"

RETYPED = """
SELECT 'The column ' || name || ' of audit.' || class || ' is '
    || coalesce('of the type ' || format_type(atttypid, NULL), 'not there') || ', and has to be of ' || type || '.'
FROM (VALUES ('entries', 'position', 'bigint'), ('entries', 'bytes', 'json'), ('entries', 'leaf_hash', 'bytea'),
             ('entries', 'id', 'uuid'), ('entries', 'type', 'text'), ('entries', 'tags', 'text[]'),
             ('entries', 'actor', 'text'), ('entries', 'outcome', 'text'),
             ('entries', 'at', 'timestamp with time zone'),
             ('tiles', 'level', 'smallint'), ('tiles', 'index', 'bigint'), ('tiles', 'hashes', 'bytea'),
             ('tiles', 'root', 'bytea'), ('checkpoints', 'size', 'bigint'), ('checkpoints', 'root', 'bytea'),
             ('checkpoints', 'note', 'bytea')) AS made (class, name, type)
LEFT JOIN pg_attribute ON attrelid = to_regclass('audit.' || class) AND attname = name AND NOT attisdropped
WHERE to_regclass('audit.' || class) IS NOT NULL AND format_type(atttypid, NULL) IS DISTINCT FROM type
"""
"""Asks which columns of the log are of other types than they were made, and so can hold what none of them may."""


async def altered_tables(connection: AsyncConnection) -> list[str]:
    """Say which tables differ from those that would be made now: these are made, for a moment, beside them."""
    made = {(found[1], found[2]): found[3] for part in _texts() for found in _TABLE.finditer(part)}
    faults: list[str] = []
    async with connection.transaction(force_rollback=True):
        for (schema, name), definition in made.items():
            table, model = f"{schema}.{name}", f"pg_temp.{name}"
            cursor = await connection.execute("SELECT to_regclass(%s) IS NULL", (table,))
            if await cursor.fetchone() == (True,):
                faults.append(f"The table {table} is missing.")
                continue
            await connection.execute(SQL(f"CREATE TEMP TABLE {name} {definition}"))  # pyright: ignore
            wanted, found = await _columns(connection, model), await _columns(connection, table)
            faults += [
                f"The column {column} of {table} is not as it was made."
                for column in wanted
                if wanted[column] != found.get(column)
            ]
            wanted, found = await _checks(connection, model), await _checks(connection, table)
            faults += [f"{table} has lost a rule: {lost}." for lost in sorted(wanted - found)]
            faults += [f"{table} has a rule that is not ours: {other}." for other in sorted(found - wanted)]
    return faults


async def altered_functions(connection: AsyncConnection) -> list[str]:
    """Say which functions have a body that is not in our SQL, or run with rights or settings that they should not."""
    cursor = await connection.execute(
        "SELECT oid::regprocedure::text, proname, prosrc, prosecdef, coalesce(proconfig, '{}') FROM pg_proc"
        " WHERE pronamespace::regnamespace::text IN ('audit', 'vault', 'stream') ORDER BY 1"
    )
    bodies = _texts()
    faults: list[str] = []
    for name, plain, body, defines, settings in await cursor.fetchall():
        if not any(f"$${body}$$" in text for text in bodies):
            faults.append(f"The body of the function {name} is not ours.")
        if defines and not any(one.startswith("search_path=pg_catalog, ") for one in settings):
            faults.append(f"The function {name} runs with its owner's rights on a search path of its caller's.")
        if plain == "append" and not defines:
            faults.append(f"The function {name} does not run with its owner's rights, so nobody can append.")
    return faults


async def _columns(connection: AsyncConnection, table: str) -> dict[str, tuple[object, ...]]:
    cursor = await connection.execute(_COLUMNS, (table,))
    return {row[0]: row[1:] for row in await cursor.fetchall()}


async def _checks(connection: AsyncConnection, table: str) -> set[str]:
    cursor = await connection.execute(_CHECKS, (table,))
    return {row[0] for row in await cursor.fetchall()}


def _texts() -> list[str]:
    return [part.read_text() for part in PARTS if part.exists()]
