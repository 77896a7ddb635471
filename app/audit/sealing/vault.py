"""The vault: what the platform has to know and the log must not hold. Losing it costs passwords, and no history."""

import asyncio
import contextlib
from datetime import datetime
from typing import Literal

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.errors import ReadOnlySqlTransaction, UndefinedTable
from psycopg.sql import SQL, Identifier
from psycopg_pool import AsyncConnectionPool

from app.audit.reading import one

_SEEN = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND coalesce(datname = current_database(), true)
      AND backend_type IS DISTINCT FROM 'autovacuum worker'
      AND greatest(age(backend_xmin), age(backend_xid)) > age(%(since)s::xid8::xid)
) OR EXISTS (
    SELECT FROM pg_prepared_xacts
    WHERE database = current_database() AND age(transaction) > age(%(since)s::xid8::xid)
) OR EXISTS (SELECT FROM pg_replication_slots WHERE age(xmin) > age(%(since)s::xid8::xid))
"""
"""SQL: whether old versions of rows are kept: for a transaction, one that is prepared, or a standby that is away."""
LOOK_EVERY = 0.2
"""Seconds between looks whether a transaction goes on."""
_ENDED = SQL(
    "id = ANY(%s) OR kind = 'session' AND EXISTS (SELECT FROM audit.entries"
    " WHERE type = 'LoggedOut' AND outcome = 'success' AND tags @> ARRAY['session:' || open.id])"
)

# What `vault.erase` would still change, of anybody.
_ERASED_AND_THERE = """
SELECT EXISTS (
    SELECT FROM (SELECT bytes -> 'data' ->> 'subject' AS whose, position AS upto FROM audit.entries
                 WHERE type = 'SubjectErased') AS erased
    WHERE EXISTS (SELECT FROM vault.subject_keys WHERE subject = whose AND since <= upto)
       OR EXISTS (SELECT FROM vault.disclosures
                  WHERE subject = whose AND (sealed IS NOT NULL OR lookup IS NOT NULL) AND position <= upto)
       OR whose LIKE 'user:%' AND (EXISTS (SELECT FROM vault.passwords WHERE user_id = substr(whose, 6))
                                   OR EXISTS (SELECT FROM vault.keys WHERE user_id = substr(whose, 6))
                                   OR NOT EXISTS (SELECT FROM vault.erased AS known WHERE known.subject = whose))
)
"""

KeyKind = Literal["session", "token", "ticket"]

_KEEP_HASH = (
    "INSERT INTO vault.passwords SELECT %s, %s WHERE NOT EXISTS (SELECT FROM vault.erased WHERE subject = %s)"
    " ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash"
)


class Key(Struct, frozen=True):
    """What a secret opens: a session or a token, and whose it is. A ticket is kept once it is spent."""

    kind: KeyKind
    id: str
    user: str
    scopes: tuple[str, ...]
    expires: datetime


class Vault:
    """Password hashes, and digests of the secrets that sessions, tokens and tickets are opened by."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool

    async def set_password(self, user: str, password_hash: str) -> None:
        """Keep the hash of a user's password, in place of any other. Of one who was erased, nothing is kept."""
        async with self._pool.connection() as connection:
            await connection.execute(_KEEP_HASH, (user, password_hash, f"user:{user}"))

    async def replace_password(self, user: str, password_hash: str, keeping: str | None) -> None:
        """Keep another hash in place of a user's, and end all their sessions, but for `keeping`: both, or neither."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_KEEP_HASH, (user, password_hash, f"user:{user}"))
            await connection.execute(
                "DELETE FROM vault.keys WHERE kind = 'session' AND user_id = %s AND id IS DISTINCT FROM %s",
                (user, keeping),
            )

    async def password(self, user: str) -> str | None:
        """Give the hash of a user's password."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT hash FROM vault.passwords WHERE user_id = %s", (user,))
            row = await cursor.fetchone()
        return row[0] if row else None

    async def forget_password(self, user: str) -> None:
        """Delete the hash: the account that it was meant for was not made."""
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM vault.passwords WHERE user_id = %s", (user,))

    async def keep(self, digest: bytes, key: Key) -> bool:
        """Keep a key under the digest of its secret, and let go of those that have expired.

        False if there is one already, or if its user was erased.
        """
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM vault.keys WHERE expires < now()")
            cursor = await connection.execute(
                "INSERT INTO vault.keys (digest, kind, id, user_id, scopes, expires) SELECT %s, %s, %s, %s, %s, %s"
                " WHERE NOT EXISTS (SELECT FROM vault.erased WHERE subject = %s) ON CONFLICT DO NOTHING",
                (digest, key.kind, key.id, key.user, list(key.scopes), key.expires, f"user:{key.user}"),
            )
            return cursor.rowcount == 1

    async def find(self, digest: bytes, kind: KeyKind) -> Key | None:
        """Give the key under a digest, unless it has expired."""
        query = (
            "SELECT kind, id, user_id, scopes, expires FROM vault.keys"
            " WHERE digest = %s AND kind = %s AND expires > now()"
        )
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, (digest, kind))
            row = await cursor.fetchone()
        return Key(row[0], row[1], row[2], tuple(row[3]), row[4]) if row else None

    async def seconds_left(self, id_: str) -> float | None:
        """Tell for how long a session or token of this id is still open; none if it is not."""
        query = "SELECT extract(epoch FROM expires - now())::float8 FROM vault.keys WHERE id = %s AND expires > now()"
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, (id_,))
            row = await cursor.fetchone()
        return row[0] if row else None

    async def expiring(self, within: float) -> list[tuple[str, str, float]]:
        """Name the sessions and tokens that expire within so many seconds: id, user, and after how many."""
        query = (
            "SELECT id, user_id, extract(epoch FROM expires - now())::float8 FROM vault.keys"
            " WHERE kind <> 'ticket' AND expires > now() AND expires <= now() + make_interval(secs => %s)"
        )
        async with self._pool.connection() as connection:
            return await (await connection.execute(query, (within,))).fetchall()

    async def drop(self, id_: str) -> None:
        """Delete the keys of a session or token: its secret opens nothing any more."""
        await self.drop_all([id_])

    async def drop_all(self, ids: list[str]) -> None:
        """Delete the keys of sessions or tokens."""
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM vault.keys WHERE id = ANY(%s)", (ids,))

    async def drop_ended(self, tokens: list[str]) -> list[str]:
        """Delete the keys of these tokens, and of sessions that the log says were ended.

        Asks for each session that is open, not for each that ever ended: those are more with every year. Gives the ids
        of those that are there still, where the database takes no changes now: they must open nothing all the same.
        """
        async with self._pool.connection() as connection:
            try:
                await connection.execute(SQL("DELETE FROM vault.keys AS open WHERE {}").format(_ENDED), (tokens,))
            except ReadOnlySqlTransaction:
                cursor = await connection.execute(
                    SQL("SELECT id FROM vault.keys AS open WHERE {}").format(_ENDED), (tokens,)
                )
                return [id_ for (id_,) in await cursor.fetchall()]
        return []

    async def erase_again(self) -> None:
        """Erase whatever the log says was erased: it may have come back with a backup. Otherwise changes nothing.

        Raises `ReadOnlySqlTransaction` only if there is something to erase.
        """
        async with self._pool.connection() as connection:
            try:
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock(7305796)")  # nobody seals meanwhile
                    await connection.execute(
                        "SELECT vault.erase(bytes -> 'data' ->> 'subject', position) FROM audit.entries"
                        " WHERE type = 'SubjectErased' ORDER BY position"
                    )
            except ReadOnlySqlTransaction:
                cursor = await connection.execute(_ERASED_AND_THERE)
                if one(await cursor.fetchone()):
                    raise

    async def unswept(self) -> int:
        """Give up to which position something was erased that `sweep` has not been through since; 0: nothing was."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT coalesce(max(position), 0) FROM vault.unswept")
            return one(await cursor.fetchone())

    async def sweep(self, upto: int) -> None:
        """Have PostgreSQL give up the old versions of rows that were erased up to a position, which reads have reached.

        Tables that hold keys, or text in the clear, are written anew; that waits for whoever uses them at the moment,
        and for transactions that may still see what was erased: for them PostgreSQL would keep it in the new files too.
        """
        await self._until_unseen()
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE c.relkind = 'r' AND (n.nspname ~ '^read(_|$)'"
                " OR (n.nspname = 'vault' AND c.relname IN ('subject_keys', 'passwords')))"
            )
            tables = [Identifier(*names) for names in await cursor.fetchall()]
            await connection.execute("VACUUM vault.disclosures, vault.keys")
            for table in tables:
                with contextlib.suppress(UndefinedTable):  # a generation that was dropped meanwhile
                    await connection.execute(SQL("VACUUM (FULL, ANALYZE) {}").format(table))
        await self._until_unseen()
        async with self._pool.connection() as connection:
            await connection.execute("VACUUM (FULL) pg_catalog.pg_statistic")  # what ANALYZE had noted of the old rows
            await connection.execute("DELETE FROM vault.unswept WHERE position <= %s", (upto,))

    async def _until_unseen(self) -> None:
        """Wait until no transaction goes on that may see what there was before now."""
        async with self._pool.connection() as connection:
            now = one(await (await connection.execute("SELECT pg_current_xact_id()::text")).fetchone())
        while await self._is_seen(now):
            await asyncio.sleep(LOOK_EVERY)

    async def _is_seen(self, since: str) -> bool:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_SEEN, {"since": since})
            return one(await cursor.fetchone())
