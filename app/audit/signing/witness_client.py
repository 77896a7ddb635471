"""Getting checkpoints cosigned: all witnesses of a policy are asked at once, and enough of them are enough."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self

import aiohttp
import structlog
from msgspec import Struct

from app.audit.transparency.keys import Verifier
from app.audit.transparency.notes import open_checkpoint
from app.audit.transparency.policies import Policy, PolicyMalformed, parse_policy
from app.audit.transparency.strict import Rejected, decimal
from app.audit.transparency.witnessing import SIZE_TYPE, TEXT_TYPE, origin_hash, request, with_cosignatures

PATIENCE = 5.0
"""Seconds for one witness."""
LONGEST_ANSWER = 65_536

_log = structlog.get_logger(__name__)

Prove = Callable[[int, int], Awaitable[Sequence[bytes]]]
"""(old size, new size) -> a proof that the tree of the one is the beginning of the other's."""

Answer = tuple[int, str, bytes]
"""Status, content type, body."""

Ask = Callable[[str, str, bytes], Awaitable[Answer]]
"""(method, address, body) -> what was answered. Raises `OSError`, `TimeoutError` or `aiohttp.ClientError`."""


class NoWitness(Exception):
    """The policy cannot be read, or its quorum cannot be reached by witnesses that have an address in it."""


class WitnessAhead(Exception):
    """A witness has seen more of this log, signed by it, than there is: its end was lost. `size`: how much was seen."""

    def __init__(self, witness: str, size: int) -> None:
        super().__init__(f"The witness {witness} has seen {size} entries of this log.")
        self.size = size


class WitnessStatus(Struct):
    """What is known of a witness: how much of the log it has cosigned, and what was wrong the last time."""

    size: int = 0
    wrong: str | None = None


class Witnesses:
    """The witnesses of a policy, and how far each has come."""

    def __init__(self, policy: Policy, prove: Prove, ask: Ask | None = None) -> None:
        self._policy = policy
        self._prove = prove
        self._ask = ask or ask_by_http
        self.status = {name: WitnessStatus() for name, peer in policy.witnesses.items() if peer.url}
        if not policy.is_met_by(self.status):
            raise NoWitness(f"The quorum {policy.quorum} needs witnesses that have no address in the policy.")

    @classmethod
    def by(cls, path: Path, prove: Prove) -> Self:
        """Read a policy (C2SP tlog-policy). Raises `NoWitness`, with what is wrong with it."""
        try:
            return cls(parse_policy(path.read_bytes()), prove)
        except (OSError, PolicyMalformed, NoWitness) as error:
            raise NoWitness(f"SOPHON_WITNESS_POLICY names {path}, which is no policy to go by: {error}") from error

    def wrong(self) -> str:
        """Say what was wrong with which witness the last time."""
        return "; ".join(f"{name}: {one.wrong}" for name, one in self.status.items() if one.wrong)

    async def cosign(self, size: int, note: bytes, logs: Sequence[Verifier]) -> tuple[bytes, bool]:
        """Give the note with cosignatures as soon as they are enough; or with what there is, and false.

        Raises `WitnessAhead` if a witness shows a larger checkpoint that one of `logs`, our own keys, has signed.
        """
        asked = [asyncio.create_task(self._asked(name, size, note, logs)) for name in self.status]
        got: set[str] = set()
        try:
            for coming in asyncio.as_completed(asked):
                name, cosignatures = await coming
                if cosignatures is not None:
                    got.add(name)
                    note = with_cosignatures(note, cosignatures, [self._policy.witnesses[name].verifier])
                if self._policy.is_met_by(got):
                    break
        finally:
            for task in asked:
                task.cancel()
        return note, self._policy.is_met_by(got)

    async def _asked(self, name: str, size: int, note: bytes, logs: Sequence[Verifier]) -> tuple[str, bytes | None]:
        status = self.status[name]
        try:
            async with asyncio.timeout(PATIENCE):
                cosignatures = await self._cosignatures(name, size, note, logs)
        except (OSError, TimeoutError, aiohttp.ClientError, Rejected) as error:
            status.wrong = str(error) or type(error).__name__
            _log.warning("witness.no_cosignature", witness=name, error=status.wrong)
            return name, None
        status.size, status.wrong = size, None
        return name, cosignatures

    async def _cosignatures(self, name: str, size: int, note: bytes, logs: Sequence[Verifier]) -> bytes:
        """Ask a witness; once more if it has come further than was known, or less far."""
        status, peer = self.status[name], self._policy.witnesses[name]
        address = (peer.url or "").rstrip("/")
        code, type_, answer = await self._post(address, status.size, size, note)
        if code == 409 and type_.partition(";")[0] == SIZE_TYPE:
            if (seen := decimal(answer.decode("ascii", "replace").strip())) > size:
                await self._must_not_be_ahead(name, address, size, logs)
            status.size = min(seen, size)
            code, type_, answer = await self._post(address, status.size, size, note)
        if code != 200:
            raise Rejected(f"It answered {code}: {answer[:200].decode(errors='replace').strip()}")
        with_cosignatures(note, answer, [peer.verifier])  # raises if it is not what was asked for
        return answer

    async def _post(self, address: str, old: int, size: int, note: bytes) -> Answer:
        body = request(old, await self._prove(old, size), note).encoded()
        return await self._ask("POST", f"{address}/add-checkpoint", body)

    async def _must_not_be_ahead(self, name: str, address: str, size: int, logs: Sequence[Verifier]) -> None:
        """What a witness says of a larger size counts only if it shows the checkpoint, signed by this log."""
        code, _, answer = await self._ask("GET", f"{address}/{origin_hash(logs[0].name)}/checkpoint", b"")
        if code == 200 and (seen := open_checkpoint(answer, logs)[0]).size > size:
            raise WitnessAhead(name, seen.size)


async def ask_by_http(method: str, address: str, body: bytes) -> Answer:
    """Send a request, and read no more of the answer than it may have."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session,
        session.request(
            method, address, data=body, headers={"Content-Type": TEXT_TYPE}, allow_redirects=False
        ) as response,
    ):
        answer = bytearray()
        async for piece in response.content.iter_any():  # it may come in several
            answer += piece
            if len(answer) >= LONGEST_ANSWER:
                break
        return response.status, response.content_type, bytes(answer[:LONGEST_ANSWER])
