"""The vault: what the platform has to know and the log must not hold. Losing it costs passwords, and no history."""

from datetime import datetime
from typing import Literal

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

KeyKind = Literal["session", "token", "ticket"]


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
        """Keep the hash of a user's password, in place of any other."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO vault.passwords VALUES (%s, %s) ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash",
                (user, password_hash),
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
        """Keep a key under the digest of its secret, and let go of those that have expired; false if there is one."""
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM vault.keys WHERE expires < now()")
            cursor = await connection.execute(
                "INSERT INTO vault.keys (digest, kind, id, user_id, scopes, expires) VALUES (%s, %s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (digest, key.kind, key.id, key.user, list(key.scopes), key.expires),
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

    async def is_live(self, id_: str) -> bool:
        """Whether a session or token of this id is open."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT FROM vault.keys WHERE id = %s AND expires > now()", (id_,))
            return await cursor.fetchone() is not None

    async def drop(self, id_: str) -> None:
        """Delete the keys of a session or token: its secret opens nothing any more."""
        await self.drop_all([id_])

    async def drop_all(self, ids: list[str]) -> None:
        """Delete the keys of sessions or tokens."""
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM vault.keys WHERE id = ANY(%s)", (ids,))
