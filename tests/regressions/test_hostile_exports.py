"""A directory that somebody sent us, made to keep us waiting or to fill our memory: could not be checked, exit 2."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from app.audit.evidence.bundles import write
from app.audit.evidence.exported import segment_name, sums
from app.audit.evidence.plain import put_file
from app.audit.evidence.trust import Unverifiable
from app.audit.transparency.keys import SigningKey
from tests.audit.signed import ORIGIN, moments, written

VERIFIER = Path(__file__).parents[2] / "infra/verify/verify.sh"
MEMORY = 3 << 30


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export of 300 entries, which is whole."""
    directory = tmp_path / "export"
    directory.mkdir()
    written(directory, moments(300), [SigningKey.generate(ORIGIN, "ed25519")])
    return directory


def verified(directory: Path) -> int:
    """Give the exit code; a traceback is none."""
    command = [sys.executable, "-m", "app", "audit", "verify", "--export", str(directory)]
    own = directory.parent / "own"
    own.mkdir()
    done = subprocess.run(
        [*command, "--evidence", str(own)],
        env={**os.environ, "SOPHON_DATA": str(own)},
        timeout=15,
        check=False,
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert b"MemoryError" not in done.stderr
    return done.returncode


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000", "tile/entries/000"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(export: Path, name: str) -> None:
    (export / name).unlink()
    os.mkfifo(export / name)
    assert verified(export) == 2


def test_the_script_does_not_wait_for_a_pipe_either(export: Path) -> None:
    (export / "checkpoint").unlink()
    os.mkfifo(export / "checkpoint")
    assert subprocess.run(["sh", str(VERIFIER), str(export)], timeout=15, check=False).returncode == 2


def test_a_file_without_an_end_is_not_called_tampering_by_a_traceback(export: Path) -> None:
    (export / "tile/entries/000").unlink()
    (export / "tile/entries/000").symlink_to("/dev/zero")
    assert verified(export) == 2


def test_a_bundle_that_is_too_long_to_be_one_is_not_read(export: Path) -> None:
    os.truncate(export / "tile/entries/000", 6 << 30)
    assert verified(export) in (1, 2)


def by_the_script(directory: Path) -> int:
    return subprocess.run(["sh", str(VERIFIER), str(directory)], timeout=60, check=False).returncode


@pytest.mark.parametrize("name", ["tile/0", "tile"])
def test_a_directory_that_is_a_link_is_not_followed(export: Path, name: str) -> None:
    (export / name).rename(export.parent / "elsewhere")
    (export / name).symlink_to(export.parent / "elsewhere", target_is_directory=True)
    assert (verified(export), by_the_script(export)) == (2, 2)


def test_a_link_to_everything_is_not_overlooked(export: Path) -> None:
    (export / "tile/entries/more").symlink_to("/", target_is_directory=True)
    assert (verified(export), by_the_script(export)) == (2, 2)


def test_a_directory_in_the_place_of_a_tile_is_tampering(export: Path) -> None:
    (export / "tile/0/000").unlink()
    (export / "tile/0/000").mkdir()
    assert (verified(export), by_the_script(export)) == (1, 1)


def test_the_script_reads_no_bundle_that_is_too_long_to_be_one(export: Path) -> None:
    os.truncate(export / "tile/entries/000", 6 << 30)
    assert by_the_script(export) == 1


def test_the_script_checks_tiles_where_the_manifest_says_tiles(export: Path) -> None:
    manifest = export / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"tiles"', b'"jsonl"'))
    (export / "SHA256SUMS").write_bytes(sums(export))
    assert by_the_script(export) == 2


def test_a_line_without_an_end_is_not_read_into_memory(export: Path) -> None:
    manifest = export / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"tiles"', b'"jsonl"'))
    (export / "SHA256SUMS").write_bytes(sums(export))
    with (export / segment_name(1, "jsonl")).open("wb") as file:
        file.truncate(6 << 30)
    assert verified(export) == 1


def test_an_export_is_not_continued_through_a_link(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"mine")
    (tmp_path / "000").symlink_to(kept)
    with pytest.raises(OSError, match="symbolic"):
        put_file(str(tmp_path / "000"), b"theirs")
    assert kept.read_bytes() == b"mine"


@pytest.mark.parametrize("octets", [b"mine", b"theirs"])
def test_a_link_in_the_place_of_a_tile_is_neither_followed_nor_taken_for_it(octets: bytes, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"mine")
    (tmp_path / "000").symlink_to(kept)
    with pytest.raises(Unverifiable, match="link"):
        write(tmp_path, "000", octets)
    assert kept.read_bytes() == b"mine"
