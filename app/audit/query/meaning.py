"""From terms to what they ask of an entry: user names become ids, addresses digests. Nothing personal is left then."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Protocol, cast

from app.audit.entry import ON_THE_SERVER, SYSTEM
from app.audit.query.language import Query, QueryError, Term
from app.audit.query.marks import Actors, Guests, Outcomes, Reasons, Requests, Succeeded, Types
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

    async def sources(self, addresses: Sequence[str]) -> Test:
        """Say what is asked of an entry that came from one of some IP addresses."""
        ...


async def meaning(query: Query, directory: Directory) -> Sieve:
    """Find out what a query asks; raises `QueryError` for a user whom nobody knows."""
    return Sieve(tuple([await _test(term, directory) for term in query.terms]))


async def _test(term: Term, directory: Directory) -> Test:
    if term.key in _PLAIN:
        return _plain(term)
    test = await _NAMING[term.key](term, directory)
    return Not(test) if term.negated else test


@lru_cache(maxsize=50)
def _plain(term: Term) -> Test:
    """Say what is asked where nobody has to be known: always the same. No success is a failure or a refusal."""
    test = _PLAIN[term.key](term)
    if term.negated and isinstance(test, Succeeded):
        return Outcomes(tuple(outcome for outcome in OUTCOMES if outcome not in test.values))
    return Not(test) if term.negated else test


def _patterns(term: Term) -> tuple[Pattern, ...]:
    return cast("tuple[Pattern, ...]", term.values)


def _exact(term: Term) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pattern.parts[0] for pattern in _patterns(term)))


def _among(term: Term, words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for pattern in _patterns(term) for word in pattern.among(words)))


def _action(term: Term) -> Test:
    return Types(tuple(TYPE_OF[action] for action in _among(term, TYPE_OF)))


def _type(term: Term) -> Test:
    return Types(_among(term, EVENTS))


def _changed(term: Term) -> Test:
    fields = _among(term, CHANGING)
    return Types(tuple(dict.fromkeys(type_ for field in fields for type_ in CHANGING[field])))


def _outcome(term: Term) -> Test:
    outcomes = _among(term, OUTCOMES)
    return Succeeded(outcomes) if "success" in outcomes else Outcomes(outcomes)


def _reason(term: Term) -> Test:
    patterns = _patterns(term)
    if all(pattern.is_exact for pattern in patterns):
        return Reasons(_exact(term))
    return Reasoned(patterns)


def _request(term: Term) -> Test:
    return Requests(_exact(term))


def _time(term: Term) -> Test:
    return Times(cast("tuple[Period, ...]", term.values))


def _position(term: Term) -> Test:
    return Positions(cast("tuple[Span, ...]", term.values))


async def _address(term: Term, directory: Directory) -> Test:
    return await directory.sources(_exact(term))


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


_PLAIN: dict[str, Callable[[Term], Test]] = {
    "action": _action,
    "type": _type,
    "outcome": _outcome,
    "reason": _reason,
    "changed": _changed,
    "request": _request,
    "time": _time,
    "position": _position,
}
_NAMING: dict[str, Callable[[Term, Directory], Awaitable[Test]]] = {
    "actor": _actor,
    "resource": _resource,
    "subject": _subject,
    "address": _address,
}
