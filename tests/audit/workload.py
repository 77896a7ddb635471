"""Workloads for the log: several writers, each with appends on conditions, and what must be true of what comes out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from app.audit.batch import ConditionViolated
from app.audit.entry import Record
from app.audit.log import Log
from app.audit.recent import Condition
from app.domain.model import Selection
from tests.audit.drafts import draft

TYPES, TAGS = ("A", "B"), ("x", "y", "z")

subsets = st.lists(st.sampled_from(TAGS), unique=True, max_size=2).map(tuple)
selections = st.builds(Selection, st.lists(st.sampled_from(TYPES), unique=True, max_size=2).map(tuple), subsets)


@dataclass(frozen=True)
class Step:
    """One append: what is appended, and, if there is a condition, how far back it looks."""

    events: tuple[tuple[str, tuple[str, ...]], ...]
    selections: tuple[Selection, ...] | None
    back: int


steps = st.builds(
    Step,
    st.lists(st.tuples(st.sampled_from(TYPES), subsets), min_size=1, max_size=3).map(tuple),
    st.none() | st.lists(selections, min_size=1, max_size=2).map(tuple),
    st.sampled_from((0, 0, 1, 2, 5, 1_000)),
)


@dataclass
class Outcome:
    """What came of an append: the position, or the ids of what had been begun when it was refused."""

    ids: list[str]
    condition: Condition | None
    position: int | None = None
    begun: frozenset[str] = frozenset()


@dataclass
class Run:
    """Writers at work. Give each a list of steps and a log; then check the outcomes against what is stored."""

    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    _begun: set[str] = field(default_factory=set[str])

    async def write(self, log: Log, steps: Sequence[Step]) -> None:
        for step in steps:
            drafts = [draft(type_, tags) for type_, tags in step.events]
            after = max(0, log.head - step.back)
            condition = None if step.selections is None else Condition(step.selections, after)
            outcome = Outcome([one.id for one in drafts], condition)
            self._begun.update(outcome.ids)
            try:
                outcome.position = await log.append(drafts, outcome.condition)
            except ConditionViolated:
                outcome.begun = frozenset(self._begun)
            self.outcomes.append(outcome)

    async def write_all(self, logs: Sequence[Log], writers: Sequence[Sequence[Step]]) -> None:
        """Let all write at once, on one log or another in turn."""
        await asyncio.gather(*(self.write(logs[n % len(logs)], steps) for n, steps in enumerate(writers)))

    def check(self, records: Sequence[Record]) -> None:
        """Fail unless the records are what one who appended in this order, one at a time, would have got."""
        accepted = [outcome for outcome in self.outcomes if outcome.position is not None]
        assert [record.position for record in records] == list(range(1, len(records) + 1))
        assert sorted(record.entry.id for record in records) == sorted(id_ for one in accepted for id_ in one.ids)
        times = [record.entry.at for record in records]
        assert times == sorted(times)
        for outcome in self.outcomes:
            if outcome.position is None:
                self._check_refused(outcome, records)
            else:
                self._check_accepted(outcome, outcome.position, records)

    def _check_accepted(self, outcome: Outcome, position: int, records: Sequence[Record]) -> None:
        first = position - len(outcome.ids)
        assert [record.entry.id for record in records[first:position]] == outcome.ids
        if outcome.condition is not None:
            assert not [record for record in records[:first] if _matches(outcome.condition, record)]

    def _check_refused(self, outcome: Outcome, records: Sequence[Record]) -> None:
        condition = outcome.condition
        assert condition is not None
        assert any(_matches(condition, record) and record.entry.id in outcome.begun for record in records)


def _matches(condition: Condition, record: Record) -> bool:
    wanted = any(one.matches(record.entry.type, record.entry.tags) for one in condition.selections)
    return wanted and record.position > condition.after
