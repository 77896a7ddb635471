"""A drill: the log is lost and recovered in a cluster to throw away, and has to come out as it was.

The present log is copied in two parts; the cluster is dumped (a copy of its files) after the first, exported after the
second, destroyed, restored from the dump, found to be too short, and recovered from the export.
"""

import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.database.provision import create_schema
from app.audit.evidence.export import export_log
from app.audit.evidence.exported import open_exported
from app.audit.evidence.findings import Tampered
from app.audit.evidence.leaves import PAGE, Tiling, hashes_of, read_page
from app.audit.evidence.recovery import BATCH, recover
from app.audit.evidence.trust import Term, Trust, Unverifiable
from app.audit.evidence.verify import connected, verify_log
from app.audit.signing.tree import keep_tiles, publish, read_size
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import sign_note
from app.domain.states import TableDigest

Cluster = Callable[[Path], AbstractAsyncContextManager[str]]
"""Starts a server on a data directory, gives its DSN, and stops it."""

ORIGIN = "drill.invalid/audit"


class State(Struct, frozen=True):
    """What is folded from a log: a digest of each table; how many sealed ones it met on the way, and which not."""

    tables: tuple[TableDigest, ...]
    met: int = 0
    broken: tuple[str, ...] = ()

    def __str__(self) -> str:
        tables = (f"{one.table} {one.rows} rows {one.digest[:8]}…" for one in self.tables)
        return f"{', '.join(tables)}; {self.met} sealed digests met"


Rebuild = Callable[[str], Awaitable[State]]
"""Rebuilds what is derived from the log of a DSN, and holds it to the seals there."""


class DrillFailed(Exception):
    """The log did not come out of it as it went in."""


class Step(Struct, frozen=True):
    """One thing that was done, how long it took, and what came of it."""

    what: str
    seconds: float
    result: str


class _Report:
    """Measures the steps, and tells each as it is done."""

    def __init__(self, tell: Callable[[Step], None]) -> None:
        self._tell = tell
        self._since = time.monotonic()
        self.steps: list[Step] = []

    def __call__(self, what: str, result: str) -> None:
        now = time.monotonic()
        step = Step(what, now - self._since, result)
        self._since = now
        self.steps.append(step)
        self._tell(step)


async def drill(
    source: str, directory: Path, cluster: Cluster, rebuild: Rebuild, tell: Callable[[Step], None]
) -> list[Step]:
    """Do all of it in a directory that is there and empty; the present log is only read.

    The checkpoints of the drill are signed with a key of its own: nothing of the real signer is touched. Raises
    `DrillFailed`, or `Unverifiable` for a log with nothing in it.
    """
    report = _Report(tell)
    data, base, export = directory / "cluster", directory / "base", directory / "export"
    key = SigningKey.generate(ORIGIN, "ed25519")
    async with connected(source) as present:
        size = await read_size(present)
        if size < 2:
            raise Unverifiable("There is next to nothing in the log: a drill would show nothing.")
        half = size * 2 // 3
        async with cluster(data) as dsn:
            await create_schema(dsn)
            await _copy(present, dsn, 0, half)
        report("copy the first part of the log", f"{half} entries")
        shutil.copytree(data, base)
        _keep_owner(data, base)
        report("dump it: a copy of the files", str(base.name))
        async with cluster(data) as dsn:
            trust = await _finish(present, dsn, half, size, key)
            state = await _as_sealed(rebuild, dsn)
            async with connected(dsn) as connection:
                await export_log(connection, export, "tiles", trust)
        report("copy the rest, sign and export all of it", f"{size} entries; {state}")
    shutil.rmtree(data)
    base.rename(data)
    report("destroy the cluster, restore the dump", "restored")
    root = trust.open(trust.newest or b"").root
    async with cluster(data) as dsn:
        await _is_noticed(dsn, trust, half, size)
        report("notice that an older copy was restored", "noticed")
        async with connected(dsn) as connection:
            await recover(connection, open_exported(export, trust), trust)
            whole = await verify_log(connection, trust)
        if (whole.entries, whole.root) != (size, root):
            raise DrillFailed(f"{whole.entries} entries with the root {whole.root.hex()} came out of it.")
        report("recover the tail from the export", f"{size - half} entries; the same root, {root.hex()}")
        again = await _as_sealed(rebuild, dsn)
        if again != state:
            raise DrillFailed(f"The state was another before: {_told(state, again)}.")
        report("rebuild the state", f"the same: {again}")
    return report.steps


async def _copy(present: AsyncConnection, dsn: str, first: int, last: int) -> list[bytes]:
    """Append entries of one log to another, byte by byte; return their hashes."""
    done: list[bytes] = []
    async with connected(dsn) as connection:
        for after in range(first, last, PAGE):
            page = await read_page(present, after, min(after + PAGE, last))
            entries = page.entries
            hashes = hashes_of(entries)
            if len(hashes) != page.until - after:
                raise DrillFailed("The present log is not gapless: sophon audit verify says where.")
            for start in range(0, len(hashes), BATCH):
                lines = b"\n".join(entries[start : start + BATCH]).decode()
                await connection.execute(
                    "SELECT audit.append(%s, %s, %s, NULL)",
                    (after + start, lines, b"".join(hashes[start : start + BATCH])),
                )
            done += hashes
    return done


async def _finish(present: AsyncConnection, dsn: str, half: int, size: int, key: SigningKey) -> Trust:
    """Copy the rest, and sign all of it with the drill's own key."""
    await _copy(present, dsn, half, size)
    tiling = Tiling()
    async with connected(dsn) as connection:
        for after in range(0, size, PAGE):
            page = await read_page(connection, after, min(after + PAGE, size))
            await keep_tiles(connection, tiling.extend(hashes_of(page.entries)))
        root = tiling.root()
        note = sign_note(Checkpoint(ORIGIN, size, root).text(), [key])
        await publish(connection, size, root, note)
    return Trust(ORIGIN, (Term(key.verifier),), note)


async def _is_noticed(dsn: str, trust: Trust, half: int, size: int) -> None:
    try:
        async with connected(dsn) as connection:
            await verify_log(connection, trust)
    except Tampered as error:
        if error.finding.kind == "truncated" and (error.finding.first, error.finding.last) == (half + 1, size):
            return
        raise DrillFailed(f"Something else was found: {error}") from error
    raise DrillFailed("An older copy was restored, and nobody noticed.")


async def _as_sealed(rebuild: Rebuild, dsn: str) -> State:
    state = await rebuild(dsn)
    if state.broken:
        raise DrillFailed(f"The state is not the one that was sealed: {'; '.join(state.broken)}.")
    return state


def _told(state: State, again: State) -> str:
    """Tell what is different, by whole digests."""
    before, after = ({one.table: f"{one.rows} rows {one.digest}" for one in each.tables} for each in (state, again))
    different = [name for name in before | after if before.get(name) != after.get(name)]
    told = [f"{name}: {before.get(name, 'none')}, now {after.get(name, 'none')}" for name in different]
    return "; ".join(told) or f"it met {state.met} sealed digests, now {again.met}"


def _keep_owner(original: Path, copy: Path) -> None:
    """Give the copied files to whom the originals belong: PostgreSQL runs as a user of its own where we are root."""
    for path in (original, *original.rglob("*")):
        owner = path.lstat()
        shutil.chown(copy / path.relative_to(original), owner.st_uid, owner.st_gid)
