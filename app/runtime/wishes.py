"""What ought to run: every notebook as the log tells of it, and who last asked something of it."""

import asyncio
from collections.abc import AsyncIterator

from app.audit.entry import Actor, Context, Record
from app.audit.log import Log
from app.domain.model import Selection, events
from app.domain.names import NotebookName
from app.domain.notebooks import NOTEBOOK_EVENTS, Notebook, NotebookDeleted
from app.domain.runs import NotebookStartRequested, NotebookStopRequested

PAGE = 5_000
WISHES = (NotebookStartRequested, NotebookStopRequested, NotebookDeleted)
"""What somebody asks of the runtime, and what its reports are because of."""


class Wishes:
    """A fold over the log, as far as `position`."""

    def __init__(self, log: Log) -> None:
        self.position = 0
        self._log = log
        self._notebooks: dict[NotebookName, Notebook] = {}
        self._asked: dict[NotebookName, Context] = {}
        self._moved = asyncio.Condition()

    def __contains__(self, name: NotebookName) -> bool:
        return name in self._notebooks

    def notebook(self, name: NotebookName) -> Notebook:
        """Give what is known of a notebook."""
        return self._notebooks.get(name, Notebook())

    def context(self, name: NotebookName) -> Context:
        """Give as what it is reported: on behalf of whoever last asked something of the notebook, because of that."""
        return self._asked.get(name, Context())

    def going_on(self) -> dict[NotebookName, Notebook]:
        """Give the notebooks that run, or ought to, or are on their way to an end."""
        return {name: one for name, one in self._notebooks.items() if one.is_wanted or one.status == "stopping"}

    async def read_history(self) -> None:
        """Take in what the log says until now."""
        selection: tuple[Selection, ...] = (events(*NOTEBOOK_EVENTS),)
        while True:
            page = await self._log.read(selection, self.position, PAGE)
            self._fold(page.records)
            if len(page.records) < PAGE:
                self.position = max(self.position, page.head)
                return
            self.position = page.records[-1].position

    async def follow(self) -> AsyncIterator[set[NotebookName]]:
        """Take in what is appended from here on, and tell of whom."""
        async for records in self._log.follow(self.position):
            touched = self._fold(records)
            async with self._moved:
                self.position = records[-1].position
                self._moved.notify_all()
            yield touched

    async def reach(self, position: int) -> None:
        """Wait until a position was taken in."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.position >= position)

    def _fold(self, records: list[Record]) -> set[NotebookName]:
        touched: set[NotebookName] = set()
        for record in records:
            if isinstance(record.event, NOTEBOOK_EVENTS):
                name = record.event.notebook
                self._notebooks[name] = self.notebook(name).evolve(record.event)
                if isinstance(record.event, WISHES):
                    self._asked[name] = _because_of(record)
                touched.add(name)
        return touched


def _because_of(record: Record) -> Context:
    """Give the context of what the platform does about a wish: it acts on behalf of whoever had it."""
    entry = record.entry
    on_behalf_of = entry.actor.id if entry.actor.kind == "user" else entry.actor.obo
    return Context(actor=Actor(kind="system", id="sophon", obo=on_behalf_of), cause=entry.id, trace=entry.trace)
