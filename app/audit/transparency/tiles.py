"""Where the hashes and the entries of a log lie, and how they are packed: C2SP tlog-tiles, height 8."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from app.audit.transparency.strict import HASH, Malformed, decimal
from app.audit.transparency.tree import perfect_root

HEIGHT = 8
WIDTH = 1 << HEIGHT
"""Hashes in a complete tile, entries in a complete bundle."""

MAX_ENTRY = 0xFFFF
"""Bytes of an entry, whose length is written in two bytes."""

ReadTile = Callable[[int, int, int], bytes]
"""(level, index, width) -> the hashes of a tile, one after the other; a partial tile if width < 256."""

_PATH = re.compile(r"tile/(entries|[0-9]+)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([0-9]+))?")


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The name of a tile of hashes, or with level None of a bundle of entries."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Give the path below the prefix of the log."""
        return _path("entries" if self.level is None else str(self.level), self.index, self.width)


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Give the path of a tile below the prefix of the log, like `tile/0/x001/234.p/17`."""
    if not 0 <= level <= 63:
        raise ValueError(f"There is no level {level} of tiles.")
    return _path(str(level), index, width)


def entries_path(index: int, width: int = WIDTH) -> str:
    """Give the path of a bundle of entries below the prefix of the log, like `tile/entries/000`."""
    return _path("entries", index, width)


def _path(kind: str, index: int, width: int) -> str:
    if index < 0 or not 1 <= width <= WIDTH:
        raise ValueError(f"There is no tile {index} of width {width}.")
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    partial = f".p/{width}" if width < WIDTH else ""
    return f"tile/{kind}/{'/'.join(reversed(groups))}{partial}"


def parse_path(path: str) -> Tile:
    """Read the path of a tile or bundle, in its only spelling. Raises Malformed."""
    if len(path) > 100 or not (found := _PATH.fullmatch(path)):
        raise Malformed(f"{path[:100]!r} is no path of a tile.")
    kind, groups, width = found.groups()
    level = None if kind == "entries" else decimal(kind)
    tile = Tile(level, int(groups.replace("x", "").replace("/", "")), decimal(width) if width else WIDTH)
    if (level or 0) > 63 or not 1 <= tile.width <= WIDTH or tile.path != path:
        raise Malformed(f"{path!r} is not the spelling of a path of a tile.")
    return tile


def tiles_of(size: int, since: int = 0) -> Iterator[Tile]:
    """Name the tiles and bundles that a tree of `size` has and one of `since` did not have (in this width)."""
    yield from _row(None, size, since)
    level = 0
    while size:
        yield from _row(level, size, since)
        level, size, since = level + 1, size >> HEIGHT, since >> HEIGHT


def _row(level: int | None, count: int, before: int) -> Iterator[Tile]:
    if count == before:
        return
    for index in range(before // WIDTH, -(-count // WIDTH)):
        yield Tile(level, index, min(WIDTH, count - index * WIDTH))


def pack_entries(entries: Iterable[bytes]) -> bytes:
    """Write entries into a bundle, each behind its length. Raises ValueError for one of more than 65,535 bytes."""
    whole = list(entries)
    parts = [b""] * (2 * len(whole))
    try:
        parts[::2] = map(_length, map(len, whole))
    except OverflowError:
        raise ValueError(f"An entry has at most {MAX_ENTRY} bytes, not {max(map(len, whole))}.") from None
    parts[1::2] = whole
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _length(octets: int) -> bytes:
    return octets.to_bytes(2, "big")


def unpack_entries(octets: bytes) -> list[bytes]:
    """Read the entries of a bundle. Raises Malformed when it ends within an entry."""
    entries: list[bytes] = []
    at, end = 0, len(octets)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(octets[at:start], "big")
        if start > end or at > end:
            raise Malformed(f"The bundle ends within its entry {len(entries)}.")
        entries.append(octets[start:at])
    return entries


def pack_hashes(hashes: Iterable[bytes]) -> bytes:
    """Write hashes into a tile."""
    return b"".join(hashes)


def unpack_hashes(octets: bytes) -> list[bytes]:
    """Read the hashes of a tile. Raises Malformed when it ends within a hash."""
    if len(octets) % HASH:
        raise Malformed(f"A tile of {len(octets)} bytes ends within a hash.")
    return [octets[at : at + HASH] for at in range(0, len(octets), HASH)]


class TileNodes:
    """The nodes of a tree of `size` leaves, looked up in its tiles: give it to the functions of `tree`.

    Tiles are asked for in the width that they have in this tree, and the last 64 are kept. Raises Malformed when a
    tile is not as long as it has to be.
    """

    def __init__(self, read_tile: ReadTile, size: int) -> None:
        self._read_tile = read_tile
        self._size = size
        self._tile = lru_cache(maxsize=64)(self._checked)

    def __call__(self, level: int, index: int) -> bytes:
        """Give the hash of the perfect subtree with the 2^level leaves from index * 2^level on."""
        if not 0 <= index < self._size >> level:
            raise ValueError(f"Node {index} of level {level} is not within a tree of {self._size}.")
        row, below = divmod(level, HEIGHT)
        tile, start = divmod(index << below, WIDTH)
        hashes = self._tile(row, tile)
        return perfect_root(hashes[start : start + (1 << below)])

    def _checked(self, row: int, tile: int) -> tuple[bytes, ...]:
        width = min(WIDTH, (self._size >> HEIGHT * row) - tile * WIDTH)
        hashes = unpack_hashes(self._read_tile(row, tile, width))
        if len(hashes) != width:
            raise Malformed(f"{tile_path(row, tile, width)} has {len(hashes)} hashes instead of {width}.")
        return tuple(hashes)
