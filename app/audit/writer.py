"""Group commit: whatever waits to be appended goes into one transaction, and each learns its own fate.

While the database works on a batch, the next is made ready, and sent, as if that one were in the log already: it is
appended only if it follows on that very one. If not, those who wait for it are decided on anew, under the lock.

Kill the process, or the database, at any moment: an append that was answered is in the log, whole; one that was not
may be, whole, or may not. A commit whose answer was lost is looked up by the ids of its entries, never guessed.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL

from app.audit.batch import Append, Batch, ConditionViolated, Preparer
from app.audit.entry import Draft, leaf_hash
from app.audit.feed import Feed
from app.audit.pipe import ANSWER_WITHIN, Pipe
from app.audit.reading import matching, one, read_page
from app.audit.recent import Condition
from app.audit.sealing.keyring import Keyring

BATCH = 512
"""Appends at most."""
UNDER_WAY = 2
"""Batches at most: while the database waits for its disk, it has the next one already."""
ALONE = 8
"""Appends: fewer go together, even if they have to wait for it. More take turns, half being made ready meanwhile."""
READ_ON = 1_000
CLOSING = 0.001
"""Seconds between two looks whether all is done."""
KEY_GONE = -1
"""What the database answers to a batch that was sealed with a key which is not there any more."""
ATTEMPTS = 10
PATIENCE = 15.0
"""Seconds for which an append waits for a database that is away."""
READ_ONLY = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)
"""The database takes nothing, whatever it is given: no entry is at fault, and waiting does not help."""

Connect = Callable[[], Awaitable[AsyncConnection]]


class LogUnavailable(Exception):
    """The log cannot be written now. Whether this was recorded is not known: look before you try again."""


class Writer:
    """The one place in this process that appends. Other processes may append too: the database keeps the order."""

    def __init__(self, connect: Connect, feed: Feed, newest: datetime, keyring: Keyring) -> None:
        self._connect = connect
        self._keyring = keyring
        self._preparer = Preparer(feed.head, newest, keyring)
        self._connection: AsyncConnection | None = None
        self._pipe: Pipe | None = None
        self._feed = feed
        self._head = feed.head
        self._waiting: list[Append] = []
        self._under_way: deque[Batch] = deque()
        self._end: bytes | None = None
        """The hash of the entry that the log ends with once all that is under way is in; none: it is not known."""
        self._has_failed = False
        """Whether something under way is not in the log: then nothing that was sent after it is, either."""
        self._again: list[Append] = []
        self._is_called = False
        self._task: asyncio.Task[None] | None = None
        self.grown = asyncio.Event()
        """Set by every append; whoever tells other processes of it clears it."""
        self.frozen: str | None = None
        """Why nothing may be appended any more."""
        self.was_read_only = False
        """Set once the database took no changes; whoever sees to it that others notice that it does again clears it."""

    async def append(self, drafts: Sequence[Draft], condition: Condition | None) -> int:
        """Append all or nothing; return the last one's position. Raises `ConditionViolated` or `LogUnavailable`."""
        if not drafts:
            raise ValueError("There has to be at least one entry to append.")
        if self.frozen is not None:
            raise LogUnavailable(self.frozen)
        append = Append(drafts, condition)
        self._waiting.append(append)
        self._call()
        return await append.done

    async def close(self) -> None:
        """Finish what waits, and let the connection go."""
        while self._task is not None or self._waiting or self._under_way:
            await asyncio.sleep(CLOSING)
        await self._disconnect()

    def _call(self) -> None:
        """Go on soon; not at once: others who were answered together with this one are about to append, too."""
        if not self._is_called and self._task is None:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Send what waits, as long as it can be decided on by what is in memory; else go the careful way."""
        self._is_called = False
        while self._task is None and (taken := self._take()):
            batch = self._made_ready(taken)
            if batch is None:
                self._waiting[:0] = taken
                break
            self._send(batch)
        if self._task is None and self._waiting and not self._under_way:
            self._task = asyncio.create_task(self._commit_what_waits(), name="append")

    def _take(self) -> list[Append]:
        """Take what may go now: all; or of many, half of what there is."""
        under_way = sum([len(batch.decided) for batch in self._under_way])
        count = len(self._waiting) + under_way
        if count >= ALONE:
            count = min(BATCH, (count + 1) // 2) if len(self._under_way) < UNDER_WAY else 0
        elif under_way:
            count = 0
        taken = self._waiting[:count]
        del self._waiting[:count]
        return taken

    def _made_ready(self, taken: list[Append]) -> Batch | None:
        """Decide on a batch by what is in memory; none if that cannot be, as far as is known."""
        is_here = self._pipe is not None and self._pipe.is_open and self._end is not None and not self._has_failed
        if not is_here or self.frozen is not None or self._feed.head > self._preparer.head:
            return None
        return None if any(map(self._preparer.is_old, taken)) else self._preparer.prepare(taken)

    def _send(self, batch: Batch) -> None:
        """Insert a batch that rests on all that was sent before."""
        self._under_way.append(batch)
        if batch.records and self._pipe and self._end:
            end, self._end = self._end, batch.end
            self._pipe.send(batch, end)
        self._settle_what_is_refused()

    def _answered(self, head: int | None) -> None:
        """Hear where the log ended before the oldest batch under way; if elsewhere, all that was sent fails."""
        batch = self._under_way.popleft()
        if self._has_failed or head != batch.after:
            self._has_failed = True
            self._again += batch.appends
        else:
            self._settle(batch)
        self._settle_what_is_refused()
        if self._has_failed and not self._under_way:
            self._look_again()
        elif self._waiting:
            self._call()

    def _settle_what_is_refused(self) -> None:
        """Settle batches of which nothing was sent, once all that they rest on is in the log."""
        while self._under_way and not self._under_way[0].records:
            batch = self._under_way.popleft()
            if self._has_failed:
                self._again += batch.appends
            else:
                self._settle(batch)

    def _lost(self) -> None:
        """Hear that the connection is no good any more, and what is under way is not answered."""
        self._connection = self._pipe = None
        self._again += [append for batch in self._under_way for append in batch.appends]
        self._under_way.clear()
        self._look_again()

    def _look_again(self) -> None:
        """Decide anew on what was sent in vain, under the lock."""
        self._has_failed, self._end = False, None
        self._waiting[:0], self._again = self._again, []
        self._go_on()

    async def _commit_what_waits(self) -> None:
        """Append on the careful way what waits, and have the pipe for what comes then."""
        if self._pipe is not None:
            self._pipe.close()
        taken, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        try:
            await self._commit(taken)
            if self._pipe is not None:
                self._pipe.open()
        finally:
            self._task = None
            self._go_on()

    async def _commit(self, appends: list[Append]) -> None:
        """Append on the careful way: under the lock, and whatever goes wrong, until each has its answer."""
        give_up = time.monotonic() + PATIENCE
        while appends := [append for append in appends if not append.done.done()]:
            if self.frozen is not None:
                _fail_all(appends, LogUnavailable(self.frozen))
                return
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    self._settle(await self._insert_under_the_lock(appends))
            except (psycopg.OperationalError, TimeoutError) as error:
                await self._disconnect()
                if time.monotonic() > give_up:
                    _fail_all(appends, LogUnavailable(str(error).strip()))
                await asyncio.sleep(0.05)
            except READ_ONLY as error:
                self.was_read_only = True
                await self._disconnect()
                _fail_all(appends, LogUnavailable(str(error).strip()))
            except Exception as error:
                await self._disconnect()
                await self._find_the_bad_one(appends, error)

    async def _find_the_bad_one(self, appends: list[Append], error: Exception) -> None:
        """The database refuses something in the batch: try one by one, so that it is refused alone."""
        if len(appends) == 1:
            appends[0].fail(error)
        for append in appends:
            await self._commit([append])

    async def _insert_under_the_lock(self, appends: list[Append]) -> Batch:
        """Read what others have appended, decide, and insert: under the lock nobody else can append."""
        if self._connection is None:
            self._connection = await self._connect()
            self._pipe = await Pipe.over(self._connection, self._answered, self._lost)
        connection = self._connection
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7305796)")
            await self._read_on(connection, appends)
            for append in appends:
                await self._check_old(connection, append)
            batch = self._preparer.prepare(appends)
            for _ in range(ATTEMPTS):
                if not batch.records or await _insert(connection, batch) != KEY_GONE:
                    self._end = batch.end or self._end
                    return batch
                # Another process changed a key that something in it was sealed with.
                await self._keyring.reload(connection, batch.subjects)
                batch = self._preparer.sealed_anew(batch)
        raise LogUnavailable("The keys of the vault change too fast.")

    def _settle(self, batch: Batch) -> None:
        """Take in what is committed, and tell those who wait. Refusals only now: what they rest on is in the log."""
        self._head = batch.head
        self._preparer.keep(batch)
        self._feed.offer(batch.records)
        if batch.records:
            self.grown.set()
        for append, records in batch.decided:
            if records:
                append.succeed(records[-1].position)
            else:
                append.fail(ConditionViolated())

    async def _check_old(self, connection: AsyncConnection, append: Append) -> None:
        """Ask the database about the part of a condition that lies before what is kept in memory; it cannot change."""
        condition, floor = append.condition, self._preparer.floor
        if condition is None or append.done.done() or not self._preparer.is_old(append):
            return
        where, values = matching(condition.selections)
        query = SQL("SELECT EXISTS (SELECT FROM audit.entries WHERE position > %s AND position <= %s AND {})").format(
            where
        )
        cursor = await connection.execute(query, (max(condition.after, append.checked_to), floor, *values))
        append.checked_to = floor
        if one(await cursor.fetchone()):
            append.fail(ConditionViolated())

    async def _read_on(self, connection: AsyncConnection, appends: list[Append]) -> None:
        """Take in what was appended since: by others, or by ourselves in a commit whose answer was lost."""
        self._preparer.forget_after(self._head)
        owners = {append.drafts[-1].id: append for append in appends}
        while records := await read_page(connection, self._head, READ_ON):
            for record in records:
                self._preparer.take_in(record.entry)
                if owner := owners.get(record.entry.id):
                    owner.succeed(record.position)
            self._head, self._end = records[-1].position, leaf_hash(records[-1].octets)
            self._feed.offer(records)

    async def _disconnect(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        connection, self._connection, self._pipe = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()


async def _insert(connection: AsyncConnection, batch: Batch) -> int:
    """Give where the log ended: `batch.after`, if the batch follows on it now; or `KEY_GONE`."""
    cursor = await connection.execute(
        "SELECT audit.append(%s, %s, %s, %s::json)", (batch.after, batch.lines.decode(), batch.hashes, batch.parcel)
    )
    return one(await cursor.fetchone())


def _fail_all(appends: list[Append], error: Exception) -> None:
    for append in appends:
        append.fail(error)
