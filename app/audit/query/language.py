"""Text to terms and back. Pure: what a user's name stands for, or where a time lies in the log, is found out later."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address

from msgspec import Struct

from app.audit.query.ranges import Period, RangeError, Span, period, span
from app.audit.query.words import CHANGING, NAMING, OUTCOMES, SLUGS, TYPE_OF, Pattern, suggestion
from app.domain.registry import EVENTS

LONGEST = 1_000
"""Characters."""
MOST_TERMS, MOST_VALUES = 32, 100

KEYS = {
    "actor": "who did it: a user's name or id, `system`, `guest` or such as `cli:uid-1000`",
    "action": "what was done: `project.created`, `notebook.*`",
    "type": "the same by the event's stored name: `ProjectCreated`",
    "resource": "what it was done to: `project/apollo`, `notebook/*`, `user/ada`",
    "subject": "who it is about: a user who is named, or who did it",
    "outcome": "`success`, `refused` or `failed`",
    "reason": "why it was refused: `members-only`",
    "changed": "a field that it set: `role`, `title`",
    "request": "the id of the request that it was done in",
    "address": "where the request came from: an IP address",
    "time": "`2026-11-23`, `2026-11-01..2026-11-23`, `>=2026-11-23T12:00`, `2 hours ago`",
    "position": "`100`, `100..200`, `>=100`",
}

Value = Pattern | Span | Period


class QueryError(Exception):
    """A query cannot be understood; the message says why, and `column` (from 1) where. 0: not at one place."""

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(f"{message} (column {column})" if column else message)
        self.column = column


class Term(Struct, frozen=True):
    """What an entry has to be (negated: must not be): any of the values."""

    key: str
    values: tuple[Value, ...]
    negated: bool = False

    def __str__(self) -> str:
        return f"{'-' if self.negated else ''}{self.key}:{','.join(map(_written, self.values))}"


class Query(Struct, frozen=True):
    """Terms that all have to hold; none at all: everything."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))


def parse(text: str, now: datetime) -> Query:
    """Read a query; `now` is what relative times rest on. Raises `QueryError`."""
    if len(text) > LONGEST:
        raise QueryError(f"A query has at most {LONGEST:,} characters; this one has {len(text):,}.", LONGEST + 1)
    return _read(text, now) if _RELATIVE.search(text) else _lasting(text)


_RELATIVE = re.compile(r'now|day|ago|["\\]')
"""What every relative time has in it, unless quotation marks take it apart."""


@lru_cache(maxsize=50)
def _lasting(text: str) -> Query:
    """Read a query that means the same at all times: whoever turns pages asks it again and again."""
    return _read(text, datetime.fromtimestamp(0, UTC))


def forget() -> None:
    """Let go of all queries that were read: somebody who is erased may be named in one."""
    _lasting.cache_clear()


def _read(text: str, now: datetime) -> Query:
    if not text.isprintable():
        column = next(column for column, character in enumerate(text, 1) if not character.isprintable())
        raise QueryError("There is a character here that cannot be printed; put a space, or nothing.", column)
    return _Scanner(text, now).query()


_KEYED = re.compile(r'(-?)([^\s:"]*):')
_QUOTED = re.compile(r'((?:[^"\\]|\\.)*)"')


class _Scanner:
    def __init__(self, text: str, now: datetime) -> None:
        self._text = text
        self._now = now
        self._at: int = 0

    def query(self) -> Query:
        terms: list[Term] = []
        while self._skip_spaces():
            if len(terms) == MOST_TERMS:
                raise self._error(f"A query has at most {MOST_TERMS} terms.")
            terms.append(self._term())
        return Query(tuple(terms))

    def _skip_spaces(self) -> bool:
        while self._text.startswith(" ", self._at):
            self._at += 1
        return self._at < len(self._text)

    def _term(self) -> Term:
        found = _KEYED.match(self._text, self._at)
        if not found:
            word = self._text[self._at :].split(" ", 1)[0][:40]
            raise self._error(f"Say what {word!r} is to be: put a key and a colon before it. Keys: {', '.join(KEYS)}.")
        key = found[2].lower()
        if key not in KEYS:
            self._at += len(found[1])
            raise self._error(f"There is no key {found[2][:40]!r}; {suggestion(key, KEYS)}")
        self._at = found.end()
        values = [self._value(key)]
        while self._text.startswith(",", self._at):
            self._at += 1
            values.append(self._value(key))
            if len(values) > MOST_VALUES:
                raise self._error(f"A term has at most {MOST_VALUES} values.")
        return Term(key, tuple(values), negated=bool(found[1]))

    def _value(self, key: str) -> Value:
        begin = self._at
        parts = [""]
        while self._at < len(self._text) and (character := self._text[self._at]) not in " ,":
            self._at += 1
            match character:
                case '"':
                    parts[-1] += self._quoted()
                case "*" if len(parts) == 1 or parts[-1]:
                    parts.append("")
                case "*":
                    pass  # two in a row are one
                case _:
                    parts[-1] += character
        if parts == [""]:
            raise QueryError(f"After {key}: there has to be a value: {KEYS[key]}.", begin + 1)
        try:
            return _understood(key, Pattern(tuple(parts)), self._now)
        except (ValueError, RangeError) as error:
            raise QueryError(str(error), begin + 1) from None

    def _quoted(self) -> str:
        found = _QUOTED.match(self._text, self._at)
        if not found:
            raise QueryError("This quotation mark has no second one.", self._at)
        self._at = found.end()
        return re.sub(r"\\(.)", r"\1", found[1])

    def _error(self, message: str) -> QueryError:
        return QueryError(message, self._at + 1)


def _understood(key: str, value: Pattern, now: datetime) -> Value:
    """Check a value by its key's rule; raises `ValueError` with a sentence."""
    if key in ("time", "position"):
        if not value.is_exact:
            raise ValueError(f"{key}: takes no *; leave an end of the range out instead: {KEYS[key]}.")
        return period(value.parts[0], now) if key == "time" else span(value.parts[0])
    _RULES[key](key, value)
    return Pattern((str(ip_address(value.parts[0])),)) if key == "address" else value


def _word_of(words: Callable[[], tuple[str, ...]]) -> Callable[[str, Pattern], None]:
    def check(key: str, value: Pattern) -> None:
        if not value.among(words()):
            raise ValueError(f"There is no {key} {_written(value)}; {suggestion('*'.join(value.parts), words())}")

    return check


def _whole(key: str, value: Pattern) -> None:
    if not value.is_exact:
        raise ValueError(f"{key}: takes no *; give the whole of it: {KEYS[key]}.")


def _address(key: str, value: Pattern) -> None:
    _whole(key, value)
    try:
        ip_address(value.parts[0])
    except ValueError:
        raise ValueError(f"{_written(value)} is no IP address, such as 10.0.0.7 or 2001:db8::1.") from None


def _resource(key: str, value: Pattern) -> None:
    kind, slash, name = value.parts[0].partition("/")
    if not slash or not (name or not value.is_exact):
        raise ValueError(f"A {key} is a kind and a name, such as project/apollo or notebook/*; kinds: {_KINDS}.")
    if kind not in NAMING:
        raise ValueError(f"There is no kind {kind!r}; {suggestion(kind, NAMING)}")
    if not value.is_exact and kind not in SLUGS and (name, *value.parts[1:]) != ("", ""):
        raise ValueError(f"The identifier of a {kind} is opaque; give the whole of it, or {kind}/* for all of them.")


def _subject(key: str, value: Pattern) -> None:
    _whole(key, value)
    kind, slash, name = value.parts[0].rpartition("/")
    if (slash and kind != "user") or not name:
        raise ValueError(f"{_written(value)} is no user; after {key}: there is {KEYS[key]}.")


def _anything(key: str, value: Pattern) -> None:
    """A refusal's name: any word."""


_KINDS = ", ".join(sorted(NAMING))
_RULES: dict[str, Callable[[str, Pattern], None]] = {
    "actor": _subject,
    "subject": _subject,
    "resource": _resource,
    "request": _whole,
    "address": _address,
    "reason": _anything,
    "action": _word_of(lambda: tuple(TYPE_OF)),
    "type": _word_of(lambda: tuple(EVENTS)),
    "outcome": _word_of(lambda: OUTCOMES),
    "changed": _word_of(lambda: tuple(CHANGING)),
}


def _written(value: Value) -> str:
    return "*".join(map(_quote, value.parts)) if isinstance(value, Pattern) else str(value)


def _quote(text: str) -> str:
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"' if re.search(r'[ ,"*]', text) else text
