"""Rebuilds in a process of its own, slowly, so that it can be killed: `python -m tests.projections.rebuilding DSN`."""

import asyncio
import sys
import time

from app.audit.log import Log
from app.projections import replay
from app.projections.rebuild import rebuild
from tests.database import SEALER


async def main(dsn: str) -> None:
    replay.PAGE = 10

    def tell(position: int, head: int) -> None:
        print("at", position, flush=True)
        time.sleep(0.1)

    async with Log.open(dsn, SEALER) as log:
        done = await rebuild(log, tell)
    print("done", done.began_at, done.position, done.differences, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
