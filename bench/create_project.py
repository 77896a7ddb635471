"""`POST /api/projects` beside one append that waits for the disk: what HTTP and reading one's own write add.

The whole way of a request to the API's socket: token, decision, append, read models caught up, the project read back.
The peer is `Log.append` of one event, one at a time, on a server of its own.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from statistics import quantiles

from app.audit.log import Log
from bench.appends import append
from bench.installation import Client, Installation, installation
from bench.loop import event_loop
from bench.measure import Comparison, Effort, Target, alternate
from bench.server import SEALER, server

GROUP = "space-lab"
_numbers = itertools.count()


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare the median and the 99th percentile with 1 and 16 clients."""
    with installation(SOPHON_RUNTIME="process") as running, server() as postgres, event_loop() as loop:
        running.client().do("POST", "/api/groups", {"slug": GROUP, "title": "Space lab"})
        opened = Log.open(postgres.database(), SEALER)
        log = loop.run(opened.__aenter__())
        try:
            for clients, percentile, target in (
                (1, 50, Target(10.0, at_most=True)),
                (1, 99, None),
                (16, 50, None),
                (16, 99, None),
            ):
                ours, theirs = alternate(
                    effort.rounds,
                    lambda: _percentile(_post(running, clients, effort.seconds), percentile),  # noqa: B023
                    lambda: _percentile(loop.run(_appends(log, effort.seconds)), 50),
                )
                yield Comparison(
                    what=f"POST /api/projects, {clients} client{'s' * (clients > 1)}, p{percentile}",
                    unit="ms",
                    peer="p50 of one durable append",
                    ours=ours,
                    theirs=theirs,
                    target=target,
                )
        finally:
            loop.run(opened.__aexit__(None, None, None))


def _post(running: Installation, clients: int, seconds: float) -> list[float]:
    """Create projects from several clients at once; return what each took, in milliseconds."""
    connections = [running.client() for _ in range(clients)]
    took: list[float] = []
    until = time.perf_counter() + seconds

    def post(client: Client) -> None:
        while time.perf_counter() < until:
            slug = f"project-{next(_numbers)}"
            took.append(_time(lambda: client.do("POST", "/api/projects", _project(slug))))  # noqa: B023

    threads = [threading.Thread(target=post, args=(client,)) for client in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in connections:
        client.close()
    return took


def _project(slug: str) -> dict[str, str]:
    return {"slug": slug, "group": GROUP, "title": "Apollo"}


async def _appends(log: Log, seconds: float) -> list[float]:
    took: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin = time.perf_counter()
        await append(log)
        took.append((time.perf_counter() - begin) * 1_000)
    return took


def _time(do: Callable[[], object]) -> float:
    begin = time.perf_counter()
    do()
    return (time.perf_counter() - begin) * 1_000


def _percentile(values: list[float], percentile: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percentile - 1]
