"""A log that is signed, for tests: its signer, without the waiting, and a witness without the network."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from app.audit.log import Log
from app.audit.signing.edge import Edge
from app.audit.signing.published import receipt
from app.audit.signing.signer import Signer
from app.audit.signing.store import Store
from app.audit.signing.tree import Tree
from app.audit.signing.witness_client import Answer, Witnesses
from app.audit.signing.witness_server import WitnessServer
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey, Verifier
from app.audit.transparency.notes import open_checkpoint
from app.audit.transparency.policies import Group, Peer, Policy
from tests.audit.drafts import draft

ORIGIN = "lab.example.org/log"


async def grow(log: Log, count: int) -> int:
    """Append some entries."""
    return await log.append([draft("A", [f"entry:{number}"]) for number in range(count)])


class Signing:
    """A signer on a log, told when to sign."""

    def __init__(self, log: Log, directory: Path, witnesses: Witnesses | None = None) -> None:
        self.log = log
        self.store = Store(directory)
        self.tree = Tree(log.pool)
        self.signer = Signer(log, self.store, ORIGIN, witnesses)

    async def sign(self) -> Edge:
        """Begin, and sign what there is, as after a start."""
        return await self.signer.sign(await self.signer.begin())

    def verifiers(self) -> list[Verifier]:
        """Give the log's own keys."""
        keyring = self.store.keyring()
        assert keyring is not None
        return [SigningKey.parse(key).verifier for key in keyring.keys]

    async def checkpoint(self, *verifiers: Verifier) -> Checkpoint:
        """Give the newest checkpoint that was published, verified."""
        newest = await self.tree.newest()
        assert newest is not None
        return open_checkpoint(newest.note, verifiers or self.verifiers())[0]

    async def receipt(self, position: int) -> bytes:
        """Give a receipt with the entry in it."""
        return await receipt(self.tree, position, await self.tree.entry(position))


@contextlib.asynccontextmanager
async def running(signer: Signer) -> AsyncGenerator[None]:
    """Let a signer go on by itself."""
    task = asyncio.create_task(signer.run())
    try:
        yield
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.1)


async def asked(server: WitnessServer, method: str, path: str, body: bytes = b"", chunk: int = 0) -> Answer:
    """Ask a witness as a web server would; the body comes in pieces of `chunk` bytes, if that is not 0."""
    pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)] if chunk else [body]
    messages: list[dict[str, object]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await server({"type": "http", "method": method, "path": path}, receive, send)  # pyright: ignore[reportArgumentType]
    headers = dict(sent[0]["headers"])  # pyright: ignore
    return sent[0]["status"], headers[b"content-type"].decode(), sent[1]["body"]  # pyright: ignore


def by(servers: dict[str, WitnessServer], tree: Tree, needed: int) -> Witnesses:
    """Have checkpoints cosigned by so many of some witnesses, each reached by its name as address."""

    async def ask(method: str, address: str, body: bytes) -> Answer:
        name, _, path = address.removeprefix("http://").partition("/")
        if name not in servers:
            raise ConnectionRefusedError(f"{name} does not answer")
        return await asked(servers[name], method, f"/{path}", body)

    return Witnesses(policy(servers, needed), tree.consistency, ask)


def policy(servers: dict[str, WitnessServer], needed: int, logs: Sequence[Verifier] = ()) -> Policy:
    """Need so many of some witnesses."""
    peers = {name: Peer(server.keys[0].verifier, f"http://{name}") for name, server in servers.items()}
    return Policy(tuple(map(Peer, logs)), peers, {"enough": Group(needed, tuple(servers))}, "enough")
