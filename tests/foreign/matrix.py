"""The tamper matrix: what is done to a log, by whom, and what an auditor has in hand who must find it.

Every verifier has to reject every attempt. To run the matrix against another command:

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_it_is_rejected(case: Case, tmp_path: Path) -> None:
        attempt = case.attempt(tmp_path)  # .directory, .key (a vkey file), .since (a checkpoint, or None)
        assert subprocess.run(["verify.sh", *attempt.arguments()]).returncode == 1
"""

import shutil
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import SignatureLine, UnverifiedNote, parse_note
from app.audit.transparency.tiles import pack_entries, tiles_of
from tests.audit.transparency.logs import ORIGIN, entries
from tests.foreign.exports import checkpoint_of, write_export, write_keys, write_tiles

SIZE = 300
"""Entries of the log that is tampered with: one whole bundle, and a part of one."""

LOG = SigningKey.generate(ORIGIN, "ed25519")
OTHER = SigningKey.generate(ORIGIN, "ed25519")
"""Whoever has not stolen the log's key makes one of the same name."""

ENTRIES = entries(SIZE)


class Attempt(NamedTuple):
    """An export that is to be rejected, the keys that the auditor trusts, and an older checkpoint that was kept."""

    directory: Path
    key: Path
    since: Path | None

    def arguments(self) -> list[str | Path]:
        """Give the command line that the verifiers here understand."""
        since = [] if self.since is None else ["--since", self.since]
        return ["--key", self.key, *since, self.directory]


Change = Callable[[Sequence[bytes], int], list[bytes]]
"""(entries, position) -> other entries."""

CHANGES: dict[str, Change] = {
    "edited": lambda entries, at: [*entries[:at], entries[at][:-1] + b"!", *entries[at + 1 :]],
    "deleted": lambda entries, at: [*entries[:at], *entries[at + 1 :]],
    "inserted": lambda entries, at: [*entries[:at], b"inserted", *entries[at:]],
    "swapped": lambda entries, at: [*entries[:at], entries[at ^ 1], entries[at], *entries[at + 2 :]],
    "truncated": lambda entries, at: list(entries[:at]),
}

POSITIONS = {"the first": 0, "one within": 130, "the last of a bundle": 254, "one of the last": SIZE - 2}


class Case(NamedTuple):
    """One attempt. `make` gives it in an empty directory."""

    name: str
    make: Callable[[Path], object]
    since: Sequence[bytes] | None = None

    def __str__(self) -> str:
        return self.name

    def attempt(self, directory: Path) -> Attempt:
        """Make the export, beside what the auditor has."""
        self.make(directory / "export")
        key = write_keys(directory / "trusted", [LOG.verifier])
        if self.since is None:
            return Attempt(directory / "export", key, None)
        since = directory / "since"
        since.write_bytes(checkpoint_of(self.since, [LOG]))
        return Attempt(directory / "export", key, since)


def whole(directory: Path) -> None:
    """Write the log as it is."""
    write_export(directory, ENTRIES, [LOG])


def bundles_only(changed: Sequence[bytes]) -> Callable[[Path], None]:
    """Put other entries in place, in bundles of the old names, and leave everything else."""

    def make(directory: Path) -> None:
        whole(directory)
        for tile in tiles_of(SIZE):
            if tile.level is None:
                start, last = tile.index * 256, tile.width < 256
                (directory / tile.path).write_bytes(pack_entries(changed[start : None if last else start + 256]))

    return make


def rehashed(changed: Sequence[bytes]) -> Callable[[Path], None]:
    """Put other entries in place with the tiles that belong to them, and leave the checkpoint."""

    def make(directory: Path) -> None:
        whole(directory)
        shutil.rmtree(directory / "tile")
        write_tiles(directory, changed)

    return make


def resigned(changed: Sequence[bytes], key: SigningKey) -> Callable[[Path], object]:
    """Write a whole log of other entries, signed by this key."""
    return lambda directory: write_export(directory, changed, [key])


def file_changed(path: str, change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Write the log, and do something to one file."""

    def make(directory: Path) -> None:
        whole(directory)
        change(directory / path)

    return make


def _flipped(at: int) -> Callable[[Path], object]:
    def flip(path: Path) -> None:
        octets = bytearray(path.read_bytes())
        octets[at] ^= 1
        path.write_bytes(octets)

    return flip


def _added(path: str) -> Callable[[Path], None]:
    def add(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 32)

    return file_changed(path, add)


def under_a_false_id(directory: Path) -> None:
    """Write the log, signed with another key whose signature says that it is by the log's own."""
    whole(directory)
    text = parse_note((directory / "checkpoint").read_bytes()).text
    line = SignatureLine(LOG.name, LOG.verifier.id, OTHER.sign(text))
    (directory / "checkpoint").write_bytes(UnverifiedNote(text, (line,)).encoded())


def _of_entries() -> list[Case]:
    cases: list[Case] = []
    for (what, change), (where, at) in product(CHANGES.items(), POSITIONS.items()):
        changed, name = change(ENTRIES, at), f"{what}: {where}"
        cases += [
            Case(f"{name}, in its bundle only", bundles_only(changed)),
            Case(f"{name}, re-hashed", rehashed(changed)),
            Case(f"{name}, re-hashed and re-signed with another key", resigned(changed, OTHER)),
            Case(f"{name}, re-hashed and re-signed with the stolen key", resigned(changed, LOG), ENTRIES),
        ]
    return cases


FORKED = CHANGES["edited"](ENTRIES, 130)

CASES: list[Case] = [
    *_of_entries(),
    Case("the whole log with another key", resigned(ENTRIES, OTHER)),
    Case("the whole log with another key under the id of the log's", under_a_false_id),
    Case("rolled back to an older tree", resigned(ENTRIES[:256], LOG), ENTRIES),
    Case("rolled back by one", resigned(ENTRIES[:-1], LOG), ENTRIES),
    Case("rolled back to nothing", resigned([], LOG), ENTRIES),
    Case("a split view: another tree of the same size", resigned(FORKED, LOG), ENTRIES),
    Case("a fork: another tree that grew further", resigned([*FORKED, b"more"], LOG), ENTRIES),
    Case("a checkpoint of another log", resigned(ENTRIES, SigningKey.generate("other.example", "ed25519"))),
    Case("a bit of a leaf's hash", file_changed("tile/0/000", _flipped(100))),
    Case("a bit of a partial tile", file_changed("tile/0/001.p/44", _flipped(0))),
    Case("a bit of an upper tile", file_changed("tile/1/000.p/1", _flipped(31))),
    Case("a bit of the checkpoint's size", file_changed("checkpoint", _flipped(len(ORIGIN) + 1))),
    Case("a bit of the checkpoint's signature", file_changed("checkpoint", _flipped(-20))),
    *(
        Case(f"{path} is missing", file_changed(path, Path.unlink))
        for path in ("checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44")
    ),
    Case("a tile that is cut off", file_changed("tile/0/001.p/44", lambda file: file.write_bytes(b"x" * 31))),
    Case("entries behind the last", _added("tile/entries/002")),
    Case("a tile behind the last", _added("tile/0/002.p/1")),
    Case("something else among the tiles", _added("tile/0/hidden")),
]
"""Everything that has to be rejected, besides the flips of single bits."""
