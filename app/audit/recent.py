"""The end of the log, in memory: enough of every recent entry to check a condition without asking the database."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile

from msgspec import Struct

from app.domain.model import Selection

KEEP = 20_000
"""Entries. A decision that took longer than it takes to append so many is checked by the database instead."""


class Condition(Struct, frozen=True, gc=False):
    """Append only if nothing after position `after` matches any of the selections."""

    selections: tuple[Selection, ...]
    after: int


class Recent:
    """Types and tags of all entries in (floor, head]."""

    def __init__(self, head: int) -> None:
        self.floor = self.head = head
        self._entries: list[tuple[str, tuple[str, ...]]] = []
        self._by_type: defaultdict[str, list[int]] = defaultdict(list)
        self._by_tag: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, type_: str, tags: tuple[str, ...]) -> None:
        """Take in the entry after the head."""
        self.head += 1
        self._entries.append((type_, tags))
        self._by_type[type_].append(self.head)
        for tag in set(tags):
            self._by_tag[tag].append(self.head)

    def forget_after(self, position: int) -> None:
        """Take back the entries after `position`: their transaction did not commit."""
        while self.head > position:
            type_, tags = self._entries.pop()
            self._by_type[type_].pop()
            for tag in set(tags):
                self._by_tag[tag].pop()
            self.head -= 1

    def trim(self, committed: int) -> None:
        """Let go of the oldest entries, once there are twice as many as are kept; of none after `committed`."""
        if len(self._entries) > 2 * KEEP:
            floor = min(self.head - KEEP, committed)
            kept = self._entries[floor - self.floor :]
            self.__init__(floor)
            for type_, tags in kept:
                self.add(type_, tags)

    def violates(self, condition: Condition) -> bool:
        """Whether an entry in (max(after, floor), head] matches."""
        return any(self._found(selection, condition.after) for selection in condition.selections)

    def _found(self, selection: Selection, after: int) -> bool:
        return any(selection.matches(*self._entries[at - self.floor - 1]) for at in self._candidates(selection, after))

    def _candidates(self, selection: Selection, after: int) -> Iterator[int]:
        if selection.tags:
            lists: Sequence[Sequence[int]] = [min((self._by_tag.get(tag, []) for tag in selection.tags), key=len)]
        elif selection.types:
            lists = [self._by_type.get(type_, []) for type_ in selection.types]
        else:
            lists = [range(self.floor + 1, self.head + 1)]
        for positions in lists:
            yield from takewhile(lambda position: position > after, reversed(positions))
