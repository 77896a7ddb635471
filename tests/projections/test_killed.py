"""A rebuild, or a repair, that is killed anywhere: nothing that is read is another, and none of it stays unrecorded."""

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from app.audit.database.provision import application, prepare
from app.audit.log import Log
from app.domain.event import Event
from app.domain.model import events
from app.domain.states import StateRebuilt, StateRepaired
from app.projections.groups import Groups
from app.projections.rebuild import rebuild
from tests.domain.cast import LAB, plots
from tests.dying import SEALER, Dying, dying
from tests.projections.test_read_models import happen, projecting
from tests.questions.platform import KEYS, Person, Town, lab

READ = ("/api/users", "/api/groups/lab", "/api/projects", "/api/projects/apollo", "/api/notebooks?limit=5")


class Served:
    """A platform that serves while rebuilds of it are killed: what it answers, and what its log says of them."""

    def __init__(self, town: Town, readers: list[Person]) -> None:
        self._town = town
        self._readers = readers
        self.dsn = town.platform.log._dsn  # pyright: ignore[reportPrivateUsage]
        self.swaps = 0

    async def answers(self) -> list[tuple[int, bytes]]:
        """Read everything, through everybody's eyes."""
        found = [await who.ask("GET", path) for who in self._readers for path in READ]
        return [(answer.status_code, answer.content) for answer in found]

    def live(self) -> int:
        """Tell the live generations apart."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute("SELECT 'read'::regnamespace::oid::int").fetchone()
        assert row is not None
        return row[0]

    async def must_go_on(self) -> None:
        """Have the next rebuild come to its end; every one that went live is recorded then, and once."""
        rebuilt = await rebuild(self._town.platform.log)
        assert rebuilt.differences == 0
        self.swaps += 1
        recorded = await self._town.platform.log.read((events(StateRebuilt),))
        assert len(recorded.records) == self.swaps


@pytest.fixture
async def own(dsn: str) -> str:
    """A database with the rights that the application has in earnest."""
    await prepare(dsn)
    return await application(dsn, KEYS)


@pytest.fixture
async def served(own: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with Town.open(own, tmp_path) as town:
        ada, bob = await lab(town)
        for number in range(6):
            page = {"slug": f"n-{number}", "project": "apollo", "title": f"No. {number}"}
            await ada.do("POST", "/api/notebooks", page)
        yield Served(town, [town.admin, bob, town.guest])


@pytest.fixture
async def mortal(own: str) -> AsyncIterator[Dying]:
    async with dying(own) as mortal:
        yield mortal


async def test_a_rebuild_that_is_killed_before_any_of_its_statements(served: Served, mortal: Dying) -> None:
    before, killed = await served.answers(), 0
    assert b"Apollo" in before[3][1]
    while True:
        live = served.live()
        if not await mortal.dies("rebuild", killed + 1):
            break
        killed += 1
        served.swaps += served.live() != live
        assert await served.answers() == before
        await served.must_go_on()
    assert killed > 60, "it is not killed where it should be"


async def test_a_rebuild_that_is_killed_at_random(served: Served, mortal: Dying) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, before = random.Random(seed), await served.answers()
    assert not await mortal.dies("rebuild")  # it has to import everything: the next one tells how long it takes
    began = time.monotonic()
    assert not await mortal.dies("rebuild")
    takes = time.monotonic() - began
    served.swaps += 2
    for _ in range(10):
        live = served.live()
        await mortal.dies("rebuild", after=chance.uniform(0, takes))
        served.swaps += served.live() != live
        assert await served.answers() == before
        await served.must_go_on()


@pytest.mark.parametrize(("scene", "event"), [("rebuild", StateRebuilt), ("repair", StateRepaired)])
async def test_what_was_done_by_one_who_was_killed_before_it_was_recorded_is_recorded_at_the_next_start(
    scene: str, event: type[StateRebuilt | StateRepaired], own: str, mortal: Dying
) -> None:
    async with Log.open(own, SEALER) as log:
        await happen(log, *plots)
        await start(log)
        await damage(log)
        assert not await mortal.dies(scene)
        done, silent = 1, 0
        for number in range(mortal.sent - 12, mortal.sent + 1):
            await start(log)
            await damage(log)
            await mortal.dies(scene, number)
            done += not await is_damaged(log)
            recorded = await count(log, event)
            await start(log)
            assert await count(log, event) == done
            silent += recorded < done
    assert silent, "it is not killed where it should be"


async def start(log: Log) -> None:
    async with projecting(log) as projector:
        assert await projector.reach(log.head), projector.failure


async def damage(log: Log) -> None:
    async with log.pool.connection() as connection:
        await connection.execute("UPDATE read.groups SET title = 'Another'")


async def is_damaged(log: Log) -> bool:
    group = await Groups(log.pool).row_of(LAB)
    return group is not None and group.title == "Another"


async def count(log: Log, event: type[Event]) -> int:
    return len((await log.read((events(event),))).records)


async def test_a_comment_of_somebody_s_own_is_left_alone(log: Log) -> None:
    await happen(log, *plots)
    await start(log)
    for comment in ("Ours.", '{"type":"GroupCreated"}'):
        async with log.pool.connection() as connection:
            await connection.execute(f"COMMENT ON SCHEMA read IS '{comment}'".encode())
            head = log.head
            await start(log)
            assert log.head == head
            row = await (await connection.execute("SELECT obj_description('read'::regnamespace)")).fetchone()
            assert row == (comment,)
