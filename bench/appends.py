"""Conditional appends beside the library's, with 1, 8 and 32 callers on one server.

Each append is one event on condition that nothing tagged with its notebook was appended since the head that the caller
knows. Ours stores the whole entry (who, when, ids), hashes it and fills every search column and index; the library's
stores type, tags and the event's own bytes, which is less. Our callers are tasks of one process, the library's are
threads of one process with a connection each, as either is meant to be used.

Told besides, with no target: events with a title, which the library stores in the clear. Ours seals each under a key of
its own, and has the vault take in title and key with the entry.
"""

import itertools
from collections.abc import Callable, Iterator

import msgspec
from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem
from eventsourcing.dcb.postgres_tt import PostgresDCBRecorderTT
from eventsourcing.postgres import PostgresDatastore

from app.audit.entry import Actor, Context
from app.audit.log import Log
from app.audit.recent import Condition
from app.domain.event import Event
from app.domain.model import Selection
from app.domain.projects import ProjectCreated
from app.domain.runs import NotebookStartRequested
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
            yield _figure(postgres, callers, effort, event, "", Target(target))
        for callers in TARGETS:
            yield _figure(postgres, callers, effort, titled_event, " of a sealed title", None)


def _figure(
    postgres: Server, callers: int, effort: Effort, make: Callable[[], Event], of: str, target: Target | None
) -> Comparison:
    ours, theirs = _compare(postgres, callers, effort, make)
    return Comparison(
        what=f"conditional appends{of}, {callers} caller{'s' * (callers > 1)}",
        unit="1/s",
        peer="eventsourcing 9.5 PostgresDCBRecorderTT",
        ours=ours,
        theirs=theirs,
        target=target,
    )


def _compare(
    postgres: Server, callers: int, effort: Effort, make: Callable[[], Event]
) -> tuple[list[float], list[float]]:
    recorder = library_recorder(postgres.database(), callers)
    with event_loop() as loop:
        opened = Log.open(postgres.database(), SEALER)
        log = loop.run(opened.__aenter__())
        try:
            return alternate(
                effort.rounds,
                lambda: loop.run(rate_of_tasks(callers, effort.seconds, lambda: append(log, make()))),
                lambda: rate_of_threads(callers, effort.seconds, Appending(recorder, make)),
            )
        finally:
            loop.run(opened.__aexit__(None, None, None))
            recorder.datastore.close()


def event() -> NotebookStartRequested:
    """Make the fact that is recorded: the start of a notebook with a name of its own."""
    number = next(_numbers)
    return NotebookStartRequested(notebook=f"notebook-{number}", run=f"run_{number:026}")


def titled_event() -> ProjectCreated:
    """Make one with a title: a project with a name of its own."""
    return ProjectCreated(project=f"project-{next(_numbers)}", group="space-lab", title="Apollo", visibility="private")


async def append(log: Log, fact: Event | None = None) -> None:
    """Append a fact, of `event` if none is given, unless something has its first tag."""
    fact = fact or event()
    free = Condition((Selection(tags=(fact.tags[0],)),), log.head)
    await log.append([CONTEXT.draft(fact)], free)


class Appending:
    """Append theirs, on the same condition."""

    def __init__(self, recorder: PostgresDCBRecorderTT, make: Callable[[], Event]) -> None:
        self._recorder = recorder
        self._make = make
        self._head = 0

    def __call__(self) -> None:
        """Append one event."""
        fact = self._make()
        stored = DCBEvent(type=type(fact).__name__, data=msgspec.json.encode(fact), tags=list(fact.tags))
        query = DCBQuery(items=[DCBQueryItem(tags=[fact.tags[0]])])
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
