"""Read models from 100,000 entries: all of ours by `rebuild`, beside the library's runner, which commits each event.

Ours folds a realistic mix of events into every read model. The library's reads events of one type (it can subscribe to
no more on Postgres) and inserts one row for each, which is the cheapest event of the mix; 3,000 of them, because its
rate does not depend on the number. It is measured a second time on a database whose commits do not wait for the disk,
which is safe for a view, if nobody's documentation says so; that figure is told, and has no target.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator

import psycopg
from eventsourcing.dcb.application import DCBApplication
from eventsourcing.dcb.domain import Tagged

from app.audit.entry import Draft
from app.audit.log import Log
from app.projections.rebuild import rebuild
from bench import library
from bench.loop import event_loop
from bench.measure import Comparison, Effort, Target, alternate
from bench.mix import drafts
from bench.server import SEALER, Server, parts, server

ENTRIES, EVENTS = 100_000, 3_000
AT_ONCE = 100


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare with the runner as it is, and with one whose commits do not wait."""
    with server() as postgres, event_loop() as loop:
        opened = Log.open(postgres.database(), SEALER)
        log = loop.run(opened.__aenter__())
        loop.run(_fill(log, round(ENTRIES * effort.share)))
        events = postgres.database()
        last = _fill_library(events, round(EVENTS * effort.share))
        try:
            for waits, target in ((True, Target(20.0)), (False, None)):
                ours, theirs = alternate(
                    effort.rounds,
                    lambda: _rebuild(loop, log),
                    lambda: _project(postgres, events, last, waits=waits),  # noqa: B023
                )
                yield Comparison(
                    what="entries into read models",
                    unit="1/s",
                    peer=f"eventsourcing 9.5 ProjectionRunner{'' if waits else ', commits do not wait for the disk'}",
                    ours=ours,
                    theirs=theirs,
                    target=target,
                )
        finally:
            loop.run(opened.__aexit__(None, None, None))


async def _fill(log: Log, entries: int) -> None:
    made = itertools.islice(drafts(), entries)
    while batches := [batch for _ in range(8) if (batch := list[Draft](itertools.islice(made, AT_ONCE)))]:
        await asyncio.gather(*(log.append(batch) for batch in batches))


def _rebuild(loop: asyncio.Runner, log: Log) -> float:
    begin = time.perf_counter()
    position = loop.run(rebuild(log)).position
    return position / (time.perf_counter() - begin)


def _fill_library(dsn: str, events: int) -> int:
    """Record that projects were created; return the last one's position."""
    with DCBApplication(library.environment(dsn, dsn, 2)) as application:
        made = [library.ProjectCreated(f"project-{n}", "space-lab", "Apollo", "private") for n in range(events)]
        return application.events.append([Tagged([f"project:{one.project}", "group:space-lab"], one) for one in made])


def _project(postgres: Server, events: str, last: int, *, waits: bool) -> float:
    """Project into a view in a new database; return events per second."""
    view = postgres.database()
    if not waits:
        with psycopg.connect(view, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{parts(view)["dbname"]}" SET synchronous_commit = off')  # pyright: ignore
    library.Projects.until = last
    begin = time.perf_counter()
    with library.runner(library.environment(events, view, 4)) as running:
        arrived = running.projection.arrived.wait(timeout=120)  # pyright: ignore
        took = time.perf_counter() - begin
    assert arrived
    return last / took
