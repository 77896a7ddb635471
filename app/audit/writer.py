"""Group commit: whatever waits to be appended goes into one transaction, and each learns its own fate.

Kill the process, or the database, at any moment: an append that was answered is in the log, whole; one that was not
may be, whole, or may not. A commit whose answer was lost is looked up by the ids of its entries, never guessed.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL

from app.audit.entry import Draft, Record, encode, leaf_hash
from app.audit.feed import Feed
from app.audit.reading import matching, one, read_page
from app.audit.recent import Condition, Recent
from app.audit.sealing.keyring import Keyring
from app.audit.sealing.sealer import Disclosure

BATCH = 512
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


class ConditionViolated(Exception):
    """Something that the decision rests on has changed since it was read. Read again, and decide again."""


class LogUnavailable(Exception):
    """The log cannot be written now. Whether this was recorded is not known: look before you try again."""


class Append:
    """What one caller waits for."""

    __slots__ = ("checked_to", "condition", "done", "drafts")

    def __init__(self, drafts: Sequence[Draft], condition: Condition | None) -> None:
        self.drafts = drafts
        self.condition = condition
        self.checked_to = 0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """Tell the caller, unless it has gone."""
        if not self.done.done():
            self.done.set_exception(error)

    def succeed(self, position: int) -> None:
        """Tell the caller where its last entry stands, unless it has gone."""
        if not self.done.done():
            self.done.set_result(position)


Decided = tuple[Append, list[Record]]
"""An append, and what it adds to the log: nothing, if it is refused."""


class Writer:
    """The one place in this process that appends. Other processes may append too: the database keeps the order."""

    def __init__(self, connect: Connect, feed: Feed, newest: datetime, keyring: Keyring) -> None:
        self._connect = connect
        self._keyring = keyring
        self._parcel: list[tuple[int, Disclosure]] = []
        self._connection: AsyncConnection | None = None
        self._feed = feed
        self._recent = Recent(feed.head)
        self._head = feed.head
        self._newest = newest
        self._waiting: list[Append] = []
        self._task: asyncio.Task[None] | None = None
        self.grown = asyncio.Event()
        """Set by every append; whoever tells other processes of it clears it."""
        self.frozen: str | None = None
        """Why nothing may be appended any more."""

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
        try:
            while self._waiting:
                batch = self._waiting[:BATCH]
                del self._waiting[:BATCH]
                await self._commit(batch)
                # Whoever was just answered may append again: let them into the next batch.
                await asyncio.sleep(0)
        finally:
            self._task = None

    async def _commit(self, batch: list[Append]) -> None:
        give_up = time.monotonic() + PATIENCE
        while batch := [append for append in batch if not append.done.done()]:
            if self.frozen is not None:
                _fail_all(batch, LogUnavailable(self.frozen))
                return
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    await self._try_to_commit(batch)
            except (psycopg.OperationalError, TimeoutError) as error:
                await self._disconnect()
                if time.monotonic() > give_up:
                    _fail_all(batch, LogUnavailable(str(error).strip()))
                await asyncio.sleep(0.05)
            except READ_ONLY as error:
                await self._disconnect()
                _fail_all(batch, LogUnavailable(str(error).strip()))
            except Exception as error:
                await self._disconnect()
                await self._find_the_bad_one(batch, error)

    async def _find_the_bad_one(self, batch: list[Append], error: Exception) -> None:
        """The database refuses something in the batch: try one by one, so that it is refused alone."""
        if len(batch) == 1:
            batch[0].fail(error)
        for append in batch:
            await self._commit([append])

    async def _try_to_commit(self, batch: list[Append]) -> None:
        if self._connection is None:
            self._connection = await self._connect()
            await self._read_on(self._connection, batch)
        connection = self._connection
        for append in batch:
            await self._check_old(connection, append)
        if (decided := await self._insert_all(connection, batch)) is None:
            # Somebody else has appended. Under the lock nobody can, so that two who never pause both get on.
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(7305796)")
                await self._read_on(connection, batch)
                decided = await self._insert_all(connection, batch)
        self._settle(decided or [])

    async def _insert_all(self, connection: AsyncConnection, batch: list[Append]) -> list[Decided] | None:
        """Decide on each, and insert what is accepted; none if the log does not end where we believe."""
        decided = [(append, self._decide(append)) for append in batch if not append.done.done()]
        inserted = [record for _, records in decided for record in records]
        self._parcel = [one for append, records in decided for one in self._disclosed(append, records)]
        if inserted and await self._insert_sealed(connection, inserted) != self._head:
            return None
        return decided

    async def _insert_sealed(self, connection: AsyncConnection, records: list[Record]) -> int:
        """Insert with what is disclosed to the vault; sealed anew, as long as another process changes a key of it."""
        for _ in range(ATTEMPTS):
            head = await _insert(connection, self._head, records, self._keyring.parcel(self._parcel))
            if head != KEY_GONE:
                return head
            await self._keyring.reload(connection, (one.subject for _, one in self._parcel))
        raise LogUnavailable("The keys of the vault change too fast.")

    def _disclosed(self, append: Append, records: list[Record]) -> Iterator[tuple[int, Disclosure]]:
        for draft, record in zip(append.drafts, records, strict=False):  # none of them, if it is refused
            if draft.disclosures or draft.address:
                for one in self._keyring.disclosures_of(draft, record.entry.at.date()):
                    yield record.position, one

    def _settle(self, decided: list[Decided]) -> None:
        """Take in what is committed, and tell those who wait. Refusals only now: what they rest on is in the log."""
        self._head = self._recent.head
        self._recent.trim()
        if self._parcel:
            self._keyring.keep(self._parcel)
        appended = [record for _, records in decided for record in records]
        self._feed.offer(appended)
        if appended:
            self.grown.set()
        for append, records in decided:
            if records:
                append.succeed(records[-1].position)
            else:
                append.fail(ConditionViolated())

    def _decide(self, append: Append) -> list[Record]:
        """Give what this append adds to the batch: nothing, if its condition does not hold."""
        if append.condition is not None and self._recent.violates(append.condition):
            return []
        try:
            return self._stamp(append.drafts)
        except ValueError as error:
            append.fail(error)
            return []

    def _stamp(self, drafts: Sequence[Draft]) -> list[Record]:
        at = max(self._newest, datetime.now(UTC))
        entries = [
            draft.entry(at, self._keyring.source_of(draft, at.date()) if draft.address else None) for draft in drafts
        ]
        lines = [encode(entry) for entry in entries]
        self._newest = at
        start = self._recent.head + 1
        for entry in entries:
            self._recent.add(entry.type, entry.tags)
        return [Record(start + n, line, entry) for n, (line, entry) in enumerate(zip(lines, entries, strict=True))]

    async def _check_old(self, connection: AsyncConnection, append: Append) -> None:
        """Ask the database about the part of a condition that lies before what is kept in memory; it cannot change."""
        condition, floor = append.condition, self._recent.floor
        if condition is None or append.done.done():
            return
        after = max(condition.after, append.checked_to)
        if after >= floor:
            return
        where, values = matching(condition.selections)
        query = SQL("SELECT EXISTS (SELECT FROM audit.entries WHERE position > %s AND position <= %s AND {})").format(
            where
        )
        cursor = await connection.execute(query, (after, floor, *values))
        append.checked_to = floor
        if one(await cursor.fetchone()):
            append.fail(ConditionViolated())

    async def _read_on(self, connection: AsyncConnection, batch: list[Append]) -> None:
        """Take in what was appended since: by others, or by ourselves in a commit whose answer was lost."""
        self._recent.forget_after(self._head)
        owners = {append.drafts[-1].id: append for append in batch}
        while records := await read_page(connection, self._head, READ_ON):
            for record in records:
                self._recent.add(record.entry.type, record.entry.tags)
                if owner := owners.get(record.entry.id):
                    owner.succeed(record.position)
            self._head = records[-1].position
            self._newest = max(self._newest, records[-1].entry.at)
            self._feed.offer(records)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._recent.forget_after(self._head)
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()


async def _insert(connection: AsyncConnection, believed: int, records: list[Record], parcel: str | None) -> int:
    cursor = await connection.execute(
        "SELECT audit.append(%s, %s, %s, %s::json)",
        (
            believed,
            b"\n".join(record.octets for record in records).decode(),
            b"".join(leaf_hash(record.octets) for record in records),
            parcel,
        ),
    )
    return one(await cursor.fetchone())


def _fail_all(batch: list[Append], error: Exception) -> None:
    for append in batch:
        append.fail(error)
