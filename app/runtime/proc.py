"""Processes of this machine, as /proc knows them: found again after our restart, and never mistaken for others."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

ENDED = (None, "Z", "X")
"""States of a process that has ended: it is gone, or nobody has asked yet how it ended."""


class Process(Struct, frozen=True):
    """A process that is not mistaken for a later one with the same number."""

    pid: int
    born: str  # the boot, and the clock tick after it

    @classmethod
    def numbered(cls, pid: int) -> "Process | None":
        """Give the process that has this number now."""
        return cls(pid, stat[1]) if (stat := _stat(pid)) else None

    @property
    def state(self) -> str | None:
        """Its state now: a letter of proc(5), or None if it is gone."""
        stat = _stat(self.pid)
        return stat[0] if stat and stat[1] == self.born else None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; what has ended hears nothing, and whoever has its number now neither."""
        with suppress(ProcessLookupError):
            if self.state not in ENDED:
                os.kill(self.pid, number)


def _stat(pid: int) -> tuple[str, str] | None:
    """Give a process's state, and when it was born (proc(5): fields 3 and 22, after a name that may hold anything)."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"
    return None


def marked(marks: frozenset[bytes]) -> list[Process]:
    """Give all processes that have one of the marks among their arguments or variables."""
    there = (Process.numbered(int(path.name)) for path in Path("/proc").glob("[0-9]*"))
    return [process for process in there if process and not marks.isdisjoint(_words(process.pid))]


def _words(pid: int) -> Iterator[bytes]:
    for kind in ("cmdline", "environ"):
        with suppress(OSError):  # it has ended, or it is another user's
            yield from Path(f"/proc/{pid}/{kind}").read_bytes().split(b"\0")
