"""What a signer in a process of its own says of itself, in the database: its public keys, and why it does not sign.

Nobody's trust rests on it: verification takes the keys from where somebody kept them, and not from here.
"""

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from app.domain.signing import LogKeyRotated

HURRY = "sophon_hurry"
"""The channel on which whoever waits for a checkpoint lets the signer know."""


class Said(Struct, frozen=True):
    """The verifier keys as `/audit/log/vkeys` lists them, those that would follow, and why nothing is signed."""

    keys: str
    next: LogKeyRotated | None = None
    refusal: str | None = None
    frozen: bool = False
    """Whether nothing may be appended either: the log does not continue what was signed."""


async def say(connection: AsyncConnection, said: Said) -> None:
    """Put it below what was said before; nothing of that is changed."""
    await connection.execute("INSERT INTO audit.signer (said) VALUES (%s)", (msgspec.json.encode(said).decode(),))


async def last_said(connection: AsyncConnection) -> Said | None:
    """Read what a signer said last; none if none ever did.

    What stands there and is none of a signer's is a refusal: when the signer looks next, it says anew what is so.
    """
    cursor = await connection.execute("SELECT coalesce(said::text, '') FROM audit.signer ORDER BY n DESC LIMIT 1")
    row = await cursor.fetchone()
    try:
        return msgspec.json.decode(row[0], type=Said) if row else None
    except msgspec.MsgspecError as error:
        return Said("", refusal=f"What stands in audit.signer is nothing that a signer says: {error}")
