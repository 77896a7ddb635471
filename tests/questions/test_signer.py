"""What an auditor asks about the proof of the whole: independent time, rewriting, restoring, split views, receipts."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from app.audit.log import Log
from app.audit.signing.signer import AnotherHistory
from app.audit.signing.tree import Tree
from app.audit.signing.witness_server import WitnessServer
from app.audit.transparency.keys import Verifier
from app.audit.transparency.notes import open_checkpoint
from app.audit.transparency.policies import Policy
from app.audit.transparency.proofs import parse_receipt
from app.audit.transparency.tiles import unpack_entries
from app.audit.transparency.tree import ProofFailed, leaf_hash, verify_consistency
from app.audit.writer import LogUnavailable
from app.main import create_app
from app.platform import Platform
from app.settings import Settings
from tests.audit.signing import Signing, by, grow, policy, running
from tests.database import SEALER
from tests.questions.platform import KEYS, Town, lab


@contextlib.contextmanager
def copied(dsn: str) -> Generator[str]:
    """Copy a database that nobody is connected to; give the copy's DSN."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    copy = f"{name[:20]}_{uuid.uuid4().hex}"
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as connection:
        both = Identifier(copy), Identifier(name)
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(*both))
        try:
            yield make_conninfo(dsn, dbname=copy)
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(copy)))


async def rewrite(log: Log, signing: Signing, position: int) -> None:
    """Rewrite an entry as its best enemy would, so that nothing in the database contradicts anything else there."""
    async with log.pool.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        entry = (await signing.tree.entry(position)).replace(b'"entry:', b'"rewritten:')
        await connection.execute(
            "UPDATE audit.entries SET bytes = %s::json, leaf_hash = %s WHERE position = %s",
            (entry.decode(), leaf_hash(entry), position),
        )
        await connection.execute("DELETE FROM audit.tiles")
        await connection.execute("DELETE FROM audit.checkpoints")


async def until_signed(signing: Signing, size: int) -> None:
    async with asyncio.timeout(10):
        while (newest := await signing.tree.newest()) is None or newest.size < size:
            signing.signer.hurry()
            await asyncio.sleep(0.02)


def said(signing: Signing) -> str:
    """Give what the witnesses said when they did not cosign."""
    cosigner = signing.signer._cosigner  # pyright: ignore[reportPrivateUsage]
    return cosigner.wrong() if cosigner else ""


async def witnessed(log: Log, directory: Path) -> tuple[Signing, WitnessServer]:
    """Give a signer of a log, and the one witness that its policy needs."""
    signing = Signing(log, directory / "signer")
    await signing.signer.begin()
    server = WitnessServer(directory / "witness", "w.example", signing.verifiers(), lambda: 1_800_000_000)
    return Signing(log, directory / "signer", by({"w": server}, Tree(log.pool), 1)), server


async def test_question_12_independent_time_an_entry_was_there_when_a_witness_says(log: Log, tmp_path: Path) -> None:
    signing, server = await witnessed(log, tmp_path)
    await grow(log, 3)
    async with running(signing.signer):
        await until_signed(signing, 3)
    receipt = parse_receipt(await signing.receipt(2))
    checked = receipt.check(leaf_hash(await signing.tree.entry(2)), policy({"w": server}, 1, signing.verifiers()))
    assert checked.witnesses == {"w": 1_800_000_000}


async def test_question_15_a_full_rewrite_re_hashed_with_a_stolen_log_key_is_detected_by_a_witness_a_saved_checkpoint(
    log: Log, tmp_path: Path
) -> None:
    signing, server = await witnessed(log, tmp_path)
    await grow(log, 300)
    async with running(signing.signer):
        await until_signed(signing, 300)
    saved = await signing.checkpoint()
    # The thief has the log's keys, and forgets what was signed with them.
    (tmp_path / "stolen").mkdir()
    shutil.copy(tmp_path / "signer" / "keys.json", tmp_path / "stolen")
    await rewrite(log, signing, 2)
    thief = Signing(log, tmp_path / "stolen", by({"w": server}, signing.tree, 1))
    await grow(log, 1)
    await thief.sign()
    async with running(thief.signer), asyncio.timeout(10):
        while "422" not in said(thief):
            await asyncio.sleep(0.02)
    assert await thief.tree.newest() is None
    seen = server.seen(saved.origin)
    assert seen is not None
    assert seen.root == saved.root
    # Without a witness, whoever saved a checkpoint finds out.
    await Signing(log, tmp_path / "stolen").sign()
    forged = await thief.checkpoint()
    assert forged.size == 301
    with pytest.raises(ProofFailed):
        verify_consistency(300, saved.root, 301, forged.root, await thief.tree.consistency(300, 301))
    # And the signer itself, whose memory nobody has changed.
    with pytest.raises(AnotherHistory, match="first 300 entries are not those"):
        await signing.signer.begin()


async def test_question_16_a_restored_old_backup_is_detected(dsn: str, tmp_path: Path) -> None:
    async with Log.open(dsn, SEALER) as log:
        await grow(log, 300)
        await Signing(log, tmp_path / "signer").sign()
    with copied(dsn) as backup:
        async with Log.open(dsn, SEALER) as log:
            await grow(log, 5)
            await Signing(log, tmp_path / "signer").sign()
        async with Log.open(backup, SEALER) as log:
            await Signing(log, tmp_path / "signer").signer.check()
            with pytest.raises(LogUnavailable, match="ends at 300, and 305 entries were signed: an older copy"):
                await grow(log, 1)
            assert log.head == 300


async def test_question_16_a_restored_old_backup_that_has_grown_past_what_was_signed_is_detected(
    dsn: str, tmp_path: Path
) -> None:
    async with Log.open(dsn, SEALER) as log:
        await grow(log, 250)
        await Signing(log, tmp_path / "signer").sign()
    with copied(dsn) as backup:
        async with Log.open(dsn, SEALER) as log:
            await grow(log, 5)
            await Signing(log, tmp_path / "signer").sign()
        async with Log.open(backup, SEALER) as log:
            await grow(log, 20)
            await Signing(log, tmp_path / "signer").signer.check()
            assert "first 255 entries are not those that were signed" in (log.frozen or "")


async def test_question_16_a_restored_old_backup_is_said_by_health_and_changes_are_refused(
    dsn: str, tmp_path: Path
) -> None:
    async with Town.open(dsn, tmp_path) as town:
        await signed_until(town, town.head)
    with copied(dsn) as backup:
        async with Town.open(dsn, tmp_path) as town:
            await town.person("ada")
            await signed_until(town, town.head)
        async with Platform.open(Settings(data=tmp_path), KEYS, backup) as platform:
            transport = httpx.ASGITransport(app=create_app(platform))  # pyright: ignore[reportArgumentType]
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
                health = (await client.get("/health/ready")).json()
                assert "Not as it should be: signer." in health["faults"]
                says = [fault.says for fault in platform.faults() if fault.part == "signer"]
                assert "an older copy of the database was put back" in says[0]
                assert (await client.get("/audit/log/checkpoint")).status_code == 200


async def test_question_17_a_split_view_is_detected(dsn: str, tmp_path: Path) -> None:
    async with Log.open(dsn, SEALER) as log:
        await grow(log, 3)
        signing, server = await witnessed(log, tmp_path)
        async with running(signing.signer):
            await until_signed(signing, 3)
    with copied(dsn) as other:
        shutil.copytree(tmp_path / "signer", tmp_path / "other")
        async with Log.open(dsn, SEALER) as log, Log.open(other, SEALER) as elsewhere:
            one = Signing(log, tmp_path / "signer", by({"w": server}, Tree(log.pool), 1))
            two = Signing(elsewhere, tmp_path / "other", by({"w": server}, Tree(elsewhere.pool), 1))
            await grow(log, 2)
            await grow(elsewhere, 2)
            async with running(one.signer):
                await until_signed(one, 5)
            await two.sign()
            async with running(two.signer), asyncio.timeout(10):
                while "422" not in said(two):
                    await asyncio.sleep(0.02)
            mine, theirs = one.store.signed(), two.store.signed()
            assert mine is not None
            assert theirs is not None
            assert (mine.size, theirs.size) == (5, 5)
            assert mine.root != theirs.root
            assert (await one.checkpoint()).size == 5
            assert (await two.checkpoint()).size == 3  # what the witness has not seen is not given out
            roots = [open_checkpoint(signed.note.encode(), one.verifiers())[0].root for signed in (mine, theirs)]
            with pytest.raises(ProofFailed, match="Two different trees"):
                verify_consistency(5, roots[0], 5, roots[1], ())


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.open(dsn, tmp_path) as town:
        yield town


async def signed_until(town: Town, position: int) -> None:
    async with asyncio.timeout(10):
        while (newest := await town.platform.tree.newest()) is None or newest.size < position:
            town.platform.signer.hurry()
            await asyncio.sleep(0.02)


async def keys_of_log(town: Town) -> list[Verifier]:
    """Read the verifier keys as anybody can."""
    answer = (await town.guest.ask("GET", "/audit/log/vkeys")).raise_for_status()
    return [Verifier.parse(line.split()[0]) for line in answer.text.splitlines()]


async def test_question_19_a_receipt_for_one_entry(town: Town, tmp_path: Path) -> None:
    ada, bob = await lab(town)
    made = (await town.since(0, "ProjectCreated"))[0]
    assert (await bob.ask("GET", f"/api/audit/entries/{made.position}/proof")).status_code == 403
    assert (await town.guest.ask("GET", f"/api/audit/entries/{made.position}/proof")).status_code == 401
    assert (await bob.ask("GET", "/api/audit/entries/999999/proof")).status_code == 403
    assert (await town.admin.ask("GET", "/api/audit/entries/999999/proof")).status_code == 404
    keys = [key.text() for key in await keys_of_log(town)]
    for person in (ada, town.admin):  # who did it, and who may read everything
        answer = await person.ask("GET", f"/api/audit/entries/{made.position}/proof")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert answer.headers["Cache-Control"] == "no-store"
        receipt = parse_receipt(answer.content)
        assert receipt.extra == made.octets
        receipt.check(leaf_hash(made.octets), Policy.of_logs(*map(Verifier.parse, keys)))
        asked = (await town.since(0, "AuditQueried"))[-1].entry
        assert (asked.actor.id, asked.outcome) == (person.user, "success")
    bare = (await ada.ask("GET", f"/api/audit/entries/{made.position}/proof?entry=false")).content
    assert parse_receipt(bare).extra is None
    # Offline, by a command that needs nothing of us: not even the directory.
    (tmp_path / "e.tlog-proof").write_bytes(bare)
    (tmp_path / "e.json").write_bytes(made.octets + b"\n")
    entry, vkeys = ("--entry", "e.json"), tuple(word for key in keys for word in ("--vkey", key))
    code, told, heard = await check_proof(tmp_path, *vkeys, *entry)
    assert (code, told) == (0, made.octets.decode() + "\n")
    assert f"Entry {made.position} of localhost/" in heard
    assert (await check_proof(tmp_path, *vkeys))[0] == 2
    assert (await check_proof(tmp_path, *entry))[0] == 2
    stranger = "lab.example.org/log+ecce9acb+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    assert (await check_proof(tmp_path, "--vkey", stranger, *entry))[0] == 2
    (tmp_path / "e.json").write_bytes(made.octets.replace(b"ProjectCreated", b"ProjectDeleted"))
    assert (await check_proof(tmp_path, *vkeys, *entry))[0] == 1
    log = "".join(f"log {key}\n" for key in keys)
    witness = Verifier("w.example", "cosignature/v1", bytes(range(32))).text()
    (tmp_path / "policy").write_text(f"{log}witness w {witness}\nquorum w\n")
    (tmp_path / "e.json").write_bytes(made.octets)
    assert (await check_proof(tmp_path, "--policy", "policy", *entry))[0] == 3


async def check_proof(directory: Path, *words: str) -> tuple[int, str, str]:
    """Run `sophon audit check-proof`, in a directory with nothing else in it than what it is given."""
    asked = await asyncio.to_thread(
        subprocess.run,
        (sys.executable, "-m", "app", "audit", "check-proof", "e.tlog-proof", *words),
        cwd=directory,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return asked.returncode, asked.stdout.decode(), asked.stderr.decode()


async def test_anybody_reads_hashes_and_checkpoints_and_only_auditors_entries(town: Town) -> None:
    ada, _ = await lab(town)
    await signed_until(town, head := town.head)
    answer = await town.guest.ask("GET", "/audit/log/checkpoint")
    checkpoint, _ = open_checkpoint(answer.content, await keys_of_log(town))
    assert checkpoint.size >= head
    assert answer.headers["Cache-Control"] == "public, max-age=1"
    tile = await town.guest.ask("GET", f"/audit/log/tile/0/000.p/{head}")
    assert tile.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    entries = await town.admin.ask("GET", f"/audit/log/tile/entries/000.p/{head}")
    assert entries.headers["Cache-Control"] == "no-store"
    octets = unpack_entries(entries.content)
    assert [record.octets for record in await town.since(0)][:head] == octets
    assert b"".join(map(leaf_hash, octets)) == tile.content
    assert (await ada.ask("GET", f"/audit/log/tile/entries/000.p/{head}")).status_code == 403
    assert (await town.guest.ask("GET", f"/audit/log/tile/entries/000.p/{head}")).status_code == 401
    assert (await town.since(head, "AuditQueried"))[0].entry.actor.id == town.admin.user
    wrong = ("0/000", "0/0", "0/000.p/0", "0/000.p/256", "0/000.p/255", "1/000.p/1", "0/x000/000", "64/000", "-1/000")
    for path in wrong:
        answer = await town.guest.ask("GET", f"/audit/log/tile/{path}")
        assert answer.status_code in (400, 404), path
        assert answer.headers["Cache-Control"] == "no-store"


async def test_question_29_nobody_rotates_keys_alone(town: Town) -> None:
    bea = await town.person("bea", administrator=True)
    ada = await town.person("ada")
    await signed_until(town, town.head)
    old = await keys_of_log(town)
    one, two = await town.bearer(town.admin, "admin", "write"), await town.bearer(bea, "admin", "write")
    assert (await ada.ask("POST", "/api/audit/rotations")).status_code == 403
    assert (await one.do("POST", "/api/audit/rotations"))["rotated"] is False
    assert (await one.ask("POST", "/api/audit/rotations")).status_code == 409
    assert await keys_of_log(town) == old
    answer = await two.do("POST", "/api/audit/rotations")
    assert answer["rotated"] is True
    await signed_until(town, answer["position"])
    async with asyncio.timeout(10):
        while (keys := await keys_of_log(town)) == old:
            await asyncio.sleep(0.02)
    assert [key.text() for key in keys[:2]] == answer["keys"]
    assert keys[2:] == old
    await town.person("eve")
    await signed_until(town, town.head)
    newest = await town.guest.ask("GET", "/audit/log/checkpoint")
    assert open_checkpoint(newest.content, keys[:2])[0].size > answer["position"]


async def test_metrics_tell_how_much_is_signed(town: Town) -> None:
    await signed_until(town, head := town.head)
    token = await town.bearer(town.admin, "admin", "read")
    await town.guest.ask("GET", "/health/ready")
    told = (await token.ask("GET", "/metrics")).text
    signed = next(line for line in told.splitlines() if line.startswith("sophon_log_signed_size "))
    assert float(signed.split()[1]) >= head
    assert "sophon_log_signer_up 1.0" in told
