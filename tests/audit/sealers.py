"""A process that appends what is sealed until it is killed, and says what was answered."""

import asyncio
import os
import sys

from app.audit import writer
from app.audit.entry import Actor, Context
from app.audit.log import Log
from app.domain.projects import ProjectCreated
from tests.database import SEALER
from tests.domain.cast import LAB, an_id


async def append_until_killed(dsn: str) -> None:
    """Append projects, each with a title and from an address of its own."""
    writer.BATCH = 8
    async with Log.open(dsn, SEALER) as log:

        async def append(number: int) -> None:
            context = Context(actor=Actor(kind="user", id=an_id("usr", number % 7)), source=f"192.0.2.{number % 250}")
            event = ProjectCreated(project=f"project-{number}", group=LAB, title=f"T{number}", visibility="private")
            os.write(sys.stdout.fileno(), f"{await log.append([context.draft(event)])}\n".encode())

        await asyncio.gather(*(append(number) for number in range(3_000)))


if __name__ == "__main__":
    asyncio.run(append_until_killed(sys.argv[1]))
