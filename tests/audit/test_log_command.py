"""`sophon audit log` and `tail`: lines that can be piped, in every form, and a clear end where they cannot be given."""

import asyncio
import json
import os
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from app.audit.entry import Actor, Context
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.domain.groups import GroupCreated
from app.domain.names import Personal
from app.domain.projects import ProjectCreated
from app.domain.users import UserCreated
from app.keys import Keys
from tests.domain.cast import ADA, a_digest

SECRET = "k" * 32
BY_ADA = Context(actor=Actor(kind="user", id=ADA, via="session"), request="req_1")
EVENTS = (
    UserCreated(user=ADA, username=Personal("ada"), digest=a_digest(1), administrator=True),
    GroupCreated(group="lab", title="Lab", owner=ADA),
    ProjectCreated(project="apollo", group="lab", title="Apollo", visibility="private"),
)


async def write(dsn: str) -> None:
    async with Log.open(dsn, Sealer(Keys(SECRET.encode()).vault_key())) as log:
        await log.append([BY_ADA.draft(event) for event in EVENTS])


async def start(dsn: str, data: Path, *arguments: str, into: str = "") -> asyncio.subprocess.Process:
    environment = {
        **os.environ, "SOPHON_DATABASE_URL": dsn, "SOPHON_DATA": str(data), "SOPHON_SECRET": SECRET, "COLUMNS": "200",
    }  # fmt: skip
    command = (sys.executable, "-m", "app", "audit", *arguments)
    if into:
        command = ("bash", "-c", f'set -o pipefail; "$@" | {into}', "bash", *command)
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=PIPE)


async def run(dsn: str, data: Path, *arguments: str, into: str = "") -> tuple[int | None, str, str]:
    process = await start(dsn, data, *arguments, into=into)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_it_shows_one_line_an_entry_the_newest_first_with_names(dsn: str, tmp_path: Path) -> None:
    await write(dsn)
    code, out, err = await run(dsn, tmp_path, "log", "actor:ada", "action:*.created", "--since", "2 hours ago")
    assert (code, err) == (0, "")
    first, second, third = (line.split() for line in out.splitlines())
    assert (first[0], *first[2:]) == ("3", "ada", "project.created", "project/apollo", "group/lab")
    assert (second[0], *second[2:]) == ("2", "ada", "group.created", "group/lab", "user/ada")
    assert (third[0], third[-1]) == ("1", "user/ada")


async def test_it_writes_every_form_and_that_it_was_read_is_recorded(dsn: str, tmp_path: Path) -> None:
    await write(dsn)
    asked = ("log", "changed:title", "-r", "-o")
    _, lines, _ = await run(dsn, tmp_path, *asked, "jsonl")
    assert [json.loads(line)["type"] for line in lines.splitlines()] == ["GroupCreated", "ProjectCreated"]
    _, whole, _ = await run(dsn, tmp_path, *asked, "json")
    assert [item["position"] for item in json.loads(whole)] == [2, 3]
    _, events, _ = await run(dsn, tmp_path, *asked, "cloudevents")
    assert [json.loads(line)["specversion"] for line in events.splitlines()] == ["1.0", "1.0"]
    _, ocsf, _ = await run(dsn, tmp_path, *asked, "ocsf")
    assert [json.loads(line)["metadata"]["sequence"] for line in ocsf.splitlines()] == [2, 3]
    _, nothing, told = await run(dsn, tmp_path, "log", "time:2025", "-o", "json")
    assert (json.loads(nothing), told) == ([], "The log has no such entry.\n")
    _, read, _ = await run(dsn, tmp_path, "log", "action:audit.queried", "-n", "3")
    assert [line.split()[2:] for line in read.splitlines()] == [[f"cli:uid-{os.getuid()}", "audit.queried"]] * 3


async def test_a_query_that_makes_no_sense_ends_with_2_and_a_sentence(dsn: str, tmp_path: Path) -> None:
    for query, sentence in (("acter:ada", "did you mean actor?"), ("actor:eve", "There is no user 'eve'")):
        code, out, err = await run(dsn, tmp_path, "log", query)
        assert (code, out, sentence in err, "Traceback" in err) == (2, "", True, False), err


async def test_whoever_reads_no_further_than_the_head_sees_no_traceback(dsn: str, tmp_path: Path) -> None:
    await write(dsn)
    code, out, err = await run(dsn, tmp_path, "tail", into="head -n 1")
    assert (code, len(out.splitlines()), err) == (0, 1, "")


@pytest.mark.parametrize("command", ["tail", "log -f"])
async def test_what_follows_goes_on_as_the_log_grows(command: str, dsn: str, tmp_path: Path) -> None:
    await write(dsn)
    process = await start(dsn, tmp_path, *command.split(), "action:group.*")
    assert process.stdout is not None
    assert b"group/lab" in await asyncio.wait_for(process.stdout.readline(), 30)
    async with Log.open(dsn, Sealer(Keys(SECRET.encode()).vault_key())) as log:
        await log.append([BY_ADA.draft(GroupCreated(group="meanwhile", title="Lab", owner=ADA))])
        assert b"group/meanwhile" in await asyncio.wait_for(process.stdout.readline(), 30)
    process.terminate()
    await asyncio.wait_for(process.wait(), 30)
