"""`audit export` of a whole log as tiles beside `dd` of the same bytes, and its memory at two sizes."""

import asyncio
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app.audit.evidence.export import export_log
from app.audit.evidence.verify import connected
from bench.loop import event_loop
from bench.measure import Comparison, Effort, Target, alternate
from bench.server import server
from bench.signed import log_of, trust_in
from bench.verify import ENTRIES, peak


def measure(effort: Effort) -> Iterator[Comparison]:
    """Both end with the bytes on the disk."""
    with server() as postgres, event_loop() as loop, tempfile.TemporaryDirectory(prefix="bench-") as made:
        directory = Path(made)
        size = round(ENTRIES * effort.share)
        logs = {count: postgres.database() for count in (size // 10, size)}
        for count, dsn in logs.items():
            loop.run(log_of(dsn, directory / str(count), count))
        loop.run(export(logs[size], directory / str(size), directory / "once"))
        octets = directory / "octets"
        with octets.open("wb") as file:
            for path in (directory / "once" / "tile").rglob("*"):
                if path.is_file():
                    file.write(path.read_bytes())
        ours, theirs = alternate(
            effort.rounds,
            lambda: loop.run(export(logs[size], directory / str(size), directory / "export")),
            lambda: _dd(octets, directory / "copy"),
        )
        yield Comparison(
            what=f"export of {size:,} entries as tiles",
            unit="s",
            peer="dd of the same bytes, both on the disk",
            ours=ours,
            theirs=theirs,
            target=Target(5.0, at_most=True),
        )
        yield Comparison(
            what=f"memory of audit export at {size:,} entries",
            unit="MiB",
            peer="the same at a tenth of them",
            ours=[peak(logs[size], directory / str(size), "bench.export")],
            theirs=[peak(logs[size // 10], directory / str(size // 10), "bench.export")],
            target=Target(1.1, at_most=True),
        )


async def export(dsn: str, keys: Path, to: Path) -> float:
    """Export into a new directory; return seconds."""
    await asyncio.to_thread(shutil.rmtree, to, True)
    begin = time.perf_counter()
    async with connected(dsn) as connection:
        await export_log(connection, to, "tiles", trust_in(keys))
    return time.perf_counter() - begin


def _dd(source: Path, to: Path) -> float:
    to.unlink(missing_ok=True)
    begin = time.perf_counter()
    subprocess.run(["dd", f"if={source}", f"of={to}", "bs=1M", "conv=fsync", "status=none"], check=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        asyncio.run(export(sys.argv[1], Path(sys.argv[2]), Path(made) / "export"))
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
