"""Whether entries are searched for by what they say: the columns beside them, compared with what their bytes give.

Nothing that is signed covers these columns. PostgreSQL computes them from the bytes, until somebody lets it not.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw, Struct
from psycopg import AsyncConnection

from app.audit.evidence.findings import Finding, legible

WORDS = ",\n           ".join(
    rf"string_agg(coalesce({column}, E'\x01'), E'\n' ORDER BY position)"
    for column in (
        "textin(uuid_out(id))",
        "type",
        "outcome",
        "actor",
        "CASE WHEN array_lower(tags, 1) <> 1 THEN array_dims(tags) ELSE array_to_json(tags)::text END",
        "to_json(at)::text",
    )
)
"""SQL: a line for each entry, column by column. A line end that somebody puts into one makes it a line too many; and
the tags are not what they should be either where the first of them is not counted as such: names are found by it."""

_NOBODY = "\x01"
_BEGIN = 946_684_800_000_000
"""Microseconds from 1970 to 2000."""

_ROWS = """
SELECT position, bytes::text, type, outcome, actor,
       CASE WHEN array_lower(tags, 1) <> 1 THEN array_prepend(array_dims(tags), tags) ELSE tags END,
       id::text, timestamptz_send(at) FROM audit.entries
WHERE position > %s AND position <= %s ORDER BY position
"""


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
_times = msgspec.json.Decoder(datetime).decode_lines


def words_of(text: bytes) -> list[Words] | None:
    """Read what entries, one on each line, are to be searched by; none if one of them is no entry."""
    try:
        return _decode_lines(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def agree(entries: Sequence[Words], columns: Sequence[str]) -> bool:
    """Whether the columns are what the entries give. Where it says no, a spelling may be all that differs."""
    if columns[:-1] != (
        "\n".join([one.id for one in entries]),
        "\n".join([one.type for one in entries]),
        "\n".join([one.outcome for one in entries]),
        "\n".join([_NOBODY if one.actor.id is None else one.actor.id for one in entries]),
        b"\n".join([one.tags for one in entries]).decode(),
    ):
        return False
    try:
        return _times(columns[-1]) == [one.at for one in entries]
    except msgspec.MsgspecError:
        return False


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
        id_ = str(UUID(one.id))
    except (msgspec.MsgspecError, ValueError):
        return []
    at = struct.pack(">q", round(one.at.timestamp() * 1e6) - _BEGIN)
    return [one.type, one.outcome, one.actor.id, tags, id_, at]


def _told(value: Any) -> str:
    if isinstance(value, bytes):
        (since,) = struct.unpack(">q", value)
        try:
            return datetime.fromtimestamp((since + _BEGIN) / 1e6, UTC).isoformat()
        except (ValueError, OverflowError, OSError):
            return f"{since} microseconds from 2000"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore
