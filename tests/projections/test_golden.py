"""Golden logs: this release replays the history of every earlier one to the state that was sealed then."""

from importlib.metadata import version
from pathlib import Path

import pytest

from app.audit.entry import Record, leaf_hash
from app.audit.log import Log
from app.projections.rebuild import rebuild
from app.projections.seals import verify_seals
from tests.database import SEALER, Databases
from tests.projections.golden import GOLDEN
from tests.projections.test_read_models import TABLES, tables

LOGS = sorted(GOLDEN.glob("*.jsonl"))


async def load(dsn: str, path: Path) -> None:
    """Put a history into an empty log, to the byte. Its disclosures are nowhere: what was sealed is erased."""
    lines = path.read_bytes().splitlines()
    async with Log.open(dsn, SEALER) as log, log.pool.connection() as connection, connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO audit.entries (position, bytes, leaf_hash) VALUES (%s, %s, %s)",
            [(position, line.decode(), leaf_hash(line)) for position, line in enumerate(lines, 1)],
        )


def test_there_is_a_golden_log_of_this_release() -> None:
    assert version("sophon") in [path.stem for path in LOGS]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_every_entry_of_a_golden_log_can_be_read(path: Path) -> None:
    for position, line in enumerate(path.read_bytes().splitlines(), 1):
        assert type(Record(position, line).event).__name__ == Record(position, line).entry.type


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
async def test_a_golden_log_is_replayed_to_the_states_that_were_sealed_then(path: Path, databases: Databases) -> None:
    with databases.fresh() as dsn:
        await load(dsn, path)
        async with Log.open(dsn, SEALER) as log:
            checked = await verify_seals(log)
            assert checked.seals == 3
            assert checked.mismatches == []
            if path.stem == version("sophon"):
                assert checked.not_compared == []
            await rebuild(log)
            found = await tables(log)
    assert all(found[table] for table in TABLES)
