"""Exports: whole or plainly not, continued and resumed, and rejected when anything in them was touched."""

import asyncio
import itertools
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.audit.evidence.export import VERIFIER, NotExported, export_log
from app.audit.evidence.exported import INCOMPLETE, SUMS, Format, open_exported, sums, verify_exported
from app.audit.evidence.findings import Tampered
from app.audit.evidence.leaves import hashes_of
from app.audit.evidence.trust import Trust, Unverifiable, WrongKey, one_log
from app.audit.evidence.verify import connected
from app.audit.transparency.keys import SigningKey
from app.audit.transparency.tiles import entries_path, pack_entries, tile_path, unpack_entries
from tests.audit.signed import ORIGIN, moments, put, signed_log, superuser, written
from tests.audit.test_verify import SECRET, command, edit

KEY = SigningKey.generate(ORIGIN, "ed25519")
OTHER = SigningKey.generate(ORIGIN, "ed25519")

Touch = Callable[[Path], object]


def trust(key: SigningKey = KEY) -> Trust:
    return one_log([key.verifier])


async def export(dsn: str, directory: Path, by: Trust, format_: Format = "tiles", *, resume: bool = False) -> int:
    async with connected(dsn) as connection:
        return (await export_log(connection, directory, format_, by, resume=resume)).new


def shell(directory: Path, *arguments: str, sh: str = "sh") -> "subprocess.CompletedProcess[str]":
    """Verify by the script from the repository: one that lies in the export could be anybody's."""
    return subprocess.run(
        [sh, str(VERIFIER), str(directory), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=100,
        check=False,
    )


def files(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Give each file below: its inode and its octets."""
    return {
        str(path.relative_to(directory)): (path.stat().st_ino, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


async def test_an_export_is_whole_by_our_verifier_and_by_the_shell(dsn: str, tmp_path: Path) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (5, 600))
    for format_ in ("tiles", "jsonl"):
        assert await export(dsn, tmp_path / format_, by, format_) == 600
        whole = verify_exported(open_exported(tmp_path / format_, by))
        assert (whole.entries, whole.newest) != (0, None)
    (tmp_path / "vkeys").write_text(by.text())
    for sh in ("dash", "bash"):
        if shutil.which(sh) is None:
            continue
        done = shell(tmp_path / "tiles", "--key", str(tmp_path / "vkeys"), sh=sh)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"whole: 600 entries of {ORIGIN}, root {whole.root.hex()}" in done.stdout
    entries = b"".join(path.read_bytes() for path in sorted((tmp_path / "jsonl").glob("jsonl-*"))).splitlines()
    bundles = [entries_path(0), entries_path(1), entries_path(2, 600 - 512)]
    assert entries == [one for name in bundles for one in unpack_entries((tmp_path / "tiles" / name).read_bytes())]


@pytest.mark.parametrize("format_", ["tiles", "jsonl", "cloudevents", "ocsf"])
async def test_a_later_export_adds_what_is_new_and_writes_no_complete_tile_again(
    format_: Format, dsn: str, tmp_path: Path
) -> None:
    directory = tmp_path / "export"
    by = await signed_log(dsn, tmp_path / "signer", (300,))
    assert await export(dsn, directory, by, format_) == 300
    before = files(directory)
    assert await export(dsn, directory, by, format_) == 0
    assert files(directory) == before
    by = await signed_log(dsn, tmp_path / "signer", (310, 700))
    assert await export(dsn, directory, by, format_) == 400
    after = files(directory)
    assert msgspec.json.decode(after["manifest.json"][1])["last"] == 700
    if format_ == "tiles":
        for name in (tile_path(0, 0), entries_path(0)):
            assert after[name] == before[name]  # the same file, not one like it
        assert not [name for name in after if "/001.p/" in name]
        assert (await asyncio.to_thread(shell, directory)).returncode == 0
    if format_ in ("tiles", "jsonl"):
        assert verify_exported(open_exported(directory, by)).entries == 700


class _Killed(Exception):
    pass


class _Dying:
    """Writes and renames as the system does, so many times; then half of one more, and nothing."""

    def __init__(self, times: int) -> None:
        self._left = times
        self._write, self._replace = os.write, os.replace

    def write(self, opened: int, octets: bytes) -> int:
        self._left -= 1
        if self._left < 0:
            self._write(opened, bytes(octets)[: len(octets) // 2])
            raise _Killed
        return self._write(opened, octets)

    def replace(self, *paths: Any, **more: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Killed
        self._replace(*paths, **more)


async def killed_after(times: int, dsn: str, directory: Path, by: Trust, format_: Format) -> bool:
    """Export, and be killed after so many writes; tell whether it was."""
    dying = _Dying(times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", dying.write)
        patch.setattr(os, "replace", dying.replace)
        try:
            await export(dsn, directory, by, format_)
        except _Killed:
            return True
    return False


@pytest.mark.parametrize("format_", ["tiles", "jsonl", "ocsf"])
async def test_killed_at_any_write_it_says_that_it_is_incomplete_and_is_resumed(
    format_: Format, dsn: str, tmp_path: Path
) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (300,))
    await export(dsn, tmp_path / "first", by, format_)
    by = await signed_log(dsn, tmp_path / "signer", (600,))
    number = 0
    for number in itertools.count():
        directory = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "first", directory)
        if not await killed_after(number, dsn, directory, by, format_):
            break
        if (directory / INCOMPLETE).exists():
            with pytest.raises(Unverifiable, match="has not ended"):
                open_exported(directory, by)
            with pytest.raises(NotExported, match="--resume"):
                await export(dsn, directory, by, format_)
        await export(dsn, directory, by, format_, resume=True)
        assert not (directory / INCOMPLETE).exists()
        assert msgspec.json.decode((directory / "manifest.json").read_bytes())["last"] == 600
        if format_ != "ocsf":
            assert verify_exported(open_exported(directory, by)).entries == 600
    assert number > 8


async def test_a_first_export_that_was_cut_off_goes_on_from_the_bundles_that_are_whole(
    dsn: str, tmp_path: Path
) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (800,))
    directory = tmp_path / "export"
    await export(dsn, directory, by)
    before = files(directory)
    (directory / "checkpoint").unlink()
    put(directory / INCOMPLETE, b"")
    bundle = directory / entries_path(1)
    bundle.write_bytes(bundle.read_bytes()[:-7])
    assert await asyncio.to_thread(lambda: shell(directory).returncode) == 2
    assert await export(dsn, directory, by, resume=True) == 800
    after = files(directory)
    assert {name: one[1] for name, one in after.items() if name.startswith("tile")} == {
        name: one[1] for name, one in before.items() if name.startswith("tile")
    }
    assert after[entries_path(0)] == before[entries_path(0)]


async def test_a_full_disk_is_told_and_the_export_is_gone_on_with(dsn: str, tmp_path: Path) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (600,))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
        with pytest.raises(NotExported, match="no room left"):
            await export(dsn, tmp_path / "export", by)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "export" / INCOMPLETE).exists()
    await export(dsn, tmp_path / "export", by, resume=True)
    assert verify_exported(open_exported(tmp_path / "export", by)).entries == 600


async def test_what_was_tampered_with_is_not_exported(dsn: str, tmp_path: Path) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (600,))
    for number, position in enumerate((590, 200)):
        with superuser(dsn) as connection:
            edit(position)(connection)
        with pytest.raises(Tampered, match=f"Entry {position} "):
            await export(dsn, tmp_path / f"export-{number}", by)
        assert not (tmp_path / f"export-{number}" / "checkpoint").exists()
    with superuser(dsn) as connection:
        edit(590, rehash=True)(connection)
        connection.execute(
            "UPDATE audit.entries SET leaf_hash = sha256('\\x00'::bytea || convert_to(bytes::text,'UTF8'))"
        )
    with pytest.raises(Tampered):
        await export(dsn, tmp_path / "rehashed", by)
    with superuser(dsn) as connection:
        connection.execute("DELETE FROM audit.entries WHERE position = 300")
    with pytest.raises(Tampered):
        await export(dsn, tmp_path / "deleted", by)


async def test_a_directory_of_something_else_is_refused(dsn: str, tmp_path: Path) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (20,))
    put(tmp_path / "mine" / "thesis.tex", b"important")
    with pytest.raises(NotExported, match="not empty"):
        await export(dsn, tmp_path / "mine", by)
    written(tmp_path / "other", moments(5), [SigningKey.generate("other.example", "ed25519")], "other.example")
    with pytest.raises(Tampered, match="another log"):
        await export(dsn, tmp_path / "other", by)
    written(tmp_path / "forged", moments(5), [OTHER])
    with pytest.raises(NotExported, match="other keys"):
        await export(dsn, tmp_path / "forged", by)
    await export(dsn, tmp_path / "lines", by, "jsonl")
    with pytest.raises(NotExported, match="one as jsonl"):
        await export(dsn, tmp_path / "lines", by)
    assert files(tmp_path / "mine").keys() == {"thesis.tex"}


async def test_an_export_of_another_history_is_not_continued(dsn: str, tmp_path: Path) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (300,))
    keys = [
        SigningKey.parse(key) for key in msgspec.json.decode((tmp_path / "signer" / "keys.json").read_bytes())["keys"]
    ]
    for size, kind in ((20, "rewritten"), (280, "rewritten"), (300, "checkpoint"), (301, "truncated")):
        written(tmp_path / str(size), moments(size), keys)
        with pytest.raises(Tampered) as caught:
            await export(dsn, tmp_path / str(size), by)
        assert caught.value.finding.kind == kind


def entries_of(directory: Path) -> list[bytes]:
    return unpack_entries((directory / entries_path(0)).read_bytes()) + unpack_entries(
        (directory / entries_path(1, 44)).read_bytes()
    )


def rebundled(change: Callable[[list[bytes]], object], *, tile: bool = False) -> Touch:
    """Change the first bundle; with `tile`, have the tile of its hashes say the same."""

    def touch(directory: Path) -> None:
        entries = unpack_entries((directory / entries_path(0)).read_bytes())
        change(entries)
        put(directory / entries_path(0), pack_entries(entries))
        if tile:
            put(directory / tile_path(0, 0), b"".join(hashes_of(entries)))

    return touch


def edited(entries: list[bytes]) -> None:
    entries[9] = entries[9].replace(b'"n":9', b'"n":8')


def swapped(entries: list[bytes]) -> None:
    entries[3], entries[4] = entries[4], entries[3]


def replaced(entries: list[bytes]) -> None:
    del entries[7]
    entries.append(entries[-1])


def truncated(directory: Path) -> None:
    (directory / entries_path(1, 44)).unlink()
    (directory / tile_path(0, 1, 44)).unlink()


def cut(name: str, by: int) -> Touch:
    return lambda directory: put(directory / name, (directory / name).read_bytes()[:-by])


def again(entries: list[bytes], key: SigningKey) -> Touch:
    return lambda directory: written(directory, entries, [key])


MATRIX: dict[str, Touch] = {
    "edited": rebundled(edited),
    "edited with its tile": rebundled(edited, tile=True),
    "deleted": rebundled(lambda entries: entries.pop(7)),
    "deleted with its tile": rebundled(lambda entries: entries.pop(7), tile=True),
    "deleted, and one more at the end": rebundled(replaced, tile=True),
    "inserted": rebundled(lambda entries: entries.insert(7, entries[6])),
    "swapped": rebundled(swapped),
    "swapped with its tile": rebundled(swapped, tile=True),
    "truncated": truncated,
    "a bundle cut off": cut(entries_path(1, 44), 5),
    "a tile cut off": cut(tile_path(0, 1, 44), 32),
    "a tile cut off within a hash": cut(tile_path(0, 1, 44), 1),
    "an upper tile edited": lambda directory: put(directory / tile_path(1, 0, 1), bytes(32)),
    "an upper tile gone": lambda directory: (directory / tile_path(1, 0, 1)).unlink(),
    "a file too many": lambda directory: put(directory / entries_path(1, 45), b""),
    "re-hashed and signed with another key": again([b'{"at":"2026-11-23T00:00:00Z"}', *moments(299)], OTHER),
    "a checkpoint without its last line": cut("checkpoint", 1),
    "no checkpoint": lambda directory: (directory / "checkpoint").unlink(),
}


@pytest.mark.parametrize("touch", MATRIX.values(), ids=MATRIX.keys())
def test_an_export_that_was_touched_is_rejected_by_both(touch: Touch, tmp_path: Path) -> None:
    directory = tmp_path / "export"
    written(directory, moments(300), [KEY])
    assert verify_exported(open_exported(directory, trust())).entries == 300
    touch(directory)
    if (directory / "checkpoint").exists():
        put(directory / SUMS, sums(directory))  # whoever touches it can do that too
    with pytest.raises((Tampered, Unverifiable)):
        verify_exported(open_exported(directory, trust()))
    (tmp_path / "vkeys").write_text(trust().text())
    done = shell(directory, "--key", str(tmp_path / "vkeys"))
    assert done.returncode in (1, 2)
    assert "whole" not in done.stdout
    assert done.stderr


def test_where_it_was_touched_is_told(tmp_path: Path) -> None:
    written(tmp_path, moments(300), [KEY])
    rebundled(edited)(tmp_path)
    with pytest.raises(Tampered) as caught:
        verify_exported(open_exported(tmp_path, trust()))
    assert (caught.value.finding.kind, caught.value.finding.first) == ("edited", 10)
    done = shell(tmp_path)
    assert (done.returncode, done.stderr[:20]) == (1, "TAMPERED: entry 10: ")


def test_an_older_or_another_history_is_rejected_by_a_saved_checkpoint(tmp_path: Path) -> None:
    saved = written(tmp_path / "export", moments(300), [KEY])
    (tmp_path / "saved").write_bytes(saved)
    written(tmp_path / "longer", moments(400), [KEY])
    assert verify_exported(open_exported(tmp_path / "longer", trust()), [saved]).entries == 400
    assert shell(tmp_path / "longer", "--since", str(tmp_path / "saved")).returncode == 0
    for name, entries in {
        "older": moments(299),
        "view": moments(300, ',"m":1'),
        "fork": moments(400, ',"m":1'),
    }.items():
        written(tmp_path / name, entries, [KEY])  # signed with the log's own key, and whole by itself
        assert verify_exported(open_exported(tmp_path / name, trust())).entries == len(entries)
        with pytest.raises(Tampered) as caught:
            verify_exported(open_exported(tmp_path / name, trust()), [saved])
        assert caught.value.finding.kind == ("truncated" if name == "older" else "rewritten")
        assert shell(tmp_path / name, "--since", str(tmp_path / "saved")).returncode == 1


def test_a_wrong_key_or_no_export_cannot_be_checked(tmp_path: Path) -> None:
    written(tmp_path / "export", moments(3), [KEY])
    with pytest.raises(WrongKey, match="not signed by any key"):
        open_exported(tmp_path / "export", trust(OTHER))
    (tmp_path / "vkeys").write_text(trust(OTHER).text())
    assert shell(tmp_path / "export", "--key", str(tmp_path / "vkeys")).returncode == 2
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(Unverifiable, match="cannot be read"):
            open_exported(directory, trust())
        assert shell(directory).returncode == 2


def flip(path: Path, bit: int) -> None:
    octets = bytearray(path.read_bytes())
    octets[bit // 8] ^= 1 << bit % 8
    path.write_bytes(octets)


def test_any_bit_that_is_flipped_in_an_export_is_noticed(tmp_path: Path) -> None:
    written(tmp_path, moments(3), [KEY])
    count = 0
    for name, (_, octets) in files(tmp_path).items():
        step = 1 if len(octets) < 700 else 211
        for bit in range(0, 8 * len(octets), step):
            flip(tmp_path / name, bit)
            with pytest.raises((Tampered, Unverifiable)):
                verify_exported(open_exported(tmp_path, trust()))
            count += 1
            (tmp_path / name).write_bytes(octets)
    assert count > 4_000
    assert verify_exported(open_exported(tmp_path, trust())).entries == 3


def test_the_shell_reads_no_file_that_is_far_longer_than_it_should_be(tmp_path: Path) -> None:
    written(tmp_path, moments(3), [KEY])
    with (tmp_path / "README").open("r+b") as file:
        file.truncate(2**21)
    done = shell(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "too long" in done.stderr
    assert done.stderr.endswith("README\n")


def test_any_bit_of_the_checkpoint_that_is_flipped_is_noticed_though_the_checksums_agree(tmp_path: Path) -> None:
    octets = written(tmp_path, moments(3), [KEY])
    for bit in range(8 * len(octets)):
        flip(tmp_path / "checkpoint", bit)
        put(tmp_path / SUMS, sums(tmp_path))
        with pytest.raises((Tampered, Unverifiable)):
            verify_exported(open_exported(tmp_path, trust()))
        (tmp_path / "checkpoint").write_bytes(octets)


@pytest.mark.parametrize("lengths", [[0], [1, 65_535], [2] * 257])
def test_the_shell_reads_entries_of_any_length_and_any_bytes(lengths: list[int], tmp_path: Path) -> None:
    lots = random.Random(4)
    written(tmp_path, [lots.randbytes(length) for length in lengths], [KEY])
    done = shell(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_commands_export_and_verify_with_their_exit_codes(dsn: str, tmp_path: Path) -> None:
    by = await signed_log(dsn, tmp_path / "signer", (300,))
    directory = str(tmp_path / "export")
    refused = await command(dsn, tmp_path, "audit", "export", directory)
    assert (refused.returncode, Path(directory).exists()) == (2, False)
    assert "secret is not in" in refused.stderr
    done = await command(dsn, tmp_path, "audit", "export", directory, **SECRET)
    assert (done.returncode, done.stdout) == (0, f"{directory}: 300 entries, 300 of them new\n"), done.stderr
    async with connected(dsn) as connection:
        cursor = await connection.execute("SELECT bytes ->> 'data' FROM audit.entries WHERE type = 'AuditExported'")
        assert await cursor.fetchall() == [('{"format":"tiles","size":300}',)]

    nowhere = "postgresql://127.0.0.1:1/none"
    done = await command(nowhere, tmp_path, "audit", "verify", "--export", directory)
    assert (done.returncode, done.stdout[:18]) == (0, "whole: 300 entries"), done.stderr
    (tmp_path / "wrong").write_text(OTHER.verifier.text() + "\n")
    done = await command(
        nowhere, tmp_path, "audit", "verify", "--export", directory, "--vkeys", str(tmp_path / "wrong")
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "not signed by any key" in " ".join(done.stderr.split())
    done = await command(nowhere, tmp_path, "audit", "verify", "--export", str(tmp_path))
    assert done.returncode == 2
    rebundled(lambda entries: entries.pop(7))(tmp_path / "export")
    done = await command(nowhere, tmp_path, "audit", "verify", "--export", directory, "--evidence", str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "evidence: " in done.stdout
    done = await command(dsn, tmp_path, "audit", "export", str(tmp_path / "signer"), **SECRET)
    assert done.returncode == 2
    assert "not empty" in " ".join(done.stderr.split())
    assert by.newest is not None
