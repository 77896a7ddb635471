"""How long the API's clients wait while the administrator rebuilds every read model, beside how long they do otherwise.

Four clients ask at fixed moments, as people do who do not know what the server is doing: an answer counts from when it
was due to be asked for. `sophon state rebuild` runs all the while, in a process of its own, again when it is done; what
it takes to start counts too, and so does the swap.
"""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from statistics import quantiles

import psycopg

from app.audit.sealing.sealer import Sealer
from app.installation import administered, keys_of
from app.settings import Settings
from bench.installation import Installation, installation
from bench.loop import event_loop
from bench.measure import Comparison, Effort, Target, alternate
from bench.mix import drafts
from bench.rebuild import append_all

ENTRIES = 200_000
CLIENTS, EACH = 4, 25
"""How many ask, and how often each does in a second."""
LONGER = 5
"""A round of this figure is so much longer than one of others: a rebuild is to be met in all that it does."""
ASKED = ("/api/projects", "/api/projects/project-1", "/api/notebooks/notebook-1-1", "/api/groups", "/api/notebooks")
"""What is read, in turn; then a group is made, which the answer waits to read."""

_numbers = itertools.count()


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare the 99th percentiles."""
    with installation(SOPHON_RUNTIME="process") as running:
        _fill(running, round(ENTRIES * effort.share))
        seconds = effort.seconds * LONGER
        ours, theirs = alternate(
            effort.rounds, lambda: _p99(_rebuilding(running, seconds)), lambda: _p99(_asking(running, seconds))
        )
    yield Comparison(
        what=f"p99 of the API while {round(ENTRIES * effort.share):,} entries are rebuilt from",
        unit="ms",
        peer="p99 of the API otherwise",
        ours=ours,
        theirs=theirs,
        target=Target(2.0, at_most=True),
    )


def _fill(running: Installation, entries: int) -> None:
    """Append to the installation's own log, and wait until the server has read all of it."""
    settings = Settings.read({"SOPHON_DATA": str(running.data)})

    async def fill() -> None:
        async with administered(settings, print) as dsn:
            await append_all(dsn, Sealer(keys_of(settings).vault_key()), itertools.islice(drafts(), entries))
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await connection.execute("VACUUM (ANALYZE) audit.entries")

    with event_loop() as loop:
        loop.run(fill())
    client = running.client()
    while client.ask("POST", "/api/groups", _group())[0] != 201:
        time.sleep(0.5)
    client.close()


def _rebuilding(running: Installation, seconds: float) -> list[float]:
    """Ask while one rebuild follows on another."""
    until = time.perf_counter() + seconds
    command = (sys.executable, "-m", "app", "state", "rebuild", "--drop-old")
    environment = {**os.environ, "SOPHON_DATA": str(running.data)}

    def rebuild() -> None:
        while time.perf_counter() < until:
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    rebuilding = threading.Thread(target=rebuild)
    rebuilding.start()
    took = _asking(running, seconds)
    rebuilding.join()
    return took


def _asking(running: Installation, seconds: float) -> list[float]:
    """Ask from every client; return what each answer took, in milliseconds."""
    took: list[float] = []
    begin = time.perf_counter()

    def ask(number: int) -> None:
        client, asked = running.client(), itertools.cycle((*ASKED, None))
        for due in itertools.count(begin + number / (CLIENTS * EACH), 1 / EACH):
            if due > begin + seconds:
                break
            time.sleep(max(0.0, due - time.perf_counter()))
            path = next(asked)
            if path is None:
                client.do("POST", "/api/groups", _group())
            else:
                client.do("GET", path)
            took.append((time.perf_counter() - due) * 1_000)
        client.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) >= CLIENTS * (EACH * seconds - 1), "a client failed"
    return took


def _group() -> dict[str, str]:
    return {"slug": f"made-{next(_numbers)}", "title": "Made"}


def _p99(took: list[float]) -> float:
    return quantiles(took, n=100, method="inclusive")[98]
