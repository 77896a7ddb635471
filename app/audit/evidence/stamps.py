"""The timestamps that stand in a log, and whether they are of it: judged when the entries are known to be whole."""

import base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.entry import Record, UnreadableEntry
from app.audit.evidence.findings import Finding, Tampered, legible
from app.audit.evidence.trust import Unverifiable
from app.audit.signing.tokens import Authorities, NotStamped, Token, read_token
from app.audit.transparency.checkpoints import Checkpoint
from app.domain.signing import CheckpointTimestamped

_TYPE = CheckpointTimestamped.__name__
MARK = f'"type":"{_TYPE}"'.encode()
"""What stands in every entry that is one, as they are written."""


class Stamp(Struct, frozen=True):
    """A timestamp as it stands at a position. `size`: of how many entries, -1 if it cannot be read; `root`: theirs."""

    position: int
    entry: bytes
    size: int
    root: bytes | None = None


class Stamped(Struct, frozen=True):
    """That the first `size` entries were there at a time, as an authority says."""

    size: int
    token: Token


class _Data(Struct, frozen=True):
    size: int


class _Typed(Struct, frozen=True):
    type: str


class _Sized(Struct, frozen=True):
    data: _Data


def stamps_in(runs: Iterable[tuple[int, Sequence[bytes]]]) -> list[Stamp]:
    """Look for timestamps, ahead of the walk: each is of fewer entries than stand before it.

    `runs`: what stands before some entries, and those. Where they cannot be read, the walk says what is wrong.
    """
    found: list[Stamp] = []
    with suppress(Tampered, Unverifiable):
        for after, entries in runs:
            found += [
                Stamp(position, entry, _size_in(entry))
                for position, entry in enumerate(entries, after + 1)
                if MARK in entry and _is_stamp(entry)
            ]
    return found


async def read_stamps(connection: AsyncConnection) -> list[Stamp]:
    """Read all timestamps of a log. Whoever verifies has to walk over these entries too: they may be forged."""
    cursor = await connection.execute(
        "SELECT position, convert_to(bytes::text, 'UTF8') FROM audit.entries WHERE type = %s ORDER BY position",
        (_TYPE,),
        binary=True,
    )
    return [Stamp(position, entry, _size_in(entry)) for position, entry in await cursor.fetchall()]


def judge(stamps: Iterable[Stamp], origin: str, authorities: Authorities | None) -> list[Stamped]:
    """Judge the timestamps of a log that was found whole; without authorities, all but who signed them.

    Raises `Tampered` for the first that is not of the checkpoint which the entries before it give, or not believed.
    """
    return [_judged(stamp, origin, authorities) for stamp in stamps]


def _judged(stamp: Stamp, origin: str, authorities: Authorities | None) -> Stamped:
    try:
        token = read_token(_token_in(stamp))
        if stamp.root is None or stamp.size >= stamp.position:
            raise NotStamped(f"It is of {stamp.size} entries, and {stamp.position - 1} stand before it.")
        expected = sha256(Checkpoint(origin, stamp.size, stamp.root).text().encode()).digest()
        if token.imprint != expected:
            raise _wrong(stamp, "It is of another checkpoint than the entries give.", expected, token.imprint)
        if authorities:
            authorities.check(token)
    except NotStamped as error:
        raise _wrong(stamp, str(error)) from error
    return Stamped(stamp.size, token)


def _token_in(stamp: Stamp) -> bytes:
    try:
        event = Record(stamp.position, stamp.entry).event
        if isinstance(event, CheckpointTimestamped):
            return base64.b64decode(event.token, validate=True)
    except (UnreadableEntry, ValueError) as error:
        raise NotStamped(f"The entry cannot be read: {error}") from error
    raise NotStamped("The entry is none.")  # pragma: no cover


def _wrong(stamp: Stamp, why: str, expected: bytes = b"", found: bytes = b"") -> Tampered:
    return Tampered(
        Finding(
            kind="timestamp",
            says=f"The timestamp that stands at {stamp.position} is not to be believed. {why}",
            first=stamp.position,
            last=stamp.position,
            expected=expected.hex(),
            found=found.hex(),
            entry=legible(stamp.entry),
        )
    )


def _is_stamp(entry: bytes) -> bool:
    """Whether that is its own type, and not that of something in it."""
    try:
        return msgspec.json.decode(entry, type=_Typed).type == _TYPE
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def _size_in(entry: bytes) -> int:
    try:
        return msgspec.json.decode(entry, type=_Sized).data.size
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return -1
