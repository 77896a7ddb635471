"""What an entry is asked that no index in the order of positions answers: its tags, parts of words, ranges."""

from collections.abc import Iterable
from typing import Any

from app.audit.entry import Record
from app.audit.query.marks import Actors
from app.audit.query.ranges import Period, Span
from app.audit.query.sieve import Clause, Test
from app.audit.query.words import SLUGS, Pattern


class Tags(Test, frozen=True):
    """Filed under one of these tags."""

    tags: tuple[str, ...]

    def matches(self, record: Record) -> bool:
        """Whether it is."""
        return any(tag in self.tags for tag in record.entry.tags)

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        return "tags && %s::text[]", (list(self.tags),)


class Subjects(Test, frozen=True):
    """About one of these: filed under their tags, or done by them."""

    tags: Tags
    actors: Actors

    def matches(self, record: Record) -> bool:
        """Whether it is."""
        return self.tags.matches(record) or self.actors.matches(record)

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        (tagged, tags), (acted, actors) = self.tags.clause(), self.actors.clause()
        return f"({tagged} OR {acted})", tags + actors


class Filed(Test, frozen=True):
    """Filed under a tag that a pattern matches."""

    pattern: Pattern

    @property
    def is_part(self) -> bool:
        """Whether a part of a name is given, which people chose; else all names of the kind are meant."""
        kind, _, name = self.pattern.parts[0].partition(":")
        return kind in SLUGS and (name, *self.pattern.parts[1:]) != ("", "")

    def matches(self, record: Record) -> bool:
        """Whether it is."""
        return any(map(self.pattern.matches, record.entry.tags))

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        match self.pattern.parts:
            case (_, ""):  # it begins with this; no tag has a comma in it
                return "',' || array_to_string(tags, ',') LIKE %s", (f"%,{self.pattern.like()}",)
            case _:
                return "EXISTS (SELECT FROM unnest(tags) AS tag WHERE tag LIKE %s)", (self.pattern.like(),)


class Reasoned(Test, frozen=True):
    """Not a success, for a reason that one of the patterns matches."""

    patterns: tuple[Pattern, ...]

    def matches(self, record: Record) -> bool:
        """Whether it is."""
        reason = record.entry.reason
        return (
            record.entry.outcome != "success" and reason is not None and any(p.matches(reason) for p in self.patterns)
        )

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        like = [pattern.like() for pattern in self.patterns]
        return "(outcome <> 'success' AND bytes ->> 'reason' LIKE ANY(%s::text[]))", (like,)


class Positions(Test, frozen=True):
    """At one of these positions."""

    spans: tuple[Span, ...]

    def matches(self, record: Record) -> bool:
        """Whether it is."""
        return any(span.holds(record.position) for span in self.spans)

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        return _ranges("position", self.spans)


class Times(Test, frozen=True):
    """At one of these times. A search turns them into positions first: times never decrease by position."""

    periods: tuple[Period, ...]

    def matches(self, record: Record) -> bool:
        """Whether it is."""
        return any(period.holds(record.entry.at) for period in self.periods)

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        return _ranges("at", self.periods)


def _ranges(column: str, ranges: Iterable[Span | Period]) -> Clause:
    tests: list[str] = []
    values: list[Any] = []
    for one in ranges:
        bounds = [(">=", one.low), ("<=", one.high)]
        given = [(sign, bound) for sign, bound in bounds if bound is not None]
        parts = [f"{column} {sign} %s" for sign, _ in given] or ["true"]
        tests.append(" AND ".join(parts))
        values += [bound for _, bound in given]
    return f"({' OR '.join(tests)})", tuple(values)
