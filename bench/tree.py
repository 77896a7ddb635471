"""Appends while the signer keeps the tree beside the same without it: what proof costs those who write."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.audit.signing import signer as signer_module
from app.audit.signing.signer import Signer
from app.audit.signing.store import Store
from app.tasks import end
from bench.appends import append
from bench.loop import event_loop, rate_of_tasks
from bench.measure import Comparison, Effort, Target, alternate
from bench.server import Server, server

CALLERS = 32


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare on one server, on a log each."""
    with server() as postgres, tempfile.TemporaryDirectory(prefix="bench-") as place:
        ours, theirs = _compare(postgres, Path(place), effort)
        yield Comparison(
            what=f"appends with the tree kept and signed, {CALLERS} callers",
            unit="1/s",
            peer="the same without the signer",
            ours=ours,
            theirs=theirs,
            target=Target(0.9),
        )


def _compare(postgres: Server, place: Path, effort: Effort) -> tuple[list[float], list[float]]:
    with event_loop() as loop:
        sealer = Sealer(bytes(32))
        with_tree, without = (Log.open(postgres.database(), sealer) for _ in range(2))
        signed, plain = loop.run(with_tree.__aenter__()), loop.run(without.__aenter__())
        try:
            return alternate(
                effort.rounds,
                lambda: loop.run(_rate_while_signed(signed, place, effort.seconds)),
                lambda: loop.run(rate_of_tasks(CALLERS, effort.seconds, lambda: append(plain))),
            )
        finally:
            loop.run(with_tree.__aexit__(None, None, None))
            loop.run(without.__aexit__(None, None, None))


async def _rate_while_signed(log: Log, place: Path, seconds: float) -> float:
    """Append while a signer does what it does in production: a checkpoint each second, durable."""
    signer = Signer(log, Store(place / "signer"), "bench.example/log")
    task = asyncio.create_task(signer.run())
    try:
        while log.head and signer.size < log.head:  # what the round before left belongs to that
            signer.hurry()
            await asyncio.sleep(signer_module.LOOK)
        rate = await rate_of_tasks(CALLERS, seconds, lambda: append(log))
        if signer.refusal:
            raise RuntimeError(signer.refusal)
        return rate
    finally:
        await end([task])
