"""What an idle installation keeps in memory, of its own: our process and Caddy, without Postgres and the notebooks.

Beside JupyterHub 6 with its proxy on the same distribution: 127 MiB and 58 MiB, measured once and stated here. What is
counted is resident memory, in which pages that are shared count in full: the larger of the figures that there are.
"""

import time
from collections.abc import Iterator
from itertools import pairwise

import psutil

from bench.installation import Installation, installation
from bench.measure import Comparison, Effort, Target

JUPYTERHUB = 127.0 + 58.0
IDLE = 10.0


def measure(effort: Effort) -> Iterator[Comparison]:
    """Let it idle, then look once a second."""
    with installation(SOPHON_RUNTIME="process") as running:
        time.sleep(IDLE)
        seen = [_mebibytes(running)]
        for _ in pairwise(range(effort.rounds)):
            time.sleep(1)
            seen.append(_mebibytes(running))
    yield Comparison(
        what="idle memory, our process and Caddy",
        unit="MiB",
        peer="JupyterHub 6 and its proxy (a stated constant)",
        ours=seen,
        theirs=[JUPYTERHUB] * len(seen),
        target=Target(1.0, at_most=True),
    )


def _mebibytes(running: Installation) -> float:
    ours = psutil.Process(running.process.pid)
    parts = [ours, *(child for child in ours.children(recursive=True) if "postgres" not in child.name())]
    return sum(part.memory_info().rss for part in parts) / 2**20
