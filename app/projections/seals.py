"""State seals: what the read models hold as of a position, digested and recorded, so that a replay can be held to it.

A digest is over the rows without what is sealed in the log: it stays the same when somebody is erased. It is a table's
own, so that a new read model, or a new version of one, leaves those of the others good.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.entry import BY_ITSELF, Context, Record
from app.audit.log import Log
from app.domain.model import events
from app.domain.states import StateSealed, TableDigest
from app.projections.differences import scratch
from app.projections.generation import Generation
from app.projections.guarded import SEALING, alone
from app.projections.leftovers import VERIFY
from app.projections.read_model import ReadModel
from app.projections.replay import Progress, Replay, in_silence

EVERY = timedelta(days=1)
LOOK_EVERY = 600.0

# Of a table that was just filled nothing is known: each page of it would be found by a sort of all of them.
_SETTINGS = "SET LOCAL TimeZone = 'UTC'; SET LOCAL enable_sort = off"

_canonical = msgspec.json.Encoder(order="sorted").encode


class Mismatch(Struct, frozen=True):
    """A table that is not what was sealed, once the log is replayed up to there."""

    table: str
    version: int
    position: int
    expected: str
    found: str


class Checked(Struct, frozen=True):
    """How many seals a replay was held to, and tables of theirs; where it differed; which tables it has no more."""

    seals: int
    compared: int
    position: int
    mismatches: Sequence[Mismatch]
    not_compared: Sequence[str]


async def digest_of(connection: AsyncConnection, model: ReadModel[Any], schema: str) -> TableDigest:
    """Digest a table: SHA-256 over each row as canonical JSON and a line feed, by key, without what is sealed."""
    digest, count = hashlib.sha256(), 0
    async for rows in model.pages(connection, schema):
        for row in rows:
            digest.update(_canonical(model.masked(row)) + b"\n")
        count += len(rows)
        await asyncio.sleep(0)
    return TableDigest(model.table(), model.version, count, digest.hexdigest())


async def seal_generation(log: Log, connection: AsyncConnection, context: Context = BY_ITSELF) -> int | None:
    """Record what the live read models are; give as of which position, or none if there are none of this release."""
    live = Generation(log)
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await connection.execute(_SETTINGS)
        position = await live.bookmark(connection)
        if position is None:
            return None
        digests = tuple([await digest_of(connection, model, live.schema) for model in live.models])
    await log.append([context.draft(StateSealed(position=position, shape=live.shape, digests=digests))])
    return position


async def verify_seals(log: Log, progress: Progress = in_silence) -> Checked:
    """Replay the log into a generation to throw away, and hold it to each seal on the way."""
    async with alone(log), scratch(log, VERIFY) as (generation, connection):
        replay = Replay(log, generation, connection, progress)
        await replay.begin(anew=True)
        return await Checking(log, replay, connection).go_on()


class Checking:
    """Takes a replay from seal to seal, and compares."""

    def __init__(self, log: Log, replay: Replay, connection: AsyncConnection) -> None:
        self._log = log
        self._replay = replay
        self._connection = connection
        self._known: dict[str, TableDigest] = {}
        self._compared = 0
        self._mismatches: list[Mismatch] = []
        self._not_compared: dict[str, None] = {}

    async def go_on(self) -> Checked:
        """Compare at every seal that stands in the log, in the order of the positions that they are of."""
        seals = await seals_of(self._log)
        done = 0
        for seal in seals:
            await self._replay.go_on(seal.position)
            if self._replay.position != seal.position:
                break
            await self._compare(seal)
            done += 1
        if self._replay.unreadable:
            raise self._replay.unreadable
        return Checked(done, self._compared, self._replay.position, self._mismatches, list(self._not_compared))

    async def at_the_end(self) -> list[TableDigest]:
        """Replay what is left, and digest every table."""
        await self._replay.go_on()
        if self._replay.unreadable:
            raise self._replay.unreadable
        self._forget()
        return [await self._digest(model) for model in self._replay.generation.models]

    def _forget(self) -> None:
        for table in self._replay.touched:
            self._known.pop(table, None)
        self._replay.touched.clear()

    async def _compare(self, seal: StateSealed) -> None:
        self._forget()
        ours = {(model.table(), model.version): model for model in self._replay.generation.models}
        for sealed in seal.digests:
            if (model := ours.get((sealed.table, sealed.version))) is None:
                self._not_compared[f"{sealed.table} {sealed.version}"] = None
                continue
            self._compared += 1
            if (found := await self._digest(model)).digest != sealed.digest:
                here = (seal.position, sealed.digest, found.digest)
                self._mismatches.append(Mismatch(sealed.table, sealed.version, *here))

    async def _digest(self, model: ReadModel[Any]) -> TableDigest:
        """Digest a table, unless nothing has touched it since it last was."""
        if (known := self._known.get(model.table())) is not None:
            return known
        schema = self._replay.generation.schema
        async with self._connection.transaction():
            await self._connection.execute(_SETTINGS)
            found = await digest_of(self._connection, model, schema)
        self._known[model.table()] = found
        return found


async def seals_of(log: Log) -> list[StateSealed]:
    """Read every seal, by the position that it is of."""
    page = await log.read((events(StateSealed),))
    seals = [record.event for record in page.records]
    return sorted((seal for seal in seals if isinstance(seal, StateSealed)), key=lambda seal: seal.position)


async def keep_sealing(log: Log) -> None:
    """Seal the state once a day, if anything happened; whoever leads does, for all processes."""
    async with log.leading(SEALING) as lease:
        keeping = asyncio.create_task(lease.keep(), name="seal-lease")
        try:
            while not keeping.done():
                if await _is_due(log):
                    async with log.pool.connection() as connection:
                        await seal_generation(log, connection)
                await asyncio.wait([keeping], timeout=LOOK_EVERY)
            keeping.result()
        finally:
            keeping.cancel()


async def _is_due(log: Log) -> bool:
    """Whether the newest seal, or the first entry where there is none, is a day old, and not all that there is."""
    sealed = (await log.read((events(StateSealed),))).records
    since: Record | None = sealed[-1] if sealed else next(iter((await log.read(limit=1)).records), None)
    if since is None or datetime.now(UTC) - since.entry.at < EVERY:
        return False
    return bool((await log.read(after=since.position, limit=1)).records) or not sealed
