"""`audit export` of a whole log as tiles beside `dd` of the same bytes, and its memory at two sizes.

Both end with the bytes on the disk: dd by its conv=fsync, the export by a sync of the file system.
"""

import asyncio
import os
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
    await asyncio.to_thread(_put_away, to)
    begin = time.perf_counter()
    async with connected(dsn) as connection:
        await export_log(connection, to, "tiles", trust_in(keys))
    return time.perf_counter() - begin


def _put_away(directory: Path) -> None:
    """Empty the files of the round before, and leave them where they are until all rounds are over.

    An ext4 that has no journal gives a freed inode to nobody for minutes, and looks at each of them before it gives out
    another: after an export was removed, the 8,000 files of the next cost seconds, which nobody else pays.
    """
    if directory.exists():
        for path in directory.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)
        directory.rename(directory.with_name(f"{directory.name}-{time.monotonic_ns()}"))


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
