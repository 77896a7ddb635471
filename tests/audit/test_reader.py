"""Group reads: each who asks gets an answer, whenever they ask."""

import asyncio

import pytest

from app.audit import reader
from app.audit.log import Log
from app.domain.model import Selection
from tests.audit.drafts import draft
from tests.database import SEALER


async def test_whoever_asks_as_soon_as_they_have_an_answer_gets_another(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answered the first is about to end, and takes no question any more."""
    monkeypatch.setattr(reader, "UNDER_WAY", 1)
    await log.append([draft("A", ["x"])])
    selections = [Selection(("A",), ("x",))]
    async with asyncio.timeout(10):
        for _ in range(3):
            assert [record.position for record in (await log.read(selections)).records] == [1]


async def test_many_who_ask_again_and_again_all_get_answers(log: Log) -> None:
    await log.append([draft("A", ["x"]), draft("B", ["x"]), draft("A", ["y"])])

    async def ask(type_: str, tag: str, expected: list[int]) -> None:
        for _ in range(30):
            page = await log.read([Selection((type_,), (tag,))])
            assert [record.position for record in page.records] == expected

    async with asyncio.timeout(30):
        await asyncio.gather(*(ask(*one) for one in (("A", "x", [1]), ("B", "x", [2]), ("A", "y", [3])) * 5))


async def test_a_question_is_planned_a_few_times_and_then_no_more(dsn: str) -> None:
    """To plan it takes longer than to answer it, and a command waits for both."""
    async with Log.open(dsn, SEALER, connections=1) as log:
        await log.append([draft("A", ["x"])])
        for number in range(20):
            await log.read([Selection(("A",), (tag,)) for tag in ("x", "y", "z")[: number % 3 + 1]])
        async with log.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%wanted%'"
            )
            [(generic, custom)] = await cursor.fetchall()
    assert custom == 5
    assert generic >= 10
