"""Logs of many entries that are signed, for the figures of what verifies and exports them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.audit.database.provision import create_schema
from app.audit.entry import encode
from app.audit.evidence.leaves import hashes_of
from app.audit.evidence.trust import Trust, trust_of
from app.audit.evidence.verify import connected
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.audit.signing.signer import Signer
from app.audit.signing.store import Store
from bench.appends import CONTEXT, event

ORIGIN = "bench.invalid/audit"
AT_ONCE = 5_000


async def log_of(dsn: str, keys: Path, size: int) -> None:
    """Fill a database with so many entries, and sign them once."""
    await create_schema(dsn)
    begin = datetime(2026, 11, 23, tzinfo=UTC)
    async with connected(dsn) as connection:
        for after in range(0, size, AT_ONCE):
            some = range(after, min(after + AT_ONCE, size))
            drafts = ((CONTEXT.draft(event()), begin + timedelta(milliseconds=n)) for n in some)
            lines = [encode(draft.entry(at)) for draft, at in drafts]
            await connection.execute(
                "SELECT audit.append(%s, %s, %s, NULL)", (after, b"\n".join(lines).decode(), b"".join(hashes_of(lines)))
            )
        await connection.execute("VACUUM (ANALYZE) audit.entries")  # else the server does at a moment of its own
    async with Log.open(dsn, Sealer(bytes(32))) as log:
        signer = Signer(log, Store(keys), ORIGIN)
        await signer.sign(await signer.begin())


def trust_in(keys: Path) -> Trust:
    """Give the keys that a log was signed with."""
    trust = trust_of(keys)
    assert trust is not None
    return trust
