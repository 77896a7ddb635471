"""`audit export` of a whole log as tiles beside `dd` of the same bytes, and its memory at two sizes.

Both end with the bytes on the disk: dd by its conv=fsync, the export by a sync of the file system.
"""

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app.audit.evidence.export import export_log
from app.audit.evidence.verify import connected
from bench.measure import Comparison, Effort, Target, alternate
from bench.signed import trust_in
from bench.whole import logs, tell_peak


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare times, and the memory."""
    with logs(effort) as made:
        once, octets = made.directory / "once", made.directory / "octets"
        made.loop.run(export(made.dsn, made.keys, once))
        with octets.open("wb") as file:
            for path in (once / "tile").rglob("*"):
                if path.is_file():
                    file.write(path.read_bytes())
        ours, theirs = alternate(
            effort.rounds,
            lambda: made.loop.run(export(made.dsn, made.keys, made.directory / "export")),
            lambda: _dd(octets, made.directory / "copy"),
        )
        yield Comparison(
            what=f"export of {made.size:,} entries as tiles",
            unit="s",
            peer="dd of the same bytes, both on the disk",
            ours=ours,
            theirs=theirs,
            target=Target(5.0, at_most=True),
        )
        yield made.memory("audit export", "bench.export")


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


async def _once(dsn: str, keys: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        await export(dsn, keys, Path(made) / "export")


if __name__ == "__main__":
    tell_peak(_once)
