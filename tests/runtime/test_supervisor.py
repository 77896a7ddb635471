"""The supervisor: what it does where an engine, or the log, fails in a way that no engine can be made to fail in."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta
from typing import Literal

import pytest
from msgspec.structs import replace

from app.audit.entry import Context
from app.audit.log import Log
from app.domain.event import Event
from app.domain.names import NotebookName
from app.domain.notebooks import NotebookCreated
from app.domain.runs import (
    NotebookContainerCreated,
    NotebookCreationBegan,
    NotebookFailed,
    NotebookStarted,
    NotebookStartRequested,
    NotebookStopped,
    RunId,
)
from app.keys import Keys
from app.runtime import supervisor as module
from app.runtime.engine import EngineError, Instance
from app.runtime.supervisor import Supervisor
from tests.database import end
from tests.domain.cast import APOLLO, HERE, LAB, PLOTS, RUN, an_id, began, created, plots, ready, wanted


class FakeEngine:
    """Holds runs in memory, does what it is told, and counts how often it is asked for a list."""

    name: Literal["docker"] = "docker"

    def __init__(self, *held: Instance) -> None:
        self.held = {one.run: one for one in held}
        self.lists = 0
        self.fail: list[Exception] = []
        """What the next creations end with."""
        self.removing = 0.0
        self.gossip: NotebookName | None = None
        """Of whom it talks all the time."""

    async def instances(self, notebook: NotebookName | None = None) -> list[Instance]:
        self.lists += 1
        return [one for one in self.held.values() if notebook in (None, one.notebook)]

    async def create(self, notebook: NotebookName, run: RunId, token: str) -> None:
        if self.fail:
            raise self.fail.pop()
        self.held[run] = Instance(id=run, notebook=notebook, run=run, state="created")

    async def start(self, instance: Instance) -> None:
        self.held[instance.run] = replace(instance, state="running")

    async def remove(self, instance: Instance) -> None:
        await asyncio.sleep(self.removing)
        self.held.pop(instance.run, None)

    async def last_words(self, instance: Instance) -> str:
        return ""

    async def happenings(self) -> AsyncGenerator[NotebookName | None]:
        yield None
        while True:
            await asyncio.sleep(0.005)
            if self.gossip:
                yield self.gossip

    async def close(self) -> None:
        """Hold nothing."""


running = Instance(id="c1", notebook=PLOTS, run=RUN, state="running", upstream=HERE)


@contextlib.asynccontextmanager
async def supervising(log: Log, engine: FakeEngine, *events: Event) -> AsyncGenerator[Supervisor]:
    """Have the runs of a history supervised, after the first look at all of them."""
    await happen(log, *events)
    supervisor = Supervisor(log, engine, Keys(b"k" * 32), timedelta(minutes=2))
    task = asyncio.create_task(supervisor.run())
    await until(lambda: engine.lists > 0)
    yield supervisor
    await end(task)


async def happen(log: Log, *events: Event) -> None:
    await log.append([Context().draft(event) for event in events])


async def until(holds: Callable[[], bool], within: float = 10.0) -> None:
    give_up = time.monotonic() + within
    while not holds():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


async def until_told(log: Log, kind: type[Event], notebook: NotebookName = PLOTS) -> Event:
    """Wait until the log tells of a notebook what it has to."""
    async with asyncio.timeout(10):
        async for records in log.follow():
            for record in records:
                if isinstance(record.event, kind) and f"notebook:{notebook}" in record.entry.tags:
                    return record.event
    raise AssertionError("unreachable")


@pytest.mark.parametrize("gossip", [None, "somebody-else"])
async def test_what_an_engine_does_not_tell_is_found_however_much_or_little_else_it_tells(
    log: Log, monkeypatch: pytest.MonkeyPatch, gossip: str | None
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.2)
    engine = FakeEngine(running)
    engine.gossip = gossip
    async with supervising(log, engine, *plots, wanted, began, created, ready):
        engine.held.clear()
        failed = await until_told(log, NotebookFailed)
    assert isinstance(failed, NotebookFailed)
    assert failed.reason == "vanished"


async def test_a_fault_that_nobody_foresaw_is_tried_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.05)
    monkeypatch.setattr(module, "LOOK_EVERY", 60)
    engine = FakeEngine()
    engine.fail = [ZeroDivisionError("unforeseen"), OSError("unforeseen, too")]
    async with supervising(log, engine, *plots, wanted):
        await until_told(log, NotebookContainerCreated)
    assert engine.held[RUN].state == "running"


async def test_what_is_as_it_ought_to_be_costs_one_list_however_many_there_are(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.1)
    names = {f"plots-{number}": an_id("run", number) for number in range(100)}
    engine = FakeEngine(*(replace(running, notebook=name, run=run, id=run) for name, run in names.items()))
    history = [event for name, run in names.items() for event in up(name, run)]
    async with supervising(log, engine, *history):
        await until(lambda: engine.lists >= 3)
        assert engine.lists < 10
        del engine.held[names["plots-7"]]
        await until_told(log, NotebookFailed, "plots-7")


def up(name: NotebookName, run: RunId) -> Sequence[Event]:
    return (
        NotebookCreated(notebook=name, project=APOLLO, group=LAB, title="Plots"),
        NotebookStartRequested(notebook=name, run=run),
        NotebookCreationBegan(notebook=name, run=run),
        NotebookContainerCreated(notebook=name, run=run),
        NotebookStarted(notebook=name, run=run, upstream=HERE),
    )


async def test_all_is_ended_and_said_to_be_also_what_is_started_meanwhile(log: Log) -> None:
    engine = FakeEngine(running)
    engine.removing = 0.3
    late = an_id("run", 9)
    async with supervising(log, engine, *plots, wanted, began, created, ready) as supervisor:
        ending = asyncio.create_task(supervisor.stop_all())
        await asyncio.sleep(0.1)
        await happen(
            log,
            NotebookCreated(notebook="late", project=APOLLO, group=LAB, title="Late"),
            NotebookStartRequested(notebook="late", run=late),
        )
        async with asyncio.timeout(5):
            await ending
        await until_told(log, NotebookStopped)
        await until_told(log, NotebookStopped, "late")
    assert engine.held == {}


async def test_what_the_log_does_not_take_is_ended_all_the_same(log: Log) -> None:
    engine = FakeEngine(running)
    async with supervising(log, engine, *plots, wanted, began, created, ready) as supervisor:
        log.freeze("An older copy was restored.")
        async with asyncio.timeout(5):
            await supervisor.stop_all()
        assert engine.held == {}


async def test_what_takes_too_long_to_be_said_is_ended_all_the_same(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(command: object, context: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(module, "STOP_ALL_WITHIN", 0.1)
    engine = FakeEngine(running)
    async with supervising(log, engine, *plots, wanted, began, created, ready) as supervisor:
        monkeypatch.setattr(supervisor, "_dispatch", never)
        async with asyncio.timeout(5):
            await supervisor.stop_all()
        assert engine.held == {}


async def test_one_that_cannot_be_ended_does_not_keep_the_others_going(log: Log) -> None:
    class Stubborn(FakeEngine):
        async def remove(self, instance: Instance) -> None:
            if instance.notebook == "stubborn":
                raise EngineError("It does not end.")
            await super().remove(instance)

    other = an_id("run", 8)
    engine = Stubborn(replace(running, notebook="stubborn", run=other), running)
    history = (*plots, wanted, began, created, ready, *up("stubborn", other))
    async with supervising(log, engine, *history) as supervisor:
        log.freeze("An older copy was restored.")
        await supervisor.stop_all()
        assert [one.notebook for one in engine.held.values()] == ["stubborn"]
