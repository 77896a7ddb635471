"""Small logs as directories in the layout of C2SP tlog-tiles."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from app.audit.evidence.trust import Term
from app.audit.transparency.keys import SigningKey, Verifier
from app.audit.transparency.tiles import pack_entries, tiles_of
from app.audit.transparency.tree import leaf_hash
from tests.audit.transparency.logs import note_of, tile_reader

AT = 1_700_000_000
SHELL = Path(__file__).parents[2] / "infra" / "verify" / "verify.sh"


def write_export(directory: Path, entries: Sequence[bytes], keys: Sequence[SigningKey]) -> Path:
    """Write a log: `checkpoint`, `vkeys`, `tile/entries/...`, `tile/<L>/...`. Gives the directory."""
    write_tiles(directory, entries)
    (directory / "checkpoint").write_bytes(checkpoint_of(entries, keys))
    return write_keys(directory / "vkeys", [key.verifier for key in keys]).parent


def write_keys(path: Path, verifiers: Sequence[Verifier]) -> Path:
    """Write verifier keys, one a line. Gives the file."""
    path.write_text("".join(f"{verifier.text()}\n" for verifier in verifiers))
    return path


def write_terms(path: Path, *terms: tuple[SigningKey, int, int | None]) -> Path:
    """Write verifier keys, each with the first and the last size that it signs. Gives the file."""
    path.write_text("".join(f"{Term(key.verifier, since, until).text()}\n" for key, since, until in terms))
    return path


def checkpoint_of(entries: Sequence[bytes], keys: Sequence[SigningKey]) -> bytes:
    """Sign the tree of these entries."""
    return note_of([leaf_hash(entry) for entry in entries], *keys, at=AT)


def write_tiles(directory: Path, entries: Sequence[bytes]) -> None:
    """Write entries, and the hashes that belong to them."""
    read = tile_reader([leaf_hash(entry) for entry in entries])
    directory.mkdir(parents=True, exist_ok=True)
    for tile in tiles_of(len(entries)):
        path = directory / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if tile.level is None:
            start = tile.index * 256
            path.write_bytes(pack_entries(entries[start : start + tile.width]))
        else:
            path.write_bytes(read(tile.level, tile.index, tile.width))


def accompany(directory: Path) -> None:
    """Put beside a log what `sophon audit export` puts there and verify.sh asks for, with the checksums it now has.

    Whoever tampers with an export can do that, too.
    """
    Path(shutil.copy(SHELL, directory)).chmod(0o755)
    (directory / "manifest.json").write_text('{"format": "tiles"}\n')
    (directory / "README").write_text("\n")
    names = ("checkpoint", "vkeys", "manifest.json", "README", "verify.sh")
    there = [name for name in names if (directory / name).exists()]
    sums = [f"{hashlib.sha256((directory / name).read_bytes()).hexdigest()}  {name}\n" for name in there]
    (directory / "SHA256SUMS").write_text("".join(sums))
