"""What a query asks of an entry, once every name in it is known: in Python and in SQL, to the same effect."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from app.audit.entry import Record

Clause = tuple[str, tuple[Any, ...]]
"""A condition on `audit.entries` with a `%s` for each of its values. The text is ours, never the asker's."""


class Test(Struct, frozen=True):
    """One thing that is asked of an entry."""

    def matches(self, record: Record) -> bool:
        """Whether an entry is such."""
        raise NotImplementedError

    def clause(self) -> Clause:
        """Ask the same in SQL; null counts as no."""
        raise NotImplementedError


class Not(Test, frozen=True):
    """Whatever the other is not."""

    test: Test

    def matches(self, record: Record) -> bool:
        """Whether an entry is not such."""
        return not self.test.matches(record)

    def clause(self) -> Clause:
        """Ask the same in SQL: an entry without an actor is not by Ada."""
        text, values = self.test.clause()
        return f"({text}) IS NOT TRUE", values


class Either(Test, frozen=True):
    """One of some tests holds."""

    tests: tuple[Test, ...]

    def matches(self, record: Record) -> bool:
        """Whether one does."""
        return any(test.matches(record) for test in self.tests)

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        text, values = joined(" OR ", self.tests)
        return f"({text})", values


class Both(Test, frozen=True):
    """All of some tests hold."""

    tests: tuple[Test, ...]

    def matches(self, record: Record) -> bool:
        """Whether all do."""
        return all(test.matches(record) for test in self.tests)

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        text, values = joined(" AND ", self.tests)
        return f"({text})", values


class Sieve(Struct, frozen=True):
    """All that a query asks of an entry."""

    tests: tuple[Test, ...] = ()

    def matches(self, record: Record) -> bool:
        """Whether an entry is asked for."""
        return all(test.matches(record) for test in self.tests)


def joined(word: str, tests: Iterable[Test]) -> Clause:
    """Write several tests as one condition; none is true."""
    clauses = [test.clause() for test in tests] or [("true", ())]
    return word.join([text for text, _ in clauses]), tuple(value for _, values in clauses for value in values)
