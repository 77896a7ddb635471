"""An entry: an event, and who did it, when, on whose behalf, in which request and because of what."""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from app.domain.event import Event
from app.domain.registry import EVENTS
from app.identifiers import uuid7

MAX_ENTRY = 65_535
"""Bytes of one entry: what a tile of the transparency log (C2SP tlog-tiles) can hold as one leaf."""

_TAG = re.compile(r"[A-Za-z0-9_.:@/+=-]{1,200}")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape for it in JSON, and not a backslash followed by the same letters."""
_encode = msgspec.json.Encoder(order="sorted").encode

Outcome = Literal["success", "refused", "failed"]


class Actor(Struct, frozen=True, omit_defaults=True):
    """Who did it. `obo`: the user on whose behalf."""

    kind: Literal["user", "service", "system", "guest"]
    id: str | None = None
    via: Literal["session", "token"] | None = None
    obo: str | None = None


SYSTEM = Actor(kind="system", id="sophon")
GUEST = Actor(kind="guest")


class Draft(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry that has no time yet: the log gives it, so that times never decrease."""

    actor: Actor
    cause: str | None = None
    data: Raw
    id: str
    outcome: Outcome
    reason: str | None = None
    request: str | None = None
    tags: tuple[str, ...]
    trace: str | None = None
    type: str
    v: int


class Entry(Draft, frozen=True, kw_only=True, omit_defaults=True):
    """What is recorded. Its canonical bytes are what `encode` gives; they are hashed, stored and never made again."""

    at: datetime


class Context(Struct, frozen=True, kw_only=True):
    """What is the same for all entries of one request."""

    actor: Actor = SYSTEM
    request: str | None = None
    cause: str | None = None
    trace: str | None = None

    def draft(
        self, event: Event, *, outcome: Outcome = "success", reason: str | None = None, tags: Sequence[str] = ()
    ) -> Draft:
        """Make an entry of an event; `tags` are added to the event's own."""
        return Draft(
            actor=self.actor,
            cause=self.cause,
            data=Raw(_encode(event)),
            id=str(uuid7()),
            outcome=outcome,
            reason=reason,
            request=self.request,
            tags=tuple(dict.fromkeys((*event.tags, *tags))),
            trace=self.trace,
            type=type(event).__name__,
            v=1,
        )


class UnreadableEntry(Exception):
    """An entry is of a type, or has a shape, that this release cannot read. Update, or rebuild with the right one."""


class Record:
    """An entry at its position. The event in it is decoded when somebody asks, and once."""

    __slots__ = ("_event", "entry", "octets", "position")

    def __init__(self, position: int, octets: bytes, entry: Entry | None = None) -> None:
        self.position = position
        self.octets = octets
        self.entry = entry or _decode_entry(octets)
        self._event: Event | None = None

    @property
    def event(self) -> Event:
        """Give the event; raises `UnreadableEntry`."""
        if self._event is None:
            self._event = _decode_event(self)
        return self._event


def encode(entry: Entry) -> bytes:
    """Give the canonical bytes (RFC 8785 for our subset: sorted keys, no spaces, no floats).

    Raises `ValueError` for an entry that is too long, or has a tag that would not survive the search columns.
    """
    octets = _encode(entry)
    if len(octets) > MAX_ENTRY:
        raise ValueError(f"An entry has at most {MAX_ENTRY} bytes; this {entry.type} has {len(octets)}.")
    if b"\\u0000" in octets and _NUL.search(octets):  # the first is fast, the second is right
        raise ValueError(f"An entry has no NUL, which PostgreSQL's text cannot hold; this {entry.type} has one.")
    if bad := [tag for tag in entry.tags if not _TAG.fullmatch(tag)]:
        raise ValueError(f"A tag has 1 to 200 letters, digits or any of _.:@/+=-; this is none: {bad[0][:80]!r}")
    return octets


def leaf_hash(octets: bytes) -> bytes:
    """Hash an entry as a leaf of a Merkle tree (RFC 6962, 2.1): SHA-256 of a zero byte and the entry."""
    return hashlib.sha256(b"\x00" + octets).digest()


_decode_entry = msgspec.json.Decoder(Entry).decode


def readable(records: Sequence[Record]) -> tuple[Sequence[Record], UnreadableEntry | None]:
    """Split off, from the first that cannot be read on; give what stands before it, and why it cannot."""
    for index, record in enumerate(records):
        try:
            _ = record.event
        except UnreadableEntry as error:
            return records[:index], error
    return records, None


@cache
def _decoder(type_: str) -> msgspec.json.Decoder[Event] | None:
    return msgspec.json.Decoder(EVENTS[type_]) if type_ in EVENTS else None


def _decode_event(record: Record) -> Event:
    decoder = _decoder(record.entry.type)
    if decoder is None:
        raise UnreadableEntry(f"Entry {record.position} is a {record.entry.type}, which this release does not know.")
    try:
        return decoder.decode(record.entry.data)
    except msgspec.ValidationError as error:
        raise UnreadableEntry(f"Entry {record.position}, a {record.entry.type}, cannot be read: {error}") from error
