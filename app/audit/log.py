"""The log: append on a condition, read by types and tags, follow as it grows."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from app.audit.database.connecting import connect, pin
from app.audit.database.provision import prepare
from app.audit.entry import Draft, Record
from app.audit.feed import Feed
from app.audit.query import language
from app.audit.reader import Page, Reader, is_indexed
from app.audit.reading import one, read_page, read_with_head
from app.audit.recent import Condition
from app.audit.sealing.keyring import Keyring
from app.audit.sealing.sealer import Disclosure, Sealer
from app.audit.writer import Connect, Writer
from app.domain.model import Selection
from app.tasks import end

POLL = 1.0
"""Seconds after which a lost notification does no more harm."""

CONNECTION: dict[str, Any] = {
    "application_name": "sophon",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""A server that does not answer is one that is away."""

QUIET = 0.05
"""Seconds between two notices to other processes: each wakes all of them, and in a commit it would lengthen that."""

_log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """The database went away, and somebody else may do the task by now."""


class Lease:
    """A lock that lives as long as its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def keep(self) -> None:
        """Go on as long as the lease holds; raise `LeaseLost` once it does not."""
        while True:
            try:
                await self._connection.execute("SELECT")
            except psycopg.OperationalError as error:
                raise LeaseLost from error
            await asyncio.sleep(POLL)


@contextlib.asynccontextmanager
async def leading(connect_: Connect, task: str) -> AsyncGenerator[Lease]:
    """Wait until nobody else on this log does a task, then be the one who does, as long as the lease holds."""
    while True:
        try:
            connection = await connect_()
            try:
                # Who waits in the database has a snapshot, for which it keeps whatever is erased meanwhile.
                while not await _is_free(connection, task):
                    await asyncio.sleep(POLL / 4)
            except BaseException:  # also when it is cancelled while it waits
                await connection.close()
                raise
            break
        except psycopg.OperationalError:
            await asyncio.sleep(POLL)
    async with connection:
        yield Lease(connection)


class Log:
    """One process's way to the log. Open it with `async with Log.open(dsn)`."""

    def __init__(self, dsn: str, pool: AsyncConnectionPool, sealer: Sealer) -> None:
        self._dsn = dsn
        self.pool = pool
        self.sealer = sealer
        self.is_reachable = True
        """Whether the database answered when it was last asked for what is new."""
        self._keyring = Keyring(sealer)
        self._reader = Reader(pool)
        self._feed: Feed
        self._writer: Writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, dsn: str, sealer: Sealer, connections: int = 8) -> AsyncGenerator[Self]:
        """Create the tables where they are missing, if this user may, and follow from the end of what is there."""
        await prepare(dsn)
        log: Self

        async def check(connection: AsyncConnection) -> None:
            if not log.is_reachable:  # it was away: what the pool still holds may be dead
                await AsyncConnectionPool.check_connection(connection)

        pool = AsyncConnectionPool(
            dsn,
            connection_class=AsyncConnection,
            kwargs={"autocommit": True, **CONNECTION},
            min_size=1,
            max_size=connections,
            open=False,
            configure=pin,
            check=check,
        )
        log = cls(dsn, pool, sealer)
        async with pool:
            await log._begin()
            tasks = [
                asyncio.create_task(log._listen(), name="listen"),
                asyncio.create_task(log._announce(), name="announce"),
            ]
            try:
                yield log
            finally:
                await end(tasks)
                await log._writer.close()

    @property
    def head(self) -> int:
        """The position of the newest entry that this process knows of."""
        return self._feed.head

    def freeze(self, reason: str) -> None:
        """Append nothing more: what is written now would follow on the wrong end. Every append says the reason."""
        self._writer.frozen = reason

    @property
    def frozen(self) -> str | None:
        """Why nothing is appended any more, if it is so."""
        return self._writer.frozen

    async def append(self, drafts: Sequence[Draft], condition: Condition | None = None) -> int:
        """Append all of the drafts or none; return the position of the last, which is durable by then.

        Raises `ConditionViolated` if something after `condition.after` matches, `LogUnavailable` if the database is
        away or the log is frozen, `ValueError` if an entry is too long.
        """
        return await self._writer.append(drafts, condition)

    async def takes_changes(self) -> bool:
        """Whether the database would take what is appended now, as far as it says itself."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute("SHOW transaction_read_only")
            return one(await cursor.fetchone()) == "off"

    async def read(self, selections: Sequence[Selection] = (), after: int = 0, limit: int | None = None) -> Page:
        """Read what matches any of the selections (none: everything), in order, and the head, in one snapshot."""
        if after == 0 and limit is None and is_indexed(selections):
            return await self._reader.read(selections)
        async with self.pool.connection() as connection:
            records, head = await read_with_head(connection, after, limit, selections)
        return Page(records, head)

    def follow(self, after: int = 0) -> AsyncIterator[list[Record]]:
        """Give every entry after a position, once and in order, in pages; then go on as the log grows.

        Survives a database that restarts, except that a page from far back has to be read again.
        """
        return self._feed.follow(after)

    async def reveal(self, connection: AsyncConnection, records: Sequence[Record]) -> Sequence[Record]:
        """Attach to records what is readable of their sealed values, in one question for all; give them back.

        For read models and for people. Decision models must not depend on what may be erased.
        """
        return await self._keyring.reveal(connection, records)

    def recall(self, record: Record) -> bool:
        """Attach to a record what this process sealed in its data, once and not long ago; whether it did."""
        return self._keyring.recall(record)

    async def open_digests(self, connection: AsyncConnection, digests: Sequence[str]) -> dict[str, Disclosure]:
        """Give the disclosures of those digests that can be read."""
        return await self._keyring.open(connection, digests)

    def leading(self, task: str) -> contextlib.AbstractAsyncContextManager[Lease]:
        """Wait until nobody else on this log does a task, then be the one who does, as long as the lease holds."""
        return leading(self._connect, task)

    async def is_led(self, task: str) -> bool:
        """Whether anybody on this log does a task, in any process."""
        async with self.pool.connection() as connection:
            # Shared, and until the statement ends: whoever wants the lease looks again in a moment.
            cursor = await connection.execute("SELECT pg_try_advisory_xact_lock_shared(hashtext(%s))", (_name(task),))
            return not one(await cursor.fetchone())

    async def _begin(self) -> None:
        async with self.pool.connection() as connection:
            records, head = await read_with_head(connection, 0, 0, ())
            records = await read_page(connection, head - 1, 1) if head else []
            await self._keyring.check(connection)
        self._feed = Feed(head, self._read_page, self._forget)
        newest = records[-1].entry.at if records else datetime.fromtimestamp(0, UTC)
        self._writer = Writer(self._connect, self._feed, newest, self._keyring)

    def _forget(self, subject: str) -> None:
        """Let go of what this process's memory has of somebody who was erased."""
        self._keyring.forget(subject)
        language.forget()

    async def _read_page(self, after: int, limit: int) -> list[Record]:
        while True:
            try:
                async with self.pool.connection() as connection:
                    return await read_page(connection, after, limit)
            except psycopg.OperationalError as error:
                _log.warning("log.away", error=str(error).strip())
                await asyncio.sleep(POLL / 4)

    async def _connect(self) -> AsyncConnection:
        return await connect(self._dsn, autocommit=True, **CONNECTION)

    async def _announce(self) -> None:
        """Tell other processes how far the log has grown. Where that fails, they see it when they next look."""
        while True:
            await self._writer.grown.wait()
            self._writer.grown.clear()
            if self._writer.was_read_only:  # a connection from then may stay what it was as long as it is open
                self._writer.was_read_only = False
                await self.pool.drain()
            with contextlib.suppress(psycopg.Error, PoolTimeout):
                async with self.pool.connection() as connection:
                    await connection.execute("SELECT pg_notify('sophon_entries', %s::text)", (str(self.head),))
            await asyncio.sleep(QUIET)

    async def _listen(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute("LISTEN sophon_entries")
                    if not self.is_reachable:
                        # Its old connections are no good any more. Shielded: the check would swallow a cancellation.
                        await asyncio.shield(asyncio.ensure_future(self.pool.check()))
                    self.is_reachable = True
                    news = True
                    while True:
                        if news:
                            await self._feed.catch_up()
                        heads = [int(one.payload) async for one in connection.notifies(timeout=POLL, stop_after=1)]
                        # What this process appended, it has offered to the feed itself.
                        news = not heads or max(heads) > self._feed.head
            except Exception as error:  # whatever it is: nobody would follow the log any more
                self.is_reachable = False
                _log.warning("log.away", error=str(error).strip())
                await asyncio.sleep(POLL / 4)


async def _is_free(connection: AsyncConnection, task: str) -> bool:
    """Take a task on, if nobody has."""
    cursor = await connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (_name(task),))
    return one(await cursor.fetchone())


def _name(task: str) -> str:
    return f"sophon {task}"
