"""`audit verify` of a whole log beside `sha256sum` of the same bytes, and the memory that it takes at two sizes."""

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.audit.evidence.verify import connected, verify_log
from bench.loop import event_loop
from bench.measure import Comparison, Effort, Target, alternate
from bench.server import server
from bench.signed import log_of, trust_in

ENTRIES = 1_000_000


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare times; then the peak memory of a process that verifies all, with one that verifies a tenth."""
    with server() as postgres, event_loop() as loop, tempfile.TemporaryDirectory(prefix="bench-") as made:
        directory = Path(made)
        size = round(ENTRIES * effort.share)
        logs = {count: postgres.database() for count in (size // 10, size)}
        for count, dsn in logs.items():
            loop.run(log_of(dsn, directory / str(count), count))
        octets = directory / "octets"
        with octets.open("wb") as file:
            loop.run(_dump(logs[size], file))
        ours, theirs = alternate(
            effort.rounds,
            lambda: loop.run(_verify(logs[size], directory / str(size))),
            lambda: _sha256sum(octets),
        )
        yield Comparison(
            what=f"audit verify of {size:,} entries",
            unit="s",
            peer="sha256sum of the same bytes",
            ours=ours,
            theirs=theirs,
            target=Target(4.0, at_most=True),
        )
        yield Comparison(
            what=f"memory of audit verify at {size:,} entries",
            unit="MiB",
            peer="the same at a tenth of them",
            ours=[peak(logs[size], directory / str(size))],
            theirs=[peak(logs[size // 10], directory / str(size // 10))],
            target=Target(1.1, at_most=True),
        )


async def _verify(dsn: str, keys: Path) -> float:
    begin = time.perf_counter()
    async with connected(dsn) as connection:
        await verify_log(connection, trust_in(keys))
    return time.perf_counter() - begin


async def _dump(dsn: str, file: BinaryIO) -> None:
    async with connected(dsn) as connection:
        text = b"COPY (SELECT bytes FROM audit.entries ORDER BY position) TO STDOUT"
        async with connection.cursor().copy(text) as copy:
            async for block in copy:
                file.write(block)


def _sha256sum(path: Path) -> float:
    begin = time.perf_counter()
    subprocess.run(["sha256sum", str(path)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def peak(dsn: str, keys: Path, module: str = "bench.verify") -> float:
    """Do it in a process of its own; give the most memory that it had, in MiB."""
    done = subprocess.run([sys.executable, "-m", module, dsn, str(keys)], check=True, capture_output=True, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    asyncio.run(_verify(sys.argv[1], Path(sys.argv[2])))
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
