"""A walk over the entries, once and in order, that meets the roots which were signed."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from app.audit.evidence.findings import Finding, Tampered, legible
from app.audit.evidence.leaves import (
    NotAnEntry,
    Tiling,
    in_order,
    times_of,
)
from app.audit.evidence.stamps import Stamp
from app.audit.signing.edge import CompleteTile

Progress = Callable[[int, int], None]
"""Called with how many entries are done, and of how many."""


class Head(Struct, frozen=True, order=True):
    """A root that somebody signed, and who told us."""

    size: int
    root: bytes
    note: bytes
    whence: str


class Whole(Struct, frozen=True):
    """What was found to be in order: so many entries with this root, and how many of them are signed for."""

    entries: int
    root: bytes
    checkpoints: int
    newest: Head | None
    unsigned_since: datetime | None = None
    """When the first entry after the newest checkpoint was recorded."""
    pruned: int = 0
    """Entries of which only the hash is kept, as the log says."""
    stamps: tuple[Stamp, ...] = ()
    """Timestamps that stand in it; nothing of them is judged yet."""

    @property
    def unsigned(self) -> int:
        """Entries after the newest checkpoint: nothing is proven of them yet."""
        return self.entries - (self.newest.size if self.newest else 0)


class Walk:
    """Goes over the entries once, from the first on or from an edge that is proven, and meets the roots on its way."""

    def __init__(self, heads: Iterable[Head] = (), tiling: Tiling | None = None, stamps: Sequence[Stamp] = ()) -> None:
        self.tiling = tiling or Tiling()
        self._stamps = stamps
        self._sizes = sorted({one.size for one in stamps if one.size >= 0}, reverse=True)
        self._roots: dict[int, bytes] = {}
        self._heads = sorted(heads, reverse=True)
        self._newest: datetime | None = None
        self._met: Head | None = None

    @property
    def proven(self) -> int:
        """How many entries are those that the last root which it met was signed for."""
        return self._met.size if self._met else 0

    def expect(self, heads: Iterable[Head]) -> None:
        """Meet more roots."""
        self._heads = sorted([*self._heads, *heads], reverse=True)

    def take(
        self, hashes: Sequence[bytes], texts: Sequence[bytes], times: Sequence[datetime] | None = None
    ) -> list[CompleteTile]:
        """Take in the next entries; return the tiles that they complete. Raises `Tampered` at a root that differs.

        The texts are the entries, one on each line; `times` are those in them, for who has read them already.
        """
        complete: list[CompleteTile] = []
        done, start = 0, self.tiling.size
        while (size := self._next()) is not None and size <= start + len(hashes):
            complete += self.tiling.extend(hashes[done : size - start])
            done = size - start
            if self._sizes and self._sizes[-1] == size:
                self._roots[self._sizes.pop()] = self.tiling.root()
            else:
                self._meet(self._heads.pop())
        complete += self.tiling.extend(hashes[done:])
        self._look_at_times(texts, start, times)
        return complete

    def stamps(self) -> tuple[Stamp, ...]:
        """Give the timestamps, each with the root that the entries had at its size, if there were so many before it."""
        return tuple(replace(one, root=self._roots.get(one.size)) for one in self._stamps)

    def end(self) -> None:
        """Raise `Tampered` if there is a root of more entries than there were."""
        if self._heads:
            head, size = self._heads[0], self.tiling.size
            raise Tampered(
                Finding(
                    kind="truncated",
                    says=f"Entries {size + 1} to {head.size} are gone: {head.whence} is of {head.size} entries, and "
                    f"there are {size}.",
                    first=size + 1,
                    last=head.size,
                    expected=str(head.size),
                    found=str(size),
                    notes=notes(self._met, head),
                )
            )

    def _next(self) -> int | None:
        """Give the size at which there is something to compare, or to remember."""
        return min([*self._sizes[-1:], *(head.size for head in self._heads[-1:])], default=None)

    def _meet(self, head: Head) -> None:
        if (root := self.tiling.root()) != head.root:
            first = self._met.size + 1 if self._met else 1
            raise Tampered(
                Finding(
                    kind="rewritten",
                    says=f"Entries {first} to {head.size} are not those that {head.whence} was signed for: their root "
                    f"is {root.hex()}, and the signed one {head.root.hex()}.",
                    first=first,
                    last=head.size,
                    expected=head.root.hex(),
                    found=root.hex(),
                    notes=notes(self._met, head),
                )
            )
        self._met = head

    def _look_at_times(self, texts: Sequence[bytes], after: int, times: Sequence[datetime] | None) -> None:
        newest = self._newest
        try:
            if times is None:
                for text in texts:
                    self._newest = times_of(text, self._newest)
            else:
                self._newest = in_order([*times], newest)
        except NotAnEntry:
            entries = b"\n".join(text.removesuffix(b"\n") for text in texts).split(b"\n")
            raise Tampered(_first_bad_time(entries, after, newest)) from None


def _first_bad_time(entries: Sequence[bytes], after: int, newest: datetime | None) -> Finding:
    for position, entry in enumerate(entries, after + 1):
        try:
            newest = times_of(entry, newest) or newest
        except NotAnEntry as error:
            return Finding(
                kind="time",
                says=f"Entry {position} is none of this log: {error}",
                first=position,
                last=position,
                expected=f"a time from {newest} on",
                entry=legible(entry),
            )
    raise AssertionError  # pragma: no cover


def notes(*heads: Head | None) -> tuple[str, ...]:
    """Give the signed notes of some roots, for the evidence."""
    return tuple(legible(head.note) for head in heads if head)
