"""A thousand appends at once, of one to three entries each, and what must be true of them whatever broke meanwhile."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence

from app.audit import writer
from app.audit.entry import Record
from app.audit.log import Log
from tests.audit.drafts import draft
from tests.database import SEALER, end

APPENDS = 1_000

Acknowledge = Callable[[int, int], None]
"""(number of the append, position of its last entry)"""


async def append_all(log: Log, acknowledge: Acknowledge) -> None:
    """Append all at once; say of each when it was answered."""

    async def append(number: int) -> None:
        size = 1 + number % 3
        position = await log.append([draft("A", [f"append:{number}", f"part:{n}"]) for n in range(size)])
        acknowledge(number, position)

    await asyncio.gather(*(append(number) for number in range(APPENDS)))


def check(records: Sequence[Record], acknowledged: dict[int, int]) -> None:
    """Fail unless all that was acknowledged is there, where it was said to be, and each is whole and there once."""
    assert [record.position for record in records] == list(range(1, len(records) + 1))
    tags = [record.entry.tags for record in records]
    ends = {int(whole.split(":")[1]): at for at, (whole, _) in enumerate(tags, 1)}
    expected = [(f"append:{number}", f"part:{n}") for number in ends for n in range(1 + number % 3)]
    assert tags == expected
    assert acknowledged == {number: ends.get(number) for number in acknowledged}


@contextlib.asynccontextmanager
async def following(log: Log) -> AsyncGenerator[list[int]]:
    """Follow the log while something happens; what was seen has come once, in order, and to the end."""
    seen: list[int] = []

    async def follow() -> None:
        async for records in log.follow():
            seen.extend(record.position for record in records)

    task = asyncio.create_task(follow())
    try:
        yield seen
        async with asyncio.timeout(10):
            while len(seen) < log.head:
                await asyncio.sleep(0.01)
        assert seen == list(range(1, log.head + 1))
    finally:
        await end(task)


async def _append_until_killed(dsn: str) -> None:
    writer.BATCH = 16
    async with Log.open(dsn, SEALER) as log:
        await append_all(log, lambda number, position: _say(f"{number} {position}\n"))
    _say("done\n")


def _say(line: str) -> None:
    os.write(sys.stdout.fileno(), line.encode())


if __name__ == "__main__":
    asyncio.run(_append_until_killed(sys.argv[1]))
