"""Real JupyterLabs as child processes, and what is left of them when we are killed."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from app.identifiers import new_id
from app.runtime import processes
from app.runtime.engine import EngineError, Instance
from app.runtime.proc import Process, marked
from app.runtime.processes import LONGEST_SOCKETS, Processes, Record

TOKEN = "7f" * 32
AS_PLATFORM = {"X-Sophon-Token": TOKEN, "X-Sophon-Via": "token"}

START_ANOTHER = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True); print()"

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from app.runtime.processes import Processes

class Interrupted(Processes):
    def _write(self, record):
        if moment == "before" and record.process:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._write(record)

async def main():
    processes = Interrupted(Path(root), Path(sockets))
    await processes.create(notebook, run, token)
    await processes.start((await processes.instances())[0])
    os.kill(os.getpid(), signal.SIGKILL)

moment, root, sockets, notebook, run, token = sys.argv[1:]
asyncio.run(main())
"""


@dataclass
class Place:
    """Where runs are held, and what was started there."""

    root: Path
    sockets: Path
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        self.processes = Processes(self.root, self.sockets)

    async def created(self, notebook: str, token: str = TOKEN) -> Instance:
        run = new_id("run")
        await self.processes.create(notebook, run, token)
        return await self.seen(run)

    async def started(self, notebook: str, token: str = TOKEN) -> Instance:
        created = await self.created(notebook, token)
        await self.processes.start(created)
        return await self.seen(created.run)

    async def answering(self, notebook: str) -> Instance:
        started = await self.started(notebook)
        await until_it_answers(started)
        return started

    async def seen(self, run: str) -> Instance:
        return next(each for each in await self.processes.instances() if each.run == run)

    async def until_exited(self, run: str) -> Instance:
        async with asyncio.timeout(10):
            while (instance := await self.seen(run)).state != "exited":
                await asyncio.sleep(0.05)
        return instance

    def record(self, run: str) -> Record:
        return msgspec.json.decode((self.root / "runs" / f"{run}.json").read_bytes(), type=Record)

    def pid(self, run: str) -> int:
        process = self.record(run).process
        assert process
        return process.pid

    def of(self, run: str) -> list[int]:
        """The processes of a run, whatever they are: they have its directory in their environment or arguments."""
        mark, found = str(self.sockets / run[-12:]).encode(), list[int]()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes() + (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    async def until_there_are(self, count: int, run: str) -> None:
        """Wait for as many processes of a run: one in the middle of execve(2) has no environment yet, nor arguments."""
        async with asyncio.timeout(10):
            while len(self.of(run)) != count:
                await asyncio.sleep(0.05)

    async def clear(self) -> None:
        await asyncio.gather(*map(self.processes.remove, await self.processes.instances()))
        await self.processes.close()


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    """A directory for sockets, with the longest path that is taken: even a kernel's has to fit."""
    with tempfile.TemporaryDirectory() as short:
        yield Path(short) / ("s" * (LONGEST_SOCKETS - len(short) - 1))


@pytest.fixture
async def place(tmp_path: Path, sockets: Path) -> AsyncGenerator[Place]:
    place = Place(tmp_path / "processes", sockets)
    try:
        yield place
    finally:
        await place.clear()


@asynccontextmanager
async def session(instance: Instance) -> AsyncGenerator[aiohttp.ClientSession]:
    assert instance.upstream
    connector = aiohttp.UnixConnector(instance.upstream.removeprefix("unix/"))
    async with aiohttp.ClientSession("http://plots.localhost", connector=connector) as http:
        yield http


async def ask(instance: Instance, method: str, path: str, headers: dict[str, str], **body: Any) -> tuple[int, Any]:
    async with session(instance) as http, http.request(method, path, headers=headers, **body) as answer:
        return answer.status, await answer.json() if answer.content_type == "application/json" else None


async def until_it_answers(instance: Instance) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await ask(instance, "GET", "/api/status", {"X-Sophon-Token": TOKEN}))[0] == 200:
                    return
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.03)


async def names_in(instance: Instance) -> set[str]:
    status, listing = await ask(instance, "GET", "/api/contents", AS_PLATFORM)
    assert status == 200
    return {each["name"] for each in listing["content"]}


async def save(instance: Instance, name: str) -> None:
    body = {"type": "file", "format": "text", "content": "3.14"}
    assert (await ask(instance, "PUT", f"/api/contents/{name}", AS_PLATFORM, json=body))[0] == 201


async def run_in_a_kernel(instance: Instance, code: str) -> str:
    """What the code prints, in a kernel that goes on afterwards."""
    status, kernel = await ask(instance, "POST", "/api/kernels", AS_PLATFORM)
    assert status == 201
    header = {
        "msg_id": new_id("msg"),
        "msg_type": "execute_request",
        "session": "test",
        "username": "",
        "version": "5.4",
    }
    request = {"header": header, "channel": "shell", "parent_header": {}, "metadata": {}, "content": {"code": code}}
    path = f"/api/kernels/{kernel['id']}/channels?session_id=test"
    async with asyncio.timeout(20), session(instance) as http, http.ws_connect(path, headers=AS_PLATFORM) as channels:
        await channels.send_json(request)
        while True:
            message = await channels.receive_json()
            if message["msg_type"] in ("stream", "error"):
                return "".join(message["content"].get("text") or message["content"]["traceback"])


def is_open(path: Path) -> bool:
    """Whether anybody but its user has any right to it."""
    return bool(path.stat().st_mode & 0o077)


async def kill_its_starter(place: Place, moment: str) -> str:
    """Have another Python create and start a run, and be killed right after that or in the midst of it."""
    run = new_id("run")
    arguments = (moment, place.root, place.sockets, "plots", run, TOKEN)
    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, *arguments)
    assert await starter.wait() == -signal.SIGKILL
    return run


async def test_a_run_answers_only_to_its_token_and_is_one_however_often_it_is_asked_for(place: Place) -> None:
    created = await place.created("plots")
    assert (created.state, created.upstream, created.started_at) == ("created", None, None)
    await place.processes.create("plots", created.run, TOKEN)
    await asyncio.gather(*(place.processes.start(created) for _ in range(3)))
    began = time.monotonic()
    [running] = await place.processes.instances("plots")
    assert running.state == "running"
    assert running.started_at
    await until_it_answers(running)
    print(f"start to 200: {time.monotonic() - began:.2f} s")
    assert (await ask(running, "GET", "/api/status", {}))[0] == 403
    assert (await ask(running, "GET", "/api/status", {"X-Sophon-Token": "wrong"}))[0] == 403
    await place.processes.start(created)
    await place.processes.create("plots", created.run, TOKEN)
    assert await place.processes.instances() == [running]
    assert place.of(running.run) == [place.pid(running.run)]
    assert os.getsid(place.pid(running.run)) == place.pid(running.run), "a signal to our terminal is not for it"


async def test_what_is_kept_of_a_run_is_for_its_user_only_and_its_token_is_kept_nowhere_once_it_runs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOPHON_SECRET", "not for notebooks")
    running = await place.answering("plots")
    inherited = await run_in_a_kernel(running, "import os; print([each for each in os.environ if 'SOPHON' in each])")
    assert inherited == "[]\n"
    kept = [path for path in (*place.root.rglob("*"), *place.sockets.rglob("*")) if "volumes" not in path.parts]
    assert {path.name for path in kept} > {"runs", f"{running.run}.json", f"{running.run}.log", "lab"}
    assert [path for path in kept if is_open(path.parent)] == []
    assert [path for path in (*(place.root / "runs").iterdir(), *place.sockets.rglob("lab")) if is_open(path)] == []
    assert [path for path in kept if path.is_file() and TOKEN in path.read_text()] == []
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in place.of(running.run)]
    assert len(environments) == 2, "the server's and its kernel's"
    assert [each for each in environments if TOKEN.encode() in each or b"SOPHON_SECRET" in each] == []


async def test_a_run_outlives_whoever_started_it_and_is_adopted_and_removed_without_rest(place: Place) -> None:
    run = await kill_its_starter(place, "after")
    [adopted] = await place.processes.instances()
    assert (adopted.run, adopted.state) == (run, "running")
    await until_it_answers(adopted)
    assert adopted.upstream == f"unix/{place.sockets / run[-12:] / 'lab'}"
    await run_in_a_kernel(adopted, START_ANOTHER)
    await place.until_there_are(3, run)  # the server, its kernel, and what that started
    began = time.monotonic()
    await place.processes.remove(adopted)
    print(f"removed with its kernel: {time.monotonic() - began:.2f} s")
    assert place.of(run) == []
    assert await place.processes.instances() == []
    assert list((place.root / "runs").iterdir()) == []
    assert list(place.sockets.iterdir()) == []
    await place.processes.remove(adopted)


async def test_what_was_in_the_middle_of_execve_at_the_first_look_ends_with_its_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await place.answering("plots")
    await run_in_a_kernel(running, START_ANOTHER)
    await place.until_there_are(3, running.run)
    looks: list[frozenset[bytes]] = []

    def not_at_the_first_look(marks: frozenset[bytes]) -> list[Process]:
        looks.append(marks)
        return marked(marks) if len(looks) > 1 else []

    monkeypatch.setattr(processes, "marked", not_at_the_first_look)
    await place.processes.remove(running)
    assert place.of(running.run) == []


async def test_a_server_whose_starter_died_before_it_was_on_record_ends_and_the_run_starts_anew(place: Place) -> None:
    run = await kill_its_starter(place, "before")
    await place.until_there_are(1, run)  # the server of which there is no record
    [created] = await place.processes.instances()
    assert created.state == "created"
    await place.processes.start(created)
    running = await place.seen(run)
    await until_it_answers(running)
    async with asyncio.timeout(10):
        while place.of(run) != [place.pid(run)]:
            await asyncio.sleep(0.05)
    assert (await ask(running, "GET", "/api/status", AS_PLATFORM))[0] == 200


async def test_files_survive_the_run(place: Place) -> None:
    first = await place.started("plots")
    (place.root / "volumes" / "plots" / "pi.txt").write_text("3.14")
    await place.processes.remove(first)
    assert await place.processes.instances() == []
    assert "pi.txt" in await names_in(await place.answering("plots"))


async def test_files_are_removed_only_once_no_run_is_left(place: Place) -> None:
    first, _ = await place.created("plots"), await place.created("others")
    with pytest.raises(EngineError, match="still there"):
        await place.processes.remove_volume("plots")
    await place.processes.remove(first)
    assert await place.processes.remove_volume("plots")
    assert [path.name for path in (place.root / "volumes").iterdir()] == ["others"]
    assert not await place.processes.remove_volume("plots")


async def test_two_notebooks_side_by_side_do_not_see_each_others_files(place: Place) -> None:
    plots, tables = await asyncio.gather(place.answering("plots"), place.answering("tables"))
    await save(plots, "plot.txt")
    await save(tables, "table.txt")
    assert (await names_in(plots), await names_in(tables)) == ({"plot.txt"}, {"table.txt"})
    assert await place.processes.instances("plots") == [plots]


async def test_a_run_that_is_killed_is_seen_as_exited_and_that_is_told_at_once(place: Place) -> None:
    async with aclosing(place.processes.happenings()) as happenings:
        assert await anext(happenings) is None
        running = await place.answering("plots")
        assert await anext(happenings) == "plots"
        await run_in_a_kernel(running, "print()")
        await place.created("tables")
        assert await anext(happenings) == "tables"
        os.kill(place.pid(running.run), signal.SIGKILL)
        async with asyncio.timeout(1):
            assert await anext(happenings) == "plots"
    exited = await place.seen(running.run)
    assert (exited.state, exited.exit_code, exited.upstream) == ("exited", 137, None)
    assert "/lab" in await place.processes.last_words(exited)
    await place.processes.remove(exited)
    assert place.of(running.run) == []


async def test_the_end_of_an_adopted_run_is_told_as_well(place: Place) -> None:
    run = await kill_its_starter(place, "after")
    async with aclosing(place.processes.happenings()) as happenings:
        assert await anext(happenings) is None
        os.kill(place.pid(run), signal.SIGKILL)
        async with asyncio.timeout(2):
            assert await anext(happenings) == "plots"
    exited = await place.seen(run)
    assert (exited.state, exited.exit_code) == ("exited", None)


async def test_a_server_that_does_not_start_says_why_in_its_last_words(place: Place) -> None:
    exited = await place.until_exited((await place.started("plots", token=" ")).run)
    assert exited.exit_code == 1
    assert "SOPHON_TOKEN is unset or empty" in await place.processes.last_words(exited)


async def test_last_words_are_twenty_lines_of_five_hundred_characters_or_none(place: Place) -> None:
    created = await place.created("plots")
    assert await place.processes.last_words(created) == ""
    (place.root / "runs" / f"{created.run}.log").write_text("".join(f"{n} {'é' * 600}\n" for n in range(99)))
    lines = (await place.processes.last_words(created)).splitlines()
    assert [line.split()[0] for line in lines] == [str(n) for n in range(79, 99)]
    assert {len(line) for line in lines} == {500}


async def test_a_process_that_got_the_number_of_a_dead_run_is_not_taken_for_it(place: Place) -> None:
    created = await place.created("plots")
    innocent = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        dead = Process(innocent.pid, "an earlier boot 4711")
        forged = Record(notebook="plots", run=created.run, token=None, process=dead)
        (place.root / "runs" / f"{created.run}.json").write_bytes(msgspec.json.encode(forged))
        exited = await place.seen(created.run)
        assert exited.state == "exited"
        await place.processes.start(exited)
        await place.processes.remove(exited)
        assert await place.processes.instances() == []
        assert innocent.returncode is None
    finally:
        innocent.kill()
        assert await innocent.wait() == -signal.SIGKILL, "and nothing ended it before"


async def test_what_was_removed_cannot_be_started(place: Place) -> None:
    created = await place.created("plots")
    await place.processes.remove(created)
    with pytest.raises(EngineError, match="it was not created, or it is removed"):
        await place.processes.start(created)


async def test_a_record_that_is_none_is_named(place: Place) -> None:
    record = place.root / "runs" / f"{(await place.created('plots')).run}.json"
    record.write_text("{}")
    with pytest.raises(EngineError, match=record.name):
        await place.processes.instances()
    record.unlink()


@pytest.mark.parametrize("name", ["s" * LONGEST_SOCKETS, "with space"])
def test_a_directory_in_which_sockets_could_not_be_made_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for sockets"):
        Processes(tmp_path, Path("/", name))
