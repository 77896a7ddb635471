"""What goes over a whole log: two logs for it, and its memory at the one beside that at the other."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path

from msgspec import Struct

from bench.loop import event_loop
from bench.measure import Comparison, Effort, Target
from bench.peak import peak_memory
from bench.server import server
from bench.signed import log_of

ENTRIES = 1_000_000


class Logs(Struct, frozen=True):
    """Two signed logs, one of `size` entries and one of a tenth of them, and a directory to work in."""

    size: int
    directory: Path
    loop: asyncio.Runner
    databases: dict[int, str]

    @property
    def dsn(self) -> str:
        """Where the larger one is."""
        return self.databases[self.size]

    @property
    def keys(self) -> Path:
        """The directory of its signer."""
        return self.directory / str(self.size)

    def memory(self, what: str, module: str) -> Comparison:
        """Compare the most memory that a process has which does it; the module has to call `tell_peak`."""
        ours, theirs = (
            subprocess.run(
                [sys.executable, "-m", module, self.databases[size], str(self.directory / str(size))],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for size in (self.size, self.size // 10)
        )
        return Comparison(
            what=f"memory of {what} at {self.size:,} entries",
            unit="MiB",
            peer="the same at a tenth of them",
            ours=[float(ours)],
            theirs=[float(theirs)],
            target=Target(1.1, at_most=True),
        )


@contextlib.contextmanager
def logs(effort: Effort) -> Generator[Logs]:
    """Start a server, and fill two databases."""
    with server() as postgres, event_loop() as loop, tempfile.TemporaryDirectory(prefix="bench-") as made:
        size = round(ENTRIES * effort.share)
        found = Logs(size, Path(made), loop, {count: postgres.database() for count in (size // 10, size)})
        for count, dsn in found.databases.items():
            loop.run(log_of(dsn, found.directory / str(count), count))
        yield found


def tell_peak(work: Callable[[str, Path], Coroutine[None, None, object]]) -> None:
    """Do it with what the command line names; write the most memory that it had, in MiB."""
    asyncio.run(work(sys.argv[1], Path(sys.argv[2])))
    sys.stdout.write(str(peak_memory()))
