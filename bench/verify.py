"""`audit verify` of a whole log beside `sha256sum` of the same bytes, and beside Go's packages over the same entries.

Ours reads a database, and compares the columns by which it is searched too. Go's reads an export, and computes the root
of its entries: it looks at nothing else, so that neither an entry is proven by itself nor a tile compared.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.audit.evidence.export import export_log
from app.audit.evidence.verify import connected, verify_log
from bench.measure import Comparison, Effort, Missing, Target, alternate
from bench.signed import trust_in
from bench.whole import Logs, logs, tell_peak
from tests.foreign.golang import NoGo, build


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare times with both, and the memory."""
    with logs(effort) as made:
        octets = made.directory / "octets"
        with octets.open("wb") as file:
            made.loop.run(_dump(made.dsn, file))
        ours, theirs = alternate(effort.rounds, lambda: _ours(made), lambda: _seconds("sha256sum", octets))
        yield Comparison(
            what=f"audit verify of {made.size:,} entries",
            unit="s",
            peer="sha256sum of the same bytes",
            ours=ours,
            theirs=theirs,
            target=Target(4.0, at_most=True),
        )
        yield made.memory("audit verify", "bench.verify")
        verifier, export = made.directory / "verifier", made.directory / "export"
        try:
            build(verifier)
        except NoGo as error:
            raise Missing(f"audit verify is not compared with Go's verifier. {error}") from error
        made.loop.run(_export(made, export))
        ours, theirs = alternate(effort.rounds, lambda: _ours(made), lambda: _seconds(verifier, "-head", export))
        yield Comparison(
            what=f"audit verify of {made.size:,} entries",
            unit="s",
            peer="Go's sumdb/tlog: their root, and its note",
            ours=ours,
            theirs=theirs,
            target=Target(1.2, at_most=True),
        )


def _ours(made: Logs) -> float:
    return made.loop.run(_verify(made.dsn, made.keys))


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


async def _export(made: Logs, to: Path) -> None:
    async with connected(made.dsn) as connection:
        await export_log(connection, to, "tiles", trust_in(made.keys))


def _seconds(*command: str | Path) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


if __name__ == "__main__":
    tell_peak(_verify)
