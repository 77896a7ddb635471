"""Rebuilding every read model: what is read afterwards is what was read before, and nobody notices."""

import asyncio
import contextlib
import itertools
import secrets
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from psycopg import AsyncConnection
from psycopg.errors import InvalidSchemaName, UndefinedTable

from app.postgres import embedded
from app.projections.generation import LOCK
from tests.acceptance.conftest import Lab
from tests.installation import ROOT, Answer, Installation, Visitor

SKIPPED = ("/metrics", "/health/live", "/health/ready", "/api/notebooks/{notebook}/progress")
"""What tells of the moment, and no state."""

OF_THE_LOG = ("/api/audit", "/audit")
"""What is read from the log itself, which grows by being read."""


def is_state(path: str) -> bool:
    """Whether what is answered there is read from the read models, and from nothing else."""
    return path not in SKIPPED and not path.startswith(OF_THE_LOG) and not path.endswith("/visits")


async def readable(lab: Lab) -> list[str]:
    """Give every address that can be got, with names that are there."""
    document = await lab.administrator.get("/schema/openapi.json")
    names = {"{group}": lab.group, "{project}": lab.project, "{notebook}": lab.notebook}
    addresses: list[str] = []
    for path, operations in document["paths"].items():
        if "get" not in operations or not is_state(path):
            continue
        for placeholder, name in names.items():
            path = path.replace(placeholder, name)
        assert "{" not in path, f"no name is known for {path}"
        addresses.append(path)
        addresses += [f"{path}?limit={limit}" for limit in (1, 200) if "'limit'" in str(operations)]
    return addresses


async def everything(lab: Lab, addresses: list[str]) -> dict[tuple[str, str], bytes]:
    """Read all of it, through everybody's eyes."""
    eyes = {"administrator": lab.administrator, "member": lab.bob.token, "guest": lab.installation.guest}
    answers: dict[tuple[str, str], bytes] = {}
    for (name, who), address in itertools.product(eyes.items(), addresses):
        answer = await who.ask("GET", address)
        assert answer.status < 500, answer
        answers[name, address] = f"{answer.status} ".encode() + answer.body
    return answers


@asynccontextmanager
async def meanwhile(who: Visitor, addresses: list[str]) -> AsyncGenerator[list[Answer]]:
    """Go on asking, until left."""
    answers: list[Answer] = []

    async def go_on() -> None:
        asked = itertools.cycle(addresses)
        while True:
            answers.append(await who.ask("GET", next(asked)))

    task = asyncio.create_task(go_on())
    yield answers
    assert not task.done(), task.exception()
    task.cancel()
    await asyncio.wait([task])


async def fill(lab: Lab) -> None:
    """Let more have happened: of every visibility, with somebody gone again, and something refused."""
    for visibility in ("private", "internal", "public"):
        slug = f"{visibility}-{secrets.token_hex(3)}"
        page = {"slug": slug, "group": lab.group, "title": visibility.title(), "visibility": visibility}
        await lab.ada.token.do("POST", "/api/projects", page)
        for number in range(10):
            name = f"{slug}-{number}"
            await lab.ada.token.do("POST", "/api/notebooks", {"slug": name, "project": slug, "title": f"No. {number}"})
        await lab.bob.token.do("DELETE", f"/api/notebooks/{slug}-0")
    await lab.ada.token.do("PUT", f"/api/groups/{lab.group}/members/{lab.eve.id}")
    await lab.ada.token.do("DELETE", f"/api/groups/{lab.group}/members/{lab.eve.id}")
    (await lab.eve.token.ask("POST", f"/api/notebooks/{lab.notebook}/stop")).expect(404)


async def test_what_is_read_is_the_same_to_the_byte_and_no_request_fails(lab: Lab) -> None:
    await fill(lab)
    addresses = await readable(lab)
    before = await everything(lab, addresses)
    assert before["member", f"/api/notebooks/{lab.notebook}"].startswith(b"200 ")
    assert before["guest", f"/api/notebooks/{lab.notebook}"].startswith(b"404 ")

    async with meanwhile(lab.administrator, addresses) as answers:
        done = await lab.installation.command("state", "rebuild")
    assert done.returncode == 0, done.stderr
    assert "Every read model was rebuilt" in done.stderr
    assert "had been different" not in done.stdout
    assert len(answers) > 20
    assert {answer.status for answer in answers} == {200}

    assert await everything(lab, addresses) == before
    (await lab.installation.guest.ask("GET", "/health/ready")).expect(200)


async def test_a_rebuild_that_is_killed_changes_no_answer_and_the_next_goes_on_from_there(lab: Lab) -> None:
    await fill(lab)
    addresses = await readable(lab)
    before = await everything(lab, addresses)
    async with meanwhile(lab.administrator, addresses) as answers:
        reached = await killed_rebuild(lab.installation)
        assert await everything(lab, addresses) == before
        done = await lab.installation.command("state", "rebuild")
    assert done.returncode == 0, done.stderr
    assert f"An interrupted rebuild was gone on with from position {reached:,}." in " ".join(done.stderr.split())
    assert {answer.status for answer in answers} == {200}
    assert await everything(lab, addresses) == before


async def killed_rebuild(installation: Installation) -> int:
    """Kill -9 a `sophon state rebuild` that has folded something, and has not swapped; tell how far it came."""
    async with (
        embedded(installation.data / "postgres") as dsn,
        await AsyncConnection.connect(dsn, autocommit=True) as connection,
        asyncio.timeout(60),
    ):
        await connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))  # nobody swaps while this is held
        command = (sys.executable, "-m", "app", "state", "rebuild")
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=installation.environment, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        reached = 0
        while reached == 0:
            assert process.returncode is None
            with contextlib.suppress(UndefinedTable, InvalidSchemaName):
                row = await (await connection.execute("SELECT position FROM read_next.bookmark")).fetchone()
                reached = row[0] if row else 0
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        row = await (await connection.execute("SELECT position FROM read_next.bookmark")).fetchone()
        assert row is not None
        return row[0]


async def test_what_is_written_meanwhile_is_read_at_once_and_afterwards(lab: Lab) -> None:
    written: list[str] = []

    async def write() -> None:
        for _ in range(100_000):
            slug = f"during-{secrets.token_hex(5)}"
            await lab.ada.token.do("POST", "/api/groups", {"slug": slug, "title": "During"})
            written.append(slug)
            await lab.ada.token.get(f"/api/groups/{slug}")

    writing = asyncio.create_task(write())
    done = await lab.installation.command("state", "rebuild")
    assert done.returncode == 0, done.stderr
    assert not writing.done(), writing.exception()
    writing.cancel()
    await asyncio.wait([writing])
    assert len(written) > 10
    for slug in written:
        await lab.ada.token.get(f"/api/groups/{slug}")
