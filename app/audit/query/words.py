"""The words of the query language that the domain gives: actions, fields, kinds of names. All derived from events."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

from msgspec import Meta, Struct

from app.domain.event import Event
from app.domain.names import SLUG
from app.domain.registry import EVENTS

IRREGULAR = {
    "LoggedIn": "session.began",
    "LoggedOut": "session.ended",
    "LoginRefused": "session.refused",
    "ClockSteppedBack": "clock.stepped-back",
}
"""Actions of events whose name does not begin with what they happened to."""


class Pattern(Struct, frozen=True):
    """What has to be matched: the texts between its globs. One text alone is the value itself."""

    parts: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        """Whether there is no glob in it."""
        return len(self.parts) == 1

    def matches(self, text: str) -> bool:
        """Whether a text is meant."""
        return self._expression().fullmatch(text) is not None

    def like(self) -> str:
        r"""Write it for SQL's LIKE (whose escape is the backslash)."""
        return "%".join(re.sub(r"([%_\\])", r"\\\1", part) for part in self.parts)

    def among(self, words: Iterable[str]) -> tuple[str, ...]:
        """Give the words that are meant, in order."""
        if self.is_exact:
            return self.parts if self.parts[0] in words else ()
        matches = self._expression().fullmatch
        return tuple(sorted(filter(matches, words)))

    def _expression(self) -> re.Pattern[str]:
        return re.compile(".*".join(map(re.escape, self.parts)), re.DOTALL)


def action_of(type_: str) -> str:
    """Give the stable, dotted name of an event type: `notebook.start-requested` for `NotebookStartRequested`."""
    first, *others = re.findall("[A-Z][^A-Z]*", type_) or [type_]
    regular = ".".join(filter(None, (first.lower(), "-".join(others).lower())))
    return IRREGULAR.get(type_, regular)


def _kinds(cls: type[Event]) -> Mapping[str, bool]:
    """Name the kinds of names that stand in an event, and whether each is a slug."""
    found: dict[str, bool] = {}
    for hint in get_type_hints(cls, include_extras=True).values():
        for meta in _metas(hint):
            if tag := (meta.extra or {}).get("tag"):
                found[str(tag)] = meta.pattern == SLUG
    return found


def _metas(hint: Any) -> list[Meta]:
    own = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    return own + [meta for part in get_args(hint) for meta in _metas(part)]


def _by_field() -> Mapping[str, tuple[str, ...]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, cls in EVENTS.items():
        for field in cls.__struct_fields__ if cls.fact else ():
            found[field].append(name)
    return {field: tuple(names) for field, names in found.items()}


def _by_kind() -> Mapping[str, tuple[str, ...]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, cls in EVENTS.items():
        for kind in _kinds(cls):
            found[kind].append(name)
    return {kind: tuple(names) for kind, names in found.items() if kind != "username"}


TYPE_OF = {action_of(name): name for name in EVENTS}
"""Event types, by their actions."""

CHANGING = _by_field()
"""Types of the facts that have a field, by the field's name: those say what it is from then on."""

NAMING = _by_kind()
"""Event types in which a name of a kind stands, by the kind."""

SLUGS = frozenset(kind for cls in EVENTS.values() for kind, is_slug in _kinds(cls).items() if is_slug)
"""Kinds of names that people choose and remember; only of these can a part be given."""

CARRYING = tuple(name for name, cls in EVENTS.items() if not cls.fact and not _kinds(cls))
"""Types whose entries may be filed under names though none stands in the event: a refused command's, a list's."""

OUTCOMES = ("failed", "refused", "success")


def suggestion(word: str, words: Iterable[str]) -> str:
    """Say which word may have been meant, or which there are."""
    known = sorted(words)
    if close := get_close_matches(word.lower(), known, 1) or get_close_matches(word, known, 1):
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(known)}." if len(known) <= 40 else "see the documentation for those that there are."
