"""The projector: follows the log in batches, and keeps the live read models up to date."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Sequence

import psycopg
import structlog
from psycopg import AsyncConnection

from app.audit.entry import Record, readable
from app.audit.log import Log
from app.audit.writer import LogUnavailable
from app.projections.disclosing import disclosed
from app.projections.generation import ABSENT, LOCK, SETTINGS, Generation
from app.projections.guarded import is_alone
from app.projections.leftovers import drop_outlived
from app.projections.rebuild import rebuild
from app.projections.unrecorded import keep_promise

PATIENCE = 5.0
"""Seconds for which a writer waits to read what it wrote."""

TRY_AGAIN = 2.0
"""Seconds after which it looks whether what stopped it was mended: by a rebuild, say."""

_BEGINNING = f"BEGIN; {SETTINGS}; SELECT pg_advisory_xact_lock({LOCK}); ".encode()

_log = structlog.get_logger(__name__)


class Projector:
    """Any number may run: a lock lets one apply at a time, and the bookmark tells each where to go on.

    A batch and the bookmark commit together, and lazily: a crash of the database may lose the last of both, which are
    then applied again.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._live = Generation(log)
        self._waiting: list[tuple[int, asyncio.Future[bool]]] = []
        self._watching: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.position = -1
        """Up to where everything was applied; -1 until that is known."""
        self.failure: str | None = None
        """Why it stopped, if it did: an entry that it cannot apply. Reads go on, from what was applied before."""

    async def run(self) -> None:
        """Apply what is appended, until cancelled."""
        while True:
            try:
                await self._follow(await self._bookmark())
            except psycopg.OperationalError as error:
                _log.warning("projector.database_away", error=str(error).strip())
                await asyncio.sleep(0.25)
            except Exception as error:
                self._stop(error)
                await asyncio.sleep(TRY_AGAIN)

    async def reach(self, position: int) -> bool:
        """Wait until a position was applied; false if that takes more than five seconds or cannot come."""
        if self.position >= position:
            return True
        if self.failure is not None:
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((position, waiter))
        try:
            return await asyncio.wait_for(waiter, PATIENCE)
        except TimeoutError:
            return False

    @contextlib.contextmanager
    def watch(self, tag: str) -> Generator[asyncio.Event]:
        """Give an event that is set whenever something with this tag was applied; the watcher clears it."""
        changed = asyncio.Event()
        self._watching[tag].add(changed)
        try:
            yield changed
        finally:
            self._watching[tag].discard(changed)
            if not self._watching[tag]:
                del self._watching[tag]

    async def _bookmark(self) -> int:
        async with self._log.pool.connection() as connection:
            async with connection.transaction():
                await drop_outlived(connection)
                await self._say_what_was_done(connection)
            position = await self._live.bookmark(connection)
        if position is None:
            await rebuild(self._log)
            return await self._bookmark()
        self._announce(position, ())
        return position

    async def _say_what_was_done(self, connection: AsyncConnection) -> None:
        """Record the rebuild or repair that was killed before it was; if that cannot be now, a later start does."""
        with contextlib.suppress(LogUnavailable):
            if await is_alone(connection):
                await keep_promise(self._log, connection)

    async def _follow(self, after: int) -> None:
        async for page in self._log.follow(after):
            records, unreadable = readable(page)
            if not records and unreadable:
                raise unreadable
            async with self._log.pool.connection() as connection:
                if not await self._apply(connection, records):
                    return
            self._announce(records[-1].position, records)
            if unreadable:
                raise unreadable

    async def _apply(self, connection: AsyncConnection, records: Sequence[Record]) -> bool:
        """Apply what the bookmark says is missing; false if the page does not follow on the bookmark."""
        after, until = records[0].position - 1, records[-1].position
        async with _transaction(connection, _BEGINNING + self._live.step(after, until)) as moved:
            if moved is None:
                return False
            if not moved:  # somebody else has applied some of it, or the bookmark is not what it should be
                bookmark = await self._live.bookmark(connection)
                if bookmark is None or bookmark < after:
                    return False
                records = [record for record in records if record.position > bookmark]
                if not records:
                    return True
                await self._live.advance(connection, until)
            await self._live.apply(connection, await disclosed(self._log, connection, records, is_new=True))
        return True

    def _stop(self, error: Exception) -> None:
        failure = f"after position {self.position}: {type(error).__name__}: {error}"
        if failure != self.failure:
            _log.error("projector.stopped", after=self.position, exc_info=error)
        self.failure = failure
        waiting, self._waiting = self._waiting, []
        for _, waiter in waiting:
            _resolve(waiter, seen=False)

    def _announce(self, position: int, records: Sequence[Record]) -> None:
        if position > self.position or records:
            self.failure = None
        self.position = position
        ready = [waiter for wanted, waiter in self._waiting if wanted <= position]
        self._waiting = [(wanted, waiter) for wanted, waiter in self._waiting if wanted > position]
        for waiter in ready:
            _resolve(waiter, seen=True)
        for tag in {tag for record in records for tag in record.entry.tags} & self._watching.keys():
            for changed in self._watching[tag]:
                changed.set()


@contextlib.asynccontextmanager
async def _transaction(connection: AsyncConnection, beginning: bytes) -> AsyncGenerator[bool | None]:
    """A transaction that begins with statements, in one round to the database; `connection.transaction()` takes more.

    Gives whether the last of them changed anything; none if what it would change is not there.
    """
    try:
        yield await _has_changed(connection, beginning)
    except BaseException:
        await connection.rollback()
        raise
    await connection.commit()


async def _has_changed(connection: AsyncConnection, statements: bytes) -> bool | None:
    try:
        cursor = await connection.execute(statements, prepare=False)
    except ABSENT:
        return None
    return (await cursor.set_result(-1)).rowcount > 0


def _resolve(waiter: asyncio.Future[bool], *, seen: bool) -> None:
    if not waiter.done():
        waiter.set_result(seen)
