"""Batches that the database is given before it has answered those before them, over one connection.

It is libpq's pipeline mode, each batch a transaction of its own. Answers are taken in as soon as they are there, and no
task waits for them: of an append by itself, tasks and cursors would be a fifth.
"""

import asyncio
from collections.abc import Callable
from typing import Self

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import ConnStatus, ExecStatus, Format

from app.audit.batch import Batch

ANSWER_WITHIN = 10.0
"""Seconds after which a database that says nothing counts as away."""

_PREPARE = "PREPARE append AS SELECT audit.append($1, $2, $3, $4, $5)"
_FORMATS = (Format.TEXT, Format.TEXT, Format.BINARY, Format.TEXT, Format.BINARY)

Answered = Callable[[int | None], None]
"""Told for each batch, in order, where the log ended, or nothing if the database refused it."""


class Pipe:
    """A way to the log for who knows its end. As long as it is open, the connection is to be used for nothing else."""

    def __init__(self, connection: AsyncConnection, answered: Answered, lost: Callable[[], None]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._socket = connection.pgconn.socket
        self._answered = answered
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._sent: list[float] = []
        self._answer: int | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.is_open = False

    @classmethod
    async def over(cls, connection: AsyncConnection, answered: Answered, lost: Callable[[], None]) -> Self:
        """Make one over a new connection; it is closed yet. `lost` is told when the connection is no good any more."""
        await connection.execute(_PREPARE)
        return cls(connection, answered, lost)

    def open(self) -> None:
        """Take the connection over."""
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._read)
        self.is_open = True

    def close(self) -> None:
        """Give the connection back. Whatever was not answered is not answered any more."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._watch:
            self._watch.cancel()
            self._watch = None
        if self._sent or self._pgconn.status != ConnStatus.OK:
            self._pgconn.finish()
        else:
            self._pgconn.exit_pipeline_mode()

    def send(self, batch: Batch, upon: bytes) -> None:
        """Send a batch; it is appended if the log ends with the entry whose hash is `upon`."""
        parcel = None if batch.parcel is None else batch.parcel.encode()
        self._sent.append(self._loop.time())
        if self._watch is None:
            self._watch = self._loop.call_later(ANSWER_WITHIN, self._look)
        try:
            self._pgconn.send_query_prepared(
                b"append", (b"%d" % batch.after, batch.lines, batch.hashes, parcel, upon), _FORMATS
            )
            self._pgconn.pipeline_sync()
            if self._pgconn.flush():
                self._loop.add_writer(self._socket, self._flush)
        except psycopg.Error:
            self._loop.call_soon(self._lose)

    def _flush(self) -> None:
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error:
            self._lose()

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            while self._sent and not self._pgconn.is_busy():
                self._take(self._pgconn.get_result())
        except psycopg.Error:
            self._lose()

    def _take(self, result: psycopg.pq.abc.PGresult | None) -> None:
        """Take in what comes for a batch: the result, nothing, and that its transaction has ended."""
        if result is None:
            if self._pgconn.status != ConnStatus.OK:
                raise psycopg.OperationalError("the connection was lost")
        elif result.status == ExecStatus.PIPELINE_SYNC:
            answer, self._answer = self._answer, None
            self._sent.pop(0)
            self._answered(answer)
        elif result.status == ExecStatus.TUPLES_OK:
            self._answer = int(result.get_value(0, 0) or b"")

    def _look(self) -> None:
        """Give the database up if it has not answered for so long."""
        self._watch = None
        if self._sent:
            rest = self._sent[0] + ANSWER_WITHIN - self._loop.time()
            if rest <= 0:
                self._lose()
            else:
                self._watch = self._loop.call_later(rest, self._look)

    def _lose(self) -> None:
        if self.is_open:
            self.close()
            self._pgconn.finish()
            self._lost()
