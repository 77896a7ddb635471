"""An older copy of the database is put back: the lost tail is appended again, byte by byte, or nothing is."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from app.audit.evidence.export import export_log
from app.audit.evidence.exported import Format, open_exported
from app.audit.evidence.findings import Tampered
from app.audit.evidence.recovery import Recovered, recover
from app.audit.evidence.trust import Trust, Unverifiable, trust_of
from app.audit.evidence.verify import connected, verify_log
from app.audit.log import Log
from app.audit.signing.signer import Signer
from app.audit.signing.store import Store
from tests.audit.drafts import draft
from tests.audit.signed import ORIGIN, signed_log, superuser
from tests.audit.test_verify import command, edit
from tests.database import SEALER


async def exported(dsn: str, directory: Path, trust: Trust, format_: Format = "tiles") -> Path:
    async with connected(dsn) as connection:
        await export_log(connection, directory, format_, trust)
    return directory


def put_back(dsn: str, head: int) -> None:
    """Make the database what it was when it had so many entries."""
    with superuser(dsn) as connection:
        connection.execute("DELETE FROM audit.entries WHERE position > %s", (head,))
        connection.execute("DELETE FROM audit.checkpoints WHERE size > %s", (head,))
        connection.execute("DELETE FROM audit.tiles WHERE (index + 1) * 256 ^ (level + 1) > %s", (head,))


def rows(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT position, bytes::text, leaf_hash FROM audit.entries ORDER BY 1").fetchall()


async def recovered(dsn: str, directory: Path, trust: Trust) -> Recovered:
    async with connected(dsn) as connection:
        return await recover(connection, open_exported(directory, trust), trust)


@pytest.mark.parametrize("format_", ["tiles", "jsonl"])
@pytest.mark.parametrize("head", [0, 1, 256, 300, 519, 600])
async def test_the_lost_tail_comes_back_to_the_byte(format_: Format, head: int, dsn: str, tmp_path: Path) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (300, 600))
    directory = await exported(dsn, tmp_path / "export", trust, format_)
    before = rows(dsn)
    put_back(dsn, head)
    done = await recovered(dsn, directory, trust)
    assert (done.head, done.size) == (head, 600)
    assert rows(dsn) == before
    async with connected(dsn) as connection:
        whole = await verify_log(connection, trust)
    assert (whole.entries, whole.root) == (600, done.root)


async def test_the_signer_freezes_what_was_put_back_and_goes_on_once_it_is_recovered(dsn: str, tmp_path: Path) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (300, 600))
    directory = await exported(dsn, tmp_path / "export", trust)
    put_back(dsn, 400)
    async with Log.open(dsn, SEALER) as log:
        await Signer(log, Store(tmp_path / "signer"), ORIGIN).check()
        assert log.frozen is not None
        assert "state recover --from-export" in log.frozen
    await recovered(dsn, directory, trust)
    async with Log.open(dsn, SEALER) as log:
        signer = Signer(log, Store(tmp_path / "signer"), ORIGIN)
        await signer.check()
        assert log.frozen is None
        await log.append([draft()])
        assert (await signer.sign(await signer.begin())).size == 601


async def test_an_export_that_does_not_reach_as_far_as_was_signed_is_refused(dsn: str, tmp_path: Path) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (300,))
    directory = await exported(dsn, tmp_path / "export", trust)
    trust = await signed_log(dsn, tmp_path / "signer", (310,))
    put_back(dsn, 200)
    with pytest.raises(Unverifiable, match="310 were signed"):
        await recovered(dsn, directory, trust)
    assert len(rows(dsn)) == 200


@pytest.mark.parametrize("rehash", [True, False])
async def test_what_the_export_does_not_continue_is_left_alone(rehash: bool, dsn: str, tmp_path: Path) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (600,))
    directory = await exported(dsn, tmp_path / "export", trust)
    put_back(dsn, 400)
    with superuser(dsn) as connection:
        edit(200, rehash=rehash)(connection)
    before = rows(dsn)
    with pytest.raises(Tampered, match="Entry 200 of the database"):
        await recovered(dsn, directory, trust)
    assert rows(dsn) == before


async def test_entries_that_nobody_signed_are_not_written_over(dsn: str, tmp_path: Path) -> None:
    """After the older copy was put back somebody appended: a person has to choose."""
    trust = await signed_log(dsn, tmp_path / "signer", (600,))
    directory = await exported(dsn, tmp_path / "export", trust)
    put_back(dsn, 400)
    async with Log.open(dsn, SEALER) as log:
        await log.append([draft()])
    with pytest.raises(Tampered, match="Entry 401 of the database"):
        await recovered(dsn, directory, trust)
    assert len(rows(dsn)) == 401


async def test_a_touched_export_recovers_nothing(dsn: str, tmp_path: Path) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (600,))
    directory = await exported(dsn, tmp_path / "export", trust)
    bundle = directory / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes().replace(b"xxx", b"xxy", 1))
    put_back(dsn, 400)
    with pytest.raises(Tampered):
        await recovered(dsn, directory, trust)
    assert len(rows(dsn)) == 400


async def test_what_is_all_lost_but_an_export_and_the_keys_is_recovered_into_nothing(dsn: str, tmp_path: Path) -> None:
    trust = await signed_log(dsn, tmp_path / "new" / "signer", (300,))
    directory = await exported(dsn, tmp_path / "export", trust)
    done = await command("", tmp_path / "new", "state", "recover", "--from-export", str(directory))
    assert done.returncode == 0, done.stderr
    assert "300 entries were appended again; the log ends at 300" in done.stdout


async def test_the_command_recovers_records_it_and_is_refused_while_sophon_runs(dsn: str, tmp_path: Path) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (600,))
    directory = await exported(dsn, tmp_path / "export", trust)
    put_back(dsn, 400)
    done = await command(dsn, tmp_path, "state", "recover", "--from-export", str(directory))
    assert done.returncode == 0, done.stderr
    assert "200 entries were appended again; the log ends at 600" in done.stdout
    with psycopg.connect(dsn) as connection:
        [(data,)] = connection.execute("SELECT bytes -> 'data' FROM audit.entries WHERE position = 601").fetchall()
    assert (data["head"], data["size"], data["sealed"]) == (400, 600, 0)
    again = await command(dsn, tmp_path, "state", "recover", "--from-export", str(directory))
    assert (again.returncode, again.stdout[:9]) == (0, "0 entries"), again.stderr

    import fcntl

    with (tmp_path / "lock").open("a+") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        refused = await command(dsn, tmp_path, "state", "recover", "--from-export", str(directory))
    assert refused.returncode == 2
    assert "is running" in " ".join(refused.stderr.split())
    assert trust_of(tmp_path / "signer") is not None
