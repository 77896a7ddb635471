"""Dispatch: read what a decision rests on, decide, append, wait until the read models know; record a refusal."""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from app.audit.batch import ConditionViolated
from app.audit.entry import GUEST, Actor, Context, Draft
from app.audit.log import Log
from app.audit.pruned import DatabaseRefuses
from app.audit.recent import Condition
from app.audit.writer import LogUnavailable
from app.domain.command import Command, CommandRefused, Power
from app.domain.errors import Conflict, Refusal
from app.domain.event import Access, Event
from app.domain.model import Basis, Selection

__all__ = ["GUEST", "Actor", "Context", "DatabaseRefuses", "Dispatch", "LogCannotBeWritten", "Receipt", "using"]

RACES = 100
"""How often a race is lost before the caller is told. Each round somebody else's decision went through."""

REFUSALS = 10
"""How many refusals of one user are told one by one in a minute; the others are counted, and told together."""
GUESTS = 60
"""How many refused logins are told one by one in a minute, of all guests: addresses cost an attacker nothing."""


class ReadModels(Protocol):
    """What dispatch waits for, so that whoever wrote reads what they wrote."""

    async def reach(self, position: int) -> bool:
        """Wait until the read models have applied a position; false if that takes too long."""
        ...


class Receipt(Struct, frozen=True):
    """What came of a command: the events (none, if it held already), where they stand, and whether reads know it."""

    events: Sequence[Event]
    position: int
    seen: bool = True


class TooMuchAtOnce(Conflict):
    """Too many are changing this at the same time; try again."""

    status = 503


class LogCannotBeWritten(Conflict):
    """The log cannot be written now, so nothing can be changed; whether this was is not known: look, and try again."""

    status = 503


class Dispatch:
    """Carries commands out. Stateless: any number of them, in any number of processes, may work on one log."""

    def __init__(self, log: Log, read_models: ReadModels | None = None) -> None:
        self._log = log
        self._read_models = read_models
        self.can_write = True
        """Whether the log took what it was last given: while it does not, an alarm has to ring."""
        self._told: Counter[str | None] = Counter()

    async def __call__(self, command: Command, context: Context) -> Receipt:
        """Carry a command out, all or nothing. Raises the `Refusal` of the rule that said no, once that is recorded.

        Of somebody who is refused too often (`tells`) it is not recorded, and says so: whoever asked counts it.
        """
        async with self._recording_refusal_of(command, context):
            receipt = await self._decide(command, context)
        if self._read_models is not None and not await self._read_models.reach(receipt.position):
            return Receipt(receipt.events, receipt.position, seen=False)
        return receipt

    async def check(self, command: Command, context: Context) -> None:
        """Refuse, and record it, what would be refused now: before something costly is done for it. Changes nothing."""
        async with self._recording_refusal_of(command, context):
            await self._look(command)

    async def record(
        self, access: Access, context: Context, *, refused: str | None = None, tags: Sequence[str] = ()
    ) -> None:
        """Record what was done, or refused, and changed no state; `tags` are added to the access's own."""
        outcome = "refused" if refused else "success"
        await self._append([context.draft(access, outcome=outcome, reason=refused, tags=tags)])

    def tells(self, actor: Actor) -> bool:
        """Whether one more refusal of somebody is told by itself; so many are in a minute, and the others counted."""
        if actor.kind not in ("user", "guest"):
            return True
        self._told[actor.id] += 1
        return self._told[actor.id] <= (REFUSALS if actor.id else GUESTS)

    def begin_minute(self) -> None:
        """Tell refusals one by one again."""
        self._told.clear()

    async def _decide(self, command: Command, context: Context) -> Receipt:
        for _ in range(RACES):
            selections, head, models, events = await self._look(command)
            if not events:
                return Receipt(events, head)
            try:
                acting = using(context, command.acts_as(*models))
                # A power is filed under all that it was used on: those whose it is look for it there.
                drafts = [acting.draft(event, tags=command.tags if acting.actor.role else ()) for event in events]
                position = await self._append(drafts, Condition(selections, head))
            except ConditionViolated:
                continue
            return Receipt(events, position)
        raise TooMuchAtOnce

    async def _look(self, command: Command) -> tuple[tuple[Selection, ...], int, list[Any], list[Event]]:
        """Read and decide: what was selected, up to where, the models, and what would happen."""
        basis = command.rests_on()
        selections = tuple(one for part in basis for one in part.selections)
        page = await self._log.read(selections)
        models = _fold(basis, [record.event for record in page.records])
        return selections, page.head, models, list(command.decide(*models))

    @contextlib.asynccontextmanager
    async def _recording_refusal_of(self, command: Command, context: Context) -> AsyncGenerator[None]:
        try:
            yield
        except LogCannotBeWritten:
            raise
        except Refusal as refusal:
            if self.tells(context.actor):
                access = CommandRefused(command=type(command).__name__)
                draft = context.draft(access, outcome="refused", reason=refusal.problem(), tags=command.tags)
                await self._append([draft])
                refusal.recorded = True
            raise

    async def _append(self, drafts: Sequence[Draft], condition: Condition | None = None) -> int:
        try:
            position = await self._log.append(drafts, condition)
        except LogUnavailable as error:
            self.can_write = False
            raise LogCannotBeWritten from error
        self.can_write = True
        return position


def using(context: Context, power: Power | None) -> Context:
    """Say in the context that somebody used a power (none: that they did not)."""
    return replace(context, actor=replace(context.actor, role=power)) if context.actor.role != power else context


def _fold(basis: Sequence[Basis[Any]], events: list[Event]) -> list[Any]:
    return [part.fold(events) for part in basis]
