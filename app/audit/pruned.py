"""Tombstones: what stands in the place of an entry that was pruned, and which of them the log covers.

A tombstone does not have the hash that is beside it, which is that of what was there. It is believed where a
`LogPruned` that two administrators approved covers its position, its class and its time; elsewhere it is tampering.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Self

from psycopg import AsyncConnection
from psycopg.errors import RaiseException

from app.audit.entry import Record, UnreadableEntry
from app.domain.approvals import ApprovalGiven
from app.domain.pruning import LogPruned, about

DatabaseRefuses = RaiseException
"""What `audit.prune` answers, and so the append of a `LogPruned` that is not covered: nothing of either happens."""

_TOMBSTONE = re.compile(
    rb'\{"actor":\{"kind":"system"\},"at":"([0-9TZ:.+-]+)","data":\{"by":([0-9]{1,16}),"of":"(security|reads|pulse)"\},'
    rb'"id":"[0-9a-f-]{36}","outcome":"(?:success|refused|failed)","tags":\[\],"type":"Pruned","v":1\}'
)
_SAID = """
SELECT said.position, said.bytes::text, given.bytes::text
FROM audit.entries AS said JOIN audit.entries AS given ON given.position = said.position - 1
WHERE said.type = 'LogPruned' AND said.outcome = 'success'
"""


def is_tombstone(octets: bytes) -> bool:
    """Whether an entry has the shape of a tombstone."""
    return _TOMBSTONE.fullmatch(octets) is not None


class Prunings:
    """What the log says was pruned. `met`: position of a `LogPruned` -> where its tombstones were found."""

    def __init__(self, said: Mapping[int, LogPruned]) -> None:
        self.said = said
        self.met: defaultdict[int, set[int]] = defaultdict(set)

    @classmethod
    async def read(cls, connection: AsyncConnection) -> Self:
        """Read what the log says. Whoever verifies has to walk over these entries too: they may be forged."""
        cursor = await connection.execute(_SAID)
        return cls({row[0]: said for row in await cursor.fetchall() if (said := _approved(*row))})

    def covers(self, position: int, octets: bytes) -> bool:
        """Whether an entry is a tombstone that stands where it may."""
        return self._by(position, octets) is not None

    def hashes(self, after: int, entries: Sequence[bytes], hashes: list[bytes], said: bytes) -> list[bytes]:
        """Give the hashes of the entries after a position; for a tombstone that is covered, the one beside it.

        `hashes` are those of the bytes, `said` those beside them, 32 bytes each.
        """
        if b"".join(hashes) == said or not self.said or len(said) != 32 * len(hashes):
            return hashes
        standing = list(hashes)
        for n, entry in enumerate(entries):
            beside = said[32 * n : 32 * n + 32]
            if hashes[n] != beside and (by := self._by(after + n + 1, entry)):
                standing[n] = beside
                self.met[by].add(after + n + 1)
        return standing

    def others(self) -> int | None:
        """Give a `LogPruned` whose tombstones, of which there are some, stand elsewhere than it says; none: all do."""
        return next((by for by, met in self.met.items() if digest_of(met) != self.said[by].positions), None)

    def _by(self, position: int, octets: bytes) -> int | None:
        found = _TOMBSTONE.fullmatch(octets)
        said = self.said.get(int(found[2])) if found else None
        if found is None or said is None or position > said.before:
            return None
        try:
            at = datetime.fromisoformat(found[1].decode())
            kept = any(one.name == found[3].decode() and at < one.until for one in said.classes)
        except (ValueError, TypeError):
            return None
        return int(found[2]) if kept else None


NOTHING = Prunings({})
"""For a log in which nothing was pruned."""


def digest_of(positions: Iterable[int]) -> str:
    """Digest positions as a `LogPruned` names them."""
    return sha256(",".join(map(str, sorted(positions))).encode()).hexdigest()


def hash_of(octets: bytes) -> bytes:
    """Hash an entry as a leaf (RFC 6962, 2.1)."""
    return sha256(b"\0" + octets).digest()


def _approved(position: int, said: str, given: str) -> LogPruned | None:
    """Read a `LogPruned`, if the entry before it is the approval of just that."""
    try:
        pruned, approval = Record(position, said.encode()).event, Record(position - 1, given.encode()).event
    except (UnreadableEntry, ValueError):
        return None
    match pruned, approval:
        case LogPruned(before=before, size=size), ApprovalGiven(action="prune", by=by, asked=asked) if (
            by != asked and approval.about == about(before) and before <= size < position
        ):
            return pruned
        case _:
            return None


async def prune(connection: AsyncConnection, said: int) -> int:
    """Do again what a `LogPruned` at a position says, as after a recovery; return how many entries that pruned."""
    cursor = await connection.execute("SELECT audit.prune(%s)", (said,))
    row: Any = await cursor.fetchone()
    return row[0]
