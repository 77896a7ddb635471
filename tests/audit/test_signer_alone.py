"""The signer in a process of its own: its login, its keys, and what the application knows of it and does without it."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InsufficientPrivilege

from app.__main__ import main
from app.audit.database.provision import application, login_name, prepare, signing_login
from app.audit.evidence.trust import trust_of
from app.audit.log import Log
from app.audit.signing.elsewhere import SignedElsewhere
from app.audit.signing.tree import Tree
from app.audit.transparency.keys import Verifier
from app.audit.transparency.notes import open_checkpoint
from app.platform import Platform
from app.settings import BadSetting, Settings
from tests.questions.platform import KEYS, Town

ORIGIN = "lab.example.org/log"


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    """A platform that does not sign, and whose login may not."""
    await prepare(dsn)
    own = await application(dsn, KEYS, signs=False)
    async with Town.open(own, tmp_path / "data", signs=False, log_origin=ORIGIN) as town:
        yield town


@contextlib.asynccontextmanager
async def signing(dsn: str, directory: Path) -> AsyncGenerator[None]:
    """Have `sophon signer` run as another user would, with no secret of the installation; it ends in order."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SOPHON_")}
    told = {"SOPHON_DATABASE_URL": dsn, "SOPHON_DATA": str(directory / "nothing"), "SOPHON_LOG_ORIGIN": ORIGIN}
    told |= {"SOPHON_SIGNER": str(directory / "keys")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "signer", env=kept | told, stdout=PIPE, stderr=PIPE
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, said.decode()


async def signed(town: Town, size: int) -> None:
    async with asyncio.timeout(30):
        while town.platform.signer.size < size or town.platform.signer.faults():
            town.platform.signer.hurry()
            await asyncio.sleep(0.05)


async def test_another_process_signs_with_a_login_that_can_append_nothing(
    dsn: str, town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"DATABASE_URL": dsn, "SECRET": "k" * 32, "DATA": str(tmp_path)}.items():
        monkeypatch.setenv(f"SOPHON_{name}", value)
    printed = await asyncio.to_thread(CliRunner().invoke, main, ["signer", "--login"])
    login = printed.stdout.strip()
    assert conninfo_to_dict(login)["user"] == login_name(KEYS).replace("_app_", "_sig_"), printed.stderr
    assert (await town.guest.ask("GET", "/audit/log/checkpoint")).status_code == 404
    assert "No signer has been here yet" in " ".join(town.platform.signer.faults())
    async with signing(login, tmp_path):
        await signed(town, town.head)
        assert town.platform.signer.faults() == []
        note = (await town.guest.ask("GET", "/audit/log/checkpoint")).content
        listed = (await town.guest.ask("GET", "/audit/log/vkeys")).text
        verifiers = [Verifier.parse(line.split(" ")[0]) for line in listed.splitlines()]
        assert open_checkpoint(note, verifiers)[0].origin == ORIGIN
        ada = await town.person("ada")
        await ada.do("POST", "/api/groups", {"slug": "lab", "title": "Lab"})
        receipt = await town.admin.ask("GET", f"/api/audit/entries/{town.head}/proof")
        assert receipt.status_code == 200, "whoever waits for a checkpoint is heard over there"
        monkeypatch.delenv("SOPHON_SECRET")
        for name, value in {"DATABASE_URL": login, "SIGNER": tmp_path / "keys", "DATA": tmp_path / "nothing"}.items():
            monkeypatch.setenv(f"SOPHON_{name}", str(value))
        verified = await asyncio.to_thread(CliRunner().invoke, main, ["audit", "verify"])
        assert verified.exit_code == 0, "where the signer is, what it remembers is held against the log"
        assert "not recorded" in verified.stderr
    (tmp_path / "data" / "signer").mkdir(parents=True)
    (tmp_path / "data" / "signer" / "vkeys").write_text(listed)
    trust = trust_of(tmp_path / "data" / "signer")
    assert trust is not None
    assert trust.open(note).size > 0, "who keeps the public keys verifies by them"
    assert not (tmp_path / "nothing" / "secret").exists()


@pytest.mark.parametrize("statement", ["SELECT audit.append(0, '', '', NULL)", "SELECT * FROM vault.passwords"])
async def test_the_signers_login_may_nothing_but_sign(dsn: str, statement: str) -> None:
    await prepare(dsn)
    login = await signing_login(dsn, KEYS)
    assert await signing_login(login, KEYS) == login
    with psycopg.connect(login, autocommit=True) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement.encode())


async def test_the_application_may_not_sign_where_somebody_else_does_until_it_is_to_again(dsn: str) -> None:
    await prepare(dsn)
    insert = "INSERT INTO audit.checkpoints (size, root, note) VALUES (1, sha256(''), '')"
    for signs in (True, False, True):
        own = await application(dsn, KEYS, signs=signs)
        with psycopg.connect(own) as connection, contextlib.ExitStack() as stack:
            if not signs:
                stack.enter_context(pytest.raises(InsufficientPrivilege))
            connection.execute(insert)
            connection.rollback()


async def test_what_the_signer_refuses_freezes_the_application(dsn: str, town: Town, tmp_path: Path) -> None:
    async with signing(await signing_login(dsn, KEYS), tmp_path):
        head = town.head
        await signed(town, head)
        with psycopg.connect(dsn, autocommit=True) as superuser:
            superuser.execute("SET session_replication_role = replica")
            superuser.execute("DELETE FROM audit.entries WHERE position >= %s", (head,))
            superuser.execute("DELETE FROM audit.checkpoints WHERE size >= %s", (head,))
        async with asyncio.timeout(30):
            while town.platform.log.frozen is None:
                town.platform.signer.hurry()
                await asyncio.sleep(0.05)
        assert "an older copy of the database was put back" in str(town.platform.log.frozen)
        answer = await town.admin.ask("POST", "/api/groups", {"slug": "late", "title": "Late"})
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log-cannot-be-written")
    settings = Settings(data=tmp_path / "data", signs=False, log_origin=ORIGIN)
    async with Platform.open(settings, KEYS, await application(dsn, KEYS, signs=False)) as platform:
        assert platform.log.frozen, "and it stays so after a restart"


async def test_two_administrators_change_keys_that_the_application_never_has(
    dsn: str, town: Town, tmp_path: Path
) -> None:
    assert (await town.admin.ask("POST", "/api/audit/rotations")).status_code == 503
    eve = await town.person("eve", administrator=True)
    async with signing(await signing_login(dsn, KEYS), tmp_path):
        await signed(town, town.head)
        before = (await town.guest.ask("GET", "/audit/log/vkeys")).text.splitlines()
        async with asyncio.timeout(10):  # what is signed may be known before what the signer says of its keys
            while (await town.admin.ask("POST", "/api/audit/rotations")).status_code == 503:
                await asyncio.sleep(0.05)
        done = await eve.do("POST", "/api/audit/rotations")
        assert done["rotated"]
        await signed(town, town.head)
        async with asyncio.timeout(20):
            while not (await town.guest.ask("GET", "/audit/log/vkeys")).text.startswith(f"{done['keys'][0]} "):
                await asyncio.sleep(0.1)
        after = (await town.guest.ask("GET", "/audit/log/vkeys")).text.splitlines()
    assert len(after) == 2 * len(before)
    assert not (tmp_path / "data" / "signer").exists()


def test_who_signs_elsewhere_has_to_say_by_which_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSetting, match="SOPHON_LOG_ORIGIN"):
        Settings.read({"SOPHON_SIGNER": "none"})
    settings = Settings.read({"SOPHON_SIGNER": "none", "SOPHON_LOG_ORIGIN": ORIGIN})
    assert (settings.signs, settings.signer) == (False, None)
    monkeypatch.setenv("SOPHON_SIGNER", "none")
    monkeypatch.setenv("SOPHON_LOG_ORIGIN", ORIGIN)
    told = CliRunner().invoke(main, ["signer"])
    assert (told.exit_code, "SOPHON_SIGNER is none" in told.stderr) == (2, True)


@pytest.mark.parametrize("said", ["'[]'", "'null'", """'{"keys": 7}'""", "NULL"])
async def test_what_no_signer_says_is_told_and_ends_nothing(dsn: str, log: Log, said: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE audit.signer ALTER said DROP NOT NULL")
        connection.execute(f"INSERT INTO audit.signer (said) VALUES ({said})".encode())
    signer = SignedElsewhere(log, Tree(log.pool))
    await signer.check()
    assert "nothing that a signer says" in signer.faults()[0]
    assert signer.verifier_keys() == ""
