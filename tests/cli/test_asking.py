"""Asking the past and for what waits: over the API and at the command line, on one running platform."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from app.audit.transparency.proofs import parse_receipt
from tests.questions.platform import Town, lab

ROOT = Path(__file__).parents[2]
Sophon = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    """A platform with its administrator."""
    async with Town.open(dsn, tmp_path) as town:
        yield town


@pytest.fixture
def sophon(dsn: str, tmp_path: Path) -> Sophon:
    """Give a way to run `sophon …` beside it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SOPHON_")}
    told = {"SOPHON_DATABASE_URL": dsn, "SOPHON_SECRET": "k" * 32, "SOPHON_DATA": str(tmp_path), "COLUMNS": "300"}

    async def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(
            subprocess.run,
            (sys.executable, "-m", "app", *arguments),
            cwd=ROOT, env=kept | told, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


async def explained(town: Town, position: int) -> str:
    """Ask until a checkpoint covers the position, which is soon if somebody waits for it."""
    await town.signed()
    async with asyncio.timeout(20):
        while not (proof := (await town.admin.get(f"/api/audit/entries/{position}/explain")).get("proof")):
            await asyncio.sleep(0.1)
    return proof


async def test_an_explanation_has_the_inclusion_proof_in_the_api_and_at_the_command_line(
    town: Town, sophon: Sophon
) -> None:
    await lab(town)
    position = (await town.since(0, "GroupCreated"))[0].position
    proof = await explained(town, position)
    receipt = parse_receipt(proof.encode())
    assert (receipt.index, receipt.extra) == (position - 1, None)
    told = await sophon("audit", "explain", str(position))
    assert told.returncode == 0, told.stderr
    assert f"  index {position - 1}\n" in told.stdout
    assert told.stdout.endswith("\n")


async def test_an_administrator_by_a_token_is_told_of_in_one_sentence(town: Town) -> None:
    _, bob = await lab(town)
    by_token = await town.bearer(town.admin, "read", "write", "admin")
    await by_token.do("PUT", f"/api/groups/lab/members/{bob.user}", {"role": "owner"})
    position = (await town.since(0, "MemberAdded"))[-1].position
    told = await town.admin.get(f"/api/audit/entries/{position}/explain")
    assert ", by a token, as administrator, made bob" in told["sentence"]


async def test_a_user_is_asked_for_by_name_too_and_a_field_that_is_not_there_is_named(
    town: Town, sophon: Sophon
) -> None:
    ada, _ = await lab(town)
    assert (await town.admin.get("/api/audit/state/user/ada"))["state"]["user"] == ada.user
    shown = await sophon("audit", "show", "user/ada")
    assert ada.user in shown.stdout, shown.stderr
    blamed = await sophon("audit", "blame", "group/lab", "membrs")
    assert (blamed.returncode, "no field membrs" in blamed.stderr) == (2, True)
    answer = await town.admin.ask("GET", "/api/audit/blame/group/lab?field=membrs")
    assert (answer.status_code, answer.json()["detail"]) == (404, "group/lab, membrs")
    answer = await town.admin.ask("GET", "/api/audit/diff?from=1&to=99999")
    assert (answer.status_code, answer.json()["detail"]) == (404, "to: 99999")


async def test_an_auditor_gets_a_receipt_with_a_token_of_the_scope_audit(town: Town) -> None:
    await lab(town)
    may = await town.person("may", auditor=True)
    for scope, code in (("audit", 200), ("read", 403)):
        token = await town.bearer(may, scope)
        assert (await token.ask("GET", "/api/audit/entries/1/proof")).status_code == code, scope


async def test_what_waits_for_a_second_administrator_is_told_until_that_one_came(town: Town, sophon: Sophon) -> None:
    _, bob = await lab(town)
    carol = await town.person("carol", administrator=True)
    may = await town.person("may", auditor=True)
    assert "Nothing waits" in (await sophon("audit", "approvals")).stderr
    path = f"/api/audit/subjects/user/{bob.user}/erasure"
    askers = [await town.bearer(one, "read", "write", "admin") for one in (town.admin, carol)]
    await askers[0].do("POST", path, {})
    auditor = await town.bearer(may, "audit")
    (one,) = (await auditor.get("/api/audit/approvals"))["items"]
    assert (one["action"], one["about"], one["username"]) == ("erase", f"user:{bob.user}", "admin")
    told = await sophon("audit", "approvals")
    assert told.returncode == 0, told.stderr
    assert f"erase user:{bob.user}  asked by admin ({town.admin.user})" in told.stdout
    assert (await (await town.bearer(carol, "read")).ask("GET", "/api/audit/approvals")).status_code == 403
    await askers[1].do("POST", path, {})
    assert (await auditor.get("/api/audit/approvals"))["items"] == []
    assert (await sophon("audit", "approvals", "-o", "jsonl")).stdout == ""


async def test_a_replay_past_no_seal_compared_nothing_and_says_so(town: Town, sophon: Sophon) -> None:
    done = await sophon("state", "verify")
    assert (done.returncode, "no state seal" in done.stderr.lower()) == (2, True), done.stderr


async def test_a_checkpoint_that_cannot_be_saved_is_told_in_a_sentence(town: Town, sophon: Sophon) -> None:
    await explained(town, 1)
    done = await sophon("audit", "checkpoint", "--save", "/proc/nothing/here")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


async def test_the_keys_that_the_log_lists_verify_it_as_they_are(town: Town, sophon: Sophon, tmp_path: Path) -> None:
    await explained(town, 1)
    listed = await town.guest.ask("GET", "/audit/log/vkeys")
    (tmp_path / "listed").write_text(listed.text)
    whole = await sophon("audit", "verify", "--vkeys", str(tmp_path / "listed"))
    assert whole.returncode == 0, whole.stderr
    proved = await sophon("audit", "prove", "1")
    (tmp_path / "receipt").write_text(proved.stdout)
    for line, code in ((listed.text.split("\n")[0], 0), (f"{listed.text.split(' ')[0]} 0 0", 1)):
        checked = await sophon("audit", "check-proof", str(tmp_path / "receipt"), "--vkey", line)
        assert checked.returncode == code, checked.stderr
