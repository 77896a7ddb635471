"""What was sealed, shown to read models: records with their disclosures, and what a subject's lie in."""

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
    log: Log,
    connection: AsyncConnection,
    records: Sequence[Record],
    erased: Erased | None = None,
    *,
    is_new: bool = False,
) -> list[Record]:
    """Give these records with what was sealed in them, where that was not erased since.

    Those that hold something are copies: others read the same records, and are to see and keep nothing of it. With
    `erased`, that subject's are not shown even if the vault still has them: the log says so first. With `is_new`, what
    this process has just sealed is taken from its memory: by whoever follows the log, and so hears of erasures in turn.
    """
    copies = {record.position: _copy(record) for record in records if record.is_sealed}
    unknown = [copy for copy in copies.values() if not (is_new and log.recall(copy))]
    if unknown:
        await log.reveal(connection, unknown)
    for copy in copies.values() if erased else ():
        if erased and copy.position <= erased.position:
            copy.disclosures = [one for one in copy.disclosures if one.subject != erased.subject]
    return [copies.get(record.position, record) for record in records]


def _copy(record: Record) -> Record:
    return Record(record.position, record.octets, record.entry)


async def keys_about(
    connection: AsyncConnection, subject: str, kind: str, types: Sequence[str], until: int
) -> list[str]:
    """Name what entries of these types are about, up to a position, that hold anything that was sealed for a subject.

    What an entry is about stands in its tags, as `kind:key`.
    """
    cursor = await connection.execute(
        "SELECT DISTINCT substr(tag, length(%(kind)s) + 2) FROM audit.entries, unnest(tags) AS tag"
        " WHERE starts_with(tag, %(kind)s || ':') AND type = ANY(%(types)s) AND position <= %(until)s"
        " AND position IN (SELECT position FROM vault.disclosures WHERE subject = %(subject)s) ORDER BY 1",
        {"kind": kind, "types": list(types), "until": until, "subject": subject},
    )
    return [key for (key,) in await cursor.fetchall()]
