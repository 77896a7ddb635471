"""Group commit: whatever waits to be appended goes into one transaction, and each learns its own fate.

While the database works on a batch, the next is made ready as if that one were in the log already. It is sent if that
is so; else it is forgotten, and those who wait are decided on anew, under the lock.

Kill the process, or the database, at any moment: an append that was answered is in the log, whole; one that was not
may be, whole, or may not. A commit whose answer was lost is looked up by the ids of its entries, never guessed.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL

from app.audit.batch import Append, Batch, ConditionViolated, Preparer
from app.audit.entry import Draft
from app.audit.feed import Feed
from app.audit.reading import matching, one, read_page
from app.audit.recent import Condition
from app.audit.sealing.keyring import Keyring

BATCH = 512
ALONE = 16
"""Appends: fewer are not made ready while others are under way, but wait for those who were answered to join them. Of
more, half are sent and half made ready meanwhile."""
READ_ON = 1_000
KEY_GONE = -1
"""What the database answers to a batch that was sealed with a key which is not there any more."""
ATTEMPTS = 10
ANSWER_WITHIN = 10.0
"""Seconds after which a database that says nothing counts as away."""
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
        self._feed = feed
        self._head = feed.head
        self._waiting: list[Append] = []
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
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="append")
        return await append.done

    async def close(self) -> None:
        """Finish what waits, and let the connection go."""
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await self._connection.close()

    async def _drain(self) -> None:
        """Send batch after batch, each while the one before is answered to those who wait for it."""
        sent: tuple[Batch, asyncio.Task[bool]] | None = None
        try:
            while sent or self._waiting:
                taken = self._take() if not sent or len(self._waiting) >= ALONE else []
                ready = self._preparer.prepare(taken) if self._is_simple(taken) else None
                if sent and not await sent[1]:
                    self._preparer.forget_after(self._head)
                    self._waiting[:0] = taken
                    taken, ready, sent = sent[0].appends, None, None
                following = (ready, asyncio.create_task(self._send(ready), name="send")) if ready else None
                await asyncio.sleep(0)  # it is on its way
                if sent:
                    self._settle(sent[0])
                if taken and not ready:
                    await self._commit(taken)
                sent = following
                # Whoever was just answered may append again: let them into the next batch.
                await asyncio.sleep(0)
        finally:
            self._task = None

    def _take(self) -> list[Append]:
        count = min(BATCH, max(ALONE, len(self._waiting) // 2))
        taken = self._waiting[:count]
        del self._waiting[:count]
        return taken

    def _is_simple(self, taken: list[Append]) -> bool:
        """Whether a batch can be decided on by what is in memory, and sent, as far as is known."""
        is_here = self._connection is not None and self.frozen is None and self._feed.head <= self._preparer.head
        return bool(taken) and is_here and not any(map(self._preparer.is_old, taken))

    async def _send(self, batch: Batch) -> bool:
        """Insert a batch that rests on all that was sent before; say whether it is in the log, as far as is known."""
        if self._connection is None or not batch.records:
            return not batch.records
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await _insert(self._connection, batch) == batch.after
        except Exception:  # whatever it is, it is looked into on the careful way
            await self._disconnect()
            return False

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
        connection = self._connection
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7305796)")
            await self._read_on(connection, appends)
            for append in appends:
                await self._check_old(connection, append)
            batch = self._preparer.prepare(appends)
            for _ in range(ATTEMPTS):
                if not batch.records or await _insert(connection, batch) != KEY_GONE:
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
            self._head = records[-1].position
            self._feed.offer(records)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()


async def _insert(connection: AsyncConnection, batch: Batch) -> int:
    """Give where the log ended: `batch.after`, if the batch follows on it now; or `KEY_GONE`."""
    cursor = await connection.execute(
        "SELECT audit.append(%s, %s, %s, %s::json)", (batch.after, batch.lines, batch.hashes, batch.parcel)
    )
    return one(await cursor.fetchone())


def _fail_all(appends: list[Append], error: Exception) -> None:
    for append in appends:
        append.fail(error)
