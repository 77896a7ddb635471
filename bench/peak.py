"""The most memory that a process had, of its own.

Not `ru_maxrss`: that of a new process begins with what its parent had when it started it.
"""

import re
from pathlib import Path


def peak_memory() -> float:
    """Give the most resident memory, in MiB, that this process had since its program began."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
