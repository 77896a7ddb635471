"""What whoever starts it is told: where it is, how to get in, what runs notebooks; and why, where it cannot start."""

import asyncio
import re
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.conftest import Lab, populate
from tests.acceptance.kernel import execute, start_kernel
from tests.certificates import certificate
from tests.database import FAST, PrivateServer
from tests.installation import ADMINISTRATOR, Installation, installation

PRESET = re.compile(r"password\s+(\S+)")


async def test_a_first_start_says_where_it_is_and_how_to_get_in_and_a_second_keeps_the_password_to_itself(
    engine: None,
) -> None:
    async with installation(SOPHON_ADMIN_PASSWORD="") as fresh:
        first = await fresh.start()
        said = fresh.output
        assert fresh.address in said
        assert f"{fresh.address}/schema" in said
        assert ADMINISTRATOR in said
        assert re.search(r"runtime\s+docker\b.*sophon-jupyter", said), said
        (password,) = PRESET.findall(said)
        assert len(password) >= 12
        await fresh.log_in(ADMINISTRATOR, password)
        assert "Documentation" in (await fresh.guest.ask("GET", "/")).text
        assert (await fresh.guest.ask("GET", "/schema")).status == 200

        assert await fresh.end(signal.SIGINT) == 0
        assert "kept" in fresh.output
        second = await fresh.start()
        again = fresh.output.removeprefix(said)
        assert password not in again
        assert PRESET.findall(again) == []
        await fresh.log_in(ADMINISTRATOR, password)
        secret = password.encode()
        assert not [path for path in fresh.files() if path.suffix != ".out" and secret in path.read_bytes()]
        print(f"the first start took {first:.2f} s, the second {second:.2f} s")


async def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    async with installation(SOPHON_RUNTIME="process") as fresh:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", fresh.port))
            taken.listen()
            done = await fresh.command("up")
        assert done.returncode == 1
        assert f"port {fresh.port} is in use; set SOPHON_PORT" in done.stderr
        assert "Traceback" not in done.stderr
        assert fresh.processes() == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SOPHON_PORT", "http", "SOPHON_PORT has to be a whole number from 1 to 65535; it is 'http'."),
        ("SOPHON_PORT", "0", "SOPHON_PORT has to be a whole number"),
        ("SOPHON_PORT", "99999", "SOPHON_PORT has to be a whole number"),
        ("SOPHON_RUNTIME", "podman", "SOPHON_RUNTIME has to be one of auto, docker, process; it is 'podman'."),
        ("SOPHON_HOST", "http://lab", "SOPHON_HOST has to be a host name such as lab.example.org"),
        ("SOPHON_HOST", "lab.example.org", "set SOPHON_TLS_CERTIFICATE and SOPHON_TLS_KEY"),
    ],
)
async def test_a_setting_that_cannot_be_meant_is_named_with_what_would_do(name: str, value: str, said: str) -> None:
    async with installation(**{name: value}) as fresh:
        done = await fresh.command("up")
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert list(fresh.data.iterdir()) == []


async def test_notebooks_without_isolation_are_not_offered_to_the_world(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, "lab.example.org", "*.lab.example.org")
    tls = {"SOPHON_TLS_CERTIFICATE": str(chain), "SOPHON_TLS_KEY": str(key)}
    async with installation(SOPHON_RUNTIME="process", SOPHON_HOST="lab.example.org", **tls) as fresh:
        done = await fresh.command("up")
        assert done.returncode == 1
        assert "lab.example.org" in done.stderr
        assert "Docker" in done.stderr
        assert fresh.processes() == []


async def test_where_docker_does_not_answer_it_is_said_what_is_missing_and_what_that_means() -> None:
    async with installation(SOPHON_RUNTIME="auto", DOCKER_HOST="unix:///nowhere") as fresh:
        await fresh.start()
        (line,) = [line for line in fresh.output.splitlines() if line.startswith("NOT ISOLATED.")]
        assert "Docker does not answer (No such file or directory)." in line
        assert (
            "Notebooks run as processes of this machine: their code can do whatever you can. Not for production."
            in line
        )
        assert re.search(r"runtime\s+process\b", fresh.output)


async def test_a_database_of_ones_own_is_used_and_none_is_made() -> None:
    with PrivateServer(*FAST) as server:
        async with installation(SOPHON_DATABASE_URL=server.dsn, SOPHON_RUNTIME="process") as fresh:
            await fresh.start()
            await (await fresh.log_in()).do("POST", "/api/groups", {"slug": "space-lab", "title": "Space lab"})
            assert await fresh.end(signal.SIGINT) == 0
            assert not (fresh.data / "postgres").exists()
            with psycopg.connect(server.dsn) as connection:
                asked = connection.execute("SELECT count(*) FROM audit.entries WHERE type = 'GroupCreated'").fetchone()
            assert asked == (1,)
            await fresh.start()
            assert (await (await fresh.log_in()).get("/api/groups/space-lab"))["title"] == "Space lab"


async def test_a_second_one_on_the_same_data_is_refused(shared: Installation) -> None:
    done = await shared.command("up")
    assert done.returncode == 1
    assert f"Sophon is running on {shared.data} already" in done.stderr
    assert "SOPHON_DATA" in done.stderr
    (await shared.guest.ask("GET", "/health/ready")).expect(200)


async def one_browser_is_signed_in_to_both(lab: Lab, other: Lab, twin: str) -> None:
    """Cookies know no ports: of two with one name, a browser keeps the later one, and sends both hosts all it has."""
    platform: dict[str, str] = {}
    notebook: dict[str, str] = {}
    for each in (lab, other):
        signed_in = await each.installation.log_in(each.ada.username)
        entered = await signed_in.enter(twin)
        name, _, secret = signed_in.headers["Cookie"].partition("=")
        platform[name] = secret
        pass_name, _, signed = entered.headers["Cookie"].partition("=")
        notebook[pass_name] = signed
        described = (await each.installation.guest.ask("GET", "/schema/openapi.json")).expect(200).page
        assert described["components"]["securitySchemes"]["session"]["name"] == name
    for each in (lab, other):
        here = {"Cookie": "; ".join(f"{name}={value}" for name, value in platform.items())}
        there = {"Cookie": "; ".join(f"{name}={value}" for name, value in notebook.items())}
        page = (await each.installation.guest.ask("GET", "/api/session", headers=here)).expect(200).page
        assert page["username"] == each.ada.username
        (await each.installation.guest.ask("GET", "/api/status", at=twin, headers=there)).expect(200)


@pytest.fixture(scope="module")
async def unisolated() -> AsyncIterator[Installation]:
    async with installation(SOPHON_RUNTIME="process") as made:
        await made.start()
        yield made


async def test_notebooks_run_without_docker_and_it_is_said_loudly_that_nothing_isolates_them(
    unisolated: Installation,
) -> None:
    assert re.search(r"runtime\s+process", unisolated.output)
    assert re.search(r"^NO[T]? ISOLAT", unisolated.output, re.MULTILINE), unisolated.output
    lab = await populate(unisolated)
    await lab.ada.token.start(lab.notebook)
    assert (await lab.ada.token.ask("GET", "/api/status", at=lab.notebook)).status == 200
    kernel = await start_kernel(lab.ada.token, lab.notebook)
    assert await execute(lab.ada.token, lab.notebook, kernel, "6*7") == "42"
    assert (await lab.eve.token.ask("GET", "/api/status", at=lab.notebook)).status == 403
    assert await unisolated.end(signal.SIGINT) == 0
    assert unisolated.processes() == []
    await unisolated.start()
    assert (await lab.ada.token.get(f"/api/notebooks/{lab.notebook}"))["status"] == "stopped"


async def test_two_live_side_by_side_even_with_notebooks_of_one_name(lab: Lab, fresh: Installation) -> None:
    await fresh.start()
    other = await populate(fresh)
    twin = f"twin-{secrets.token_hex(3)}"
    for each in (lab, other):
        await each.ada.token.do("POST", "/api/notebooks", {"slug": twin, "project": each.project, "title": "Twin"})
    await asyncio.gather(lab.ada.token.start(twin), other.ada.token.start(twin))
    (mine,), (theirs,) = lab.installation.containers(twin), other.installation.containers(twin)
    assert mine["Id"] != theirs["Id"]
    for each, value in ((lab, "mine"), (other, "theirs")):
        kernel = await start_kernel(each.ada.token, twin)
        await execute(each.ada.token, twin, kernel, f"open('whose', 'w').write('{value}')")
    for each, value in ((lab, "mine"), (other, "theirs")):
        assert (await each.ada.token.ask("GET", "/files/whose", at=twin)).text == value
        assert (await each.ada.token.ask("GET", "/api/groups")).status == 200
    assert (await lab.installation.guest.ask("GET", "/api/users", headers=other.ada.token.headers)).status == 401
    await one_browser_is_signed_in_to_both(lab, other, twin)
    assert await fresh.end(signal.SIGINT) == 0
    assert (await lab.ada.token.ask("GET", "/api/status", at=twin)).status == 200
    await lab.ada.token.do("DELETE", f"/api/notebooks/{twin}")
