"""A notebook's progress, streamed by the API: what it tells while a run begins or fails, and for how long to whom."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.dispatch import Context
from app.domain.names import Personal
from app.domain.reports import (
    Report,
    ReportNotebookContainerCreated,
    ReportNotebookCreationBegan,
    ReportNotebookFailed,
    ReportNotebookReady,
)
from app.main import create_app
from app.runtime import processes
from app.runtime.processes import Processes
from app.runtime.supervisor import Supervisor
from app.up import serving
from tests.database import end
from tests.questions.platform import KEYS, Person, Town, lab

PLOTS = "/api/notebooks/plots"
READY = ["queued", "creating", "starting", "ready"]


@dataclass
class Stage:
    """A platform that is served, with Ada's and Bob's private notebook in it, and room for a runtime."""

    town: Town
    http: aiohttp.ClientSession
    ada: Person
    bob: Person
    runtime: Processes

    @contextlib.asynccontextmanager
    async def supervised(self) -> AsyncGenerator[None]:
        supervisor = Supervisor(self.town.platform.log, self.runtime, KEYS, timedelta(seconds=20))
        running = asyncio.create_task(supervisor.run())
        try:
            yield
        finally:
            await end(running)
            for instance in await self.runtime.instances():
                await self.runtime.remove(instance)

    @contextlib.asynccontextmanager
    async def progress(self, who: Person) -> AsyncGenerator[AsyncIterator[dict[str, Any]]]:
        """Follow it: one notebook for each event."""
        async with self.http.get(f"{PLOTS}/progress", headers=who.headers) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            yield pages(answer)

    async def report(self, report: type[Report], **more: Any) -> None:
        run = (await self.ada.get(PLOTS))["run"]
        await self.town.platform.dispatch(report(notebook="plots", run=run, **more), Context())


async def pages(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.content:
        if line.startswith(b"data:"):
            yield json.loads(line.removeprefix(b"data:"))


@pytest.fixture
async def stage(dsn: str, tmp_path: Path) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="sophon-") as directory:
        sockets = Path(directory)
        async with (
            Town.open(dsn, tmp_path) as town,
            serving(create_app(town.platform), sockets / "api"),
            aiohttp.ClientSession(
                town.platform.settings.address,
                connector=aiohttp.UnixConnector(str(sockets / "api")),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as http,
        ):
            ada, bob = await lab(town)
            yield Stage(town, http, ada, bob, Processes(tmp_path / "processes", sockets))


async def test_each_step_of_a_real_start_is_told_and_the_address_once_it_is_ready(stage: Stage) -> None:
    await stage.ada.do("POST", f"{PLOTS}/start")
    async with stage.progress(stage.ada) as coming:
        told = [await anext(coming)]
        async with stage.supervised():
            told += [page async for page in coming]
    assert [page["status"] for page in told] == READY
    assert [page["url"] for page in told] == [None, None, None, "http://plots.localhost:8000/"]
    assert {page["run"] for page in told} == {told[0]["run"]}
    assert {(page["reason"], page["log"]) for page in told} == {(None, None)}


async def test_a_run_that_fails_is_told_with_the_reason_and_what_it_wrote_last(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = tmp_path / "broken.py"
    configuration.write_text("import os\nprint('the disk\\nis full', flush=True)\nos._exit(3)\n")
    monkeypatch.setattr(processes, "CONFIGURATION", configuration)
    await stage.ada.do("POST", f"{PLOTS}/start")
    async with stage.supervised(), stage.progress(stage.ada) as coming:
        last = [page async for page in coming][-1]
    assert (last["status"], last["reason"], last["exit_code"], last["url"]) == ("failed", "exited", 3, None)
    assert last["log"].endswith("the disk\nis full")
    assert (await stage.bob.get(PLOTS))["log"] == last["log"]


async def test_it_goes_on_to_everybody_who_may_still_see_it_and_ends(stage: Stage) -> None:
    await stage.ada.do("POST", f"{PLOTS}/start")
    async with stage.progress(stage.bob) as coming:
        assert (await anext(coming))["status"] == "queued"
        for report, status in (
            (ReportNotebookCreationBegan, "creating"),
            (ReportNotebookContainerCreated, "starting"),
        ):
            await stage.report(report)
            assert (await anext(coming))["status"] == status
        await stage.report(ReportNotebookReady, upstream="127.0.0.1:1")
        assert [page["status"] async for page in coming] == ["ready"]


@pytest.mark.parametrize("how", ["logged out", "removed", "token revoked"])
async def test_it_ends_before_anything_more_is_told_to_who_may_not_see_it_any_more(stage: Stage, how: str) -> None:
    await stage.ada.do("POST", f"{PLOTS}/start")
    who = await stage.town.bearer(stage.bob, "read") if how == "token revoked" else stage.bob
    async with stage.progress(who) as coming:
        assert (await anext(coming))["status"] == "queued"
        match how:
            case "logged out":
                await stage.bob.do("DELETE", "/api/session")
            case "removed":
                await stage.ada.do("DELETE", f"/api/groups/lab/members/{stage.bob.user}")
            case _:
                token = (await stage.bob.get("/api/tokens"))["items"][0]["token"]
                await stage.bob.do("DELETE", f"/api/tokens/{token}")
        await stage.report(ReportNotebookFailed, reason="exited", log=Personal("what is nobody else's business"))
        assert [page async for page in coming] == []


async def test_who_was_removed_from_the_group_of_an_open_notebook_is_told_no_log(stage: Stage) -> None:
    await stage.ada.do(
        "POST", "/api/projects", {"slug": "open", "group": "lab", "title": "Open", "visibility": "internal"}
    )
    await stage.ada.do("POST", "/api/notebooks", {"slug": "shown", "project": "open", "title": "Shown"})
    run = (await stage.ada.do("POST", "/api/notebooks/shown/start"))["run"]
    async with stage.http.get("/api/notebooks/shown/progress", headers=stage.bob.headers) as answer:
        coming = pages(answer)
        assert (await anext(coming))["status"] == "queued"
        await stage.ada.do("DELETE", f"/api/groups/lab/members/{stage.bob.user}")
        failed = ReportNotebookFailed(notebook="shown", run=run, reason="exited", log=Personal("for members"))
        await stage.town.platform.dispatch(failed, Context())
        assert [(page["status"], page["log"]) async for page in coming] == [("failed", None)]


async def test_an_administrator_who_is_none_any_more_is_told_nothing_more(stage: Stage) -> None:
    boss = await stage.town.person("boss", administrator=True)
    await stage.ada.do("POST", f"{PLOTS}/start")
    async with stage.progress(boss) as coming:
        assert (await anext(coming))["status"] == "queued"
        await stage.town.admin.do("PUT", f"/api/users/{boss.user}/roles", {"administrator": False, "auditor": False})
        await stage.report(ReportNotebookFailed, reason="exited", log=Personal("what is nobody else's business"))
        assert [page async for page in coming] == []
