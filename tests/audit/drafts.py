"""Drafts of entries for tests of the log, which does not care what they say."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from app.audit.entry import SYSTEM, Actor, Draft, Outcome
from app.audit.log import Log
from app.audit.recent import Condition
from app.domain.model import Selection
from app.identifiers import uuid7


def draft(
    type_: str = "A",
    tags: Sequence[str] = (),
    *,
    data: object = None,
    actor: Actor = SYSTEM,
    outcome: Outcome = "success",
    id_: str | None = None,
) -> Draft:
    """Make a draft of whatever type."""
    return Draft(
        actor=actor,
        data=Raw(msgspec.json.encode(data or {}, order="sorted")),
        id=id_ or str(uuid7()),
        outcome=outcome,
        tags=tuple(tags),
        type=type_,
        v=1,
    )


def unless(*types: str, tags: Sequence[str] = (), after: int = 0) -> Condition:
    """Append only if nothing of these types, with these tags, stands after a position."""
    return Condition((Selection(types, tuple(tags)),), after)


async def stored_ids(log: Log) -> list[str]:
    """Give the ids of all entries, in order; fail if there is a gap."""
    records = (await log.read()).records
    assert [record.position for record in records] == list(range(1, len(records) + 1))
    return [record.entry.id for record in records]
