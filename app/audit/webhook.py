"""The webhook: every entry is sent to one address, in order, at least once, and signed.

Each is a POST of one CloudEvent in JSON, with the headers of Standard Webhooks 1.0.0 (`webhook-id`,
`webhook-timestamp`, `webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">`). What is sealed stays a
digest. While nobody answers, the stream waits, for ever. An entry that is answered with anything but 2xx is tried
again, and after the last try put among the dead, so that one entry does not keep back all others; the dead can be sent
again when the receiver was mended, and arrive out of order then.

Kill it at any moment: what was sent and not yet marked is sent again, under the same id.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

import aiohttp
import msgspec
import psycopg
import structlog
from msgspec import Struct

from app.audit.entry import Record
from app.audit.evidence.formats import cloudevent
from app.audit.log import LeaseLost, Log
from app.audit.writer import READ_ONLY

TRIES = 10
LONGEST_WAIT = 60.0
"""Seconds between two tries: 1, 2, 4, …, 60. Ten of them take about five minutes."""
AGAIN = 5.0
"""Seconds after which a database that was away, or took no changes, is asked again."""
ANSWER_WITHIN = 10.0
LONGEST_ERROR = 200

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder(order="sorted").encode

Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[int]]
"""(address, body, headers) -> the status that was answered. Raises `OSError`, `TimeoutError` or `ClientError`."""

Sleep = Callable[[float], Awaitable[None]]


class Target(Struct, frozen=True):
    """Where entries are sent, the secret that they are signed under, and the name of the log that they are from."""

    url: str
    secret: bytes
    origin: str

    @property
    def id(self) -> str:
        """Name it without telling its address."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


class Dead(Struct, frozen=True):
    """An entry that the receiver would not take."""

    position: int
    tries: int
    error: str
    at: datetime


class Standing(Struct, frozen=True):
    """How far the stream has come (none: it has not begun), where the log ends, and what was not taken."""

    position: int | None
    head: int
    dead: list[Dead]


def signature(secret: bytes, id_: str, timestamp: int, body: bytes) -> str:
    """Sign a message (Standard Webhooks 1.0.0, "Signature scheme")."""
    mark = hmac.digest(secret, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(mark).decode()}"


class Webhook:
    """Sends the log to one target. Of all processes one sends, and the others stand by."""

    def __init__(self, log: Log, target: Target, post: Post | None = None, sleep: Sleep = asyncio.sleep) -> None:
        self._log = log
        self._target = target
        self._post = post or post_by_http
        self._sleep = sleep
        self.wrong: str | None = None
        """Why the newest try failed, if it did."""

    async def run(self) -> None:
        """Send what was not sent, and then whatever is appended, until cancelled."""
        while True:
            try:
                async with self._log.leading("webhook") as lease, asyncio.TaskGroup() as group:
                    group.create_task(lease.keep())
                    group.create_task(self._send_on())
            except* (LeaseLost, psycopg.OperationalError, *READ_ONLY) as errors:
                self.wrong = "How far it is cannot be written down: the database is away, or takes no changes."
                _log.warning("webhook.away", error=str(errors.exceptions[0]).strip())
            await self._sleep(AGAIN)

    async def standing(self) -> Standing:
        """Tell how far it is, as the database knows it."""
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT position FROM stream.bookmarks WHERE target = %s", (self._target.id,)
            )
            row = await cursor.fetchone()
            cursor = await connection.execute(
                "SELECT position, tries, error, at FROM stream.dead WHERE target = %s ORDER BY position",
                (self._target.id,),
            )
            dead = [Dead(*one) for one in await cursor.fetchall()]
        return Standing(row[0] if row else None, self._log.head, dead)

    async def retry(self) -> tuple[int, int]:
        """Send the dead again, each once, in order; tell how many were taken, and how many were not."""
        taken = 0
        dead = (await self.standing()).dead
        for one in dead:
            (record,) = (await self._log.read(after=one.position - 1, limit=1)).records
            try:
                error = await self._try(record)
            except (OSError, TimeoutError, aiohttp.ClientError) as away:
                error = str(away) or type(away).__name__
            if error is None:
                taken += 1
                await self._write(
                    "DELETE FROM stream.dead WHERE target = %s AND position = %s", (self._target.id, one.position)
                )
            else:
                await self._bury(record, one.tries + 1, error)
        return taken, len(dead) - taken

    async def _send_on(self) -> None:
        sent = await self._bookmark()
        self.wrong = None
        async for records in self._log.follow(sent):
            for record in records:
                await self._send(record)
                await self._mark(record.position)

    async def _send(self, record: Record) -> None:
        """Send an entry until it is taken, or has been refused too often."""
        refused, wait = 0, 1.0
        while True:
            try:
                error = await self._try(record)
            except (OSError, TimeoutError, aiohttp.ClientError) as away:
                self.wrong = f"Nobody answers: {str(away) or type(away).__name__}"
            else:
                self.wrong = error
                if error is None:
                    return
                refused += 1
                if refused == TRIES:
                    _log.error("webhook.dead", position=record.position, error=error)
                    await self._bury(record, refused, error)
                    return
            _log.warning("webhook.again", position=record.position, error=self.wrong, after=wait)
            await self._sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _try(self, record: Record) -> str | None:
        """Send an entry once; say why it was not taken, if somebody answered so."""
        body = _encode(cloudevent(record, self._target.origin))
        now = int(time.time())
        headers = {
            "content-type": "application/cloudevents+json",
            "webhook-id": record.entry.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._target.secret, record.entry.id, now, body),
        }
        status = await self._post(self._target.url, body, headers)
        return None if 200 <= status < 300 else f"The receiver answered {status}."

    async def _bookmark(self) -> int:
        """Read up to where everything was sent. A new target begins with what comes: the past is exported.

        So does one that is said to be where the log has nothing yet: it would wait for that, and send nothing.
        """
        async with self._log.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO stream.bookmarks VALUES (%s, %s) ON CONFLICT DO NOTHING", (self._target.id, self._log.head)
            )
        position = (await self.standing()).position
        return self._log.head if position is None else min(position, self._log.head)

    async def _mark(self, position: int) -> None:
        """Remember that everything up to here was sent; lazily, since sending twice does no harm."""
        async with self._log.pool.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            await connection.execute(
                "UPDATE stream.bookmarks SET position = %s WHERE target = %s", (position, self._target.id)
            )

    async def _bury(self, record: Record, tries: int, error: str) -> None:
        await self._write(
            "INSERT INTO stream.dead (target, position, tries, error) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (target, position) DO UPDATE SET tries = excluded.tries, error = excluded.error, at = now()",
            (self._target.id, record.position, tries, error[:LONGEST_ERROR]),
        )

    async def _write(self, statement: str, values: Sequence[object]) -> None:
        async with self._log.pool.connection() as connection:
            await connection.execute(statement.encode(), values)


async def post_by_http(address: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Send a request. Follows no redirection: entries go where an administrator said, and nowhere else."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(address, data=body, headers=headers, allow_redirects=False) as response,
    ):
        return response.status
