"""Sweeping: after an erasure, the old versions of the rows that it changed are given up too, once nobody needs them."""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import structlog

from app.audit.log import Log
from app.audit.sealing.vault import Vault
from app.domain.pruning import LogPruned
from app.domain.subjects import SubjectErased

_ERASING = (SubjectErased.__name__, LogPruned.__name__)

_log = structlog.get_logger(__name__)


class Sweeper:
    """Follows the log, and sweeps once the read models know of an erasure. What a crash interrupts is done again."""

    def __init__(self, log: Log, vault: Vault, reach: Callable[[int], Awaitable[bool]]) -> None:
        self._log = log
        self._vault = vault
        self._reach = reach
        self.swept = 0
        """Up to which position old versions of what was erased are gone, as far as this process knows."""

    async def run(self) -> None:
        """Follow, until cancelled."""
        head = self._log.head
        if position := await self._vault.unswept():
            await self._sweep(position)
        async for records in self._log.follow(head):
            erased = [record.position for record in records if record.entry.type in _ERASING]
            if erased:
                await self._sweep(erased[-1])

    async def _sweep(self, position: int) -> None:
        while not await self._reach(position):
            await asyncio.sleep(1)
        while True:
            try:
                await self._vault.sweep(position)
            except psycopg.OperationalError as error:
                _log.warning("sweep.again", error=str(error).strip())
                await asyncio.sleep(1)
            else:
                self.swept = position
                return
