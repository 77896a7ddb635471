"""Every act on the command line is an entry: in a request of its own, by a token's user or by the way it came."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from app.__main__ import main
from app.audit.entry import Record
from app.cli import rebuilding
from app.domain.audits import AuditQueried, RequestRefused
from tests.questions.platform import Person, Town, lab

UID = f"cli:uid-{os.getuid()}"
Sophon = Callable[..., Awaitable[Result]]


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    """A platform with its administrator."""
    async with Town.open(dsn, tmp_path) as town:
        yield town


@pytest.fixture
def sophon(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sophon:
    """Give a way to run `sophon …` beside it, with somebody's token or none."""
    told = {"SOPHON_DATABASE_URL": dsn, "SOPHON_SECRET": "k" * 32, "SOPHON_DATA": str(tmp_path), "COLUMNS": "300"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rebuilding.os, "nice", int)  # it would be the tests that let others go first

    async def run(*arguments: str, token: str = "") -> Result:
        monkeypatch.setenv("SOPHON_TOKEN", token)
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)

    return run


def secret_of(person: Person) -> str:
    return person.headers["Authorization"].partition(" ")[2]


async def until(town: Town, before: int, count: int) -> list[Record]:
    """Give what was appended, once this process knows of so many."""
    async with asyncio.timeout(10):
        while town.head < before + count:
            await asyncio.sleep(0.02)
    return await town.since(before)


async def test_each_command_that_reads_is_an_entry_by_the_machines_number_for_its_user(
    town: Town, sophon: Sophon
) -> None:
    await lab(town)
    await town.signed()
    asked = {
        ("audit", "log", "actor:ada"): "entries",
        ("audit", "show", "project/apollo"): "state",
        ("audit", "prove", "1"): "proof",
        ("audit", "approvals"): "approvals",
        ("audit", "retention"): "holds",
        ("audit", "verify"): "verify",
        ("state", "diff"): "read-models",
        ("state", "rebuild", "--to", "2"): "state",
        ("state", "seal"): None,
        ("state", "verify"): "seals",
    }
    requests: set[str] = set()
    for words, question in asked.items():
        before = town.head
        done = await sophon(*words)
        assert done.exit_code == 0, done.stderr
        (entry,) = await until(town, before, 1)
        assert (entry.entry.actor.kind, entry.entry.actor.id) == ("system", UID), words
        assert (entry.event.question if isinstance(entry.event, AuditQueried) else None) == question, words
        assert entry.entry.request
        requests.add(entry.entry.request)
    assert len(requests) == len(asked), "each command is a request of its own"
    shown = await sophon("audit", "log", f"actor:{UID}", "action:audit.queried", "-n", "1")
    assert shown.stdout.split()[2:] == [UID, "audit.queried"]


async def test_with_a_token_it_is_its_users_act_and_its_use_is_recorded_once_an_hour(
    town: Town, sophon: Sophon
) -> None:
    auditor = await town.person("may", auditor=True)
    token = secret_of(await town.bearer(auditor, "audit"))
    before = town.head
    for _ in range(2):
        assert (await sophon("audit", "retention", token=token)).exit_code == 0
    found = await until(town, before, 3)
    assert [one.entry.type for one in found] == ["TokenUsed", "AuditQueried", "AuditQueried"]
    assert {(one.entry.actor.id, one.entry.actor.via) for one in found} == {(auditor.user, "token")}
    assert found[0].entry.request == found[1].entry.request != found[2].entry.request


async def test_a_token_that_has_ended_names_nobody_and_keeps_nobody_from_reading(town: Town, sophon: Sophon) -> None:
    before = town.head
    done = await sophon("audit", "retention", token="nonsense")
    assert (done.exit_code, "opens nothing" in done.stderr) == (0, True)
    (found,) = await until(town, before, 1)
    assert found.entry.actor.id == UID


async def test_what_is_refused_on_the_command_line_is_an_entry_with_its_reason(town: Town, sophon: Sophon) -> None:
    ada, _ = await lab(town)
    weak = secret_of(await town.bearer(ada, "read", "write"))
    for words, token, actor, reason in (
        (("audit", "rotate"), "", UID, "not-authenticated"),
        (("audit", "rotate"), "nonsense", UID, "bad-token"),
        (("audit", "rotate"), weak, ada.user, "administrators-only"),
        (("audit", "subject", "ada", "report"), weak, ada.user, "auditors-only"),
        (("audit", "subject", "nobody", "report"), weak, ada.user, "auditors-only"),
    ):
        before = town.head
        assert (await sophon(*words, token=token)).exit_code == 2
        refused = (await until(town, before, 1))[-1]
        assert (refused.entry.outcome, refused.entry.reason, refused.entry.actor.id) == ("refused", reason, actor)
        assert refused.entry.request
        if words == ("audit", "rotate"):
            assert refused.event == RequestRefused(method="CLI", route="audit rotate")


async def test_a_verification_of_a_database_that_takes_nothing_succeeds_and_says_what_is_missing(
    town: Town, sophon: Sophon, dsn: str
) -> None:
    await town.signed()
    before = town.head
    name = conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
        done = await sophon("audit", "verify")
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off'.encode())
    assert (done.exit_code, "could not be recorded" in done.stderr) == (0, True), done.stderr
    assert await town.since(before) == []


async def test_a_verification_that_finds_something_adds_nothing_to_that_log(
    town: Town, sophon: Sophon, dsn: str, tmp_path: Path
) -> None:
    await town.signed()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE audit.entries SET leaf_hash = sha256('') WHERE position = 1")
    before = town.head
    assert (await sophon("audit", "verify", "--evidence", str(tmp_path))).exit_code == 1
    assert await town.since(before) == []
