"""Two people in one notebook, a third who may not come in, and one who may no longer: in real browsers."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Response
from playwright.async_api import Error as BrowserError

from tests.acceptance.conftest import Lab, Person, person
from tests.installation import PASSWORD, Visitor, docker

FILE = "shared.ipynb"
NOTEBOOK: dict[str, Any] = {
    "cells": [{"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": ""}],
    # Without a kernel's name JupyterLab asks for one, in a dialog.
    "metadata": {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    },
    "nbformat": 4,
    "nbformat_minor": 5,
}
SOCKET = "/api/events/subscribe"
"""A WebSocket of JupyterLab's that needs nothing to be there before."""

HEARD = (
    *("requestWillBeSent", "requestWillBeSentExtraInfo", "responseReceived", "responseReceivedExtraInfo"),
    *("webSocketCreated", "webSocketWillSendHandshakeRequest", "webSocketHandshakeResponseReceived"),
    *("webSocketFrameSent", "webSocketFrameReceived"),
)


@dataclass
class Wire:
    """All that a browser sent and received, headers and bodies and frames, as text."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    bodies: list[bytes] = field(default_factory=list[bytes])
    _reading: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def listen(self, page: Page) -> None:
        wire = await page.context.new_cdp_session(page)
        await wire.send("Network.enable")  # pyright: ignore[reportUnknownMemberType]
        for name in HEARD:
            wire.on(f"Network.{name}", partial(self._hear, name))
        page.on("response", self._read)

    async def text(self) -> str:
        await asyncio.gather(*self._reading)
        bodies = b"\n".join(self.bodies).decode(errors="replace")
        return "\n".join((*(json.dumps(event) for _, event in self.events), bodies))

    def sent_cookies(self, host: str) -> list[str]:
        """Give the Cookie header of every request to a host, WebSockets included."""
        found: list[str] = []
        for name, event in self.events:
            if name == "requestWillBeSentExtraInfo":
                headers = event["headers"]
            elif name == "webSocketWillSendHandshakeRequest":
                headers = event["request"]["headers"]
            else:
                continue
            lower = {key.lower(): value for key, value in headers.items()}
            if lower.get("host") == host and "cookie" in lower:
                found.append(lower["cookie"])
        return found

    def _hear(self, name: str, event: dict[str, Any]) -> None:
        self.events.append((name, event))

    def _read(self, response: Response) -> None:
        task = asyncio.ensure_future(self._keep(response))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _keep(self, response: Response) -> None:
        with contextlib.suppress(BrowserError):  # redirects have no body; others are gone with their page
            self.bodies.append(await response.body())


@dataclass
class Screen:
    """Somebody before a browser of their own, in the notebook."""

    person: Person
    page: Page
    wire: Wire

    async def type(self, text: str) -> None:
        editor = self.page.locator(".jp-Notebook .cm-content").first
        await editor.click()
        await self.page.keyboard.press("Control+End")
        await self.page.keyboard.type(text)

    async def sees(self, text: str) -> None:
        await self.page.locator(".jp-Notebook .cm-content", has_text=text).first.wait_for(timeout=10_000)

    async def show(self, path: Path) -> None:
        await self.page.screenshot(path=path)


async def sign_in(page: Page, who: Person) -> None:
    await page.get_by_label("User name").fill(who.username)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()


@contextlib.asynccontextmanager
async def opened(browser: Browser, lab: Lab, who: Person) -> AsyncGenerator[Screen]:
    """Sign in and open the file: where a link to it leads, without anything clicked but the button."""
    context = await browser.new_context()
    page = await context.new_page()
    wire = Wire()
    await wire.listen(page)
    await page.goto(f"{lab.installation.address}/open/{lab.notebook}?next=/lab/tree/{FILE}")
    await sign_in(page, who)
    await page.wait_for_selector(".jp-Notebook .cm-content", timeout=60_000)
    yield Screen(who, page, wire)
    await context.close()


@pytest.fixture(scope="module")
async def screens(browser: Browser, lab: Lab) -> AsyncIterator[tuple[Screen, Screen]]:
    """Ada and Bob have one file open, each in a browser of their own."""
    body = {"type": "notebook", "format": "json", "content": NOTEBOOK}
    (await lab.ada.token.ask("PUT", f"/api/contents/{FILE}", body, at=lab.notebook)).expect(200, 201)
    async with opened(browser, lab, lab.ada) as ada, opened(browser, lab, lab.bob) as bob:
        yield ada, bob


async def test_each_sees_what_the_other_types_within_two_seconds(
    screens: tuple[Screen, Screen], tmp_path: Path
) -> None:
    for writer, reader in (screens, screens[::-1]):
        text = f"from {writer.person.username}"
        began = time.monotonic()
        await writer.type(f"'{text}';")
        await reader.sees(text)
        took = time.monotonic() - began
        await reader.show(tmp_path / f"{reader.person.username}.png")
        print(f"{reader.person.username} saw it after {took:.2f} s; screenshot in {tmp_path}")
        assert took < 2


async def test_collaborators_are_called_by_their_user_names(screens: tuple[Screen, Screen]) -> None:
    ada, bob = screens
    for here, there in ((ada, bob), (bob, ada)):
        await here.type(" ")  # a cursor is shown once it is somewhere
        names = there.page.locator(".jp-CollaboratorsList, .jp-remote-userFlag-name", has_text=here.person.username)
        await names.first.wait_for(state="attached", timeout=10_000)


async def test_no_dialog_stands_in_the_way(screens: tuple[Screen, Screen]) -> None:
    for screen in screens:
        assert await screen.page.locator(".jp-Dialog").count() == 0


async def test_the_token_of_the_run_is_nowhere_to_be_seen(screens: tuple[Screen, Screen], lab: Lab) -> None:
    run = (await lab.ada.token.get(f"/api/notebooks/{lab.notebook}"))["run"]
    token = lab.installation.keys.run_token(run)
    (container,) = lab.installation.containers(lab.notebook)
    assert f"SOPHON_TOKEN={token}" in container["Config"]["Env"], "it is not this that would have to be found"

    for screen in screens:
        seen = await screen.wire.text()
        assert len(screen.wire.bodies) > 50
        assert screen.person.username in seen, "it was not heard what went over the wire"
        assert token not in seen
        assert token not in await screen.page.content()
    for path in lab.installation.files():
        assert token.encode() not in path.read_bytes(), path
    assert token not in docker("logs", container["Id"])
    entries = "".join([json.dumps(entry) async for entry in every_entry(lab.administrator)])
    assert run in entries
    assert token not in entries


async def every_entry(administrator: Visitor) -> AsyncIterator[dict[str, Any]]:
    """Read the log to its end."""
    after = 0
    while True:
        page = await administrator.get(f"/api/audit/entries?limit=200&after={after}")
        for item in page["items"]:
            yield item
        if len(page["items"]) < 200:  # each reading is an entry, so the end comes no nearer than that
            return
        after = page["items"][-1]["position"]


async def test_the_cookie_of_the_platform_is_never_sent_to_a_notebook(screens: tuple[Screen, Screen], lab: Lab) -> None:
    session, entered = (f"__Host-sophon-{kind}{lab.installation.id}=" for kind in ("", "pass-"))
    for screen in screens:
        to_platform = screen.wire.sent_cookies(lab.installation.domain)
        to_notebook = screen.wire.sent_cookies(f"{lab.notebook}.{lab.installation.domain}")
        assert any(session in cookie for cookie in to_platform)
        assert any(entered in cookie for cookie in to_notebook)
        assert not any(session in cookie for cookie in to_notebook)


async def test_the_browser_is_sent_to_no_other_machine(screens: tuple[Screen, Screen], lab: Lab) -> None:
    ours = (lab.installation.domain, f"{lab.notebook}.{lab.installation.domain}")
    for screen in screens:
        urls = [e["request"]["url"] for name, e in screen.wire.events if name == "requestWillBeSent"]
        foreign = [url for url in urls if not url.startswith(("data:", "blob:")) and url.split("/")[2] not in ours]
        assert urls
        assert foreign == []


async def test_a_stranger_is_shown_a_page_that_says_whom_to_ask(
    context: BrowserContext, lab: Lab, tmp_path: Path
) -> None:
    page = await context.new_page()
    await page.goto(f"{lab.installation.address}/open/{lab.notebook}")
    async with page.expect_response(lambda answer: answer.url.endswith("/.sophon/enter")) as entering:
        await sign_in(page, lab.eve)
    assert (await entering.value).status == 403
    await page.get_by_text("you are no member of it").wait_for()
    await page.screenshot(path=tmp_path / "stranger.png")
    assert not [one for one in await context.cookies() if one.get("name", "").startswith("__Host-sophon-pass")]


async def test_a_stranger_is_refused_by_http_and_by_websocket(context: BrowserContext, lab: Lab) -> None:
    assert await statuses(lab.eve.token, lab) == (403, 403)
    holder = pass_of(lab, lab.eve, await lab.eve.session.ticket(lab.notebook))
    assert await statuses(holder, lab) == (403, 403)

    origin = lab.eve.session.origin(lab.notebook)
    name, _, value = holder.headers["Cookie"].partition("=")
    # As Chromium takes a `__Host-` cookie from a server on this machine: as secure, whatever the scheme.
    await context.add_cookies([{"name": name, "value": value, "url": origin.replace("http:", "https:")}])
    answer = await (await context.new_page()).goto(f"{origin}/api/status")
    assert answer is not None
    assert answer.status == 403


async def test_who_is_removed_is_refused_with_the_next_request(context: BrowserContext, lab: Lab) -> None:
    carl = await person(lab.installation, lab.administrator, "carl")
    member = f"/api/groups/{lab.group}/members/{carl.id}"
    await lab.ada.token.do("PUT", member)
    holder = await carl.session.enter(lab.notebook)
    page = await context.new_page()
    await page.goto(f"{lab.installation.address}/open/{lab.notebook}?next=/api/status")
    await sign_in(page, carl)
    await page.wait_for_url("**/api/status")

    for _ in range(10):  # so that one that comes too early is not missed
        assert await statuses(carl.token, lab) == (200, 101)
        assert await statuses(holder, lab) == (200, 101)
        await lab.ada.token.do("DELETE", member)
        assert await holder.knock(SOCKET, at=lab.notebook) == 403
        assert await statuses(carl.token, lab) == (403, 403)
        assert await statuses(holder, lab) == (403, 403)
        await lab.ada.token.do("PUT", member)
    async with carl.token.socket(SOCKET, at=lab.notebook) as open_still:
        await lab.ada.token.do("DELETE", member)
        async with asyncio.timeout(5):
            async for _ in open_still:  # until it ends
                pass
    answer = await page.reload()
    assert answer is not None
    assert answer.status == 403


async def statuses(who: Visitor, lab: Lab) -> tuple[int, int]:
    """How a request and a WebSocket are answered."""
    asked = await who.ask("GET", "/api/status", at=lab.notebook)
    return asked.status, await who.knock(SOCKET, at=lab.notebook)


def pass_of(lab: Lab, who: Person, ticket: str) -> Visitor:
    """Make what the door would not: a pass, genuine but for whom it is for."""
    keys = lab.installation.keys
    said = keys.verify("ticket", ticket)
    assert said
    cookie = f"__Host-sophon-pass-{keys.installation}={keys.sign('pass', said)}"
    origin = who.session.origin(lab.notebook)
    return Visitor(lab.installation.http, lab.installation.domain, {"Cookie": cookie, "Origin": origin})
