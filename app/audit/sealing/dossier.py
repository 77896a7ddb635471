"""A dossier: everything about one subject. What they did, what names them, and each value that was sealed for them."""

from msgspec import Raw, Struct
from psycopg import AsyncConnection

from app.audit.log import Log
from app.audit.reading import one
from app.audit.sealing.sealer import Disclosure
from app.domain.names import NotebookName, UserId, is_a
from app.domain.subjects import Subject


class SealedValue(Struct, frozen=True):
    """A value that stands as `digest` in the entry at `position`; `disclosure` and `value` are null once it is erased.

    Whoever is given the disclosure can check it: base64url of its SHA-256 is the digest (RFC 9901).
    """

    position: int
    name: str
    digest: str
    disclosure: str | None
    value: Raw | None


class DossierEntry(Struct, frozen=True):
    """An entry, to the byte; `mine`: whether they did it."""

    position: int
    mine: bool
    entry: Raw


class Extent(Struct, frozen=True):
    """How much there is of a subject: what an erasure makes unreadable, what it ends, and what it leaves in the log."""

    entries: int
    values: int
    readable: int
    keys: int
    sessions_and_tokens: int
    erased_at: int | None


class Dossier(Struct, frozen=True):
    """Some of what there is about a subject; ask for what is after `next` to go on."""

    subject: str
    extent: Extent
    entries: list[DossierEntry]
    values: list[SealedValue]
    next: int | None


_ENTRIES = """
SELECT position, coalesce(actor = %(user)s, false), bytes::text FROM audit.entries
WHERE position > %(after)s AND (actor = %(user)s OR tags @> ARRAY[%(subject)s::text]) ORDER BY position LIMIT %(limit)s
"""
_VALUES = """
SELECT position, name, digest FROM vault.disclosures
WHERE subject = %(subject)s AND position > %(after)s AND position <= %(until)s ORDER BY position, digest
"""
_EXTENT = """
SELECT (SELECT count(*) FROM audit.entries WHERE actor = %(user)s OR tags @> ARRAY[%(subject)s::text]),
       (SELECT count(*) FROM vault.disclosures WHERE subject = %(subject)s),
       (SELECT count(*) FROM vault.disclosures WHERE subject = %(subject)s AND sealed IS NOT NULL),
       (SELECT count(*) FROM vault.subject_keys WHERE subject = %(subject)s),
       (SELECT count(*) FROM vault.keys WHERE user_id = %(user)s AND kind <> 'ticket'),
       (SELECT max(position) FROM audit.entries WHERE type = 'SubjectErased' AND tags @> ARRAY[%(subject)s::text])
"""


class Dossiers:
    """Looks subjects up."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def extent(self, subject: str) -> Extent:
        """Count what there is; a dry run of an erasure, which changes nothing."""
        async with self._log.pool.connection() as connection:
            return await self._extent(connection, subject)

    async def about(self, subject: str, after: int = 0, limit: int = 200) -> Dossier:
        """Give the entries after a position, at most so many, and the values that lie between them."""
        async with self._log.pool.connection() as connection:
            asked = {"subject": subject, "user": _user(subject), "after": after, "limit": limit}
            rows = await (await connection.execute(_ENTRIES, asked)).fetchall()
            more = len(rows) == limit
            asked["until"] = rows[-1][0] if more else 2**62
            values = await (await connection.execute(_VALUES, asked)).fetchall()
            opened = await self._log.open_digests(connection, [digest for _, _, digest in values])
            return Dossier(
                subject=subject,
                extent=await self._extent(connection, subject),
                entries=[DossierEntry(position, mine, Raw(text.encode())) for position, mine, text in rows],
                values=[_value(row[0], row[1], row[2], opened.get(row[2])) for row in values],
                next=rows[-1][0] if more else None,
            )

    async def subject(self, kind: str, name: str) -> Subject | None:
        """Give the subject that is meant, a user by the id or the name; none for a name that is nobody's, or no name.

        What it gives can be recorded: nobody's name is in it.
        """
        match kind:
            case "guest":
                return kind
            case "user" if not is_a(UserId, name):
                return await self.named(name)
            case "user":
                return f"user:{name}"
            case _:
                return f"{kind}:{name}" if is_a(NotebookName, name) else None  # a slug, as groups and projects have

    async def named(self, username: str) -> str | None:
        """Give the subject of whoever has, and did not have erased, a user name."""
        lookup = self._log.sealer.lookup("username", username)
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT subject FROM vault.disclosures WHERE lookup = %s AND name = 'username'", (lookup,)
            )
            row = await cursor.fetchone()
        return one(row) if row else None

    async def _extent(self, connection: AsyncConnection, subject: str) -> Extent:
        cursor = await connection.execute(_EXTENT, {"subject": subject, "user": _user(subject)})
        return Extent(*(await cursor.fetchone() or ()))


def _user(subject: str) -> str | None:
    return subject.removeprefix("user:") if subject.startswith("user:") else None


def _value(position: int, name: str, digest: str, opened: Disclosure | None) -> SealedValue:
    return SealedValue(position, name, digest, opened and opened.text, opened and opened.value)
