"""`sophon up` and `sophon image`: the installation itself."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine
from typing import Any

from rich.panel import Panel

from app.cli.groups import main
from app.cli.work import console, run
from app.runtime.containers import connect
from app.runtime.images import ensure_image
from app.settings import Settings
from app.up import Running, running


@main.command()
def up() -> None:
    """Start everything, until Ctrl-C.

    Ctrl-C stops the notebooks too; SIGTERM leaves them running, to be taken over by the next start.
    """
    run(_up, failure=1)


@main.command()
def image() -> None:
    """Build the image that notebooks are containers of, if it is not there."""
    run(_image, failure=1)


async def _up(settings: Settings) -> None:
    began = time.monotonic()
    stop = asyncio.Event()
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: (interrupted.set(), stop.set()))
    with console.status("starting") as status:
        started = running(settings, lambda line: status.update(f"{line[:100]}"))
        told = await _or_stopped(started.__aenter__(), stop)
    if told is None:
        return
    try:
        _greet(told, time.monotonic() - began)
        died = asyncio.ensure_future(told.proxy_died())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({died, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if died.done() and not stop.is_set():
            raise died.result()
        died.cancel()
        if interrupted.is_set():
            with console.status("stopping the notebooks"):
                await told.stop_notebooks()
    finally:
        with console.status("stopping"):
            await started.__aexit__(None, None, None)
    console.print("Stopped; everything is kept.")


async def _or_stopped(work: Coroutine[Any, Any, Running], stop: asyncio.Event) -> Running | None:
    """Wait for the start, or, if somebody stops it first, undo what was done of it."""
    starting = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return None
    return starting.result()


def _greet(told: Running, seconds: float) -> None:
    lines = [
        f"Sophon       [link={told.address}]{told.address}[/]",
        f"API          {told.address}/schema",
        f"runtime      {told.runtime}" + ("" if told.runtime == "process" else f": {told.why}"),
        f"first user   {told.username}",
    ]
    if told.password:
        lines.append(f"password     [bold]{told.password}[/]   (shown this once)")
    console.print(
        Panel("\n".join(lines), title=f"started in {seconds:.1f} s", title_align="left", highlight=False),
        soft_wrap=False,
    )
    if told.runtime == "process":
        console.print(f"[bold red]NOT ISOLATED.[/] {told.why}", highlight=False)
    console.print("Ctrl-C stops everything.")


async def _image(_: Settings) -> None:
    async with connect() as docker:
        name = await ensure_image(docker, lambda line: console.print(line, highlight=False, markup=False))
    console.print(f"{name} is there.")
