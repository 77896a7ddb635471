"""The log as a `DCBRecorder` of the library `eventsourcing`: its conformance suite and its tools work on it.

That interface is synchronous, and its events are any bytes: the asynchronous log runs on a thread of its own, and
bytes that are not canonical JSON are carried as base64.
"""

import asyncio
import base64
import threading
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Self, TypeVar

import msgspec
from eventsourcing.dcb.api import (
    DCBAppendCondition,
    DCBEvent,
    DCBQuery,
    DCBReadResponse,
    DCBRecorder,
    DCBSequencedEvent,
    DCBSubscription,
)
from eventsourcing.dcb.popo import SimpleDCBReadResponse
from eventsourcing.persistence import IntegrityError
from msgspec import Raw

from app.audit.batch import ConditionViolated
from app.audit.entry import SYSTEM, Draft, Record
from app.audit.log import Log
from app.audit.recent import Condition
from app.audit.sealing.sealer import Sealer
from app.domain.model import Selection
from app.identifiers import uuid7

T = TypeVar("T")
R_co = TypeVar("R_co", bound="LogRecorder", covariant=True)

_canonical = msgspec.json.Encoder(order="sorted").encode


class LogRecorder(DCBRecorder):
    """Opens the log at a DSN; `close` it, or use it as a context manager."""

    def __init__(self, dsn: str, sealer: Sealer) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="log", daemon=True)
        self._thread.start()
        self._opened = Log.open(dsn, sealer)
        self._log = self._run(self._opened.__aenter__())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the log and end its thread."""
        self._run(self._opened.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def append(self, events: Sequence[DCBEvent], condition: DCBAppendCondition | None = None) -> int:
        """Append all or none; raises the library's `IntegrityError` if the condition fails."""
        drafts = [_draft(event) for event in events]
        try:
            return self._run(self._log.append(drafts, _condition(condition)))
        except ConditionViolated:
            raise IntegrityError(condition) from None

    def read(
        self, query: DCBQuery | None = None, *, after: int | None = None, limit: int | None = None
    ) -> DCBReadResponse:
        """Read what matches; the head is the last event's position where there is a limit, else the log's."""
        page = self._run(self._log.read(_selections(query), after or 0, limit))
        found = [_sequenced(record) for record in page.records]
        head = page.head if limit is None else found[-1].position if found else None
        return SimpleDCBReadResponse(iter(found), head or None)

    def subscribe(self, query: DCBQuery | None = None, *, after: int | None = None) -> DCBSubscription[Self]:
        """Give what matches, from a position on, and wait for more."""
        return LogSubscription(self, query, after)

    def follow(self, after: int) -> "Following":
        """Follow the log from another thread."""
        return Following(self._loop, self._log.follow(after))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Following:
    """Pages of the log as it grows, waited for in a thread that is not the log's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pages: AsyncIterator[list[Record]]) -> None:
        self._loop = loop
        self._pages = pages
        self._waiting: Future[list[Record]] | None = None

    def __next__(self) -> list[Record]:
        self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        return self._waiting.result()

    async def _next(self) -> list[Record]:
        return await anext(self._pages)

    def stop(self) -> None:
        """End the wait."""
        if self._waiting is not None:
            self._waiting.cancel()


class LogSubscription(DCBSubscription[R_co]):
    """What matches a query, from a position on, as it is appended."""

    def __init__(self, recorder: R_co, query: DCBQuery | None = None, after: int | None = None) -> None:
        super().__init__(recorder, query, after)
        self._selections = _selections(query)
        self._following = recorder.follow(after or 0)
        self._found: deque[DCBSequencedEvent] = deque()

    def __next__(self) -> DCBSequencedEvent:
        """Wait for the next event; raises `StopIteration` once stopped."""
        while not self._found:
            if self._has_been_stopped:
                raise StopIteration
            try:
                records = next(self._following)
            except CancelledError:
                raise StopIteration from None
            self._found.extend(_sequenced(record) for record in records if self._wants(record))
        return self._found.popleft()

    def _wants(self, record: Record) -> bool:
        return any(one.matches(record.entry.type, record.entry.tags) for one in self._selections)

    def stop(self) -> None:
        """End the subscription, and a wait in another thread."""
        super().stop()
        self._following.stop()


def _selections(query: DCBQuery | None) -> tuple[Selection, ...]:
    items = query.items if query else []
    return tuple(Selection(tuple(item.types), tuple(item.tags)) for item in items) or (Selection(),)


def _condition(condition: DCBAppendCondition | None) -> Condition | None:
    return condition and Condition(_selections(condition.fail_if_events_match), condition.after or 0)


def _draft(event: DCBEvent) -> Draft:
    return Draft(
        actor=SYSTEM,
        data=Raw(_carried(event.data)),
        id=str(uuid7()),
        outcome="success",
        tags=tuple(event.tags),
        type=event.type,
        v=1,
    )


def _carried(data: bytes) -> bytes:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    is_canonical = isinstance(value, dict) and "base64" not in value and _canonical(value) == data
    return data if is_canonical and b"u0000" not in data else _canonical({"base64": base64.b64encode(data).decode()})


def _sequenced(record: Record) -> DCBSequencedEvent:
    data = bytes(record.entry.data)
    if data.startswith(b'{"base64":'):
        data = base64.b64decode(msgspec.json.decode(data)["base64"])
    return DCBSequencedEvent(DCBEvent(record.entry.type, data, list(record.entry.tags)), record.position)
