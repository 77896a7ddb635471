"""What was sealed, shown to read models: records with their disclosures, and which records a subject's lie in."""

from collections.abc import Sequence

from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.entry import Record
from app.audit.log import Log


class Erased(Struct, frozen=True):
    """Whose values are gone, and up to which position."""

    subject: str
    position: int


async def disclosed(
    log: Log, connection: AsyncConnection, records: Sequence[Record], erased: Erased | None = None
) -> list[Record]:
    """Give these records with what was sealed in them, where that was not erased since.

    Those that hold something are copies: others read the same records, and are to see and keep nothing of it. With
    `erased`, that subject's are not shown even if the vault still has them: the log says so first.
    """
    copies = {record.position: _copy(record) for record in records if b'"_sd":' in record.octets}
    if copies:
        await log.reveal(connection, list(copies.values()))
    for copy in copies.values() if erased else ():
        if erased and copy.position <= erased.position:
            copy.disclosures = [one for one in copy.disclosures if one.subject != erased.subject]
    return [copies.get(record.position, record) for record in records]


def _copy(record: Record) -> Record:
    return Record(record.position, record.octets, record.entry)


async def records_about(connection: AsyncConnection, subject: str, types: Sequence[str], until: int) -> list[Record]:
    """Give the entries of these types, up to a position, that hold anything that was sealed for a subject."""
    cursor = await connection.execute(
        "SELECT position, bytes::text FROM audit.entries WHERE type = ANY(%s) AND position <= %s"
        " AND position IN (SELECT position FROM vault.disclosures WHERE subject = %s) ORDER BY position",
        (list(types), until, subject),
    )
    return [Record(position, text.encode()) for position, text in await cursor.fetchall()]
