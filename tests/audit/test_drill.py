"""The drill: lost, restored from an older dump, recovered from an export, and the same."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from app.audit.entry import Context
from app.audit.evidence.drill import DrillFailed, State, drill
from app.audit.log import Log
from app.cli.drill import state_of
from app.domain.groups import GroupCreated
from app.domain.projects import ProjectCreated
from app.domain.states import StateSealed, TableDigest
from app.identifiers import new_id
from app.postgres import embedded
from app.projections.seals import seal_generation
from app.settings import Settings
from tests.audit.signed import superuser
from tests.audit.test_recovery import rows
from tests.audit.test_verify import command
from tests.projections.test_read_models import projecting


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that PostgreSQL can reach when it runs as a user of its own."""
    made = Path(tempfile.mkdtemp(prefix="sophon-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


async def fill(log: Log) -> None:
    ada = new_id("usr")
    await log.append([Context().draft(GroupCreated(group="lab", title="Lab", owner=ada))])
    for number in range(30):
        created = ProjectCreated(project=f"p{number}", group="lab", title=f"No. {number}", visibility="internal")
        await log.append([Context().draft(created)])


async def seal(log: Log) -> StateSealed:
    """Seal the state; give what was sealed."""
    async with projecting(log) as projector:
        assert await projector.reach(log.head)
        async with log.pool.connection() as connection:
            await seal_generation(log, connection)
    [sealed] = [record.event for record in (await log.read()).records if isinstance(record.event, StateSealed)]
    return sealed


async def test_by_the_command_a_log_comes_out_of_the_drill_as_it_went_in_with_the_state_that_was_sealed(
    log: Log, dsn: str, tmp_path: Path
) -> None:
    await fill(log)
    sealed = await seal(log)
    before = log.head
    done = await command(dsn, tmp_path, "state", "drill", SOPHON_SECRET="s" * 32, COLUMNS="400")
    assert (done.returncode, done.stdout) == (0, "The log came out of it as it went in.\n"), done.stderr
    assert re.search(r"notice that an older copy was restored\W+[0-9.]+\W+noticed", done.stderr)
    assert re.search(r"recover the tail from the export\W+[0-9.]+\W+11 entries; the same root", done.stderr)
    projects = next(one for one in sealed.digests if one.table == "projects")
    assert re.search(rf"rebuild the state\W+[0-9.]+\W+the same: .*projects 30 rows {projects.digest[:8]}", done.stderr)
    assert f"; {len(sealed.digests)} sealed digests met" in done.stderr
    assert log.head == len(rows(dsn)) == before, "a drill only reads the present log"


async def test_a_drill_fails_if_the_state_is_not_the_one_that_was_sealed(
    log: Log, dsn: str, directory: Path, tmp_path: Path
) -> None:
    await fill(log)
    sealed = await seal(log)
    wrong = [replace(one, digest=one.digest[:-1] + "0123456789abcdef"[one.digest[-1] == "0"]) for one in sealed.digests]
    await log.append([Context().draft(replace(sealed, digests=tuple(wrong)))])
    settings = Settings(data=tmp_path, secret="s" * 32)
    with pytest.raises(DrillFailed, match=f"not the one that was sealed: .*projects as of {sealed.position}"):
        await drill(dsn, directory, embedded, lambda dsn: state_of(settings, dsn), lambda step: None)


async def test_a_drill_fails_if_a_digit_of_the_state_is_another_afterwards(log: Log, dsn: str, directory: Path) -> None:
    await fill(log)
    states = iter(State((TableDigest("groups", 1, 1, "a" * 63 + last),)) for last in "ab")

    async def rebuild(dsn: str) -> State:
        return next(states)

    with pytest.raises(DrillFailed, match=r"groups: 1 rows a{64}, now 1 rows a{63}b"):
        await drill(dsn, directory, embedded, rebuild, lambda step: None)


async def test_a_log_with_a_gap_fails_the_drill(log: Log, dsn: str, directory: Path) -> None:
    await fill(log)
    with superuser(dsn) as connection:
        connection.execute("DELETE FROM audit.entries WHERE position = 4")

    async def rebuild(dsn: str) -> State:
        return State(())

    with pytest.raises(DrillFailed, match="not gapless"):
        await drill(dsn, directory, embedded, rebuild, lambda step: None)
