"""The event loop as the application runs it, and callers who do one thing after another until the time is up."""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable

import uvloop


def event_loop() -> asyncio.Runner:
    """Give a runner on uvloop: it keeps what was opened in it open from round to round."""
    gc.freeze()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def rate_of_tasks(callers: int, seconds: float, once: Callable[[], Awaitable[object]]) -> float:
    """Let tasks call again and again; return calls per second."""
    begin = time.perf_counter()

    async def call() -> int:
        done = 0
        while time.perf_counter() - begin < seconds:
            await once()
            done += 1
        return done

    done = sum(await asyncio.gather(*(call() for _ in range(callers))))
    return done / (time.perf_counter() - begin)


def rate_of_threads(callers: int, seconds: float, once: Callable[[], object]) -> float:
    """Let threads call again and again; return calls per second."""
    done: list[int] = []
    errors: list[BaseException] = []
    begin = time.perf_counter()

    def call() -> None:
        count = 0
        try:
            while time.perf_counter() - begin < seconds:
                once()
                count += 1
        except BaseException as error:
            errors.append(error)
        done.append(count)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(done) / (time.perf_counter() - begin)
