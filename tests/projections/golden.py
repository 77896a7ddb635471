"""The golden log of a release: a small whole history, to the byte, with seals of what this release made of it.

`python -m tests.projections.golden` writes it when a release is made, once; later releases have to come to the same.
"""

import asyncio
from importlib.metadata import version
from pathlib import Path

from app.audit.entry import Actor, Context
from app.audit.log import Log
from app.domain.names import Personal
from app.domain.runs import NotebookFailed
from app.domain.subjects import SubjectErased
from app.domain.users import LoggedIn, UserRolesChanged
from app.projections.seals import seal_generation
from tests.database import SEALER, Databases, server
from tests.domain.cast import ADA, BOB, EVE, PLOTS, RUN, apollo, plots, wanted
from tests.projections.histories import History
from tests.projections.test_read_models import projecting

GOLDEN = Path(__file__).parents[1] / "audit" / "golden"


async def live(log: Log) -> None:
    """Let much happen, with a seal in the middle, after an erasure, and at the end."""
    by_ada = Context(actor=Actor(kind="user", id=ADA, via="session"), request="req_1", source="192.0.2.1")
    async with projecting(log) as projector:
        history = History(log, 2026)
        await history.begin()
        more = [*plots[len(apollo) - 3 :], wanted, NotebookFailed(notebook=PLOTS, run=RUN, reason="vanished")]
        died = NotebookFailed(notebook=PLOTS, run=RUN, reason="out-of-memory", exit_code=137, log=Personal("Killed\n"))
        roles = UserRolesChanged(
            user=EVE, administrator=False, auditor=True, was_administrator=False, was_auditor=False
        )
        session = LoggedIn(user=ADA, session="ses_06dmq5v1c9t72r8k3f4g5h6j0q")
        await log.append([by_ada.draft(event) for event in (*more, died, roles, session)])
        for erased in (None, f"user:{BOB}", None):
            await history.go_on(120)
            if erased:
                await log.append([Context().draft(SubjectErased(subject=erased))])
            assert await projector.reach(log.head)
            async with log.pool.connection() as connection:
                await seal_generation(log, connection)


async def main() -> None:
    """Write the golden log of this release; one that is there is never written again."""
    path = GOLDEN / f"{version('sophon')}.jsonl"
    with server() as dsn:
        databases = Databases(dsn)
        await databases.prepare()
        with databases.fresh() as fresh:
            async with Log.open(fresh, SEALER) as log:
                await live(log)
                lines = [record.octets for record in (await log.read()).records]
        databases.discard()
    with path.open("xb") as file:
        file.write(b"".join(line + b"\n" for line in lines))


if __name__ == "__main__":
    asyncio.run(main())
