"""Questions to read models: an answer costs what it holds, and not what the table does, however often it is asked."""

import asyncio

import psycopg
from psycopg.conninfo import make_conninfo

from app.audit.log import Log
from app.domain.command import Caller
from app.domain.notebooks import NotebookCreated
from app.domain.projects import ProjectCreated
from app.projections.notebooks import Notebooks
from app.projections.projects import Projects
from app.projections.rebuild import rebuild
from tests.database import SEALER
from tests.domain.cast import ADA, LAB
from tests.projections.test_read_models import happen

MANY, LIMIT, TIMES = 2_000, 10, 20


async def test_a_page_and_a_row_are_looked_up_by_a_plan_that_is_kept(log: Log, dsn: str) -> None:
    names = [f"n-{number:05}" for number in range(MANY)]
    await happen(log, *(ProjectCreated(project=n, group=LAB, title="Apollo", visibility="internal") for n in names))
    await happen(log, *(NotebookCreated(notebook=n, project=n, group=LAB, title="Plots") for n in names))
    await rebuild(log)
    before = await rows_read(dsn)
    # PostgreSQL makes such a plan once a question was asked a few times, if it likes; here it always does.
    asking = make_conninfo(dsn, options="-c plan_cache_mode=force_generic_plan")
    async with Log.open(asking, SEALER) as other:
        notebooks, projects, ada = Notebooks(other.pool), Projects(other.pool), Caller(ADA)
        for name in names[:TIMES]:
            for model in (notebooks, projects):
                assert len(await model.visible_to(ada, LIMIT)) == LIMIT
                assert len(await model.visible_to(ada, LIMIT, name)) == LIMIT
                assert len(await model.visible_to(ada, slug=name)) == 1
            assert len(await notebooks.visible_to(ada, LIMIT, project=name)) == 1
            assert len(await projects.visible_to(ada, LIMIT, group=LAB)) == LIMIT
    async with asyncio.timeout(10):
        while (read := await rows_read(dsn) - before) == 0:  # a backend tells what it did when it ends
            await asyncio.sleep(0.05)
    assert read < TIMES * 10 * 10 * LIMIT


async def rows_read(dsn: str) -> int:
    """Count what was ever read of the two tables, for whichever question."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT sum(seq_tup_read + idx_tup_fetch)::int FROM pg_stat_user_tables"
            " WHERE schemaname = 'read' AND relname IN ('notebooks', 'projects')"
        ).fetchone()
    assert row is not None
    return row[0] or 0
