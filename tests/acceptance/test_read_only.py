"""A database that takes no changes: Sophon starts on it all the same, answers what it can, and says what it cannot."""

import asyncio
import signal

from app.postgres import embedded
from tests.database import takes_changes
from tests.installation import GREETING, Installation, Visitor, installation


async def changeable(here: Installation, *, yes: bool) -> None:
    """Have the installation's database take changes, or none, from whoever connects from now on."""
    async with embedded(here.data / "postgres") as dsn:
        await asyncio.to_thread(takes_changes, dsn, yes=yes)


async def started(here: Installation) -> None:
    """Start it, and wait until it says that it has; it is not ready then, and says so."""
    said = len(here.output)
    process = here.launch()
    async with asyncio.timeout(60):
        while GREETING not in here.output[said:]:
            assert process.poll() is None, here.output
            await asyncio.sleep(0.05)


async def test_a_start_on_a_database_that_takes_no_changes_answers_reads_and_refuses_changes() -> None:
    async with installation(SOPHON_RUNTIME="process") as here:
        await here.start()
        admin = await here.administrator()
        await admin.do("POST", "/api/groups", {"slug": "lab", "title": "Lab"})
        before = (await admin.ask("GET", "/api/groups/lab")).expect(200).body
        await changeable(here, yes=False)
        await here.end(signal.SIGTERM)

        await started(here)
        ready = (await admin.ask("GET", "/health/ready")).expect(503)
        assert "The log cannot be written" in ready.text
        assert (await admin.ask("GET", "/api/groups/lab")).expect(200).body == before
        (await admin.ask("GET", "/api/audit/entries")).expect(200)
        refused = await admin.ask("POST", "/api/groups", {"slug": "late", "title": "Late"})
        assert (refused.status, refused.page["type"]) == (503, "/problems/log-cannot-be-written")
        assert "Traceback" not in here.output

        await changeable(here, yes=True)
        await until(here.guest, "/health/ready")
        await admin.do("POST", "/api/groups", {"slug": "late", "title": "Late"})
        await until(admin, "/api/groups/late")
        await until(here.guest, "/health/ready")


async def until(who: Visitor, path: str) -> None:
    """Ask until it is there: what was stopped by the database tries again every two seconds."""
    async with asyncio.timeout(30):
        while (await who.ask("GET", path)).status != 200:
            await asyncio.sleep(0.2)
