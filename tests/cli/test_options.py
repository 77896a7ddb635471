"""Options of `sophon audit` and `sophon state`, one after the other: what each prints, and its exit code."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.audit.entry import Context
from app.audit.evidence.exported import INCOMPLETE
from app.audit.evidence.trust import trust_of
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.audit.webhook import Target
from app.domain.groups import MemberAdded, MemberRemoved
from tests.audit.signed import superuser
from tests.cli.desk import Desk
from tests.database import Databases
from tests.domain.cast import EVE
from tests.questions.platform import KEYS, Town, lab

SEALER = Sealer(KEYS.vault_key())


@pytest.fixture
async def desk(dsn: str, tmp_path: Path) -> Desk:
    """A desk on a platform that was stopped, all of whose entries are signed."""
    async with Town.open(dsn, tmp_path / "data") as town:
        await lab(town)
        await town.signed()
    return Desk(dsn, tmp_path / "data")


async def test_log_until_ends_where_it_says(desk: Desk) -> None:
    for until, found in (("2020-01-01", False), ("2999-01-01", True)):
        done = await desk.did("audit", "log", "action:project.*", "--until", until)
        assert ("project/apollo" in done.stdout) is found, done.output
    between = await desk.did("audit", "log", "action:project.*", "--since", "1 hour ago", "--until", "1 minute ago")
    assert between.stdout == ""


async def test_a_history_is_told_whole_however_long_it_is(desk: Desk) -> None:
    async with Log.open(desk.dsn, SEALER) as log:
        for _ in range(105):
            added = MemberAdded(group="lab", user=EVE, role="member"), MemberRemoved(group="lab", user=EVE)
            await log.append([Context().draft(event) for event in added])
    done = await desk.did("audit", "show", "group/lab", "--history")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  ")]
    assert len(lines) == 2 + 210
    assert "began the group lab" in lines[0]


async def test_verify_against_a_replica_and_the_state(desk: Desk, databases: Databases) -> None:
    done = await desk.did("audit", "verify", "--state", "--against", desk.dsn)
    assert "whole: " in done.stdout
    assert "it is 0 behind" in done.stdout
    assert "Every row of the read models is what the log says" in done.stderr
    with databases.fresh() as empty:
        behind = await desk.did("audit", "verify", "--against", empty)
        assert "the replica has the same 0 entries" in behind.stdout
    for nowhere in ("nonsense", "postgresql://nobody@127.0.0.1:1/nothing"):
        away = await desk("audit", "verify", "--against", nowhere)
        assert (away.exit_code, "The replica does not answer: " in away.stderr) == (2, True), away.output
    with superuser(desk.dsn) as connection:
        connection.execute("UPDATE read.projects SET title = 'Gemini'")
    done = await desk("audit", "verify", "--state")
    assert (done.exit_code, "projects\tapollo\n" in done.stdout) == (1, True), done.output


async def test_verify_ends_with_3_if_entries_wait_longer_than_max_age_to_be_signed(desk: Desk) -> None:
    await desk.did("audit", "log")  # is an entry, which nobody signs now
    await asyncio.sleep(1.1)
    late = await desk("audit", "verify", "--max-age", "1")
    assert (late.exit_code, "1 entry is not signed, " in late.stderr, "whole: " in late.stdout) == (3, True, True), (
        late.output
    )
    await desk.did("audit", "verify", "--max-age", "600")


async def test_export_by_its_format_resumed_and_from_an_earlier_one(desk: Desk, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for format_ in ("jsonl", "cloudevents", "ocsf"):
        done = await desk.did("audit", "export", str(tmp_path / format_), "--format", format_)
        (lines,) = (tmp_path / format_).glob(f"{format_}-*.jsonl")
        assert f"{lines.read_bytes().count(bytes([10]))} entries" in done.stdout
    await desk.did("audit", "export", str(new), "--from-export", str(tmp_path / "jsonl"))
    await desk.did("audit", "verify", "--export", str(new))
    nowhere = await desk("audit", "export", str(tmp_path / "other"), "--from-export", str(tmp_path / "nowhere"))
    assert (nowhere.exit_code, "cannot be read" in nowhere.stderr) == (2, True), nowhere.output
    (new / INCOMPLETE).write_text("An export has not ended.")
    refused = await desk("audit", "export", str(new))
    assert (refused.exit_code, "--resume" in refused.stderr) == (2, True), refused.output
    await desk.did("audit", "export", str(new), "--resume")
    assert not (new / INCOMPLETE).exists()


async def test_an_export_without_keys_says_where_they_are_put(desk: Desk, tmp_path: Path) -> None:
    keys = tmp_path / "elsewhere"
    done = await desk("audit", "export", str(tmp_path / "export"), SOPHON_SIGNER=str(keys))
    assert (done.exit_code, f"into {keys / 'vkeys'}" in done.stderr) == (2, True), done.output


async def test_a_bare_receipt_holds_no_entry_and_is_checked_with_it(desk: Desk, tmp_path: Path) -> None:
    receipt, entry = tmp_path / "receipt", tmp_path / "entry"
    receipt.write_text((await desk.did("audit", "prove", "3", "--bare")).stdout)
    whole = await desk.did("audit", "log", "position:3", "-o", "jsonl")
    entry.write_text(whole.stdout)
    assert whole.stdout.strip() not in receipt.read_text()
    trust = trust_of(desk.data / "signer")
    assert trust is not None
    key = ("--vkey", trust.verifiers[0].text())
    without = await desk("audit", "check-proof", str(receipt), *key)
    assert (without.exit_code, "--entry" in without.stderr) == (2, True), without.output
    done = await desk.did("audit", "check-proof", str(receipt), *key, "--entry", str(entry))
    assert done.stdout == whole.stdout


async def test_a_checkpoint_is_saved_and_verified_since(desk: Desk, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    done = await desk.did("audit", "checkpoint", "--save", str(saved))
    assert saved.read_text() == done.stdout
    await desk.did("audit", "verify", "--since", str(saved))


async def test_a_rebuild_meets_its_seals_and_drops_the_old(desk: Desk) -> None:
    sealed = await desk.did("state", "seal")
    assert "is sealed" in sealed.stderr
    done = await desk.did("state", "rebuild", "--check-seals", "--drop-old")
    assert "past 1 seal: the same state" in done.stderr, done.output
    assert "Nothing was kept" in (await desk.did("state", "drop-old")).stderr


async def test_one_table_as_of_a_position(desk: Desk) -> None:
    done = await desk.did("state", "rebuild", "projects", "--to", "5")
    assert done.stdout == "read_at_5_projects\n"
    assert (await desk("state", "rebuild", "--to", "5", "--check-seals")).exit_code == 2
    assert "read_at_5_projects" in (await desk.did("state", "drop-old")).stderr


async def test_retention_is_told_for_programs(desk: Desk) -> None:
    told = json.loads((await desk.did("audit", "retention", "-o", "json", SOPHON_RETENTION="reads=365")).stdout)
    assert {one["name"]: one["days"] for one in told["classes"]} == {
        "facts": None, "security": None, "reads": 365, "pulse": None,
    }  # fmt: skip


async def test_the_webhook_tells_how_far_it_is_and_sends_again_what_was_not_taken(desk: Desk) -> None:
    answers = [500]

    async def take(_: web.Request) -> web.Response:
        return web.Response(status=answers[0])

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        hook = {"SOPHON_WEBHOOK_URL": str(server.make_url("/")), "SOPHON_WEBHOOK_SECRET": "whsec_" + "A" * 32}
        standing = json.loads((await desk.did("audit", "webhook", "status", **hook)).stdout)
        assert (standing["position"], standing["dead"]) == (None, [])
        assert "Taken: 0" in (await desk.did("audit", "webhook", "retry", **hook)).stderr
        with superuser(desk.dsn) as connection:
            connection.execute(
                "INSERT INTO stream.dead (target, position, tries, error, at) VALUES (%s, 3, 10, 'status 500', now())",
                (target_of(hook["SOPHON_WEBHOOK_URL"]),),
            )
        left = await desk("audit", "webhook", "retry", **hook)
        assert (left.exit_code, "Still not taken: 1" in left.stderr) == (3, True), left.output
        answers[0] = 200
        assert "Taken: 1" in (await desk.did("audit", "webhook", "retry", **hook)).stderr
        assert json.loads((await desk.did("audit", "webhook", "status", **hook)).stdout)["dead"] == []
    none = await desk("audit", "webhook", "status")
    assert (none.exit_code, "There is no webhook" in none.stderr) == (2, True)


def target_of(url: str) -> str:
    return Target(url, b"", "").id
