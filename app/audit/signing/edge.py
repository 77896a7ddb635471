"""The right edge of the tree: what has to be remembered to let it grow, 255 hashes a level at most."""

from collections.abc import Iterator, Sequence
from typing import Self

from msgspec import Struct

from app.audit.transparency.tiles import HEIGHT, WIDTH, unpack_hashes
from app.audit.transparency.tree import Frontier, perfect_root


class CompleteTile(Struct, frozen=True):
    """The hashes of 256 nodes of tree level 8 x `level`, one after the other, and the root over them."""

    level: int
    index: int
    hashes: bytes
    root: bytes


class Edge:
    """The incomplete tiles at the right end of a tree of `size` leaves: one of each level, possibly empty."""

    def __init__(self, size: int = 0, levels: Sequence[bytes] = (), last: bytes | None = None) -> None:
        """Begin with partial tiles, lowest level first; raises `ValueError` if they do not belong to the size."""
        self.size = size
        self.last = last
        """The hash of the newest leaf."""
        self._levels = [unpack_hashes(one) for one in levels]
        if [len(one) for one in self._levels] != [width for _, width in widths(size)]:
            raise ValueError("These are not the partial tiles of a tree of that size.")

    def copy(self) -> Self:
        """Give one that grows by itself."""
        return type(self)(self.size, [b"".join(one) for one in self._levels], self.last)

    def extend(self, leaf_hashes: Sequence[bytes]) -> list[CompleteTile]:
        """Grow by leaves; return the tiles that were completed."""
        complete: list[CompleteTile] = []
        for start in range(0, len(leaf_hashes), WIDTH):
            some = leaf_hashes[start : start + WIDTH]
            self.size += len(some)
            self._add(0, some, complete)
            self.last = some[-1]
        return complete

    def frontier(self) -> Frontier:
        """Give the roots of the perfect subtrees that make up the tree."""
        found: list[bytes] = []
        for level in reversed(self._levels):
            at = 0
            while at < len(level):
                part = 1 << ((len(level) - at).bit_length() - 1)
                found.append(perfect_root(level[at : at + part]))
                at += part
        return Frontier(self.size, tuple(found))

    def _add(self, level: int, hashes: Sequence[bytes], complete: list[CompleteTile]) -> None:
        """Add at most 256 hashes to a level; the root of a tile that they complete is added above."""
        if level == len(self._levels):
            self._levels.append([])
        tile = self._levels[level]
        tile += hashes
        if len(tile) < WIDTH:
            return
        whole = tile[:WIDTH]
        del tile[:WIDTH]
        root = perfect_root(whole)
        complete.append(CompleteTile(level, (self.size >> HEIGHT * (level + 1)) - 1, b"".join(whole), root))
        self._add(level + 1, [root], complete)


def widths(size: int) -> Iterator[tuple[int, int]]:
    """Give (level, width) of each partial tile at the right end of a tree, lowest first; some may be empty."""
    level = 0
    while size >> HEIGHT * level:
        yield level, (size >> HEIGHT * level) % WIDTH
        level += 1
