"""From terms to what they ask of an entry: user names become ids, addresses digests. Nothing personal is left then."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, cast

from app.audit.entry import ON_THE_SERVER, SYSTEM
from app.audit.query.language import Query, QueryError, Term
from app.audit.query.marks import Actors, Guests, Outcomes, Reasons, Requests, Sources, Succeeded, Types
from app.audit.query.ranges import Period, Span
from app.audit.query.sieve import Both, Either, Not, Sieve, Test
from app.audit.query.traits import Filed, Positions, Reasoned, Subjects, Tags, Times
from app.audit.query.words import CARRYING, CHANGING, NAMING, OUTCOMES, TYPE_OF, Pattern
from app.domain.registry import EVENTS


class Directory(Protocol):
    """Knows what people call things."""

    async def user(self, username: str) -> str | None:
        """Give the id of the user who has, or had, a name; none if nobody has, or they were erased."""
        ...

    async def sources(self, address: str) -> tuple[str, ...]:
        """Give the digests under which an IP address stands in entries."""
        ...


async def meaning(query: Query, directory: Directory) -> Sieve:
    """Find out what a query asks; raises `QueryError` for a user whom nobody knows."""
    return Sieve(tuple([await _test(term, directory) for term in query.terms]))


async def _test(term: Term, directory: Directory) -> Test:
    test = await _MEANINGS[term.key](term, directory)
    return _not(test) if term.negated else test


def _not(test: Test) -> Test:
    """Ask for the opposite: no success is a failure or a refusal, which are indexed."""
    if isinstance(test, Succeeded):
        return Outcomes(tuple(outcome for outcome in OUTCOMES if outcome not in test.values))
    return Not(test)


Meaning = Callable[[Term, Directory], Awaitable[Test]]


def _patterns(term: Term) -> tuple[Pattern, ...]:
    return cast("tuple[Pattern, ...]", term.values)


def _exact(term: Term) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pattern.parts[0] for pattern in _patterns(term)))


def _among(term: Term, words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for pattern in _patterns(term) for word in pattern.among(words)))


async def _action(term: Term, _: Directory) -> Test:
    return Types(tuple(TYPE_OF[action] for action in _among(term, TYPE_OF)))


async def _type(term: Term, _: Directory) -> Test:
    return Types(_among(term, EVENTS))


async def _changed(term: Term, _: Directory) -> Test:
    fields = _among(term, CHANGING)
    return Types(tuple(dict.fromkeys(type_ for field in fields for type_ in CHANGING[field])))


async def _outcome(term: Term, _: Directory) -> Test:
    outcomes = _among(term, OUTCOMES)
    return Succeeded(outcomes) if "success" in outcomes else Outcomes(outcomes)


async def _reason(term: Term, _: Directory) -> Test:
    patterns = _patterns(term)
    if all(pattern.is_exact for pattern in patterns):
        return Reasons(_exact(term))
    return Reasoned(patterns)


async def _request(term: Term, _: Directory) -> Test:
    return Requests(_exact(term))


async def _address(term: Term, directory: Directory) -> Test:
    return Sources(tuple([digest for address in _exact(term) for digest in await directory.sources(address)]))


async def _time(term: Term, _: Directory) -> Test:
    return Times(cast("tuple[Period, ...]", term.values))


async def _position(term: Term, _: Directory) -> Test:
    return Positions(cast("tuple[Span, ...]", term.values))


async def _actor(term: Term, directory: Directory) -> Test:
    names = _exact(term)
    known = Actors(tuple([await _actor_id(name, directory) for name in names if name != "guest"]))
    if "guest" not in names:
        return known
    return Either((known, Guests())) if known.values else Guests()


async def _actor_id(name: str, directory: Directory) -> str:
    if ON_THE_SERVER.fullmatch(name):
        return name
    return str(SYSTEM.id) if name == "system" else (await _tag(name, directory)).partition(":")[2]


async def _subject(term: Term, directory: Directory) -> Test:
    tags = tuple([await _tag(name, directory) for name in _exact(term)])
    return Subjects(Tags(tags), Actors(tuple(tag.removeprefix("user:") for tag in tags)))


async def _resource(term: Term, directory: Directory) -> Test:
    tags = [await _tag(pattern.parts[0], directory) for pattern in _patterns(term) if pattern.is_exact]
    tests: list[Test] = [Tags(tuple(dict.fromkeys(tags)))] if tags else []
    tests += [_named(pattern) for pattern in _patterns(term) if not pattern.is_exact]
    return tests[0] if len(tests) == 1 else Either(tuple(tests))


def _named(pattern: Pattern) -> Test:
    """Ask for a part of a name; or for all of a kind, in entries of types in which it can stand: those are indexed."""
    kind, _, name = pattern.parts[0].partition("/")
    filed = Filed(Pattern((f"{kind}:{name}", *pattern.parts[1:])))
    if filed.is_part:
        return filed
    return Both((Types(tuple(dict.fromkeys((*NAMING[kind], *CARRYING)))), filed))


async def _tag(text: str, directory: Directory) -> str:
    """Give the tag of `kind/name`; a name alone is a user's."""
    kind, _, name = text.rpartition("/")
    if kind not in ("", "user") or name.startswith("usr_"):
        return f"{kind or 'user'}:{name}"
    user = await directory.user(name)
    if user is None:
        raise QueryError(f"There is no user {name[:40]!r}. Give a user's name, or an id such as usr_….")
    return f"user:{user}"


_MEANINGS: dict[str, Meaning] = {
    "actor": _actor,
    "action": _action,
    "type": _type,
    "resource": _resource,
    "subject": _subject,
    "outcome": _outcome,
    "reason": _reason,
    "changed": _changed,
    "request": _request,
    "address": _address,
    "time": _time,
    "position": _position,
}
