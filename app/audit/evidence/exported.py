"""An exported directory, read with nothing but its files: strictly, and believing only what its checkpoint proves."""

import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from app.audit.evidence.bundles import bundle_octets, compare_leaves, read_bundle, read_tile
from app.audit.evidence.findings import Finding, Tampered, legible
from app.audit.evidence.leaves import PAGE, hashes_of
from app.audit.evidence.plain import must_be_plain, open_plain, read_plain, text_of
from app.audit.evidence.stamps import MARK, stamps_in
from app.audit.evidence.trust import Trust, Unverifiable, read_keys
from app.audit.evidence.walk import Head, Walk, Whole
from app.audit.pruned import is_tombstone
from app.audit.signing.edge import CompleteTile
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.notes import MAX_NOTE, NoteRejected
from app.audit.transparency.strict import Malformed
from app.audit.transparency.tiles import (
    HEIGHT,
    MAX_ENTRY,
    WIDTH,
    Tile,
    parse_path,
)

Format = Literal["tiles", "jsonl", "cloudevents", "ocsf"]

CHECKPOINT, KEYS, MANIFEST, SUMS, INCOMPLETE = "checkpoint", "vkeys", "manifest.json", "SHA256SUMS", "INCOMPLETE"
"""Names of files in an exported directory. While the last is there, the export has not ended."""

SUMMED = (CHECKPOINT, KEYS, MANIFEST, "README", "verify.sh")
"""Files whose checksums lie beside them, so that damage on their way is seen. They are not signed."""

SEGMENT = 32 * PAGE
"""Entries in one file of lines."""


class Manifest(Struct, frozen=True, kw_only=True):
    """What an export says of itself; nothing is believed because it stands here."""

    format: Format
    origin: str
    first: int
    last: int
    exported: str
    sophon: str


class Exported(Struct, frozen=True):
    """A directory that is a complete export, with its checkpoint read by keys that are trusted."""

    directory: Path
    manifest: Manifest
    trust: Trust
    checkpoint: Checkpoint
    note: bytes


def open_exported(directory: Path, trust: Trust | None = None) -> Exported:
    """Read what an export is of. Without keys, by those that lie in it: that proves nothing about who signed.

    Raises `Unverifiable` (no export, an incomplete one, another's keys) or `Tampered` (its checkpoint was touched).
    """
    if (directory / INCOMPLETE).exists():
        raise Unverifiable(
            f"The export in {directory} has not ended. Complete it: sophon audit export {directory} --resume"
        )
    manifest = read_manifest(directory)
    if read_plain(directory / SUMS) != sums(directory):
        says = f"A file beside the tiles is not the one that was exported ({SUMS})."
        raise Tampered(Finding(kind="checkpoint", says=says, first=1, last=max(1, manifest.last)))
    trust = trust or read_keys(text_of(read_plain(directory / KEYS), directory / KEYS))
    note = read_plain(directory / CHECKPOINT, MAX_NOTE)
    try:
        return Exported(directory, manifest, trust, trust.open(note), note)
    except NoteRejected as error:
        raise Tampered(
            Finding(
                kind="checkpoint",
                says=f"The checkpoint of the export was changed: {error}",
                first=1,
                last=max(1, manifest.last),
                notes=(legible(note),),
            )
        ) from error


def sums(directory: Path) -> bytes:
    """Give the checksums of the files beside the tiles, as `sha256sum` writes them. Raises `Unverifiable`."""
    return b"".join(f"{sha256(read_plain(directory / name)).hexdigest()}  {name}\n".encode() for name in SUMMED)


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest; raises `Unverifiable` if there is none: then it is no export."""
    try:
        return msgspec.json.decode(read_plain(directory / MANIFEST, 65_536), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unverifiable(f"{directory / MANIFEST} cannot be read: {error}") from error


def verify_exported(
    exported: Exported,
    saved: Sequence[bytes] = (),
    tell: Callable[[int, int], None] = lambda done, of: None,
    take: Callable[[int, list[bytes], list[bytes]], None] = lambda after, entries, hashes: None,
) -> Whole:
    """Verify a whole export by itself; give `take` each run of entries with what stands before it, and their hashes.

    Raises `Tampered`, or `Unverifiable` where a file cannot be read.
    """
    size = exported.checkpoint.size
    newest = Head(size, exported.checkpoint.root, exported.note, "the export's checkpoint")
    heads = [Head((one := exported.trust.open(note)).size, one.root, note, "the saved checkpoint") for note in saved]
    if exported.manifest.format == "tiles":
        must_be_plain(exported.directory)
    walk = Walk([newest, *heads], stamps=stamps_in(entries_from(exported, 0, MARK)))
    if exported.manifest.format == "tiles":
        for after, entries, hashes in _bundles(exported.directory, size):
            _compare_tiles(exported.directory, walk.take(hashes, [b"\n".join(entries)]))
            take(after, entries, hashes)
            tell(after + len(entries), size)
        _compare_partial(exported.directory, walk)
        _expect_no_more(exported.directory, size)
    elif exported.manifest.format == "jsonl":
        for after, entries in _lines(exported.directory, size):
            if pruned := next((after + n for n, entry in enumerate(entries, 1) if is_tombstone(entry)), None):
                raise Unverifiable(
                    f"Entry {pruned} had been pruned when {exported.directory} was made: its content is only in "
                    "exports that were made before. Verify one as tiles."
                )
            hashes = hashes_of(entries)
            walk.take(hashes, [b"\n".join(entries)])
            take(after, entries, hashes)
            tell(after + len(entries), size)
    else:
        raise Unverifiable(f"An export as {exported.manifest.format} is for reading. Verify one as tiles, or as jsonl.")
    walk.end()
    return Whole(size, walk.tiling.root(), 1 + len(heads), newest, stamps=walk.stamps())


def entries_from(exported: Exported, after: int, having: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """Give the entries after a position, in runs, with what stands before each. Verify the export first.

    Bundles that do not have some octets in them may be passed over.
    """
    directory, size = exported.directory, exported.checkpoint.size
    starts = (
        one
        for one in _starts(after, size)
        if not having or having in bundle_octets(directory, one // WIDTH, min(WIDTH, size - one))
    )
    runs = (
        ((start, read_bundle(directory, start // WIDTH, min(WIDTH, size - start))) for start in starts)
        if exported.manifest.format == "tiles"
        else _lines(directory, size)
    )
    for start, entries in runs:
        skip = max(0, after - start)
        if skip < len(entries):
            yield start + skip, entries[skip:]


def _starts(after: int, size: int) -> range:
    return range(after // WIDTH * WIDTH, size, WIDTH)


def _bundles(directory: Path, size: int) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
    for index in range(-(-size // WIDTH)):
        after = index * WIDTH
        width = min(WIDTH, size - after)
        entries = read_bundle(directory, index, width)
        hashes = hashes_of(entries)
        compare_leaves(after, entries, hashes, read_tile(directory, Tile(0, index, width)))
        yield after, entries, hashes


def _lines(directory: Path, size: int) -> Iterator[tuple[int, list[bytes]]]:
    for first in range(1, size + 1, SEGMENT):
        path = directory / segment_name(first, "jsonl")
        last = min(size, first + SEGMENT - 1)
        at, entries = first - 1, list[bytes]()
        try:
            with open_plain(path) as file:
                while (line := file.readline(MAX_ENTRY + 2)) and at + len(entries) <= last:
                    entries.append(line.removesuffix(b"\n"))
                    if len(entries) == PAGE:
                        yield at, entries
                        at, entries = at + len(entries), []
                if entries:
                    yield at, entries
        except OSError as error:
            raise Unverifiable(f"{path} cannot be read: {error.strerror}.") from error
        if at + len(entries) != last:
            raise Tampered(
                Finding(
                    kind="edited",
                    says=f"{path.name} ends at entry {at + len(entries)} instead of {last}.",
                    first=first,
                    last=last,
                )
            )


def segment_name(first: int, format_: Format) -> str:
    """Name the file of lines that begins with a position."""
    return f"{format_}-{first:015}.jsonl"


def _compare_tiles(directory: Path, complete: Sequence[CompleteTile]) -> None:
    for tile in complete:
        if tile.level and read_tile(directory, Tile(tile.level, tile.index)) != tile.hashes:
            raise _odd_tile(Tile(tile.level, tile.index))


def _compare_partial(directory: Path, walk: Walk) -> None:
    for tile in walk.tiling.partial():
        name = Tile(tile.level, tile.index, len(tile.hashes) // 32)
        if tile.level and read_tile(directory, name) != tile.hashes:
            raise _odd_tile(name)


def _odd_tile(tile: Tile) -> Tampered:
    span = WIDTH ** (1 + (tile.level or 0))
    first = tile.index * span + 1
    says = f"{tile.path} is not what the entries under it give (from entry {first} on)."
    return Tampered(Finding(kind="tile", says=says, first=first, last=first + span - 1))


def _expect_no_more(directory: Path, size: int) -> None:
    """Raise `Tampered` for a file below `tile` that the tree of this size does not have."""
    for name in files_below(directory):
        if not belongs(name, size):
            says = f"{name} does not belong to a log of {size} entries."
            raise Tampered(Finding(kind="inserted", says=says, first=size, last=size))


def files_below(directory: Path) -> Iterator[str]:
    """Name every file of an export's tree, relative to its directory."""
    for parent, _, names in os.walk(directory / "tile"):
        yield from (os.path.relpath(os.path.join(parent, name), directory) for name in sorted(names))


def belongs(name: str, size: int) -> bool:
    """Whether a tree of that size has a tile or bundle of this name, in this width."""
    try:
        tile = parse_path(name)
    except Malformed:
        return False
    return tile.width == min(WIDTH, (size >> HEIGHT * (tile.level or 0)) - tile.index * WIDTH)
