"""Whether entries are searched for by what they say: the columns beside them, compared with what their bytes give.

Nothing that is signed covers these columns. PostgreSQL computes them from the bytes, until somebody lets it not.
"""

import struct
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct
from psycopg import AsyncConnection

from app.audit.evidence.findings import Finding, legible

KEYS = "string_agg(uuid_send(id) || timestamptz_send(at), ''::bytea ORDER BY position)"
"""SQL: 24 bytes an entry, its id and its time in microseconds since 2000."""

WORDS = ",\n       ".join(
    rf"string_agg(coalesce({column}, E'\x01'), E'\n' ORDER BY position)"
    for column in ("type", "outcome", "actor", "array_to_json(tags)::text")
)
"""SQL: a line for each entry, column by column. A line end that somebody puts into one makes it a line too many."""

_NOBODY = "\x01"
_BEGIN = 946_684_800_000_000
"""Microseconds from 1970 to 2000."""

_ROWS = """
SELECT position, bytes::text, type, outcome, actor, tags, id::text, timestamptz_send(at) FROM audit.entries
WHERE position > %s AND position <= %s ORDER BY position
"""


_EXACT = 10**6 << 32
"""Up to so many microseconds from 1970, in the year 2106, a double tells seconds apart to the microsecond."""


class ActorId(Struct, frozen=True, gc=False):
    """Of an actor, who it is."""

    id: str | None = None


class Words(Struct, frozen=True, gc=False):
    """Of an entry, all that it is searched by."""

    actor: ActorId
    at: datetime
    id: str
    outcome: str
    tags: Raw
    type: str


_decode_lines = msgspec.json.Decoder(Words).decode_lines
_decode = msgspec.json.Decoder(Words).decode


def words_of(text: bytes) -> list[Words] | None:
    """Read what entries, one on each line, are to be searched by; none if one of them is no entry."""
    try:
        return _decode_lines(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def agree(entries: Sequence[Words], keys: bytes, words: Sequence[str]) -> bool:
    """Whether the columns are what the entries give. Where it says no, a spelling may be all that differs."""
    if len(keys) != 24 * len(entries) or words != (
        "\n".join([one.type for one in entries]),
        "\n".join([one.outcome for one in entries]),
        "\n".join([_NOBODY if one.actor.id is None else one.actor.id for one in entries]),
        b"\n".join([one.tags for one in entries]).decode(),
    ):
        return False
    try:
        ids = array("Q", bytes.fromhex("".join([one.id for one in entries]).replace("-", "")))
    except ValueError:
        return False
    found = array("Q", keys)
    if (found[::3], found[1::3]) != (ids[::2], ids[1::2]):
        return False
    return _times(found[2::3]) == [one.at for one in entries]


def _times(since: "array[int]") -> list[datetime]:
    """Read microseconds from 2000 as they were sent; none of them if some cannot be told apart."""
    times = [one + _BEGIN for one in struct.unpack(f">{len(since)}q", since.tobytes())]
    if not 0 <= min(times, default=0) <= max(times, default=0) < _EXACT:
        return []
    return msgspec.convert([one / 1e6 for one in times], list[datetime], strict=False)


async def misplaced(connection: AsyncConnection, after: int, until: int) -> Finding | None:
    """Find the first entry whose columns are not what its bytes give."""
    cursor = await connection.execute(_ROWS, (after, until))
    for position, text, *found in await cursor.fetchall():
        expected = _expected(text.encode())
        if found != expected:
            n = next((n for n, one in enumerate(expected) if one != found[n]), 0)
            return Finding(
                kind="columns",
                says=f"Entry {position} is whole, and is searched for under other words than it has: somebody changed "
                "the columns beside it.",
                first=position,
                last=position,
                expected=_told(expected[n]) if expected else "",
                found=_told(found[n]),
                entry=legible(text.encode()),
            )
    return None


def _expected(entry: bytes) -> list[Any]:
    try:
        one = _decode(entry)
        tags = msgspec.json.decode(one.tags, type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
    at = struct.pack(">q", round(one.at.timestamp() * 1e6) - _BEGIN)
    return [one.type, one.outcome, one.actor.id, tags, one.id, at]


def _told(value: Any) -> str:
    if isinstance(value, bytes):
        (since,) = struct.unpack(">q", value)
        try:
            return datetime.fromtimestamp((since + _BEGIN) / 1e6, UTC).isoformat()
        except (ValueError, OverflowError, OSError):
            return f"{since} microseconds from 2000"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore
