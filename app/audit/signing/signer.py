"""The signer: signs how far the log has grown, from what it remembers itself, and never two histories.

Its memory and its keys lie in a directory of its own. Each size is kept there, durably, before it is published: kill
it at any moment, and it goes on without having signed two roots of one size. If the database holds less than was
signed, or something else, nothing is signed any more, and nothing appended.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.errors import ReadOnlySqlTransaction
from psycopg_pool import AsyncConnectionPool

from app.audit.log import Lease, LeaseLost
from app.audit.signing.continuity import (
    AnotherHistory,
    Refused,
    another,
    compare,
    ends_so,
    extend,
    rolled_back,
    sample,
)
from app.audit.signing.edge import Edge
from app.audit.signing.rotation import activated, is_announced, stage
from app.audit.signing.store import Keyring, Signed, SignerBusy, Store
from app.audit.signing.tree import Tampered, publish, read_checkpoints, read_size
from app.audit.signing.witness_client import WitnessAhead
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey, Verifier
from app.audit.transparency.notes import sign_note
from app.domain.signing import LogKeyRotated

EVERY = 1.0
"""Seconds between two checkpoints, at least."""
AT_LEAST_EVERY = 10.0
"""Seconds until something is signed, if nobody waits for it. A checkpoint takes 4 KB, as much as some entries."""
MANY = 64
"""Entries that are signed without waiting for more."""
LOOK = 0.05
"""Seconds between two looks at how far this process knows the log to have grown, which costs nothing."""
AGAIN = 30.0
"""Seconds after which a log that was refused is looked at again: it may have been mended."""
LATE = 60.0
"""Seconds without a checkpoint, or a quorum, after which that is a fault."""

_log = structlog.get_logger(__name__)


class Cosigner(Protocol):
    """Gets a checkpoint cosigned by enough witnesses."""

    async def cosign(self, size: int, note: bytes, logs: Sequence[Verifier]) -> tuple[bytes, bool]:
        """Give the note with the cosignatures that were got, and whether they are enough. `logs`: our own keys."""
        ...

    def wrong(self) -> str:
        """Say why there were not enough."""
        ...


class Watched(Protocol):
    """A log as its signer needs it."""

    pool: AsyncConnectionPool[AsyncConnection]

    @property
    def head(self) -> int:
        """The position of the newest entry that this process knows of."""
        ...

    def leading(self, task: str) -> AbstractAsyncContextManager[Lease]:
        """Wait until nobody else does a task, then be the one who does."""
        ...

    def freeze(self, reason: str) -> None:
        """Append nothing more."""
        ...


class Signer:
    """One of those who may sign a log; it waits until it is the only one. `origin` names a log that has no name yet."""

    def __init__(self, log: Watched, store: Store, origin: str, cosigner: Cosigner | None = None) -> None:
        self._log = log
        self.store = store
        self._origin = origin
        self._cosigner = cosigner
        self._keys: list[SigningKey] = []
        self._unsigned_since = self._uncosigned_since = 0.0
        self._hurried = False
        self._fresh = asyncio.Event()
        self._staging = asyncio.Lock()
        self._signed: Signed | None = None
        self.refusal: str | None = None
        """Why nothing is signed."""
        self.signed_at = 0.0
        """When a checkpoint was signed last, by the monotonic clock; 0: not by this process."""

    @property
    def size(self) -> int:
        """How many entries are signed."""
        return self._signed.size if self._signed else 0

    @property
    def age(self) -> float:
        """Seconds since this process signed something; 0 if it has not."""
        return time.monotonic() - self.signed_at if self.signed_at else 0.0

    def faults(self) -> list[str]:
        """Say what is not as it should be."""
        now, found = time.monotonic(), [self.refusal] if self.refusal else []
        if self._unsigned_since and now - self._unsigned_since > LATE:
            found.append(f"Nothing has been signed for {now - self._unsigned_since:.0f} s.")
        if self._cosigner and self._uncosigned_since and now - self._uncosigned_since > LATE:
            found.append(
                f"Too few witnesses cosign since {now - self._uncosigned_since:.0f} s: {self._cosigner.wrong()}"
            )
        return found

    def verifier_keys(self) -> str:
        """List the verifier keys, newest first, each with the first and the last size that it signed (-: it does)."""
        keyring = self.store.keyring()
        if keyring is None:
            return ""
        lines = [f"{SigningKey.parse(key).verifier.text()} {keyring.since} -" for key in keyring.keys]
        for old in reversed(keyring.retired):
            lines += [f"{verifier} {old.since} {old.until}" for verifier in old.verifiers]
        return "".join(f"{line}\n" for line in lines)

    async def next_keys(self) -> LogKeyRotated:
        """Make the keys that are to follow, unless they are made, and say what has to be recorded of them."""
        async with self._staging:
            return await asyncio.to_thread(stage, self.store)

    async def check(self) -> None:
        """Before anything is appended: compare the log with what was signed, and freeze it if it is another."""
        try:
            async with self._log.pool.connection() as connection:
                await compare(connection, self.store.signed())
        except (Refused, Tampered) as error:
            self._refuse(error)

    async def run(self) -> None:
        """Sign whenever the log has grown, for ever; wait while somebody else does."""
        while True:
            try:
                async with self._log.leading("signer") as lease:
                    with self.store.held():
                        async with asyncio.TaskGroup() as group:
                            group.create_task(lease.keep())
                            group.create_task(self._sign_on())
                            if self._cosigner:
                                group.create_task(self._cosign_on(self._cosigner))
            except* (Refused, Tampered, SignerBusy, OSError, psycopg.ProgrammingError) as errors:
                self._refuse(errors.exceptions[0])
            except* (LeaseLost, psycopg.OperationalError, ReadOnlySqlTransaction) as errors:
                _log.warning("signer.away", error=str(errors.exceptions[0]).strip())
            await asyncio.sleep(AGAIN if self.refusal else EVERY)

    def hurry(self) -> None:
        """Somebody waits for a checkpoint: sign as soon as the last one is a second old."""
        self._hurried = True

    async def _sign_on(self) -> None:
        edge = await self.begin()
        looked = 0.0
        while True:
            ready = self._hurried or self._log.head - edge.size >= MANY
            if time.monotonic() - looked >= (EVERY if ready else AT_LEAST_EVERY):
                looked, self._hurried = time.monotonic(), False
                edge = await self.sign(edge)
            await asyncio.sleep(LOOK)

    async def begin(self) -> Edge:
        """Remember, compare, publish what was kept and perhaps not published; give the edge to go on from."""
        async with self._log.pool.connection() as connection:
            signed = self.store.signed()
            self._use(self.store.keyring() or await self._first_keys(connection))
            edge = await compare(connection, signed)
            await sample(connection, edge.size)
            if signed is not None:
                await self._give_out(connection, signed)
        self._signed, self.refusal = signed, None
        return edge

    async def _first_keys(self, connection: AsyncConnection) -> Keyring:
        if self.store.signed() or await read_checkpoints(connection, 0):
            raise Refused(
                f"This log has been signed, and the keys are not in {self.store.directory}. Put that directory back "
                "from your copy of it, or set SOPHON_SIGNER to where it is."
            )
        keys = (SigningKey.generate(self._origin, "ed25519"), SigningKey.generate(self._origin, "ml-dsa-44"))
        keyring = Keyring(origin=self._origin, keys=tuple(key.encoded() for key in keys), since=0)
        await asyncio.to_thread(self.store.keep_keyring, keyring)
        return keyring

    def _use(self, keyring: Keyring) -> None:
        self._origin = keyring.origin
        self._keys = [SigningKey.parse(key) for key in keyring.keys]

    async def sign(self, edge: Edge) -> Edge:
        """Sign all that is committed, if it is more; give the new edge. Should this fail, begin again."""
        async with self._log.pool.connection() as connection:
            head = await read_size(connection)
            if head < edge.size or (edge.size and not await ends_so(connection, edge)):
                raise rolled_back(head, edge.size) if head < edge.size else another(edge.size)
            if head == edge.size:
                self._unsigned_since = 0.0
                return edge
            self._unsigned_since = self._unsigned_since or time.monotonic()
            edge = await extend(connection, edge.copy(), head)
            self._signed = await asyncio.to_thread(self._keep, edge)
            await self._give_out(connection, self._signed)
            self.signed_at, self._unsigned_since = time.monotonic(), 0.0
            await self._rotate(connection)
        return edge

    async def _give_out(self, connection: AsyncConnection, signed: Signed) -> None:
        """Publish what is kept: at once, or as soon as the witnesses have cosigned it."""
        if self._cosigner is None:
            await publish(connection, signed.size, bytes.fromhex(signed.root), signed.note.encode())
        self._fresh.set()

    def _keep(self, edge: Edge) -> Signed:
        """Sign, and keep what was signed, before anybody sees it."""
        frontier = edge.frontier()
        root = frontier.root()
        note = sign_note(Checkpoint(self._origin, edge.size, root).text(), self._keys, int(time.time()))
        hashes = tuple(one.hex() for one in frontier.hashes)
        signed = Signed(size=edge.size, frontier=hashes, root=root.hex(), note=note.decode())
        self.store.keep_signed(signed)
        return signed

    async def _rotate(self, connection: AsyncConnection) -> None:
        """Sign with the keys that are staged from now on, once a signed entry of the log announces them."""
        staged, keyring = self.store.staged(), self.store.keyring()
        if staged is None or keyring is None:
            return
        if await is_announced(connection, staged, self.size):
            async with self._staging:
                self._use(await asyncio.to_thread(activated, self.store, self.size))
            _log.info("signer.rotated", since=self.size + 1)

    async def _cosign_on(self, cosigner: Cosigner) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            if (signed := self._signed) is None:
                continue
            note, enough = await self._cosigned(cosigner, signed)
            if enough:
                async with self._log.pool.connection() as connection:
                    await publish(connection, signed.size, bytes.fromhex(signed.root), note)
                self._uncosigned_since = 0.0
            else:
                self._uncosigned_since = self._uncosigned_since or time.monotonic()
                await asyncio.sleep(EVERY)
                self._fresh.set()

    async def _cosigned(self, cosigner: Cosigner, signed: Signed) -> tuple[bytes, bool]:
        try:
            return await cosigner.cosign(signed.size, signed.note.encode(), [key.verifier for key in self._keys])
        except WitnessAhead as ahead:
            raise rolled_back(signed.size, ahead.size) from ahead

    def _refuse(self, error: BaseException) -> None:
        _log.error("signer.refuses", reason=str(error))
        self.refusal = str(error)
        if isinstance(error, AnotherHistory):
            self._log.freeze(str(error))
