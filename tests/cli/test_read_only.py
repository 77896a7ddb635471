"""A database that takes no changes: the log is read on, with a word that this is not recorded; changes are refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.audit.database.provision import application, prepare
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.domain.audits import AuditQueried
from app.domain.model import events
from tests.cli.desk import Desk
from tests.database import Databases, takes_changes
from tests.questions.platform import KEYS, Town, lab

UNRECORDED = "could not be recorded"

READS = {
    "audit log action:project.*": "project/apollo",
    "audit show project/apollo": '"slug": "apollo"',
    "audit show project/apollo --history": "",
    "audit diff 1 now project/apollo": "project/apollo",
    "audit blame project/apollo title": "title = ",
    "audit explain 3": "at position 3",
    "audit prove 3": "index 2",
    "audit approvals": "",
    "audit retention": "facts",
    "audit export {export} --format jsonl": "entries",
    "audit subject ada report": "UserCreated",
}
"""What reads the log, and is recorded; and a word of what it prints."""

LOOKS = {
    "audit checkpoint": "",
    "audit verify": "whole:",
    "audit webhook status": '"dead":[]',
}
"""What is not recorded in any case."""

CHANGES = ("state seal", "state rebuild", "state diff", "state verify", "audit rotate")


@pytest.fixture(scope="module")
async def desk(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """A desk on a platform that was stopped; its database takes no changes since."""
    data = tmp_path_factory.mktemp("data")
    with databases.fresh() as dsn:
        await prepare(dsn)
        async with Town.open(await application(dsn, KEYS), data) as town:
            await lab(town)
            token = await town.bearer(town.admin, "read", "admin", "audit")
            await town.signed()
        bearer = token.headers["Authorization"].removeprefix("Bearer ")
        takes_changes(dsn, yes=False)
        yield Desk(dsn, data, SOPHON_TOKEN=bearer)


@pytest.mark.parametrize("words", READS)
async def test_what_reads_the_log_goes_on_and_says_that_it_is_not_recorded(
    words: str, desk: Desk, tmp_path: Path
) -> None:
    done = await desk(*words.format(export=tmp_path / "export").split())
    assert (done.exit_code, READS[words] in done.stdout, UNRECORDED in done.stderr) == (0, True, True), done.output
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", LOOKS)
async def test_what_looks_and_is_not_recorded_goes_on(words: str, desk: Desk) -> None:
    hook = {"SOPHON_WEBHOOK_URL": "http://127.0.0.1:9", "SOPHON_WEBHOOK_SECRET": "whsec_" + "A" * 32}
    done = await desk(*words.split(), **hook)
    assert (done.exit_code, LOOKS[words] in done.stdout) == (0, True), done.output


@pytest.mark.parametrize("words", CHANGES)
async def test_what_changes_anything_is_refused_in_a_sentence(words: str, desk: Desk) -> None:
    done = await desk(*words.split())
    assert (done.exit_code, "Traceback" in done.output) == (2, False), done.output
    assert len(done.stderr.split()) > 5


async def test_tables_of_another_release_are_not_read_as_if_they_were_ours(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.audit.database.provision.release", lambda: "another")
    done = await desk("audit", "log")
    assert (done.exit_code, "takes no changes" in done.stderr) == (2, True), done.output


async def test_nothing_was_recorded_and_the_next_reading_is(desk: Desk) -> None:
    async with Log.open(desk.dsn, Sealer(KEYS.vault_key())) as log:
        before = len((await log.read((events(AuditQueried),))).records)
    takes_changes(desk.dsn, yes=True)
    try:
        done = await desk.did("audit", "retention", "-o", "json")
        assert UNRECORDED not in done.stderr
        async with Log.open(desk.dsn, Sealer(KEYS.vault_key())) as log:
            records = (await log.read((events(AuditQueried),))).records
        assert [record.event.question for record in records[before:]] == ["holds"]  # pyright: ignore
    finally:
        takes_changes(desk.dsn, yes=False)
