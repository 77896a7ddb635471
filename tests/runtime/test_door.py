"""The door, behind a real Caddy and before a real log: whom it does not let in, and what the log says of that."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web

from app.audit.writer import LogUnavailable
from app.dispatch import Context, Dispatch
from app.domain.audits import GuestsRefused
from app.domain.notebooks import NotebookEntered
from app.domain.reports import ReportNotebookReady
from app.main import create_app
from app.runtime.routes import Proxy
from app.up import open_door, serving
from tests.installation import Answer, Visitor, free_port
from tests.questions.platform import Person, Town, lab

EVIL = "http://evil.example"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
STOPPED = "more"


@dataclass
class Doorstep:
    """The door to `plots`, which is ready, and to `more`, which is not: Ada's and Bob's, and not Eve's."""

    town: Town
    http: aiohttp.ClientSession
    domain: str
    ada: Visitor
    bob: Visitor
    eve: Visitor
    program: Visitor

    async def refused_at(self, position: int) -> list[tuple[str | None, str | None, tuple[str, ...]]]:
        """Tell who was refused what, and why, after a position; guests, who are counted, by the number of times."""
        await self.town.platform.acts.tell()
        records = await self.town.since(position, "RequestRefused", "GuestsRefused")
        assert all(record.entry.outcome == "refused" for record in records)
        return [
            ((str(record.event.count), record.entry.reason, ()))
            if isinstance(record.event, GuestsRefused)
            else (record.entry.actor.id, record.entry.reason, record.entry.tags)
            for record in records
        ]

    async def bearer(self, person: Person, *scopes: str) -> Visitor:
        return Visitor(self.http, self.domain, (await self.town.bearer(person, *scopes)).headers, person.user)

    async def enter(self, data: dict[str, str], origin: str) -> Answer:
        headers = {**FORM, "Cookie": "", "Origin": origin}
        return await self.ada.ask("POST", "/.sophon/enter", data=urlencode(data).encode(), at="plots", headers=headers)


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


@pytest.fixture
async def doorstep(dsn: str, tmp_path: Path) -> AsyncIterator[Doorstep]:
    async with contextlib.AsyncExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sophon-")))
        port = free_port()
        town = await stack.enter_async_context(Town.open(dsn, tmp_path, port=port))
        platform = town.platform
        door = await open_door(platform)
        await stack.enter_async_context(serving(create_app(platform), sockets / "api"))
        await stack.enter_async_context(serving(door, sockets / "door"))
        await stack.enter_async_context(
            Proxy(port=port, api=sockets / "api", door=sockets / "door", state=sockets / "caddy")
        )
        http = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://localhost:{port}", cookie_jar=aiohttp.DummyCookieJar())
        )
        ada, bob = await lab(town)
        eve = await town.person("eve")
        await ada.do("POST", "/api/notebooks", {"slug": STOPPED, "project": "apollo", "title": "More"})
        run = (await ada.do("POST", "/api/notebooks/plots/start"))["run"]
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", hello)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        upstream = f"127.0.0.1:{runner.addresses[0][1]}"
        await platform.dispatch(ReportNotebookReady(notebook="plots", run=run, upstream=upstream), Context())

        domain = f"localhost:{port}"
        people = [Visitor(http, domain, person.headers, person.user) for person in (ada, bob, eve)]
        made = Doorstep(town, http, domain, *people, program=people[0])
        made.program = await made.bearer(ada, "notebooks")
        await made.program.ask("GET", "/", at=STOPPED)  # the use of the token is recorded once
        yield made


async def test_whoever_may_enter_is_let_in_and_nothing_is_refused(doorstep: Doorstep) -> None:
    before = doorstep.town.head
    inside = await doorstep.ada.enter("plots")
    assert (await inside.ask("GET", "/", at="plots")).text == "hello"
    assert await doorstep.refused_at(before) == []


async def test_a_page_of_another_origin_with_a_pass_is_refused_and_recorded_on_http_and_websocket(
    doorstep: Doorstep,
) -> None:
    inside = await doorstep.ada.enter("plots")
    before = doorstep.town.head
    answer = await inside.ask("POST", "/api/kernels", at="plots", headers={"Origin": EVIL})
    assert answer.status == 403
    assert "another origin" in answer.text
    assert await inside.knock("/api/kernels/x/channels", at="plots", headers={"Origin": EVIL}) == 403
    assert await doorstep.refused_at(before) == [(doorstep.ada.user, "cross-origin", ("notebook:plots",))] * 2


async def test_a_ticket_from_a_page_of_another_origin_is_refused_and_counted(doorstep: Doorstep) -> None:
    ticket, before = await doorstep.ada.ticket("plots"), doorstep.town.head
    assert (await doorstep.enter({"ticket": ticket}, EVIL)).status == 403
    assert await doorstep.refused_at(before) == [("1", "cross-origin", ())]
    assert (await doorstep.ada.spend(ticket, "plots")).status == 303, "it is not spent by that"


async def test_a_ticket_that_was_spent_is_refused_and_recorded(doorstep: Doorstep) -> None:
    ticket = await doorstep.ada.ticket("plots")
    assert (await doorstep.ada.spend(ticket, "plots")).status == 303
    before = doorstep.town.head
    answer = await doorstep.ada.spend(ticket, "plots")
    assert (answer.status, "Open it again" in answer.text) == (403, True)
    assert await doorstep.refused_at(before) == [(doorstep.ada.user, "bad-ticket", ("notebook:plots",))]


async def test_a_ticket_that_is_forged_or_of_a_session_that_ended_is_refused_and_counted(doorstep: Doorstep) -> None:
    ticket = await doorstep.eve.ticket("plots")
    await doorstep.eve.ask("DELETE", "/api/session")
    before = doorstep.town.head
    for wrong in (f"{ticket}0", "", ticket):
        assert (await doorstep.ada.spend(wrong, "plots")).status == 403
    assert await doorstep.refused_at(before) == [("3", "bad-ticket", ())]


async def test_a_start_from_a_page_of_another_origin_or_by_a_token_is_refused_and_recorded(doorstep: Doorstep) -> None:
    inside = await doorstep.ada.enter(STOPPED)
    before = doorstep.town.head
    for who, origin in ((inside, EVIL), (doorstep.program, doorstep.ada.origin(STOPPED))):
        answer = await who.ask("POST", "/.sophon/start", at=STOPPED, headers={**FORM, "Origin": origin})
        assert answer.status == 403
    assert await doorstep.refused_at(before) == [(doorstep.ada.user, "cross-origin", (f"notebook:{STOPPED}",))] * 2
    assert (await doorstep.ada.get(f"/api/notebooks/{STOPPED}"))["status"] == "stopped"


async def test_a_start_by_nobody_or_by_who_is_no_member_is_refused_and_recorded(doorstep: Doorstep) -> None:
    guest = Visitor(doorstep.http, doorstep.domain, {"Origin": doorstep.ada.origin(STOPPED)})
    inside = await doorstep.bob.enter(STOPPED)
    await doorstep.ada.do("DELETE", f"/api/groups/lab/members/{doorstep.bob.user}")
    before = doorstep.town.head
    assert (await guest.ask("POST", "/.sophon/start", at=STOPPED, headers=FORM)).status == 401
    assert (await inside.ask("POST", "/.sophon/start", at=STOPPED, headers=FORM)).status == 403
    assert await doorstep.refused_at(before) == [
        (doorstep.bob.user, "members-only", (f"notebook:{STOPPED}",)),
        ("1", "not-authenticated", ()),
    ]


async def test_who_is_no_member_or_asks_for_what_is_not_there_is_refused_and_recorded(doorstep: Doorstep) -> None:
    before = doorstep.town.head
    for notebook, status in (("plots", 403), ("nothing", 404)):
        assert (await doorstep.eve.spend(await doorstep.eve.ticket(notebook), notebook)).status == status
    assert (await doorstep.program.ask("GET", "/", at="nothing")).status == 404
    eve, ada = doorstep.eve.user, doorstep.ada.user
    assert await doorstep.refused_at(before) == [
        (eve, "members-only", ("notebook:plots",)),
        (eve, "no-such-notebook", ("notebook:nothing",)),
        (ada, "no-such-notebook", ("notebook:nothing",)),
    ]


async def test_a_token_that_is_not_for_notebooks_is_refused_under_its_users_name(doorstep: Doorstep) -> None:
    reader = await doorstep.bearer(Person(doorstep.town.client, doorstep.ada.user, doorstep.ada.headers), "read")
    before = doorstep.town.head
    answer = await reader.ask("GET", "/", at="plots")
    assert (answer.status, "scopes" in answer.text) == (403, True)
    assert await doorstep.refused_at(before) == [(doorstep.ada.user, "scope-missing", ("notebook:plots",))]
    assert "TokenUsed" not in await doorstep.town.kinds(before)


async def test_a_guest_and_a_token_that_opens_nothing_are_refused_and_counted(doorstep: Doorstep) -> None:
    before = doorstep.town.head
    for headers in ({}, {"Cookie": "__Host-sophon-pass=forged"}, {"Authorization": "Bearer nonsense"}):
        assert (await Visitor(doorstep.http, doorstep.domain, headers).ask("GET", "/", at="plots")).status == 401
    assert await doorstep.refused_at(before) == [("2", "not-authenticated", ()), ("1", "bad-token", ())]


async def test_too_many_wrong_passwords_in_the_sign_in_form_are_counted(doorstep: Doorstep) -> None:
    before = doorstep.town.head
    guest = Visitor(doorstep.http, doorstep.domain, FORM)
    answers = [await guest.ask("POST", "/sign-in", data=b"username=eve&password=guess") for _ in range(12)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    assert "Too many wrong passwords" in answers[-1].text
    assert await doorstep.refused_at(before) == [("2", "too-many-attempts", ())]
    assert await doorstep.town.kinds(before) == ["LoginRefused"] * 10 + ["GuestsRefused"]


async def test_a_token_enters_no_run_before_that_is_recorded(
    doorstep: Doorstep, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = doorstep.town.head
    with monkeypatch.context() as patched:

        async def away(*_: object, **__: object) -> None:
            raise LogUnavailable("away")

        patched.setattr(Dispatch, "record", away)
        for _ in range(2):
            assert (await doorstep.program.ask("GET", "/", at="plots")).status == 503
    for _ in range(2):
        assert (await doorstep.program.ask("GET", "/", at="plots")).text == "hello"
    (entered,) = await doorstep.town.since(before, "NotebookEntered")
    assert isinstance(entered.event, NotebookEntered)
    assert (entered.event.user, entered.entry.actor.via) == (doorstep.ada.user, "token")
