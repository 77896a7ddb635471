"""By which indexes a search finds what it asks for, once all in it is known. Pure, and kept: pages are turned."""

from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

from app.audit.query.looking import Heap, Line
from app.audit.query.marks import (
    Actors,
    Addresses,
    Guests,
    OneOf,
    OneOfFew,
    Outcomes,
    Reasons,
    Requests,
    Sources,
    Types,
)
from app.audit.query.sieve import Both, Clause, Either, Test
from app.audit.query.traits import Reasoned, Subjects, Tags

MOST_KEYS = 64
MOST_BRANCHES = 8

SHARP = (Requests, Sources)
"""What lets through so little that tags need not be looked up."""
INDEXED = (*SHARP, Reasons, Outcomes, Guests, Actors, Types)
"""What an index has in the order of positions, beginning with what lets the least through."""


class Lookup(Struct, frozen=True):
    """What is looked up by tags."""

    tests: tuple[Test, ...]
    by: tuple[Test, ...]
    """Those that an index on tags is asked for."""
    tags: int
    """How many are looked up."""
    few: Heap
    """How to find them if there are few."""


class Branch(Struct, frozen=True):
    """Tests that all have to hold, and ways to find what they let through."""

    tests: tuple[Test, ...]
    lines: tuple[Line, ...]
    """Along indexes, beginning with what lets the least through."""
    ways: tuple[Line, ...]
    """The same, and all entries in turn where it is not known that there are few."""
    filed: Lookup | None


@lru_cache(maxsize=50)
def branches(tests: tuple[Test, ...]) -> tuple[Branch, ...]:
    """Part what one index cannot answer; leave out what lets nothing through."""
    return tuple([_branch(tuple(part)) for part in _parted(tests) if not any(map(_is_empty, part))])


def addressed(tests: tuple[Test, ...]) -> Line | None:
    """Find what came from an address, which has few digests, if nothing else is asked: one question for both."""
    match tests:
        case (Addresses(lookups=(_,)) as address,):
            return Line(tests, address)
        case _:
            return None


def _branch(tests: tuple[Test, ...]) -> Branch:
    lines = _lines(tests)
    is_sharp = any(isinstance(line.test, SHARP) for line in lines)
    is_filed = any(isinstance(test, Tags) for test in tests) and not is_sharp
    # Each value is a run of its own, and perhaps they are frequent.
    is_short = any(line.is_simple or isinstance(line.test, OneOfFew) for line in lines)
    return Branch(tests, lines, lines if is_short else (Line(tests), *lines), _filed(tests) if is_filed else None)


def _is_empty(test: Test) -> bool:
    return (isinstance(test, Tags) and not test.tags) or (isinstance(test, OneOf) and not test.values)


def _parted(tests: Iterable[Test]) -> list[list[Test]]:
    """Part what is filed under a user's tag, or done by them. Not into too many parts."""
    found: list[list[Test]] = [[]]
    for test in tests:
        parts = _parts(test)
        if len(found) * len(parts) > MOST_BRANCHES:
            parts = [(test,)]
        found = [[*branch, *part] for branch in found for part in parts]
    return found


def _parts(test: Test) -> list[tuple[Test, ...]]:
    match test:
        case Subjects(tags=tags, actors=actors):
            return [(tags,), (actors,)]
        case Either(tests=tests):
            return [part for one in tests for part in _parts(one)]
        case Both(tests=tests):
            return [tests]
        case _:
            return [(test,)]


def _lines(tests: tuple[Test, ...]) -> tuple[Line, ...]:
    """Give the indexes that will do."""
    found: list[OneOf | Guests] = []
    for kind in INDEXED:
        found += [test for test in tests if isinstance(test, kind)]
    if any(isinstance(test, Reasoned) for test in tests):
        found.insert(0, Outcomes(("failed", "refused")))
    return tuple([Line(tests, test) for test in found])


def _filed(tests: tuple[Test, ...]) -> Lookup:
    keyed = _keyed(tests)
    by = tuple([test for test in keyed if isinstance(test, Tags | _Keys)])
    most = max(len(test.tags) for test in tests if isinstance(test, Tags))
    return Lookup(keyed, by, most, Heap(keyed, by[0] if len(by) == 1 else None))


def _keyed(tests: tuple[Test, ...]) -> tuple[Test, ...]:
    """Ask for types and tags at once, where there is an index on both."""
    tags = next(test for test in tests if isinstance(test, Tags))
    types = next((test for test in tests if isinstance(test, Types)), None)
    if types is None or len(types.values) * len(tags.tags) > MOST_KEYS:
        return tests
    return (_Keys(types, tags), *(test for test in tests if test is not tags and test is not types))


class _Keys(Test, frozen=True):
    types: Types
    tags: Tags

    def clause(self) -> Clause:
        keys = [f"{type_} {tag}" for type_ in self.types.values for tag in self.tags.tags]
        return "audit.keys(type, tags) && %s::text[]", (keys,)
