"""The supervisor: compares what ought to run with what does, takes the next step, and reports what it sees.

It knows what ought to run from the log, and what runs from the engine; both may be lost and read again. Killed at any
moment, it goes on where the two then stand.
"""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import aiohttp
import structlog

from app.audit.log import Lease, Log
from app.dispatch import Context, Dispatch
from app.domain.errors import Refusal
from app.domain.names import NotebookName, Personal
from app.domain.notebooks import Notebook
from app.domain.reports import (
    EndRun,
    Report,
    ReportNotebookContainerCreated,
    ReportNotebookCreationBegan,
    ReportNotebookFailed,
    ReportNotebookReady,
    ReportNotebookStopped,
)
from app.domain.runs import FailureReason, RunId
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
from app.runtime.wishes import Wishes
from app.tasks import end

AT_ONCE = 8
"""How many are created or started at the same time: more would only make each slower."""
ASK_EVERY = 0.03
RETRY = 1.0
LOOK_EVERY = 10.0
STOP_ALL_WITHIN = 30.0
BEGINNINGS = (SayCreationBegan, Create, Start)
"""What is not done any more once all runs are being ended."""

_log = structlog.get_logger(__name__)


class Supervisor:
    """Looks after all notebooks, each in a task of its own for as long as there is something to do about it."""

    def __init__(self, log: Log, engine: Engine, keys: Keys, patience: timedelta) -> None:
        self._log = log
        self._engine = engine
        self._keys = keys
        self._patience = patience
        self._dispatch = Dispatch(log)
        self._wishes = Wishes(log)
        self._first_seen: dict[tuple[RunId, str | None], datetime] = {}
        self._stirred: dict[NotebookName, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._is_ending = False

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
        await self._wishes.read_history()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(lease.keep())
                group.create_task(self._follow_log())
                group.create_task(self._follow_engine())
                group.create_task(self._look_again())
        finally:
            await end(self._tasks)

    async def stop_all(self) -> None:
        """End every run, those that are asked for meanwhile too, and wait until they are gone: half a minute at most.

        What cannot be said in the log is ended all the same; the next start finds it gone.
        """
        self._is_ending = True
        try:
            async with asyncio.timeout(STOP_ALL_WITHIN):
                await self._end_all()
        except Exception as error:
            _log.warning("supervisor.ends_unsaid", error=repr(error))
            await self._remove_all()

    async def _end_all(self) -> None:
        position = self._wishes.position
        while going_on := self._wishes.going_on():
            for name, one in going_on.items():
                if one.is_wanted and one.run is not None:
                    await self._dispatch(EndRun(notebook=name, run=one.run), Context())
            await self._wishes.reach(position + 1)
            position = self._wishes.position

    async def _remove_all(self) -> None:
        with contextlib.suppress(EngineAway):
            held = [one for one in await self._engine.instances() if one.notebook in self._wishes]
            for error in await asyncio.gather(*map(self._engine.remove, held), return_exceptions=True):
                if error is not None:
                    _log.warning("supervisor.not_ended", error=str(error))

    async def _follow_log(self) -> None:
        async for touched in self._wishes.follow():
            for name in touched:
                self._stir(name)

    async def _follow_engine(self) -> None:
        async for name in self._engine.happenings():
            if name is None:
                await self._look_at_all()
            else:
                self._stir(name)

    async def _look_again(self) -> None:
        """Be the net under what an engine did not tell, however much else it tells."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        """Look at everything in one list, and have somebody look after whatever is not as it ought to be."""
        held: dict[NotebookName, list[Instance]] = {}
        with contextlib.suppress(EngineAway):
            for instance in await self._engine.instances():
                held.setdefault(instance.notebook, []).append(instance)
            for name in {*held, *self._wishes.going_on()}:
                if name in self._stirred or self._next_step(name, held.get(name, [])):
                    self._stir(name)

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
        finally:
            del self._stirred[name]

    async def _advance(self, name: NotebookName, stirred: asyncio.Event) -> bool:
        """Take the next step; whether there was one. What fails is tried again, whatever it was: nobody else would."""
        try:
            step = self._next_step(name, await self._engine.instances(name))
            if step is None or (self._is_ending and isinstance(step, BEGINNINGS)):
                return False
            await self._take(step, name, stirred)
        except Exception as error:
            is_known = isinstance(error, (EngineError, Refusal))
            _log.warning("supervisor.step_failed", notebook=name, error=str(error), exc_info=not is_known)
            await _either(stirred, RETRY)
        return True

    def _next_step(self, name: NotebookName, seen: list[Instance]) -> Step | None:
        notebook, now = self._wishes.notebook(name), datetime.now(UTC)
        return next_step(notebook, seen, now, self._deadline(notebook, seen, now))

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
        receipt = await self._dispatch(report, self._wishes.context(report.notebook))
        await self._wishes.reach(receipt.position)


def _readable(words: str) -> str:
    """Leave out what no page and no database can show: a container writes what it likes."""
    return "".join(letter for letter in words if letter == "\n" or letter.isprintable())


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
