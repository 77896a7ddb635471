"""`sophon audit subject`: the same as the API, for whoever has a shell and a token."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.domain.names import ERASED
from tests.questions.platform import Person, Town, lab

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.open(dsn, tmp_path / "server") as town:
        yield town


async def sophon(town: Town, data: Path, who: Person | None, *words: str) -> tuple[int, str, str]:
    """Run the command beside the server; give its exit code, what it printed and what it said."""
    environment = {
        **os.environ,
        "SOPHON_DATABASE_URL": town.platform.log._dsn,  # pyright: ignore[reportPrivateUsage]
        "SOPHON_SECRET": "k" * 32,
        "SOPHON_DATA": str(data / "server"),
        "SOPHON_TOKEN": who.headers["Authorization"].partition(" ")[2] if who else "",
        "COLUMNS": "200",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "audit", "subject", *words), cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE
    )
    printed, said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, printed.decode(), said.decode()


async def test_two_administrators_erase_on_the_command_line(town: Town, tmp_path: Path) -> None:
    _, bob = await lab(town)
    grace = await town.bearer(await town.person("grace", administrator=True), "read", "admin")
    admin = await town.bearer(town.admin, "read", "admin")

    code, printed, said = await sophon(town, tmp_path, admin, "bob", "report")
    assert code == 0, said
    lines = [json.loads(line) for line in printed.splitlines()]
    assert {"text": "bob"} in [line.get("value") for line in lines]
    assert any(line.get("entry", {}).get("type") == "UserCreated" for line in lines)

    code, printed, said = await sophon(town, tmp_path, admin, "bob", "erase", "--dry-run")
    assert (code, printed) == (0, ""), said
    assert "sealed values can be read" in said

    code, _, said = await sophon(town, tmp_path, admin, "bob", "erase")
    assert code == 0, said
    assert "another administrator" in said
    code, _, said = await sophon(town, tmp_path, admin, bob.user, "erase")
    assert code == 2
    assert "now another administrator has to ask" in said

    code, _, said = await sophon(town, tmp_path, grace, f"user/{bob.user}", "erase")
    assert code == 0, said
    assert "is erased, at position" in said
    assert (await bob.ask("GET", "/api/session")).status_code == 401
    rows = (await town.admin.get("/api/users"))["items"]
    assert ERASED in [row["username"] for row in rows]
    code, _, said = await sophon(town, tmp_path, admin, "bob", "report")
    assert code == 2
    assert "Nobody is called" in said
    code, _, said = await sophon(town, tmp_path, admin, "prject/apollo", "report")
    assert (code, "one of user, group, project, notebook" in said) == (2, True), said


async def test_who_has_no_token_or_not_the_right_one_gets_nothing(town: Town, tmp_path: Path) -> None:
    ada, bob = await lab(town)
    code, printed, said = await sophon(town, tmp_path, None, "bob", "report")
    assert (code, printed) == (2, "")
    assert "SOPHON_TOKEN" in said
    reader, before = await town.bearer(ada), town.head
    for words in (("bob", "report"), ("bob", "erase", "--dry-run"), (bob.user, "erase")):
        code, printed, said = await sophon(town, tmp_path, reader, *words)
        assert (code, printed) == (2, ""), said
    async with asyncio.timeout(5):
        while town.head < before + 3:
            await asyncio.sleep(0.05)
    refused = [record.entry.outcome for record in await town.since(before, "AuditQueried", "CommandRefused")]
    assert refused == ["refused"] * 3
