"""What keeps a log from being read as it is: looked for in PostgreSQL's catalogue, before any of its rows is read."""

from collections.abc import Sequence

from psycopg import AsyncConnection

from app.audit.database.catalogue import HIDING
from app.audit.database.shape import RETYPED
from app.audit.evidence.findings import Finding, Tampered
from app.audit.signing.tree import read_size


async def must_show_all(connection: AsyncConnection) -> None:
    """Raise `Tampered` if the tables of a log may give their readers other rows than they have."""
    await must_be_typed(connection)
    if hidden := await _asked(connection, HIDING):
        says = "Whoever reads the log may be given other rows than it has."
        raise Tampered(_hidden(says, hidden, await read_size(connection)))


async def must_be_typed(connection: AsyncConnection) -> None:
    """Raise `Tampered` if a column of a log is of another type than it was made, or gone: then nothing can be read."""
    if retyped := await _asked(connection, RETYPED):
        raise Tampered(_hidden("The log cannot be read as it was written.", retyped, 1))


async def _asked(connection: AsyncConnection, question: str) -> list[str]:
    cursor = await connection.execute(question.encode())
    return [row[0] for row in await cursor.fetchall()]


def _hidden(what: str, says: Sequence[str], head: int) -> Finding:
    return Finding(
        kind="hidden",
        says=f"{what} {' '.join(says)} Let `sophon state doctor` say how that is mended, and verify again.",
        first=1,
        last=max(1, head),
    )
