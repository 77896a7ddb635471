"""Acts that change nothing: what was looked at, used or refused. Recorded, and so bounded that nobody floods the log.

What is private is recorded before it is answered: an answer that was given and of which a crash leaves no trace is what
an auditor asks about. So the first such read in an hour waits for one append, and the others for nothing. Where the log
cannot be written, reads go on all the same: people need their work, auditors most of all need the log, and the alarm
(`/health/ready`, `sophon_log_writable`, `sophon_accesses_unrecorded_total`) says that something is missing.
"""

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime

import structlog

from app import telemetry
from app.dispatch import GUEST, Context, Dispatch, LogCannotBeWritten
from app.domain.audits import ClockSteppedBack, GuestsRefused, Heartbeat, RequestRefused
from app.domain.event import Access

AGAIN = 3600.0
"""Seconds after which looking at the same thing, or using the same token, is recorded again."""
TELL_EVERY = 60.0
"""Seconds between two entries about what was counted."""
WITHIN = 2.0
"""Seconds that a read waits until it is recorded. It is then recorded late, or the alarm rings."""
REMEMBERED = 20_000
TICK = 1.0

_log = structlog.get_logger(__name__)


class Recently:
    """Remembers for some time what there was. Bounded: what is forgotten too early is recorded once more."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return self._until.get(key, 0) > time.monotonic()

    def add(self, key: Hashable) -> None:
        """Remember from now on; let go of the oldest where there are too many."""
        self._until.pop(key, None)
        self._until[key] = time.monotonic() + self._seconds
        if len(self._until) > REMEMBERED:
            self._until.popitem(last=False)


class Acts:
    """Records them. One for each process; what it remembers is lost with it, which costs an entry more.

    What it counts is lost with it as well, if it is killed: at most a minute's.
    """

    def __init__(self, dispatch: Dispatch, head: Callable[[], int]) -> None:
        """`head`: gives the position of the newest entry."""
        self._dispatch = dispatch
        self._head = head
        self._seen = Recently(AGAIN)
        self._counted: Counter[tuple[Context, str, str, str]] = Counter()
        self._guests: Counter[str] = Counter()
        self._since = datetime.now(UTC)
        self._late: set[asyncio.Task[None]] = set()

    async def saw(self, access: Access, context: Context, things: Sequence[str] | None = None) -> None:
        """Record that somebody looked at something, unless that was in the last hour.

        `things`: the tags of what they saw, where the access does not name it; only new ones are recorded.
        """
        who = _who(access, context)
        fresh = [thing for thing in (("",) if things is None else things) if (who, thing) not in self._seen]
        if fresh and await self.note(access, context, tags=[thing for thing in fresh if thing]):
            for thing in fresh:
                self._seen.add((who, thing))

    def has_seen(self, access: Access, context: Context) -> bool:
        """Whether it is recorded, of this hour, that they saw it."""
        return (_who(access, context), "") in self._seen

    async def note(
        self, access: Access, context: Context, *, tags: Sequence[str] = (), refused: str | None = None
    ) -> bool:
        """Record an access each time; tell whether it is recorded. Never fails, and waits for so long at most."""
        if not self._dispatch.can_write:
            telemetry.UNRECORDED.inc()
            return False
        # A task of its own, so that neither our patience nor a caller who goes away loses the entry.
        task = asyncio.create_task(self._append(access, context, tags, refused), name="access")
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        done, _ = await asyncio.wait({task}, timeout=WITHIN)
        if not done:
            self._dispatch.can_write = False  # until an append is answered, nobody else waits for one
        return bool(done) and task.exception() is None and self._dispatch.can_write

    async def refused(self, method: str, route: str, reason: str, context: Context, tags: Sequence[str] = ()) -> None:
        """Record that a request was refused before anything was decided: at once, or counted with others."""
        if context.actor.kind == "guest" or context.actor.id is None:
            self._guests[reason] += 1
            return
        if self._dispatch.tells(context.actor):
            await self.note(RequestRefused(method=method, route=route), context, tags=tags, refused=reason)
            return
        key = Context(actor=context.actor), method, route, reason
        if key in self._counted or len(self._counted) < REMEMBERED:
            self._counted[key] += 1
        else:
            telemetry.UNRECORDED.inc()

    async def refused_access(self, access: Access, context: Context, reason: str) -> bool:
        """Record that an access was refused; false if it was not, and has to be counted as `refused` does."""
        return self._dispatch.tells(context.actor) and await self.note(access, context, refused=reason)

    async def tell(self) -> None:
        """Record what was counted since the last time. What cannot be recorded now is counted on."""
        since, self._since = self._since, datetime.now(UTC)
        self._dispatch.begin_minute()
        guests, self._guests = self._guests, Counter()
        for reason, count in guests.items():
            counted = GuestsRefused(reason=reason, count=count, since=since, until=self._since)
            if not await self.note(counted, Context(actor=GUEST), refused=reason):
                self._guests[reason] += count
                self._since = since
        refused, self._counted = self._counted, Counter()
        for (context, method, route, reason), count in refused.items():
            if not await self.note(RequestRefused(method=method, route=route, count=count), context, refused=reason):
                self._counted[context, method, route, reason] += count

    async def run(self, silence: float) -> None:
        """Until cancelled: tell what was counted, beat where nothing happened for so many seconds (0: never).

        While the log cannot be written, a beat tries whether it can again.
        """
        head, quiet_since = self._head(), time.monotonic()
        told, clock = time.monotonic(), _clock()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            if head != self._head():
                head, quiet_since = self._head(), now
            if (silence and now - quiet_since >= silence) or not self._dispatch.can_write:
                await self._beat()
            if (seconds := int(clock - _clock())) >= 1:
                await self.note(ClockSteppedBack(seconds=seconds), Context())
            clock = _clock()
            if now - told >= TELL_EVERY:
                told = now
                await self.tell()

    async def _beat(self) -> None:
        with contextlib.suppress(LogCannotBeWritten):
            await self._dispatch.record(Heartbeat(), Context())

    async def _append(self, access: Access, context: Context, tags: Sequence[str], refused: str | None) -> None:
        try:
            await self._dispatch.record(access, context, refused=refused, tags=tags)
        except LogCannotBeWritten:
            telemetry.UNRECORDED.inc()
            _log.warning("access.unrecorded", type=type(access).__name__, request=context.request)


def _who(access: Access, context: Context) -> Hashable:
    return context.actor.id, context.actor.role, access


def _clock() -> float:
    """Give what the server's clock shows beyond what passed: it stays the same until somebody sets the clock."""
    return time.time() - time.monotonic()
