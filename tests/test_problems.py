"""What is asked for wrongly is answered with what would be right, or where that stands."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.questions.platform import Town


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    """A platform with its administrator."""
    async with Town.open(dsn, tmp_path) as town:
        yield town


async def test_a_body_that_is_no_json_and_a_value_that_there_is_not_are_told_as_such(town: Town) -> None:
    headers = {**town.admin.headers, "Content-Type": "application/json"}
    for body, field, said in (
        (b'{"title": ', "data", "The body cannot be read as JSON: "),
        (b"title=shell", "data", "The body cannot be read as JSON: "),
        (b'{"title": "shell", "scopes": ["admn"]}', "scopes[0]", "Invalid enum value 'admn'; /schema lists those"),
    ):
        answer = await town.client.post("/api/tokens", content=body, headers=headers)
        (error,) = answer.json()["errors"]
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-request")
        assert (error["field"], error["message"][: len(said)]) == (field, said)
