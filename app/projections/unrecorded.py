"""What was done to the live read models, and is not in the log yet: no swap, and no repair, stays silent.

The transaction that does it leaves the entry with the schema, as its comment. If that process is killed before the
entry is in the log, the next start or the next rebuild appends it. Nobody does twice: it has its id from the beginning.
"""

import msgspec
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from app.audit.entry import Context, Draft
from app.audit.log import Log
from app.domain.states import StateRebuilt, StateRepaired
from app.projections.read_model import LIVE

_TYPES = (StateRebuilt.__name__, StateRepaired.__name__)

_decode = msgspec.json.Decoder(Draft).decode


async def promise(connection: AsyncConnection, access: StateRebuilt | StateRepaired, context: Context) -> None:
    """Leave what is to be recorded with the live read models. In the transaction that makes it so."""
    text = msgspec.json.encode(context.draft(access)).decode()
    await connection.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(Identifier(LIVE), text))


async def keep_promise(log: Log, connection: AsyncConnection) -> bool:
    """Record what was promised, if it is not; false if nothing was. Under the lock of `alone`.

    Raises `LogUnavailable`.
    """
    cursor = await connection.execute("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", (LIVE,))
    row = await cursor.fetchone()
    draft = _promised(row[0]) if row else None
    if draft is None:
        return False
    cursor = await connection.execute("SELECT FROM audit.entries WHERE id = %s", (draft.id,))
    if not cursor.rowcount:
        await log.append([draft])
    await connection.execute(SQL("COMMENT ON SCHEMA {} IS NULL").format(Identifier(LIVE)))
    return True


def _promised(comment: str | None) -> Draft | None:
    """Read a comment; none if it is one of somebody's own."""
    try:
        draft = _decode(comment or "null")
    except msgspec.MsgspecError:
        return None
    return draft if draft.type in _TYPES else None
