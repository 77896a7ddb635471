"""The drill: lost, restored from an older dump, recovered from an export, and the same."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.audit.entry import Context
from app.audit.evidence.drill import DrillFailed, Step, drill
from app.audit.log import Log
from app.cli.drill import state_of
from app.domain.groups import GroupCreated
from app.domain.projects import ProjectCreated
from app.identifiers import new_id
from app.postgres import embedded
from app.settings import Settings
from tests.audit.signed import superuser


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


async def test_a_log_comes_out_of_the_drill_as_it_went_in(log: Log, dsn: str, directory: Path, tmp_path: Path) -> None:
    await fill(log)
    settings = Settings(data=tmp_path, secret="s" * 32)
    told: list[Step] = []
    steps = await drill(dsn, directory, embedded, lambda dsn: state_of(settings, dsn), told.append)
    assert steps == told
    results = {step.what: step.result for step in steps}
    assert results["notice that an older copy was restored"] == "noticed"
    assert results["recover the tail from the export"].startswith("11 entries; the same root")
    assert "projects 30 rows" in results["rebuild the state"]
    assert results["rebuild the state"].startswith("the same")


async def test_a_drill_fails_if_the_state_is_another_afterwards(log: Log, dsn: str, directory: Path) -> None:
    await fill(log)
    states = iter(("one", "another"))

    async def rebuild(dsn: str) -> str:
        return next(states)

    with pytest.raises(DrillFailed, match="The state was one, and is another"):
        await drill(dsn, directory, embedded, rebuild, lambda step: None)


async def test_a_log_with_a_gap_fails_the_drill(log: Log, dsn: str, directory: Path) -> None:
    await fill(log)
    with superuser(dsn) as connection:
        connection.execute("DELETE FROM audit.entries WHERE position = 4")

    async def rebuild(dsn: str) -> str:
        return ""

    with pytest.raises(DrillFailed, match="not gapless"):
        await drill(dsn, directory, embedded, rebuild, lambda step: None)
