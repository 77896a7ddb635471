"""Bits that are flipped in an export, each of them, and what the shell script says of it."""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from app.audit.evidence.exported import CHECKPOINT, KEYS, MANIFEST, SUMS, sums
from app.audit.transparency.keys import SigningKey
from app.audit.transparency.tiles import entries_path, tile_path
from tests.audit.signed import moments, put, written
from tests.audit.test_export import flip, shell, trust
from tests.database import memory

KEY = SigningKey.generate("l", "ed25519")
"""Its name stands in the files three times, and each bit of it takes a run of the script."""
AT_ONCE = 2
FORMAT = b'"format":"tiles"'


class Flips(NamedTuple):
    """Bits of a file that are flipped, one at a time."""

    name: str
    bits: range | list[int]
    remade: bool = True
    """Whether whoever flips them makes the checksums anew, as everybody can: SHA256SUMS is not signed."""
    keys: bool = True
    """Whether the auditor has the log's keys from elsewhere."""


def every_bit(octets: bytes, start: int = 0) -> range:
    return range(8 * start, 8 * (start + len(octets)))


def one_of_each_byte(octets: bytes) -> list[int]:
    lots = random.Random(3)
    return [8 * byte + lots.randrange(8) for byte in range(len(octets))]


def some(octets: bytes) -> list[int]:
    return random.Random(4).sample(every_bit(octets), 60)


def signed(directory: Path) -> Iterator[Flips]:
    """What a signature is over."""
    yield Flips(CHECKPOINT, every_bit((directory / CHECKPOINT).read_bytes()))


def proven(directory: Path) -> Iterator[Flips]:
    """What has a hash that is signed, or what the verifier goes by."""
    for name in (tile_path(0, 0, 1), entries_path(0, 1)):
        yield Flips(name, every_bit((directory / name).read_bytes()))
    yield Flips(KEYS, every_bit((directory / KEYS).read_bytes()), keys=False)
    yield Flips(MANIFEST, every_bit(FORMAT, (directory / MANIFEST).read_bytes().index(FORMAT)))


def summed(directory: Path) -> Iterator[Flips]:
    """What came over whole if its checksum says so, and no more: who makes that anew may write there what they like."""
    yield Flips(MANIFEST, every_bit((directory / MANIFEST).read_bytes()), remade=False)
    yield Flips(SUMS, one_of_each_byte((directory / SUMS).read_bytes()), remade=False)
    for name in ("README", "verify.sh"):
        yield Flips(name, some((directory / name).read_bytes()), remade=False)


def accepted(directory: Path, keys: Path, flips: Flips) -> list[str]:
    """Flip each bit, and name those that the script took for whole, or had nothing to say of."""
    octets, found = (directory / flips.name).read_bytes(), list[str]()
    for bit in flips.bits:
        flip(directory / flips.name, bit)
        if flips.remade:
            put(directory / SUMS, sums(directory))
        done = shell(directory, *(("--key", str(keys)) if flips.keys else ()))
        if done.returncode not in (1, 2) or "whole" in done.stdout or not done.stderr:
            found.append(f"{flips}: bit {bit}: {done}")
        put(directory / flips.name, octets)
    put(directory / SUMS, sums(directory))
    return found


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in memory, if that is possible: each of thousands of runs makes a temporary directory."""
    with tempfile.TemporaryDirectory(dir=memory()) as directory:
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)


@pytest.mark.parametrize("kind", [signed, proven, summed])
def test_every_bit_that_is_flipped_is_rejected_by_the_shell(
    kind: Callable[[Path], Iterator[Flips]], place: Path
) -> None:
    first = place / "0"
    written(first, moments(1), [KEY], KEY.name)
    (place / "vkeys").write_text(trust(KEY).text())
    everything = list(kind(first))
    copies = [first, *(shutil.copytree(first, place / str(number)) for number in range(1, AT_ONCE))]

    def share(number: int) -> list[str]:
        shares = [flips._replace(bits=flips.bits[number::AT_ONCE]) for flips in everything]
        return [one for flips in shares for one in accepted(copies[number], place / "vkeys", flips)]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert [one for found in pool.map(share, range(AT_ONCE)) for one in found] == []
    for directory in copies:
        assert shell(directory, "--key", str(place / "vkeys")).returncode == 0
