"""A log that is signed elsewhere: what the application knows of a signer that runs as another user, or another machine.

It has no key, and no right to publish a checkpoint. What the signer says of itself is read from the database; once it
says that the log does not continue what was signed, nothing more is appended here.
"""

import asyncio
import contextlib
import time
from datetime import UTC, datetime

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from app.audit.log import Log
from app.audit.signing.rotation import NothingToRotate
from app.audit.signing.said import HURRY, Said, last_said
from app.audit.signing.signer import LATE
from app.audit.signing.tree import Published, Tree
from app.domain.signing import LogKeyRotated

EVERY = 1.0
"""Seconds between two looks at what it says and has signed."""

_log = structlog.get_logger(__name__)


class SignedElsewhere:
    """Stands where the signer would: says what is signed, asks for checkpoints, and freezes the log where it has to."""

    def __init__(self, log: Log, tree: Tree) -> None:
        self._log = log
        self._tree = tree
        self._said: Said | None = None
        self._newest: Published | None = None
        self._behind_since = 0.0
        self._hurried = asyncio.Event()

    @property
    def size(self) -> int:
        """How many entries are signed."""
        return self._newest.size if self._newest else 0

    @property
    def age(self) -> float:
        """Seconds since the newest checkpoint was published; 0 if none was."""
        return (datetime.now(UTC) - self._newest.at).total_seconds() if self._newest else 0.0

    @property
    def refusal(self) -> str | None:
        """Why nothing is signed."""
        return self._said.refusal if self._said else None

    def faults(self) -> list[str]:
        """Say what is not as it should be."""
        found = [self.refusal] if self.refusal else []
        if self._said is None:
            found.append("No signer has been here yet: start `sophon signer`.")
        if self._behind_since and (late := time.monotonic() - self._behind_since) > LATE:
            found.append(f"Nothing has been signed for {late:.0f} s: does `sophon signer` run?")
        return found

    def verifier_keys(self) -> str:
        """List the verifier keys, as the signer says them."""
        return self._said.keys if self._said else ""

    async def next_keys(self) -> LogKeyRotated:
        """Say what has to be recorded so that the keys change to those which the signer has made ready."""
        await self.check()
        if self._said is None or self._said.next is None:
            raise NothingToRotate("The signer has made no keys ready yet: does `sophon signer` run?")
        return self._said.next

    async def check(self) -> None:
        """Read what the signer says, and what it has signed; freeze the log if it says so."""
        async with self._log.pool.connection() as connection:
            self._said = await last_said(connection)
        self._newest = await self._tree.newest()
        is_behind = self._log.head > self.size
        self._behind_since = (self._behind_since or time.monotonic()) if is_behind else 0.0
        if self._said and self._said.frozen and self._log.frozen is None:
            _log.error("signer.refuses", reason=self._said.refusal)
            self._log.freeze(self._said.refusal or "")

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                await self.check()
                if self._hurried.is_set():
                    self._hurried.clear()
                    async with self._log.pool.connection() as connection:
                        await connection.execute("SELECT pg_notify(%s, '')", (HURRY,))
            except (psycopg.OperationalError, PoolTimeout) as error:
                _log.warning("signer.unknown", error=str(error).strip())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), EVERY)

    def hurry(self) -> None:
        """Somebody waits for a checkpoint: let the signer know."""
        self._hurried.set()
