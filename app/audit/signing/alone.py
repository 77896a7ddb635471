"""The signer in a process of its own: with its directory, and a login that may read the log and publish checkpoints.

It needs no secret of the installation, and can append nothing. What others have to know of it, its public keys and why
it does not sign, it says in the database.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Self

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from app.audit.database.connecting import connect, pin
from app.audit.log import CONNECTION, POLL, Lease, leading
from app.audit.signing.rotation import NothingToRotate
from app.audit.signing.said import HURRY, Said, last_said, say
from app.audit.signing.signer import Signer
from app.audit.signing.tree import read_size
from app.tasks import end

LOOK_EVERY = 1.0
"""Seconds between two looks whether there is something else to say."""

_log = structlog.get_logger(__name__)


class WatchedLog:
    """A log that somebody else writes: how far it has grown, and the way to sign it."""

    def __init__(self, dsn: str, pool: AsyncConnectionPool) -> None:
        self.pool = pool
        self._dsn = dsn
        self.head = 0
        self.frozen: str | None = None
        """Why nobody may append any more."""
        self.hurried = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, dsn: str) -> AsyncGenerator[Self]:
        """Follow how far it grows, and who waits for a checkpoint."""
        async with AsyncConnectionPool(
            dsn,
            connection_class=AsyncConnection,
            kwargs={"autocommit": True, **CONNECTION},
            min_size=1,
            max_size=4,
            open=False,
            configure=pin,
            check=AsyncConnectionPool.check_connection,
        ) as pool:
            log = cls(dsn, pool)
            listening = asyncio.create_task(log._listen(), name="listen")
            try:
                yield log
            finally:
                await end([listening])

    def freeze(self, reason: str) -> None:
        """Let nobody append any more."""
        self.frozen = reason

    def leading(self, task: str) -> contextlib.AbstractAsyncContextManager[Lease]:
        """Wait until nobody else on this log does a task, then be the one who does."""
        return leading(self._connect, task)

    async def _connect(self) -> AsyncConnection:
        return await connect(self._dsn, autocommit=True, **CONNECTION)

    async def _listen(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute("LISTEN sophon_entries")
                    await connection.execute(f"LISTEN {HURRY}")
                    while True:
                        self.head = await read_size(connection)
                        async for one in connection.notifies(timeout=POLL, stop_after=1):
                            if one.channel == HURRY:
                                self.hurried.set()
            except psycopg.Error as error:
                _log.warning("log.away", error=str(error).strip())
                await asyncio.sleep(POLL)


async def sign_alone(log: WatchedLog, signer: Signer) -> None:
    """Sign whenever the log has grown, and say what others have to know; for ever."""
    async with asyncio.TaskGroup() as group:
        group.create_task(signer.run())
        group.create_task(_hurry(log, signer))
        group.create_task(_keep_saying(log, signer))


async def _hurry(log: WatchedLog, signer: Signer) -> None:
    while True:
        await log.hurried.wait()
        log.hurried.clear()
        signer.hurry()


async def _keep_saying(log: WatchedLog, signer: Signer) -> None:
    """Say what there is to say when it is another than what was said last: by this signer, or one before it."""
    while True:
        with contextlib.suppress(psycopg.Error, PoolTimeout):  # it is tried again, and the signer tells of it
            async with log.pool.connection() as connection:
                said = await _to_say(log, signer)
                if said.keys and said != await last_said(connection):
                    await say(connection, said)
        await asyncio.sleep(LOOK_EVERY)


async def _to_say(log: WatchedLog, signer: Signer) -> Said:
    next_ = None
    with contextlib.suppress(NothingToRotate):
        next_ = await signer.next_keys()
    refusal = signer.refusal
    return Said(signer.verifier_keys(), next_, refusal, frozen=refusal is not None and refusal == log.frozen)
