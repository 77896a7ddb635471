"""Timestamps: once a day an authority outside (RFC 3161) says when there was the newest checkpoint that was given out.

It is told a digest, and what it signs is appended to the log. While it is away, or answers anything else, nothing
is: it is asked again, after a while, and the log and its signer go on as ever.
"""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Self

import aiohttp
import structlog

from app.audit.entry import Context
from app.audit.log import Log
from app.audit.signing.rotation import verifiers
from app.audit.signing.store import Store
from app.audit.signing.tokens import QUERY_TYPE, Authorities, NoAuthority, NotStamped, Question, Token
from app.audit.signing.tree import Published, Tree
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import Verifier
from app.audit.transparency.notes import NoteRejected, open_checkpoint
from app.audit.writer import LogUnavailable
from app.domain.signing import CheckpointTimestamped
from app.settings import BadSetting, Settings

EVERY = timedelta(days=1)
LOOK_EVERY = 600.0
SHORTEST_WAIT, LONGEST_WAIT = 60.0, 3600.0
"""Seconds until an authority that gave no timestamp is asked again: 60, 120, …, 3600."""
LATE = 86_400.0
"""Seconds without one, once it is due, after which that is a fault."""
ANSWER_WITHIN = 20.0
LONGEST_ANSWER = 32_768
"""Bytes. One with the certificates of three levels above the authority's has some 8,000."""

_log = structlog.get_logger(__name__)

Sleep = Callable[[float], Awaitable[None]]


class Timestamps:
    """Has checkpoints timestamped by one authority. Of all processes one does, and the others stand by."""

    def __init__(
        self, log: Log, store: Store, url: str, authorities: Authorities, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._log = log
        self._tree = Tree(log.pool)
        self._store = store
        self._url = url
        self._authorities = authorities
        self._sleep = sleep
        self._failing_since = 0.0
        self.wrong: str | None = None
        """Why there was none the last time, if there was none."""

    @classmethod
    def by(cls, settings: Settings, log: Log) -> Self | None:
        """Ask the authority that was set; none if none was. Raises `BadSetting` if it could not be believed."""
        url, root, store = settings.timestamp_url, settings.timestamp_root, Store(settings.signer_directory)
        try:
            return cls(log, store, url, Authorities.by(root)) if url and root else None
        except NoAuthority as error:
            raise BadSetting(f"SOPHON_TIMESTAMP_ROOT: {error}") from error

    def faults(self) -> list[str]:
        """Say what is not as it should be."""
        late = time.monotonic() - self._failing_since
        if self.wrong is None or late < LATE:
            return []
        return [f"No timestamp has been got for {late / 3600:.0f} h: {self.wrong}"]

    async def run(self) -> None:
        """Get one whenever it is due, until cancelled."""
        async with self._log.leading("timestamps") as lease, asyncio.TaskGroup() as group:
            group.create_task(lease.keep())
            group.create_task(self._go_on())

    async def _go_on(self) -> None:
        wait = SHORTEST_WAIT
        while True:
            try:
                await self.stamp()
            except (NotStamped, LogUnavailable) as error:
                self._failing_since = self._failing_since if self.wrong else time.monotonic()
                self.wrong = str(error)
                _log.warning("timestamp.not_got", error=self.wrong, after=wait)
                await self._sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                self.wrong, wait = None, SHORTEST_WAIT
                await self._sleep(LOOK_EVERY)

    async def stamp(self) -> int | None:
        """Have the newest checkpoint timestamped, if that is due; give the position of the entry.

        Raises `NotStamped`, with what is wrong, and then nothing was appended; `LogUnavailable`.
        """
        newest = await self._tree.newest()
        if newest is None or not await self._is_due(newest.size):
            return None
        checkpoint = self._ours(newest)
        token = await self._token_of(checkpoint)
        stamped = CheckpointTimestamped(size=checkpoint.size, token=base64.b64encode(token.der).decode())
        position = await self._log.append([Context().draft(stamped)])
        _log.info("timestamp.got", size=checkpoint.size, at=token.at.isoformat(), authority=token.authority)
        return position

    async def _is_due(self, size: int) -> bool:
        """Whether the newest timestamp is a day old, and more than that was signed since."""
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT position, at FROM audit.entries WHERE type = %s ORDER BY position DESC LIMIT 1",
                (CheckpointTimestamped.__name__,),
            )
            row = await cursor.fetchone()
        return row is None or (size > row[0] and datetime.now(UTC) - row[1] >= EVERY)

    def _ours(self, published: Published) -> Checkpoint:
        """Read a checkpoint that lies in the database, if one of the log's own keys has signed it."""
        if (keyring := self._store.keyring()) is None:
            raise NotStamped(f"There are no keys in {self._store.directory} to know the log's checkpoints by.")
        known = [*verifiers(keyring.keys), *(one for old in keyring.retired for one in old.verifiers)]
        try:
            return open_checkpoint(published.note, [Verifier.parse(one) for one in known])[0]
        except NoteRejected as error:
            raise NotStamped(f"The newest checkpoint is not one of this log: {error}") from error

    async def _token_of(self, checkpoint: Checkpoint) -> Token:
        question = Question.of(checkpoint.text().encode())
        try:
            answer = await post(self._url, question.der)
        except (OSError, TimeoutError, aiohttp.ClientError) as away:
            raise NotStamped(f"The authority does not answer: {str(away) or type(away).__name__}") from away
        return question.accept(answer, self._authorities)


async def post(address: str, query: bytes) -> bytes:
    """Ask an authority, and read no more than an answer may have. Follows no redirection. Raises `NotStamped`."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN)) as session,
        session.post(address, data=query, headers={"Content-Type": QUERY_TYPE}, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise NotStamped(f"The authority answered {response.status}.")
        answer = bytearray()
        async for piece in response.content.iter_any():
            answer += piece
            if len(answer) > LONGEST_ANSWER:
                raise NotStamped(f"The authority answered with more than {LONGEST_ANSWER} bytes.")
        return bytes(answer)
