"""Killed at any moment, it goes on where it stood; asked to end, it leaves what it should and nothing else."""

import asyncio
import contextlib
import random
import secrets
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from tests.acceptance.conftest import Lab, populate
from tests.acceptance.kernel import execute, start_kernel
from tests.installation import Installation, docker

_chance = random.Random(7)
MOMENTS = (0.0, _chance.uniform(0.01, 0.1), _chance.uniform(0.1, 0.5), _chance.uniform(0.5, 1.2))
"""Seconds between the 202 and the kill: at once, while the container is made, while JupyterLab starts."""


class Gate:
    """A way to the Docker Engine; while it is shut, what is asked on it gets lost, and nothing is answered."""

    def __init__(self) -> None:
        self.is_shut = False
        scheme, self._engine = (
            docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip().split("://")
        )
        assert scheme == "unix"

    @contextlib.asynccontextmanager
    async def at(self, socket: Path) -> AsyncGenerator[None]:
        """Listen at a socket."""
        server = await asyncio.start_unix_server(self._serve, socket)
        try:
            yield
        finally:
            server.close()
            socket.unlink()

    async def _serve(self, asking: asyncio.StreamReader, answering: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_unix_connection(self._engine)
        await asyncio.gather(self._pass(asking, questions), self._pass(answers, answering), return_exceptions=True)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.closing(sink):
            while said := await source.read(65536):
                if not self.is_shut:
                    sink.write(said)
                    await sink.drain()


async def make(lab: Lab, name: str) -> str:
    """Make one more notebook."""
    notebook = f"{name}-{secrets.token_hex(3)}"
    await lab.ada.token.do("POST", "/api/notebooks", {"slug": notebook, "project": lab.project, "title": name})
    return notebook


def identity(where: Installation, notebook: str) -> tuple[str, str]:
    """Say which container, and which start of it, holds a notebook: there is exactly one."""
    (container,) = where.containers(notebook)
    assert container["State"]["Running"], container["State"]
    return container["Id"], container["State"]["StartedAt"]


async def asked_for(lab: Lab) -> str:
    """Make one more notebook, and have its start accepted."""
    notebook = await make(lab, "crash")
    (await lab.ada.token.ask("POST", f"/api/notebooks/{notebook}/start")).expect(202)
    return notebook


async def test_killed_before_the_container_exists_it_makes_exactly_one_later(fresh: Installation) -> None:
    socket, gate = fresh.data.with_suffix(".sock"), Gate()
    fresh.options["DOCKER_HOST"] = f"unix://{socket}"
    async with gate.at(socket):
        await fresh.start()
        lab = await populate(fresh)
        gate.is_shut = True
        notebook = await asked_for(lab)
        await asyncio.sleep(1)
        await fresh.end(signal.SIGKILL)
        gate.is_shut = False
        assert fresh.containers() == []
        await fresh.start()
        await lab.ada.token.until(notebook, "ready")
        identity(fresh, notebook)
        assert (await lab.ada.token.ask("GET", "/api/status", at=notebook)).status == 200
        assert len(fresh.containers()) == 1
        await fresh.end(signal.SIGINT)


async def test_killed_at_any_moment_it_finishes_what_was_accepted_and_loses_nothing_that_ran(
    fresh: Installation,
) -> None:
    await fresh.start()
    lab = await populate(fresh)
    await lab.ada.token.start(lab.notebook)
    kept = {lab.notebook: identity(fresh, lab.notebook)}
    kernel = await start_kernel(lab.ada.token, lab.notebook)
    await execute(lab.ada.token, lab.notebook, kernel, "answer = 41")

    for moment in MOMENTS:
        notebook = await asked_for(lab)
        await asyncio.sleep(moment)
        await fresh.end(signal.SIGKILL)
        held = len(fresh.containers(notebook))
        took = await fresh.start()
        await lab.ada.token.until(notebook, "ready")
        print(f"killed {moment:.2f} s after the 202, with {held} containers; started again in {took:.2f} s")
        assert (await lab.ada.token.ask("GET", "/api/status", at=notebook)).status == 200
        for known, before in kept.items():
            assert (await lab.ada.token.get(f"/api/notebooks/{known}"))["status"] == "ready"
            assert identity(fresh, known) == before
        kept[notebook] = identity(fresh, notebook)
    assert len(fresh.containers()) == len(kept)
    assert await execute(lab.ada.token, lab.notebook, kernel, "answer + 1") == "42"

    await fresh.end(signal.SIGKILL)
    await fresh.start()
    assert await fresh.end(signal.SIGINT) == 0
    assert fresh.processes() == []
    assert fresh.containers() == []
    volumes = {volume["Labels"]["sophon.notebook"] for volume in fresh.volumes()}
    assert volumes == set(kept)


async def test_sigterm_leaves_notebooks_running_for_the_next_start_and_ctrl_c_ends_them(fresh: Installation) -> None:
    first = await fresh.start()
    lab = await populate(fresh)
    await lab.ada.token.start(lab.notebook)
    before = identity(fresh, lab.notebook)

    assert await fresh.end(signal.SIGTERM) == 0
    assert fresh.processes() == []
    assert identity(fresh, lab.notebook) == before
    second = await fresh.start()
    print(f"the first start took {first:.2f} s, the second {second:.2f} s")
    page = await lab.ada.token.get(f"/api/notebooks/{lab.notebook}")
    assert page["status"] == "ready"
    assert (await lab.ada.token.ask("GET", "/api/status", at=lab.notebook)).status == 200
    assert identity(fresh, lab.notebook) == before

    assert await fresh.end(signal.SIGINT) == 0
    assert fresh.processes() == []
    assert fresh.containers() == []
    await fresh.start()
    assert (await lab.ada.token.get(f"/api/notebooks/{lab.notebook}"))["status"] == "stopped"


async def test_what_died_while_nobody_looked_is_reported_after_the_next_start(fresh: Installation) -> None:
    await fresh.start()
    lab = await populate(fresh)
    gone = await make(lab, "gone")
    await asyncio.gather(lab.ada.token.start(lab.notebook), lab.ada.token.start(gone))
    await fresh.end(signal.SIGKILL)
    docker("kill", identity(fresh, lab.notebook)[0])
    docker("rm", "--force", identity(fresh, gone)[0])
    await fresh.start()
    page = await lab.ada.token.until(lab.notebook, "failed")
    assert (page["reason"], page["exit_code"]) == ("exited", 137)
    page = await lab.ada.token.until(gone, "failed")
    assert page["reason"] == "vanished"


async def test_a_container_that_is_killed_is_reported_within_two_seconds_and_started_again(lab: Lab) -> None:
    who = lab.ada.token
    notebook = await make(lab, "killed")
    await who.start(notebook)
    kernel = await start_kernel(who, notebook)
    await execute(who, notebook, kernel, "open('kept.txt', 'w').write('kept')")
    victim, _ = identity(lab.installation, notebook)

    began = time.monotonic()
    await asyncio.to_thread(docker, "kill", victim)
    page = await who.until(notebook, "failed")
    took = time.monotonic() - began
    print(f"reported after {took:.2f} s")
    assert took < 2.5
    assert (page["reason"], page["exit_code"], page["url"]) == ("exited", 137, None)
    assert "SOPHON_TOKEN" not in page["log"]

    await who.start(notebook)
    assert identity(lab.installation, notebook)[0] != victim
    assert (await who.ask("GET", "/files/kept.txt", at=notebook)).text == "kept"
    await who.do("DELETE", f"/api/notebooks/{notebook}")


async def test_of_a_deleted_notebook_the_container_goes_and_the_volume_stays(lab: Lab) -> None:
    who, where = lab.ada.token, lab.installation
    notebook = await make(lab, "deleted")
    await who.start(notebook)
    await who.do("DELETE", f"/api/notebooks/{notebook}")
    assert (await who.ask("GET", f"/api/notebooks/{notebook}")).status == 404
    assert (await who.ask("GET", "/api/status", at=notebook)).status == 404
    give_up = time.monotonic() + 15
    while where.containers(notebook) and time.monotonic() < give_up:
        await asyncio.sleep(0.1)
    assert where.containers(notebook) == []
    (volume,) = [one for one in where.volumes() if one["Labels"]["sophon.notebook"] == notebook]
    assert volume["Labels"] == {"sophon.installation": where.id, "sophon.notebook": notebook}
