"""Conditional appends beside the library's, with 1, 8 and 32 callers on one server.

Each append is one event on condition that nothing tagged with its project was appended since the head that the caller
knows. Ours stores the whole entry (who, when, ids), hashes it and fills every search column and index; the library's
stores type, tags and the event's own bytes, which is less. Our callers are tasks of one process, the library's are
threads of one process with a connection each, as either is meant to be used.
"""

import itertools
from collections.abc import Iterator

import msgspec
from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem
from eventsourcing.dcb.postgres_tt import PostgresDCBRecorderTT
from eventsourcing.postgres import PostgresDatastore

from app.audit.entry import Actor, Context
from app.audit.log import Log
from app.audit.recent import Condition
from app.domain.model import Selection
from app.domain.projects import ProjectCreated
from app.identifiers import new_id
from bench.loop import event_loop, rate_of_tasks, rate_of_threads
from bench.measure import Comparison, Effort, Target, alternate
from bench.server import SEALER, Server, parts, server

TARGETS = {1: 1.2, 8: 4.0, 32: 8.0}

CONTEXT = Context(actor=Actor(kind="user", id=new_id("usr"), via="session"), request=new_id("req"))
_numbers = itertools.count()


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare for each number of callers."""
    with server() as postgres:
        for callers, target in TARGETS.items():
            ours, theirs = _compare(postgres, callers, effort)
            yield Comparison(
                what=f"conditional appends, {callers} caller{'s' * (callers > 1)}",
                unit="1/s",
                peer="eventsourcing 9.5 PostgresDCBRecorderTT",
                ours=ours,
                theirs=theirs,
                target=Target(target),
            )


def _compare(postgres: Server, callers: int, effort: Effort) -> tuple[list[float], list[float]]:
    recorder = library_recorder(postgres.database(), callers)
    with event_loop() as loop:
        opened = Log.open(postgres.database(), SEALER)
        log = loop.run(opened.__aenter__())
        try:
            return alternate(
                effort.rounds,
                lambda: loop.run(rate_of_tasks(callers, effort.seconds, lambda: append(log))),
                lambda: rate_of_threads(callers, effort.seconds, Appending(recorder)),
            )
        finally:
            loop.run(opened.__aexit__(None, None, None))
            recorder.datastore.close()


def event() -> ProjectCreated:
    """Make the fact that is recorded: a project with a name of its own."""
    return ProjectCreated(project=f"project-{next(_numbers)}", group="space-lab", title="Apollo", visibility="private")


async def append(log: Log) -> None:
    """Append ours, unless its name is taken."""
    fact = event()
    free = Condition((Selection(tags=(f"project:{fact.project}",)),), log.head)
    await log.append([CONTEXT.draft(fact)], free)


class Appending:
    """Append theirs, unless its name is taken."""

    def __init__(self, recorder: PostgresDCBRecorderTT) -> None:
        self._recorder = recorder
        self._head = 0

    def __call__(self) -> None:
        """Append one event."""
        fact = event()
        stored = DCBEvent(type="ProjectCreated", data=msgspec.json.encode(fact), tags=list(fact.tags))
        query = DCBQuery(items=[DCBQueryItem(tags=[f"project:{fact.project}"])])
        self._head = self._recorder.append([stored], DCBAppendCondition(fail_if_events_match=query, after=self._head))


def library_recorder(dsn: str, connections: int) -> PostgresDCBRecorderTT:
    """Set the library's recorder up with a connection for every caller."""
    where = parts(dsn)
    datastore = PostgresDatastore(
        where["dbname"], where["host"], where.get("port", "5432"), where["user"], "", pool_size=connections
    )
    recorder = PostgresDCBRecorderTT(datastore)
    recorder.create_table()
    return recorder
