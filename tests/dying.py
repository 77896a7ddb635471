"""Work that is killed before a statement, or after some seconds: `python -m tests.dying DSN`.

Each kill is of a fork, which has nothing to import and lives for some milliseconds: so there can be one between any two
statements.
"""

import asyncio
import os
import signal
import sys
import time
import traceback
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from app.audit.entry import Context
from app.audit.log import CONNECTION, Log
from app.audit.sealing.sealer import Sealer
from app.dispatch import Dispatch
from app.domain.command import Caller
from app.domain.erasure import EraseSubject
from app.projections import replay
from app.projections.differences import find_differences
from app.projections.projector import Projector
from app.projections.rebuild import rebuild
from tests.domain.cast import GRACE, account, an_id
from tests.questions.platform import KEYS

ROOT = Path(__file__).parents[1]
SEALER = Sealer(KEYS.vault_key())
"""That of a `Town`, so that one can be open on the same database."""

NAME = "sophon dying"
"""How its connections are known in the database."""
ASIDE = ("listen", "announce", "pool-")
"""Tasks that go on beside what is to be killed, at times of their own: counted, they would hide others."""
PAGE = 100
"""Entries: so few are folded at a time here, that there are several pages of them."""


class Mortality:
    """Counts statements, and ends the process before one of them. Nothing of it is cleaned up, in no `finally`."""

    def __init__(self, number: int) -> None:
        self._fatal = number
        self.sent = 0
        self.begun = False

    def patch(self) -> None:
        """Have every statement that psycopg sends counted: its own BEGIN, COMMIT and SAVEPOINT too."""
        execute: Any = AsyncCursor.execute
        command: Any = AsyncConnection._exec_command  # pyright: ignore[reportPrivateUsage]

        async def executed(cursor: Any, *given: Any, **named: Any) -> Any:
            self._count()
            return await execute(cursor, *given, **named)

        def commanded(connection: Any, *given: Any, **named: Any) -> Any:
            self._count()
            return command(connection, *given, **named)

        AsyncCursor.execute = executed  # pyright: ignore[reportAttributeAccessIssue]
        AsyncConnection._exec_command = commanded  # pyright: ignore

    def _count(self) -> None:
        task = asyncio.current_task()
        if self.begun and task and not task.get_name().startswith(ASIDE):
            self.sent += 1
            if self.sent == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)


async def append(log: Log) -> None:
    """Append somebody's account, and take their name into the vault."""
    number = log.head + 1_000
    await log.append([Context(source="192.0.2.1").draft(account(an_id("usr", number), f"user {number}"))])


async def project(log: Log) -> None:
    """Apply what was not applied yet."""
    projector = Projector(log)
    task = asyncio.create_task(projector.run())
    assert await projector.reach(log.head), projector.failure
    task.cancel()


async def erase(log: Log) -> None:
    """Erase, as the second administrator, whom another one wants to be erased; and let the read models know."""
    command = EraseSubject(by=Caller(GRACE, administering=True), now=datetime.now(UTC), subject=await _wanted(log))
    await Dispatch(log)(command, Context())
    await project(log)


async def rebuild_all(log: Log) -> None:
    """Rebuild every read model."""
    await rebuild(log)


async def repair(log: Log) -> None:
    """Write anew the rows that are not what the log says."""
    await find_differences(log, repair=True)


async def _wanted(log: Log) -> str:
    page = await log.read()
    return next(record.event.about for record in page.records[::-1] if record.entry.type == "ApprovalRequested")  # pyright: ignore


SCENES: dict[str, Callable[[Log], Awaitable[None]]] = {
    "append": append,
    "project": project,
    "erase": erase,
    "rebuild": rebuild_all,
    "repair": repair,
}


async def live(dsn: str, scene: str, number: int) -> int:
    """Open the log, and do what the scene says; counted from there on. Give how many statements that took."""
    replay.PAGE = PAGE
    CONNECTION["application_name"] = NAME
    mortality = Mortality(number)
    mortality.patch()
    async with Log.open(dsn, SEALER) as log:
        mortality.begun = True
        await SCENES[scene](log)
        mortality.begun = False
    return mortality.sent


def beget(dsn: str, scene: str, number: int, seconds: float) -> str:
    """Do it in a fork, and kill that after some seconds, if there are any; tell how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"%d" % asyncio.run(live(dsn, scene, number)))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # it is a zombie at the least: nobody has waited for it
    _, status = os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as said:
        sent = said.read()
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    return f"done {sent}" if status == 0 else f"failed with {status}"


def main(dsn: str) -> None:
    """Do what standard input says, a line each; say on standard output how it ended."""
    for line in sys.stdin:
        scene, number, seconds = line.split()
        print(beget(dsn, scene, int(number), float(seconds)), flush=True)


class Dying:
    """The process that lets its children be killed."""

    def __init__(self, process: Process, dsn: str) -> None:
        self._process = process
        self.dsn = dsn
        self.sent = 0
        """How many statements it took the last time, if it came to its end."""

    async def dies(self, scene: str, number: int = 0, *, after: float = 0) -> bool:
        """Play a scene, and kill it before a statement, or after some seconds; false if it came to its end before.

        Nothing of it goes on.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{scene} {number} {after}\n".encode())
        told = (await asyncio.wait_for(self._process.stdout.readline(), 60)).decode().strip()
        how, _, rest = told.partition(" ")
        assert how in ("killed", "done"), f"{scene} {number}: {told}"
        await self._buried()
        self.sent = int(rest or 0)
        return how == "killed"

    async def _buried(self) -> None:
        """Wait until the database has noticed: until then a statement of the dead may go on."""
        query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
        async with await AsyncConnection.connect(self.dsn, autocommit=True) as connection, asyncio.timeout(20):
            while (await connection.execute(query, (NAME,))).rowcount:
                await asyncio.sleep(0.002)


@asynccontextmanager
async def dying(dsn: str) -> AsyncGenerator[Dying]:
    """Give a process whose children are killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.dying", dsn, cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    try:
        yield Dying(process, dsn)
    finally:
        process.kill()
        await process.wait()


if __name__ == "__main__":
    main(sys.argv[1])
