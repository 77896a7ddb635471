"""Tiles and bundles of entries in an export's directory: each read strictly, and written only where it is not yet."""

import os
from collections.abc import Sequence
from pathlib import Path

from app.audit.evidence.findings import Finding, Kind, Tampered, legible
from app.audit.evidence.plain import open_plain, put_file
from app.audit.evidence.trust import Unverifiable
from app.audit.transparency.strict import Malformed
from app.audit.transparency.tiles import (
    MAX_ENTRY,
    WIDTH,
    Tile,
    entries_path,
    pack_entries,
    unpack_entries,
    unpack_hashes,
)

LONGEST_BUNDLE = WIDTH * (MAX_ENTRY + 2)
"""Bytes of a bundle of the longest entries."""


def bundle_octets(directory: Path, index: int, width: int) -> bytes:
    """Read the file of one bundle, whatever is in it; raises `Tampered` if there is none."""
    return _file(directory, entries_path(index, width), index * WIDTH + 1, index * WIDTH + width)


def read_bundle(directory: Path, index: int, width: int) -> list[bytes]:
    """Read one bundle of entries; raises `Tampered` if it does not hold so many."""
    path = entries_path(index, width)
    octets = bundle_octets(directory, index, width)
    try:
        entries = unpack_entries(octets)
    except Malformed as error:
        raise _bad("edited", f"{path} is no bundle of entries: {error}", index, width) from error
    if len(entries) != width:
        raise _bad("edited", f"{path} has {len(entries)} entries instead of {width}.", index, width)
    return entries


def compare_leaves(after: int, entries: Sequence[bytes], hashes: Sequence[bytes], tile: bytes) -> None:
    """Compare entries with the tile of their hashes; raises `Tampered` at the first that differs."""
    if b"".join(hashes) == tile:
        return
    n = next((n for n, found in enumerate(hashes) if found != tile[32 * n : 32 * n + 32]), len(hashes) - 1)
    raise Tampered(
        Finding(
            kind="edited",
            says=f"Entry {after + n + 1} hashes to {hashes[n].hex()}; by the tile of hashes it has to be "
            f"{tile[32 * n : 32 * n + 32].hex()}.",
            first=after + n + 1,
            last=after + n + 1,
            expected=tile[32 * n : 32 * n + 32].hex(),
            found=hashes[n].hex(),
            entry=legible(entries[n]),
        )
    )


def read_tile(directory: Path, tile: Tile) -> bytes:
    """Read one tile of hashes; raises `Tampered` if it does not hold so many."""
    level = tile.level or 0
    span = WIDTH**level
    octets = _file(directory, tile.path, tile.index * WIDTH * span + 1, (tile.index * WIDTH + tile.width) * span)
    try:
        count = len(unpack_hashes(octets))
    except Malformed:
        count = -1
    if count != tile.width:
        raise _bad("tile", f"{tile.path} does not have {tile.width} hashes.", tile.index, tile.width, span)
    return octets


def write_bundles(directory: Path, after: int, entries: Sequence[bytes]) -> None:
    """Write the entries after a position in bundles of 256, the last of them perhaps of fewer."""
    for start in range(0, len(entries), WIDTH):
        some = entries[start : start + WIDTH]
        write(directory, entries_path((after + start) // WIDTH, len(some)), pack_entries(some))


def write(directory: Path, name: str, octets: bytes) -> None:
    """Write a tile or a bundle, unless it is there."""
    path = f"{directory}/{name}"
    try:
        put_file(path, octets, new=True)
    except FileNotFoundError:
        os.makedirs(path.rpartition("/")[0], exist_ok=True)
        put_file(path, octets, new=True)
    except FileExistsError:
        with open_plain(Path(path)) as file:
            is_there = file.read(len(octets) + 1) == octets
        if not is_there:
            put_file(path, octets)


def _file(directory: Path, name: str, first: int, last: int) -> bytes:
    try:
        with open_plain(directory / name) as file:
            octets = file.read(LONGEST_BUNDLE + 1)
        if len(octets) <= LONGEST_BUNDLE:
            return octets
        says = f"{name} is too long to be what it should be: entries {first} to {last}."
        raise Tampered(Finding(kind="edited", says=says, first=first, last=last))
    except (FileNotFoundError, IsADirectoryError):
        says = f"{name} is missing: entries {first} to {last}."
        raise Tampered(Finding(kind="deleted", says=says, first=first, last=last)) from None
    except OSError as error:
        raise Unverifiable(f"{directory / name} cannot be read: {error.strerror}.") from error


def _bad(kind: Kind, says: str, index: int, width: int, span: int = 1) -> Tampered:
    first = index * WIDTH * span + 1
    return Tampered(Finding(kind=kind, says=says, first=first, last=first - 1 + width * span))
