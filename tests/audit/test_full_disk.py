"""A disk that is really full: an export says so, leaves the one before it as it was, and goes on once there is room."""

import contextlib
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import msgspec
import pytest

from app.audit.evidence.export import NotExported
from app.audit.evidence.exported import CHECKPOINT, INCOMPLETE, Format, open_exported, verify_exported
from app.audit.evidence.trust import Trust
from tests.audit.signed import signed_log
from tests.audit.test_export import export, shell
from tests.audit.test_verify import SECRET, command
from tests.foreign.conftest import absent

SMALL, LARGE = "128k", "8m"
"""The first has room for some entries, and not for all."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, that is small."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = mount(place, "-t", "tmpfs", "-o", f"size={SMALL}", "none")
    if mounted.returncode:
        absent("mount", f"Nothing may be mounted here: {mounted.stderr.strip()}.")
    yield place
    subprocess.run(["umount", place], check=True)


def mount(place: Path, *how: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(["mount", *how, place], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(how, 1, "", str(error))


@contextlib.contextmanager
def filled(disk: Path) -> Generator[None]:
    """Leave not one byte of room."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield
    ballast.unlink()


def complete(directory: Path, format_: Format, by: Trust) -> int:
    """Say how many entries are in an export that has to be whole."""
    assert not (directory / INCOMPLETE).exists()
    if format_ in ("tiles", "jsonl"):
        return verify_exported(open_exported(directory, by)).entries
    assert (
        open_exported(directory, by).checkpoint.size
        == msgspec.json.decode((directory / "manifest.json").read_bytes())["last"]
    )
    return sum(path.read_bytes().count(b"\n") for path in directory.glob(f"{format_}-*"))


@pytest.mark.parametrize("format_", ["tiles", "jsonl", "cloudevents", "ocsf"])
async def test_an_export_on_a_full_disk_ends_with_2_and_is_gone_on_with_when_there_is_room(
    format_: Format, disk: Path, dsn: str, tmp_path: Path
) -> None:
    directory = disk / "export"
    by = await signed_log(dsn, tmp_path / "signer", (20,))
    assert await export(dsn, directory, by, format_) == 20
    before = (directory / CHECKPOINT).read_bytes()
    by = await signed_log(dsn, tmp_path / "signer", (700,), width=400)

    done = await command(dsn, tmp_path, "audit", "export", str(directory), "--format", format_, **SECRET)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    said = " ".join(done.stderr.split())
    assert "There is no room left for the export" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert (directory / INCOMPLETE).exists()
    assert (directory / CHECKPOINT).read_bytes() == before

    assert mount(disk, "-o", f"remount,size={LARGE}").returncode == 0
    done = await command(dsn, tmp_path, "audit", "export", str(directory), "--format", format_, "--resume", **SECRET)
    assert (done.returncode, done.stdout) == (0, f"{directory}: 700 entries, 680 of them new\n"), done.stderr
    assert complete(directory, format_, by) == 700
    assert format_ != "tiles" or shell(directory).returncode == 0


@pytest.mark.parametrize("format_", ["tiles", "jsonl", "cloudevents", "ocsf"])
async def test_where_there_is_no_room_at_all_the_export_before_is_as_good_as_it_was(
    format_: Format, disk: Path, dsn: str, tmp_path: Path
) -> None:
    directory = disk / "export"
    old = await signed_log(dsn, tmp_path / "signer", (20,))
    await export(dsn, directory, old, format_)
    new = await signed_log(dsn, tmp_path / "signer", (40,))
    with filled(disk), pytest.raises(NotExported, match=r"no room left.+was not begun"):
        await export(dsn, directory, new, format_)
    assert complete(directory, format_, old) == 20
    await export(dsn, directory, new, format_, resume=True)
    assert complete(directory, format_, new) == 40


@pytest.mark.parametrize("resume", [False, True])
async def test_where_there_was_no_room_to_begin_an_export_is_begun_later(
    resume: bool, disk: Path, dsn: str, tmp_path: Path
) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (20,))
    with filled(disk), pytest.raises(NotExported, match=r"no room left.+was not begun"):
        await export(dsn, disk / "export", by)
    await export(dsn, disk / "export", by, resume=resume)
    assert complete(disk / "export", "tiles", by) == 20
