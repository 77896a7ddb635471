"""Whether every entry is found by the indexes that decisions and searches use: one that lacks it hides it from them."""

from collections.abc import Sequence

from psycopg import AsyncConnection

from app.audit.reading import one

_FINDS = {
    "entries_id": ("id >= '00000000-0000-0000-0000-000000000000'", "true"),
    "entries_type": ("type >= ''", "true"),
    "entries_actor": ("actor >= ''", "actor IS NOT NULL"),
    "entries_outcome": ("outcome <> 'success' AND outcome >= ''", "outcome <> 'success'"),
    "entries_tags": ("tags @> '{}'", "true"),
    "entries_keys": ("audit.keys(type, tags) @> '{}'", "true"),
}
"""By index, for what it is asked to find all that it has, and which entries those have to be."""


async def unfound(connection: AsyncConnection) -> Sequence[str]:
    """Say which indexes are not there or not in use, and which find other entries than there are."""
    cursor = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name LEFT JOIN pg_index"
        " ON indexrelid = to_regclass('audit.' || name) AND indisvalid AND indisready WHERE indexrelid IS NULL",
        (list(_FINDS),),
    )
    missing = [row[0] for row in await cursor.fetchall()]
    faults = [f"The index {name} is not there, or not in use." for name in missing]
    async with connection.transaction(force_rollback=True):
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        there = {rule: await _count(connection, rule) for rule in {rule for _, rule in _FINDS.values()}}
        # A bitmap of one index is what is left, and it has room for every entry: no page of them is looked through.
        await connection.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off;"
            "SET LOCAL enable_bitmapscan = on; SET LOCAL work_mem = '256MB'"
        )
        for name, (asked, rule) in _FINDS.items():
            if name not in missing and (found := await _count(connection, asked)) != there[rule]:
                faults.append(f"The index {name} finds {found:,} of {there[rule]:,} entries.")
    return faults


async def _count(connection: AsyncConnection, rule: str) -> int:
    query = f"SELECT count(*) FROM audit.entries WHERE {rule}"  # noqa: S608 (one of the constants above)
    return one(await (await connection.execute(query.encode())).fetchone())
