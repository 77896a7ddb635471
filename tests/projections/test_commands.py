"""The commands of time travel and of rebuilding, as an administrator types them: what they print, and their codes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.audit.entry import Context
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.domain.states import StateSealed, TableDigest
from app.keys import Keys
from app.projections.generation import MODELS
from tests.domain.cast import ADA, APOLLO, BOB, LAB, plots, wanted
from tests.projections.test_read_models import happen, projecting

ROOT = Path(__file__).parents[2]
SECRET = "a secret of a test, which is long enough"

Sophon = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]


@pytest.fixture
def sophon(dsn: str, tmp_path: Path) -> Sophon:
    """Give a way to run `sophon …` on this test's database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SOPHON_")}
    told = {"SOPHON_DATABASE_URL": dsn, "SOPHON_SECRET": SECRET, "SOPHON_DATA": str(tmp_path)}

    async def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(
            subprocess.run,
            (sys.executable, "-m", "app", *arguments),
            cwd=ROOT,
            env=kept | told,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
async def filled(dsn: str) -> None:
    """Let what the tests tell of have happened, and be readable."""
    async with Log.open(dsn, Sealer(Keys(SECRET.encode()).vault_key())) as log, projecting(log) as projector:
        assert await projector.reach(await happen(log, *plots, wanted))


async def by_hand(dsn: str, statement: str) -> None:
    async with Log.open(dsn, Sealer(Keys(SECRET.encode()).vault_key())) as log, log.pool.connection() as connection:
        await connection.execute(statement.encode())


@pytest.mark.usefixtures("filled")
async def test_an_edited_row_is_printed_repaired_and_gone(sophon: Sophon, dsn: str) -> None:
    whole = await sophon("state", "diff")
    assert (whole.returncode, whole.stdout) == (0, ""), whole.stderr
    await by_hand(dsn, "UPDATE read.projects SET visibility = 'public'")
    found = await sophon("state", "diff", "--repair")
    assert found.returncode == 1, found.stderr
    table, key, expected, there = found.stdout.rstrip("\n").split("\t")
    assert (table, key) == ("projects", APOLLO)
    assert '"visibility":"private"' in expected
    assert '"visibility":"public"' in there
    assert "1 row is not what the log says" in found.stderr
    assert (await sophon("state", "diff")).returncode == 0


@pytest.mark.usefixtures("filled")
async def test_a_rebuild_tells_what_had_been_different_and_a_replay_meets_its_seal(sophon: Sophon, dsn: str) -> None:
    await by_hand(dsn, "DELETE FROM read.notebooks")
    done = await sophon("state", "rebuild")
    assert done.returncode == 1, done.stderr
    assert "notebooks: 1 rows had been different" in done.stdout
    assert "Every read model was rebuilt" in done.stderr
    verified = await sophon("state", "verify")
    assert verified.returncode == 0, verified.stderr
    assert "past 1 seal: the same state" in verified.stderr
    dropped = await sophon("state", "drop-old")
    assert "read_old" in dropped.stderr
    only = await sophon("state", "rebuild", "groups")
    assert only.returncode == 0, only.stderr
    past = await sophon("state", "rebuild", "--to", "3")
    assert (past.returncode, past.stdout) == (0, "read_at_3\n"), past.stderr


async def seal_by_another_release(dsn: str) -> None:
    async with Log.open(dsn, Sealer(Keys(SECRET.encode()).vault_key())) as log:
        tables = tuple(TableDigest(model.table(), model.version + 1, 0, "0" * 64) for model in MODELS)
        await log.append([Context().draft(StateSealed(position=log.head, shape="0" * 16, digests=tables))])


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("seals", [0, 1])
async def test_where_no_seal_can_be_compared_nothing_is_proven_and_that_ends_with_2(
    sophon: Sophon, dsn: str, seals: int
) -> None:
    if seals:
        await seal_by_another_release(dsn)
    verified = await sophon("state", "verify")
    assert verified.returncode == 2, verified.stderr
    rebuilt = await sophon("state", "rebuild", "--check-seals")  # which makes a seal, for the next time
    assert rebuilt.returncode == 2, rebuilt.stderr
    said = " ".join(rebuilt.stderr.split())
    assert "Every read model was rebuilt" in said
    assert f"Nothing could be compared: none of the {seals} seals" in said
    assert "the same state" not in said + verified.stderr
    assert (await sophon("state", "verify")).returncode == 0


@pytest.mark.usefixtures("filled")
async def test_the_past_is_shown_compared_blamed_and_explained(sophon: Sophon) -> None:
    shown = await sophon("audit", "show", f"group/{LAB}")
    assert f'"{BOB}": "member"' in shown.stdout, shown.stderr
    then = await sophon("audit", "show", f"group/{LAB}", "--as-of", "5")
    assert BOB not in then.stdout
    different = await sophon("audit", "diff", "5", "6")
    assert f'  members.{BOB}: - → "member"' in different.stdout, different.stderr
    undone = await sophon("audit", "diff", "6", "5")
    assert f'  members.{BOB}: "member" → -' in undone.stdout, undone.stderr
    blamed = await sophon("audit", "blame", f"group/{LAB}", f"members.{ADA}")
    assert blamed.stdout.split("\t")[0] == "5", blamed.stderr
    told = await sophon("audit", "explain", "6")
    assert told.stdout.startswith(f"Sophon made bob ({BOB}) member of the group {LAB}."), told.stderr


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "comet/halley"), "names nothing"),
        (("show", "project/apollo", "--as-of", "soon"), "is no moment"),
        (("explain", "999"), "no position 999"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(sophon: Sophon, arguments: tuple[str, ...], said: str) -> None:
    failed = await sophon("audit", *arguments)
    assert failed.returncode == 2
    assert said in " ".join(failed.stderr.split())
    assert "Traceback" not in failed.stderr
