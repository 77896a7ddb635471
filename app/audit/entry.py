"""An entry: an event, and who did it, when, on whose behalf, in which request and because of what."""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Literal

import msgspec
from msgspec import Raw, Struct, field
from msgspec.structs import asdict

from app.audit.sealing.sealer import Disclosure, disclose
from app.domain.event import Event
from app.domain.names import name_in, sealed_fields
from app.domain.registry import EVENTS
from app.identifiers import uuid7

MAX_ENTRY = 65_535
"""Bytes of one entry: what a tile of the transparency log (C2SP tlog-tiles) can hold as one leaf."""

_TAG = re.compile(r"[A-Za-z0-9_.:@/+=-]{1,200}")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape for it in JSON, and not a backslash followed by the same letters."""
_DIGESTS = re.compile(rb'"_sd":\["([^\]]+)"\]')
"""In the bytes of an entry: within a text every quotation mark has a backslash before it."""
_encode = msgspec.json.Encoder(order="sorted").encode

Outcome = Literal["success", "refused", "failed"]


class Actor(Struct, frozen=True, omit_defaults=True, gc=False):
    """Who did it. `obo`: the user on whose behalf. `role`: the power it took, beyond what they are to the group."""

    kind: Literal["user", "service", "system", "guest"]
    id: str | None = None
    via: Literal["session", "token"] | None = None
    obo: str | None = None
    role: Literal["administrator"] | None = None

    @property
    def subject(self) -> str | None:
        """Whose the personal values are that stand in what was done; none if it was nobody's doing."""
        user = self.obo or (self.id if self.kind == "user" else None)
        return user and f"user:{user}"


SYSTEM = Actor(kind="system", id="sophon")
GUEST = Actor(kind="guest")
ON_THE_SERVER = re.compile(r"cli:uid-[0-9]{1,10}")
"""The id of an actor, of the kind system, who used the command line there: the machine's number for them, no name."""


class Source(Struct, frozen=True, gc=False):
    """From where it was done: the digest of an address (RFC 9901)."""

    digests: tuple[str, ...] = field(name="_sd", default=())


class Said(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an entry says, but for its time."""

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


class Entry(Said, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is recorded. Its canonical bytes are what `encode` gives; they are hashed, stored and never made again."""

    at: datetime
    source: Source | None = None


class Draft(Said, frozen=True, kw_only=True):
    """An entry that has no time yet: the log gives it, so that times never decrease."""

    disclosures: tuple[Disclosure, ...] = ()
    """What `data` holds the digests of. They go into the vault, in the transaction that the entry goes into the log."""
    address: tuple[str, str] | None = None
    """From where it was done, and whose address that is. The log seals it."""

    def entry(self, at: datetime, source: Source | None = None) -> Entry:
        """Give it its time, and say from where it was done."""
        return Entry(
            actor=self.actor,
            at=at,
            cause=self.cause,
            data=self.data,
            id=self.id,
            outcome=self.outcome,
            reason=self.reason,
            request=self.request,
            source=source,
            tags=self.tags,
            trace=self.trace,
            type=self.type,
            v=self.v,
        )


class Context(Struct, frozen=True, kw_only=True):
    """What is the same for all entries of one request."""

    actor: Actor = SYSTEM
    request: str | None = None
    cause: str | None = None
    trace: str | None = None
    source: str | None = None
    """The address that the request came from. It is personal, and sealed."""

    def draft(
        self, event: Event, *, outcome: Outcome = "success", reason: str | None = None, tags: Sequence[str] = ()
    ) -> Draft:
        """Make an entry of an event; `tags` are added to the event's own."""
        data, disclosures = _written(event, self.actor)
        return Draft(
            actor=self.actor,
            address=(self.actor.subject or "guest", self.source) if self.source else None,
            cause=self.cause,
            data=Raw(data),
            disclosures=disclosures,
            id=str(uuid7()),
            outcome=outcome,
            reason=reason,
            request=self.request,
            tags=tuple(dict.fromkeys((*event.tags, *tags))),
            trace=self.trace,
            type=type(event).__name__,
            v=1,
        )


BY_ITSELF = Context()
"""What nobody asked for: Sophon does it."""


def _written(event: Event, actor: Actor) -> tuple[bytes, tuple[Disclosure, ...]]:
    """Write an event as JSON, with digests in place of what is sealed; give with it what the digests are of."""
    values = {name: value for name, _ in sealed_fields(type(event)) if (value := getattr(event, name)) is not None}
    if not values:
        return _encode(event), ()
    subject = name_in(event, event.whose) if event.whose else actor.subject or next(iter(event.tags), "guest")
    disclosures = tuple(disclose(subject, name, value) for name, value in values.items())
    fields = {name: value for name, value in asdict(event).items() if name not in values}
    return _encode({**fields, "_sd": sorted(one.digest for one in disclosures)}), disclosures


class UnreadableEntry(Exception):
    """An entry is of a type, or has a shape, that this release cannot read. Update, or rebuild with the right one."""


class Record(Struct, eq=False, gc=False):
    """An entry at its position; raises `UnreadableEntry`. The event in it is decoded when somebody asks, and once.

    What was sealed is read as `ERASED`, unless its disclosures are attached: see `Log.reveal`.
    """

    position: int
    octets: bytes
    entry: Entry = None  # pyright: ignore[reportAssignmentType]  # decoded from the octets if it is not given
    _event: Event | None = None
    _disclosures: tuple[Disclosure, ...] = ()

    def __post_init__(self) -> None:
        if self.entry is None:  # pyright: ignore[reportUnnecessaryComparison]
            try:
                self.entry = _decode_entry(self.octets)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise UnreadableEntry(f"Entry {self.position} is none of this log: {error}") from error

    @property
    def event(self) -> Event:
        """Give the event; raises `UnreadableEntry`."""
        if self._event is None:
            self._event = _decode_event(self)
        return self._event

    @property
    def is_sealed(self) -> bool:
        """Whether digests stand in its data for what was sealed."""
        return self.entry.type in _SEALED and b'"_sd":' in bytes(self.entry.data)

    @property
    def disclosures(self) -> tuple[Disclosure, ...]:
        """What is readable of the sealed values that it holds the digests of."""
        return self._disclosures

    @disclosures.setter
    def disclosures(self, disclosures: Sequence[Disclosure]) -> None:
        self._disclosures = tuple(disclosures)
        self._event = None

    @property
    def data_digests(self) -> list[str]:
        """Name the digests of the sealed values that its data holds."""
        return _digests_in(bytes(self.entry.data)) if self.is_sealed else []

    @property
    def digests(self) -> list[str]:
        """Name the digests of all sealed values that it holds, of its data and of its source."""
        return _digests_in(self.octets)


def _digests_in(octets: bytes) -> list[str]:
    return [digest for found in _DIGESTS.findall(octets) for digest in found.decode().split('","')]


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
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_digests = msgspec.json.Decoder(list[str]).decode

_SEALED = frozenset(name for name, type_ in EVENTS.items() if sealed_fields(type_))
"""The types of events that have anything to seal. Others are not looked through for digests."""


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
    data = record.entry.data
    try:
        return decoder.decode(_filled(bytes(data), decoder.type, record.disclosures) if record.is_sealed else data)
    except (msgspec.MsgspecError, KeyError) as error:
        raise UnreadableEntry(f"Entry {record.position}, a {record.entry.type}, cannot be read: {error}") from error


def _filled(data: bytes, type_: type[Event], disclosures: Sequence[Disclosure]) -> bytes:
    """Put back what was sealed, or `ERASED` where it is not disclosed. A field that stands in the data stays."""
    standing = _decode_fields(data)
    digests = _decode_digests(standing["_sd"])
    known = {one.name: one.value for one in disclosures if one.digest in digests}
    missing = {name: known.get(name, erased) for name, erased in sealed_fields(type_) if name not in standing}
    return data[:-1] + b"," + _encode(missing)[1:] if missing else data
