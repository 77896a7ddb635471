"""Moments: what a thing was as of a position, what came between two, which entry made it so, what an entry meant."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct
from psycopg import AsyncConnection

from app.audit.entry import Actor, Record
from app.audit.log import Log
from app.audit.reading import one, read_page
from app.domain.audits import NOBODY, NOT_UNDERSTOOD
from app.domain.model import Selection
from app.domain.names import UserId, is_a
from app.projections.disclosing import disclosed
from app.projections.fields import Change, State, changes, state_of
from app.projections.generation import MODELS
from app.projections.read_model import ReadModel
from app.projections.sentences import Names, sentence, users_in
from app.projections.timeline import Names as Usernames

SCAN = 500
"""Entries that one page of a difference is looked for in, at most."""
LONGEST_CHAIN = 50

KINDS = {model.key: model for model in MODELS}
"""The read model of each kind of thing whose state can be asked for: `project`, `user` and so on."""

_TYPES = tuple({name for model in MODELS for name in model.types()})

Proof = Callable[[int], Awaitable[str | None]]
"""Gives the inclusion proof of an entry, as text; none as long as no checkpoint covers it."""


class Resource(Struct, frozen=True):
    """A thing, by its kind and its name; written `project/apollo`."""

    kind: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Resource":
        """Read `kind/name` or `kind:name`; raises `ValueError` that says which kinds there are."""
        kind, _, name = text.replace(":", "/", 1).partition("/")
        if kind not in KINDS or not name:
            raise ValueError(f"{text} names nothing: write one of {', '.join(KINDS)}, a slash, and a name.")
        return cls(kind, name)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class Source(Struct, frozen=True, omit_defaults=True):
    """The entry that something comes from: where it stands, what it is, who did it and when."""

    position: int
    type: str
    at: datetime
    actor: Actor
    sentence: str


class Moment(Struct, frozen=True):
    """What a thing was as of a position; no state if there was none, or none any more."""

    resource: str
    position: int
    at: datetime | None
    state: State | None


class Difference(Struct, frozen=True):
    """What became different of a thing."""

    resource: str
    changes: Sequence[Change]


class Differences(Struct, frozen=True):
    """What became different of everything between two positions; ask for what is after `next` to go on."""

    before: int
    after: int
    items: Sequence[Difference]
    next: int | None = None


class Blamed(Struct, frozen=True):
    """The entry that gave a field its present value; `field` is empty where the thing itself was ended."""

    field: str
    value: Any
    by: Source


class Explanation(Struct, frozen=True, omit_defaults=True):
    """Who, what and why; before and after of each thing that it changed; what it was caused by, up to the root.

    `proof`: a receipt that the entry is in the log (C2SP tlog-proof, without the entry); absent until that is signed.
    """

    position: int
    id: str
    sentence: str
    type: str
    at: datetime
    actor: Actor
    outcome: str
    tags: Sequence[str]
    changed: Sequence[Difference]
    causes: Sequence[Source]
    reason: str | None = None
    request: str | None = None
    proof: str | None = None


class NoSuchMoment(Exception):
    """There is no such position in the log, or no such time before its end."""


class Moments:
    """Answers by folding entries again, up to where it is asked for."""

    def __init__(self, log: Log, proof: Proof | None = None) -> None:
        self._log = log
        self._proof = proof
        self._models: dict[str, ReadModel[Any]] = {kind: model(log.pool) for kind, model in KINDS.items()}

    async def position_at(self, when: int | datetime | None) -> int:
        """Give the position of the newest entry as of a position (itself), a time, or now. 0: before everything."""
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute("SELECT coalesce(max(position), 0) FROM audit.entries")
            head = one(await cursor.fetchone())
            if isinstance(when, int):
                if not 0 <= when <= head:
                    raise NoSuchMoment(f"The log has no position {when}; it ends at {head}.")
                return when
            return head if when is None else await _newest_by(connection, when, head)

    async def named(self, resource: Resource) -> Resource:
        """Give the same, a user by the id: they may be asked for by their name, as long as it can be read."""
        if resource.kind != "user" or is_a(UserId, resource.name):
            return resource
        found = await Usernames(self._log).user(resource.name)
        return Resource("user", found) if found else resource

    async def recorded(self, text: str) -> str:
        """Write the name of a thing as it may be kept of a question, though people are erased: a user by the id."""
        try:
            resource = await self.named(Resource.parse(text))
        except ValueError:
            return NOT_UNDERSTOOD
        named = resource.kind != "user" or is_a(UserId, resource.name)
        return str(resource) if named else f"user/{NOBODY}"

    async def as_of(self, resource: Resource, position: int) -> Moment:
        """Fold what a thing was as of a position."""
        records = await self._history(resource, position)
        state = state_of(self._models[resource.kind].fold(records))
        at = records[-1].entry.at if records else None
        return Moment(str(resource), position, at, state or None)

    async def history(self, resource: Resource, until: int) -> list[tuple[Source, list[Change]]]:
        """Tell every entry that changed a thing, the newest last, with what it changed."""
        records = await self._history(resource, until)
        model, row, told = self._models[resource.kind], None, list[tuple[Record, list[Change]]]()
        for record in records:
            before, row = state_of(row), model.evolve(row, record.event, record)
            told.append((record, changes(before, state_of(row))))
        names = await self._names([record for record, _ in told])
        return [(_source(record, names), changed) for record, changed in told]

    async def diff(self, resource: Resource, before: int, after: int) -> Difference:
        """Tell what became different of one thing."""
        records = await self._history(resource, max(before, after))
        return Difference(str(resource), self._between(resource, records, before, after))

    async def diff_all(self, before: int, after: int, cursor: int | None = None, limit: int = 50) -> Differences:
        """Tell what became different of everything, in the order in which it was first touched; in pages.

        If `before` is the later of the two, it is told how everything would become again what it was.
        """
        first, last = sorted((before, after))
        start = max(first, cursor or 0)
        async with self._log.pool.connection() as connection:
            page = await read_page(connection, start, SCAN, (Selection(_TYPES),))
        within = [record for record in page if record.position <= last]
        items: list[Difference] = []
        for record in within:
            for resource in _touched(record):
                records = await self._history(resource, last)
                is_first = not any(first < one.position < record.position for one in records)
                if is_first and (changed := self._between(resource, records, before, after)):
                    items.append(Difference(str(resource), changed))
            if len(items) >= limit and record is not within[-1]:
                return Differences(before, after, items, record.position)
        more = len(within) == SCAN and within[-1].position < last
        return Differences(before, after, items, within[-1].position if more else None)

    async def blame(self, resource: Resource, until: int, field: str | None = None) -> list[Blamed]:
        """Tell for each field (or only one, and what is in it) which entry gave its value."""
        told: dict[str, tuple[Record, Any]] = {}
        model, row, last = self._models[resource.kind], None, None
        for last in await self._history(resource, until):
            before, row = state_of(row), model.evolve(row, last.event, last)
            for change in changes(before, state_of(row)):
                told.pop(change.field, None)
                if row is not None and change.after is not UNSET:
                    told[change.field] = (last, change.after)
        if row is None and last is not None:
            told = {"": (last, None)}
        names = await self._names([record for record, _ in told.values()])
        return [
            Blamed(name, value, _source(record, names))
            for name, (record, value) in told.items()
            if field is None or name == field or name.startswith(f"{field}.") or not name
        ]

    async def explain(self, position: int) -> Explanation:
        """Say what an entry means. Raises `NoSuchMoment`, or `UnreadableEntry`."""
        async with self._log.pool.connection() as connection:
            found = await read_page(connection, position - 1, 1)
            if not found or found[0].position != position:
                raise NoSuchMoment(f"The log has no position {position}.")
            [record] = await disclosed(self._log, connection, found)
            causes = await disclosed(self._log, connection, await _causes(connection, record))
        names = await self._names([record, *causes])
        entry = record.entry
        return Explanation(
            position=position,
            id=entry.id,
            sentence=sentence(record, names),
            type=entry.type,
            at=entry.at,
            actor=entry.actor,
            outcome=entry.outcome,
            tags=entry.tags,
            changed=[await self.diff(resource, position - 1, position) for resource in _touched(record)],
            causes=[_source(one, names) for one in causes],
            reason=entry.reason,
            request=entry.request,
            proof=await self._proof(position) if self._proof else None,
        )

    async def _history(self, resource: Resource, until: int) -> list[Record]:
        """Read what a thing's state as of a position is folded from, with what is sealed in it."""
        page = await self._log.read((self._models[resource.kind].about(resource.name),))
        async with self._log.pool.connection() as connection:
            within = [record for record in page.records if record.position <= until]
            return await disclosed(self._log, connection, within)

    def _between(self, resource: Resource, records: Sequence[Record], before: int, after: int) -> list[Change]:
        model = self._models[resource.kind]
        one, other = (
            state_of(model.fold(record for record in records if record.position <= position))
            for position in (before, after)
        )
        return changes(one, other)

    async def _names(self, records: Sequence[Record]) -> Names:
        """Name the users of whom is spoken, from the log itself: after an incident there may be no read model."""
        names = Names()
        for user in dict.fromkeys(user for record in records for user in users_in(record)):
            if (
                row := self._models["user"].fold(await self._history(Resource("user", user), self._log.head))
            ) is not None:
                names[user] = row.username
        return names


def _touched(record: Record) -> list[Resource]:
    """Name the things whose state an entry may have changed."""
    event = record.event
    return [Resource(kind, getattr(event, kind)) for kind, model in KINDS.items() if isinstance(event, model.events)]


def _source(record: Record, names: Names) -> Source:
    entry = record.entry
    return Source(record.position, entry.type, entry.at, entry.actor, sentence(record, names))


async def _causes(connection: AsyncConnection, record: Record) -> list[Record]:
    """Follow what an entry says caused it, up to the root."""
    chain: list[Record] = []
    seen = {record.entry.id}
    while (cause := record.entry.cause) is not None and cause not in seen and len(chain) < LONGEST_CHAIN:
        cursor = await connection.execute("SELECT position, bytes::text FROM audit.entries WHERE id = %s", (cause,))
        if (row := await cursor.fetchone()) is None:
            break
        record = Record(row[0], row[1].encode())
        seen.add(cause)
        chain.append(record)
    return chain


async def _newest_by(connection: AsyncConnection, when: datetime, head: int) -> int:
    """Find the newest entry that is not after a time, by halves: times never decrease by position."""
    low, high = 0, head
    while low < high:
        middle = (low + high + 1) // 2
        cursor = await connection.execute("SELECT at <= %s FROM audit.entries WHERE position = %s", (when, middle))
        if one(await cursor.fetchone()):
            low = middle
        else:
            high = middle - 1
    return low
