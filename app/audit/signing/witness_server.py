"""A witness of transparency logs that anybody can run: it vouches that a log has one history, and when it saw it.

It needs no database and nothing of the platform: a directory, a key, and the verifier keys of the logs it watches. What
it has seen of a log is durable before it answers, so that no crash and no restart makes it cosign a second history.
C2SP tlog-witness.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from app.audit.signing.store import Store, write
from app.audit.transparency.keys import SigningKey, Verifier
from app.audit.transparency.witnessing import (
    MAX_REQUEST,
    NOTHING_SEEN,
    TEXT_TYPE,
    Cosigned,
    Refused,
    Request,
    Seen,
    Witness,
    origin_hash,
    parse_request,
)

TIME_TO_SEND = 10.0
"""Seconds that a request may take to arrive."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Remembered(Struct, frozen=True, kw_only=True):
    """What is kept of one log."""

    origin: str
    size: int
    root: bytes
    note: str


class WitnessServer:
    """An ASGI application. `state` is a directory of its own, held as long as `store.held()` is."""

    def __init__(
        self, state: Path, name: str, logs: Iterable[Verifier], clock: Callable[[], float] = time.time
    ) -> None:
        self.store = Store(state)
        known: dict[str, tuple[Verifier, ...]] = {}
        for log in logs:
            known[log.name] = (*known.get(log.name, ()), log)
        self.origins = frozenset(known)
        self.keys = _keys(self.store, name)
        self._witness = Witness(self.keys, known)
        self._clock = clock
        self._one_by_one = threading.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        try:
            async with asyncio.timeout(TIME_TO_SEND):
                body = await _body(receive) if scope["method"] == "POST" else b""
            status, type_, answer = await self._answer(scope["method"], scope["path"], body)
        except Refused as no:
            status, type_, answer = no.status, no.content_type, no.body
        except TimeoutError:
            status, type_, answer = 408, TEXT_TYPE, b"The request took too long.\n"
        headers = [(b"content-type", type_.encode()), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def add_checkpoint(self, request: Request) -> Cosigned:
        """Cosign what continues what was seen, and remember it first. Raises `Refused`."""
        if request.checkpoint.origin not in self._witness.logs:
            raise Refused(404, "The log with this origin is not known here.")
        return await asyncio.to_thread(self._decide, request)

    def seen(self, origin: str) -> Remembered | None:
        """Give what was seen of a log last."""
        try:
            return msgspec.json.decode(self._path(origin).read_bytes(), type=Remembered)
        except FileNotFoundError:
            return None

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        match method, path.strip("/").split("/"):
            case "POST", ["add-checkpoint"]:
                return 200, TEXT_TYPE, (await self.add_checkpoint(parse_request(body))).body
            case "GET", [origin, "checkpoint"]:
                return 200, TEXT_TYPE, self._newest(origin)
            case "GET", [""]:
                return 200, TEXT_TYPE, "".join(f"{key.verifier.text()}\n" for key in self.keys).encode()
            case _:
                raise Refused(404, "There is POST /add-checkpoint, GET /<SHA-256 of an origin>/checkpoint, and GET /.")

    def _newest(self, hashed: str) -> bytes:
        for origin in self._witness.logs:
            if origin_hash(origin) == hashed and (seen := self.seen(origin)):
                return seen.note.encode()
        raise Refused(404, "Nothing was seen of a log with this origin.")

    def _decide(self, request: Request) -> Cosigned:
        """One at a time, also when a client goes away meanwhile: read what was seen, decide, keep it."""
        origin = request.checkpoint.origin
        with self._one_by_one:
            before = self.seen(origin)
            seen = Seen(before.size, before.root) if before else NOTHING_SEEN
            cosigned = self._witness.consider(request, seen, int(self._clock()))
            now, note = cosigned.seen, cosigned.note.decode()
            kept = Remembered(origin=origin, size=now.size, root=now.root, note=note)
            write(self._path(origin), msgspec.json.format(msgspec.json.encode(kept)))
        return cosigned

    def _path(self, origin: str) -> Path:
        return self.store.directory / f"{origin_hash(origin)}.json"


class Kept(Struct, frozen=True):
    """The witness's keys."""

    keys: tuple[str, ...]


def _keys(store: Store, name: str) -> tuple[SigningKey, ...]:
    """Read the witness's key, or make it. It keeps the name that it was made with."""
    path = store.directory / "witness-key.json"
    if not path.exists():
        store.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Kept((SigningKey.generate(name, "cosignature/v1").encoded(),))
        write(path, msgspec.json.encode(made))
    return tuple(map(SigningKey.parse, msgspec.json.decode(path.read_bytes(), type=Kept).keys))


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request ended too early.")
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST:
            raise Refused(413, f"A request has at most {MAX_REQUEST} bytes.")
        if not message.get("more_body"):
            return bytes(body)
