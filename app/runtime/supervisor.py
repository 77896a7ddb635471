"""The supervisor: compares what ought to run with what does, takes the next step, and reports what it sees.

It knows what ought to run from the log, and what runs from the engine; both may be lost and read again. Killed at any
moment, it goes on where the two then stand.
"""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import aiohttp
import structlog

from app.audit.entry import Record
from app.audit.log import Lease, Log
from app.dispatch import Actor, Context, Dispatch
from app.domain.errors import Refusal
from app.domain.model import Selection, events
from app.domain.names import NotebookName, Personal
from app.domain.notebooks import NOTEBOOK_EVENTS, Notebook, NotebookDeleted
from app.domain.reports import (
    EndRun,
    Report,
    ReportNotebookContainerCreated,
    ReportNotebookCreationBegan,
    ReportNotebookFailed,
    ReportNotebookReady,
    ReportNotebookStopped,
)
from app.domain.runs import FailureReason, NotebookStartRequested, NotebookStopRequested, RunId
from app.keys import Keys
from app.runtime.asking import PROBLEMS, asking
from app.runtime.engine import Engine, EngineAway, EngineError, Instance
from app.runtime.plan import (
    AwaitAnswer,
    Create,
    Remove,
    SayContainerCreated,
    SayCreationBegan,
    SayFailed,
    SayStopped,
    Start,
    Step,
    next_step,
)
from app.tasks import end

AT_ONCE = 8
"""How many are created or started at the same time: more would only make each slower."""
ASK_EVERY = 0.03
RETRY = 1.0
STOP_ALL_WITHIN = 30.0
PAGE = 5_000
WISHES = (NotebookStartRequested, NotebookStopRequested, NotebookDeleted)
"""What somebody asks of the runtime, and what its reports are because of."""

_log = structlog.get_logger(__name__)


class Supervisor:
    """Looks after all notebooks, each in a task of its own for as long as there is something to do about it."""

    def __init__(self, log: Log, engine: Engine, keys: Keys, patience: timedelta) -> None:
        self._log = log
        self._engine = engine
        self._keys = keys
        self._patience = patience
        self._dispatch = Dispatch(log)
        self._notebooks: dict[NotebookName, Notebook] = {}
        self._asked: dict[NotebookName, Context] = {}
        """As what is reported of a notebook: on behalf of whoever last asked something of it, and because of that."""
        self._first_seen: dict[tuple[RunId, str | None], datetime] = {}
        self._position = 0
        self._moved = asyncio.Condition()
        self._stirred: dict[NotebookName, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Supervise until cancelled. Of all that run on one log, one supervises, and the others stand by."""
        while True:
            try:
                async with self._log.leading("supervisor") as lease:
                    await self._supervise(lease)
            except Exception as error:
                _log.warning("supervisor.begins_anew", error=repr(error))
                await asyncio.sleep(RETRY)

    async def _supervise(self, lease: Lease) -> None:
        await self._read_history()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(lease.keep())
                group.create_task(self._follow_log())
                group.create_task(self._follow_engine())
        finally:
            await end(self._tasks)

    async def stop_all(self) -> None:
        """End every run, and wait until they are gone, for half a minute at most."""
        for name, one in list(self._notebooks.items()):
            if one.is_wanted and one.run is not None:
                await self._dispatch(EndRun(notebook=name, run=one.run), Context())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_ALL_WITHIN), self._moved:
                await self._moved.wait_for(lambda: not any(map(_is_going_on, self._notebooks.values())))

    async def _read_history(self) -> None:
        selection: tuple[Selection, ...] = (events(*NOTEBOOK_EVENTS),)
        while True:
            page = await self._log.read(selection, self._position, PAGE)
            self._fold(page.records)
            if len(page.records) < PAGE:
                self._position = max(self._position, page.head)
                return
            self._position = page.records[-1].position

    async def _follow_log(self) -> None:
        async for records in self._log.follow(self._position):
            touched = self._fold(records)
            async with self._moved:
                self._position = records[-1].position
                self._moved.notify_all()
            for name in touched:
                self._stir(name)

    async def _follow_engine(self) -> None:
        async for name in self._engine.happenings():
            if name is not None:
                self._stir(name)
                continue
            with contextlib.suppress(EngineAway):
                for one in {instance.notebook for instance in await self._engine.instances()}:
                    self._stir(one)
            for one, notebook in self._notebooks.items():
                if _is_going_on(notebook):
                    self._stir(one)

    def _fold(self, records: list[Record]) -> set[NotebookName]:
        touched: set[NotebookName] = set()
        for record in records:
            if isinstance(record.event, NOTEBOOK_EVENTS):
                name = record.event.notebook
                self._notebooks[name] = self._notebooks.get(name, Notebook()).evolve(record.event)
                if isinstance(record.event, WISHES):
                    self._asked[name] = _because_of(record)
                touched.add(name)
        return touched

    def _stir(self, name: NotebookName) -> None:
        """Have somebody look at a notebook: whoever does already, or a new task."""
        if stirred := self._stirred.get(name):
            stirred.set()
            return
        self._stirred[name] = asyncio.Event()
        task = asyncio.create_task(self._look_after(name), name=f"notebook {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_after(self, name: NotebookName) -> None:
        """Take step after step until there is none, and nothing stirred meanwhile."""
        stirred = self._stirred[name]
        try:
            while True:
                stirred.clear()
                if not await self._advance(name, stirred) and not stirred.is_set():
                    return
        except Exception:
            _log.exception("supervisor.notebook_failed", notebook=name)
        finally:
            del self._stirred[name]

    async def _advance(self, name: NotebookName, stirred: asyncio.Event) -> bool:
        """Take the next step; whether there was one."""
        try:
            seen = await self._engine.instances(name)
            notebook, now = self._notebooks.get(name, Notebook()), datetime.now(UTC)
            step = next_step(notebook, seen, now, self._deadline(notebook, seen, now))
            if step is None:
                return False
            await self._take(step, name, stirred)
        except (EngineError, Refusal) as error:
            _log.warning("supervisor.step_failed", notebook=name, error=str(error))
            await _either(stirred, RETRY)
        return True

    def _deadline(self, notebook: Notebook, seen: list[Instance], now: datetime) -> datetime:
        """Give until when a run may take to answer: so long from when it was first seen at its place, by us."""
        places = {(one.run, one.upstream) for one in seen if notebook.is_wanted and one.state == "running"}
        for place in places:
            self._first_seen.setdefault(place, now)
        if notebook.status in ("ready", "stopped", "failed"):
            for place in [place for place in self._first_seen if place[0] == notebook.run and place not in places]:
                del self._first_seen[place]
        return min((self._first_seen[place] for place in places), default=now) + self._patience

    async def _take(self, step: Step, name: NotebookName, stirred: asyncio.Event) -> None:
        match step:
            case Remove(instance):
                await self._engine.remove(instance)
            case SayCreationBegan(run):
                async with self._turns:
                    await self._say(ReportNotebookCreationBegan(notebook=name, run=run))
            case Create(run):
                await self._create(name, run)
            case SayContainerCreated(run):
                await self._say(ReportNotebookContainerCreated(notebook=name, run=run))
            case Start(instance):
                await self._start(instance)
            case AwaitAnswer(instance, until):
                await self._await_answer(instance, until, stirred)
            case SayFailed(run, reason, instance):
                await self._say_failed(name, run, reason, instance)
            case SayStopped(run):
                await self._say(ReportNotebookStopped(notebook=name, run=run))

    async def _create(self, name: NotebookName, run: RunId) -> None:
        async with self._turns:
            try:
                await self._engine.create(name, run, self._keys.run_token(run))
            except EngineAway:
                raise
            except EngineError as error:
                await self._say_failed(name, run, "create-failed", None, str(error))

    async def _start(self, instance: Instance) -> None:
        async with self._turns:
            try:
                await self._engine.start(instance)
            except EngineAway:
                raise
            except EngineError as error:
                await self._say_failed(instance.notebook, instance.run, "start-failed", None, str(error))

    async def _await_answer(self, instance: Instance, until: datetime, stirred: asyncio.Event) -> None:
        """Ask until it answers, until the deadline, or until something stirs; then the plan is made anew."""
        if instance.upstream is None:
            await _either(stirred, ASK_EVERY)
            return
        async with asking(instance.upstream, self._keys.run_token(instance.run)) as session:
            while datetime.now(UTC) < until and not stirred.is_set():
                if await _answers(session):
                    report = ReportNotebookReady(
                        notebook=instance.notebook, run=instance.run, upstream=instance.upstream
                    )
                    await self._say(report)
                    return
                await _either(stirred, ASK_EVERY)

    async def _say_failed(
        self, name: NotebookName, run: RunId, reason: FailureReason, instance: Instance | None, words: str = ""
    ) -> None:
        words = _readable(words or (await self._engine.last_words(instance) if instance else ""))
        await self._say(
            ReportNotebookFailed(
                notebook=name,
                run=run,
                reason=reason,
                exit_code=instance.exit_code if instance else None,
                log=Personal(words[-8000:]) if words else None,
            )
        )

    async def _say(self, report: Report) -> None:
        """Report, and wait until the report has come back by the log: the next plan has to know of it."""
        receipt = await self._dispatch(report, self._asked.get(report.notebook, Context()))
        async with self._moved:
            await self._moved.wait_for(lambda: self._position >= receipt.position)


def _because_of(record: Record) -> Context:
    """Give the context of what the platform does about a wish: it acts on behalf of whoever had it."""
    entry = record.entry
    on_behalf_of = entry.actor.id if entry.actor.kind == "user" else entry.actor.obo
    return Context(actor=Actor(kind="system", id="sophon", obo=on_behalf_of), cause=entry.id, trace=entry.trace)


def _readable(words: str) -> str:
    """Leave out what no page and no database can show: a container writes what it likes."""
    return "".join(letter for letter in words if letter == "\n" or letter.isprintable())


def _is_going_on(notebook: Notebook) -> bool:
    return notebook.is_wanted or notebook.status == "stopping"


async def _answers(session: aiohttp.ClientSession) -> bool:
    """Ask for its status: a port that takes connections is Docker's, long before it is JupyterLab's."""
    try:
        async with session.get("/api/status") as response:
            return response.status == 200
    except PROBLEMS:
        return False


async def _either(stirred: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stirred.wait(), seconds)
