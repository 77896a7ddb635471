"""Retention: how long each class of entries has to be kept, and which of them have been kept long enough.

Facts are kept for ever: state is folded from them. Accesses may have a term. An entry is past it when it is older, is
under a checkpoint that was given out, and is about nothing that is under legal hold. Nothing here removes anything:
`audit.prune` (prune.sql) does.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from app.audit.log import Log
from app.audit.pruned import digest_of
from app.audit.reading import one
from app.domain.approvals import About
from app.domain.pruning import Prunable, PrunedClass
from app.domain.registry import EVENTS
from app.domain.retention import Holds

Class = Literal["facts", "security", "reads", "pulse"]
CLASSES: tuple[Class, ...] = ("facts", "security", "reads", "pulse")
"""State; logins, tokens and refusals; who looked at what; that the platform was alive."""

_PULSE = ("Heartbeat", "ClockSteppedBack")
_READS = ("Viewed", "Listed", "Queried")

FOR_EVER = (
    *("Pruned", "AuditExported", "StateRecovered", "StateSealed", "StateRebuilt", "StateRepaired"),
    "CheckpointTimestamped",
)
"""Accesses that are never past their term: by them the log shows what became of itself."""

_COUNT = """
SELECT type, count(*), min(at), sum(octet_length(bytes::text)),
       count(*) FILTER (WHERE past),
       count(*) FILTER (WHERE past AND held),
       coalesce(sum(octet_length(bytes::text)) FILTER (WHERE past AND NOT held), 0)
FROM (
    SELECT e.*,
           (tags || ('user:' || actor) || ('user:' || (bytes -> 'actor' ->> 'obo'))) && %(held)s::text[] AS held,
           coalesce(at < %(now)s - term AND position <= signed.size, false) AS past
    FROM audit.entries AS e
    CROSS JOIN (SELECT coalesce(max(size), 0) AS size FROM audit.checkpoints) AS signed
    LEFT JOIN unnest(%(types)s::text[], %(terms)s::interval[]) AS rule (name, term) ON name = type
) AS entries
GROUP BY type
"""


# As `audit.prune` finds them (prune.sql), which has the last word.
_PRUNABLE = """
SELECT audit.prunable(type), array_agg(position)
FROM audit.entries JOIN unnest(%(names)s::text[], %(untils)s::timestamptz[]) AS rule (name, until)
    ON name = audit.prunable(type)
WHERE position <= %(before)s AND at < until
  AND NOT (tags || ('user:' || actor) || ('user:' || (bytes -> 'actor' ->> 'obo'))) && %(held)s::text[]
GROUP BY 1
"""


class Due(Struct, frozen=True):
    """What may be pruned up to a position: which entries of each class, and what is held all the same."""

    before: int
    positions: Mapping[str, Sequence[int]]
    classes: tuple[PrunedClass, ...]
    held: frozenset[About]

    @property
    def entries(self) -> int:
        """How many entries may be pruned."""
        return sum(map(len, self.positions.values()))

    @property
    def digest(self) -> str:
        """Digest where they stand."""
        return digest_of(position for positions in self.positions.values() for position in positions)


class Kept(Struct, frozen=True):
    """One class: how many days it is kept (none: for ever), what there is, and what of it was kept long enough.

    `past` counts entries beyond their term, `held` those of them under legal hold; `bytes_past` is what the rest take.
    """

    name: Class
    days: int | None
    entries: int
    bytes: int
    oldest: datetime | None
    past: int
    held: int
    bytes_past: int


class Report(Struct, frozen=True):
    """What is kept, by class, and what is under legal hold."""

    classes: list[Kept]
    holds: list[About]


def class_of(type_: str) -> Class:
    """Say which class a type of entries is in. What this release does not know may be a fact, and is kept."""
    event = EVENTS.get(type_)
    if event is None or event.fact:
        return "facts"
    if type_ in _PULSE:
        return "pulse"
    return "reads" if type_.endswith(_READS) else "security"


class Retention:
    """Answers what is kept, by the terms that an administrator set."""

    def __init__(self, log: Log, days: Mapping[str, int]) -> None:
        """Take the days that each class is kept; a class that is not there is kept for ever, as facts always are."""
        self._log = log
        self._days = {name: number for name, number in days.items() if name != "facts"}

    async def held(self) -> list[About]:
        """Name everything that is under legal hold."""
        basis = Holds.all()
        holds = basis.model
        for record in (await self._log.read(basis.selections)).records:
            holds = holds.evolve(record.event)
        return sorted(holds.held)

    async def report(self, now: datetime) -> Report:
        """Count what there is of each class, and what of it was kept long enough at that time."""
        held = await self.held()
        terms = {
            type_: timedelta(days=self._days[class_of(type_)])
            for type_ in EVENTS
            if class_of(type_) in self._days and type_ not in FOR_EVER
        }
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute(
                _COUNT, {"held": held, "now": now, "types": list(terms), "terms": list(terms.values())}
            )
            rows = await cursor.fetchall()
        return Report(
            [self._kept(name, [row[1:] for row in rows if class_of(row[0]) == name]) for name in CLASSES], held
        )

    async def due(self, now: datetime, before: int) -> Due:
        """Count what may be pruned up to a position, by the terms that are set."""
        held = frozenset(await self.held())
        names: tuple[Prunable, ...] = ("security", "reads", "pulse")
        classes = tuple(
            PrunedClass(name, now - timedelta(days=self._days[name])) for name in names if name in self._days
        )
        values = {
            "names": [one.name for one in classes],
            "untils": [one.until for one in classes],
            "before": before,
            "held": sorted(held),
        }
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute(_PRUNABLE, values)
            return Due(before, dict(await cursor.fetchall()), classes, held)

    async def position_before(self, moment: datetime) -> int:
        """Give the position of the last entry before a time; 0 if there is none."""
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute("SELECT audit.first_at(%s) - 1", (moment,))
            return one(await cursor.fetchone())

    def _kept(self, name: Class, rows: list[tuple[int, datetime, int, int, int, int]]) -> Kept:
        return Kept(
            name=name,
            days=self._days.get(name),
            entries=sum(row[0] for row in rows),
            oldest=min((row[1] for row in rows), default=None),
            bytes=sum(row[2] for row in rows),
            past=sum(row[3] for row in rows),
            held=sum(row[4] for row in rows),
            bytes_past=sum(row[5] for row in rows),
        )
