"""What writes an export: static tiles, or lines in files, and how a file comes to be there whole or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from app.audit.evidence.bundles import compare_leaves, read_bundle, write, write_bundles
from app.audit.evidence.exported import SEGMENT, Format, segment_name
from app.audit.evidence.findings import Finding, Tampered
from app.audit.evidence.formats import WRITTEN
from app.audit.evidence.leaves import Tiling, hashes_of
from app.audit.evidence.plain import must_be_plain, put_file, read_plain
from app.audit.evidence.trust import Unverifiable
from app.audit.evidence.walk import Head, Walk
from app.audit.signing.edge import CompleteTile
from app.audit.signing.store import sync_directory
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.tiles import WIDTH, Tile, tile_path


class Writing(Protocol):
    """One format of an export."""

    def begin(self, old: Checkpoint | None) -> Walk:
        """Give the walk to go on with: at the first entry, or at what is in the directory and proven."""
        ...

    def take(self, after: int, entries: list[bytes], complete: Sequence[CompleteTile]) -> None:
        """Write a page of entries, and the tiles that it completed."""
        ...

    def end(self, walk: Walk) -> None:
        """Write what remains."""
        ...


class Tiles:
    """Static tiles (C2SP tlog-tiles): `tile/entries/…` with the entries, `tile/<level>/…` with the hashes."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self._size = size

    def begin(self, old: Checkpoint | None) -> Walk:
        """Go on from the old tree, if the right edge of it that lies here has the root that was signed."""
        must_be_plain(self._directory)
        walk = Walk()
        if old is not None and old.size:
            tiling = self._edge(old)
            walk = Walk([Head(old.size, old.root, b"", "the checkpoint of the export before")], tiling.floor())
        while walk.tiling.size + WIDTH <= self._size and self._adopt(walk):
            pass
        return walk

    def take(self, after: int, entries: list[bytes], complete: Sequence[CompleteTile]) -> None:
        """Write bundles of 256 entries, the last of them perhaps of fewer; and the tiles that they complete."""
        write_bundles(self._directory, after, entries)
        self._keep(complete)

    def end(self, walk: Walk) -> None:
        """Write the partial tiles. Those of the export before lie beside them until the new checkpoint is there."""
        for tile in walk.tiling.partial():
            write(self._directory, tile_path(tile.level, tile.index, len(tile.hashes) // 32), tile.hashes)

    def _edge(self, old: Checkpoint) -> Tiling:
        levels: list[bytes] = []
        size = old.size
        while size:
            width = size % WIDTH
            tile = Tile(len(levels), size // WIDTH, width or 1)
            levels.append(read_plain(self._directory / tile.path, WIDTH * 32) if width else b"")
            size //= WIDTH
        try:
            tiling = Tiling(old.size, levels)
        except ValueError:
            tiling = Tiling()
        if tiling.root() != old.root:
            says = f"The tiles in {self._directory} are not those that its checkpoint of {old.size} entries is of."
            raise Tampered(Finding(kind="tile", says=says, first=1, last=old.size, expected=old.root.hex()))
        return tiling

    def _adopt(self, walk: Walk) -> bool:
        """Take in a bundle that an export which did not end has left, if it is whole; whether it is."""
        index = walk.tiling.size // WIDTH
        try:
            entries = read_bundle(self._directory, index, WIDTH)
            hashes = hashes_of(entries)
            compare_leaves(index * WIDTH, entries, hashes, read_plain(self._directory / tile_path(0, index)))
        except (Tampered, Unverifiable):
            return False
        self._keep(walk.take(hashes, [b"\n".join(entries)]))
        return True

    def _keep(self, complete: Sequence[CompleteTile]) -> None:
        for tile in complete:
            write(self._directory, tile_path(tile.level, tile.index), tile.hashes)


class Lines:
    """One line an entry, in files of 65,536 each, which appear when they are whole."""

    def __init__(self, directory: Path, format_: Format, newest: Head) -> None:
        self._directory = directory
        self._format: Format = format_
        self._written = WRITTEN[format_]
        self._origin = newest.note.split(b"\n", 1)[0].decode()
        self._size = newest.size
        self._kept = 0
        self._file: Any = None

    def begin(self, old: Checkpoint | None) -> Walk:
        """Begin anew: the log is proven from its first entry on, and files that are whole are not written again."""
        self._kept = (old.size if old else 0) // SEGMENT * SEGMENT
        return Walk([Head(old.size, old.root, b"", "the checkpoint of the export before")] if old and old.size else [])

    def take(self, after: int, entries: list[bytes], complete: Sequence[CompleteTile]) -> None:
        """Write a line for each."""
        if after % SEGMENT == 0:
            self._close()
            path = self._path(after + 1)
            # One that an export left which did not end is whole, but proven only if the export before was: anew.
            self._file = None if after < self._kept and path.exists() else self._fresh(path).open("wb")
        if self._file is not None:
            self._file.write(self._written(self._origin, after, entries))

    def end(self, walk: Walk) -> None:
        """Finish the last file."""
        self._close()

    def _path(self, first: int) -> Path:
        return self._directory / segment_name(first, self._format)

    @staticmethod
    def _fresh(path: Path) -> Path:
        return path.with_name(f"{path.name}.new")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            fresh = Path(self._file.name)
            fresh.replace(fresh.with_suffix(""))
            self._file = None


def replace_file(path: Path, octets: bytes, mode: int = 0o644) -> None:
    """Replace a file durably, whole or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    put_file(str(fresh), octets, mode)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)
