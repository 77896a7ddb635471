"""A full rebuild of every read model from a million entries, beside one `COPY` of the same entries into a bare table.

The rebuild is what `sophon state rebuild` does, in a process of its own: fold, seal, compare with what is live, swap.
The table that is copied into has one column and no index: less cannot be done with a million entries. The most memory
that the process had is told at a tenth of the entries and at all of them; it has to be the same.
"""

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg

from app.audit.entry import Draft
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.projections.rebuild import rebuild
from bench.loop import event_loop
from bench.measure import Comparison, Effort, Target, alternate
from bench.mix import drafts
from bench.peak import peak_memory
from bench.server import SEALER, server

ENTRIES = 1_000_000
AT_ONCE = 100
SAME = 1.1
"""Memory at ten times the entries, beside memory before: at most a tenth more."""


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare the rates, and the memory at two sizes."""
    with server() as postgres:
        dsn, entries = postgres.database(), round(ENTRIES * effort.share)
        made = drafts()
        _fill(dsn, made, entries // 10)
        _rebuild(dsn)
        small = [_rebuild(dsn)[1] for _ in range(effort.rounds)]
        _fill(dsn, made, entries - entries // 10)
        large: list[float] = []

        def ours() -> float:
            rate, memory = _rebuild(dsn)
            large.append(memory)
            return rate

        rates, copied = alternate(effort.rounds, ours, lambda: _copy(dsn))
    yield Comparison(
        what=f"full rebuild of {entries:,} entries",
        unit="1/s",
        peer="one COPY of the same entries into an unindexed table",
        ours=rates,
        theirs=copied,
    )
    yield Comparison(
        what=f"full rebuild of {entries:,} entries",
        unit="1/s",
        peer="20,000 entries a second (a stated constant)",
        ours=rates,
        theirs=[20_000.0] * len(rates),
        target=Target(1.0),
    )
    yield Comparison(
        what=f"memory of a rebuild of {entries:,} entries",
        unit="MiB",
        peer="the same of a tenth of them",
        ours=large[-effort.rounds :],
        theirs=small,
        target=Target(SAME, at_most=True),
    )


def _fill(dsn: str, made: Iterator[Draft], entries: int) -> None:
    with event_loop() as loop:
        loop.run(append_all(dsn, SEALER, itertools.islice(made, entries)))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) audit.entries")


async def append_all(dsn: str, sealer: Sealer, wanted: Iterator[Draft]) -> None:
    """Append, a hundred at once."""
    async with Log.open(dsn, sealer) as log:
        while batches := [batch for _ in range(8) if (batch := list(itertools.islice(wanted, AT_ONCE)))]:
            await asyncio.gather(*(log.append(batch) for batch in batches))


def _rebuild(dsn: str) -> tuple[float, float]:
    """Rebuild in another process; give entries a second, and the most MiB that it had."""
    done = subprocess.run((sys.executable, "-m", "bench.rebuild", dsn), check=True, capture_output=True, text=True)
    rate, memory = done.stdout.split()
    return float(rate), float(memory)


def _copy(dsn: str) -> float:
    """Copy the entries' text, as it comes from the server, into a table without an index; give entries a second."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS bare")
        connection.execute("CREATE TABLE bare (bytes text)")
        with connection.cursor().copy(
            "COPY (SELECT bytes::text FROM audit.entries ORDER BY position) TO STDOUT"
        ) as out:
            blocks = [bytes(block) for block in out]
        begin = time.perf_counter()
        with connection.cursor() as cursor:
            with cursor.copy("COPY bare FROM STDIN") as copy:
                for block in blocks:
                    copy.write(block)
            return cursor.rowcount / (time.perf_counter() - begin)


async def _once(dsn: str) -> None:
    async with Log.open(dsn, SEALER) as log:
        begin = time.perf_counter()
        done = await rebuild(log, keep_old=False)
        rate = done.entries / (time.perf_counter() - begin)
    print(rate, peak_memory())


if __name__ == "__main__":
    with event_loop() as runner:
        runner.run(_once(sys.argv[1]))
