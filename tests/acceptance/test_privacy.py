"""What is not theirs, nobody sees; what was ended, ends at once; and no other site acts for anybody."""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, web
from playwright.async_api import BrowserContext

from tests.acceptance.conftest import Lab, person
from tests.installation import PASSWORD, Answer, Visitor, free_port

EVIL = (
    *("//evil.example", "///evil.example", "https://evil.example", "http:evil.example", "//evil.example/%2f.."),
    *(
        "/\\evil.example",
        "\\\\evil.example",
        "\\/evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
    ),
    *(
        "javascript:alert(1)",
        "data:text/html,x",
        "evil.example",
        "",
        "/\r\nSet-Cookie: a=b",
        "/\u2028",
        "/" + "x" * 1_500,
    ),
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SOCKET = "/api/events/subscribe"
ELSEWHERE = "http://evil.example"


@pytest.fixture(scope="module")
async def shelf(lab: Lab) -> dict[str, tuple[str, str]]:
    """A project of every visibility, and a notebook in each."""
    made: dict[str, tuple[str, str]] = {}
    for visibility in ("private", "internal", "public"):
        project, notebook = (f"{visibility}-{kind}-{secrets.token_hex(3)}" for kind in ("project", "notebook"))
        page = {"slug": project, "group": lab.group, "title": "T", "visibility": visibility}
        await lab.ada.token.do("POST", "/api/projects", page)
        await lab.ada.token.do("POST", "/api/notebooks", {"slug": notebook, "project": project, "title": "T"})
        made[visibility] = project, notebook
    return made


async def slugs(who: Visitor, path: str) -> set[str]:
    """List all, page by page."""
    found: set[str] = set()
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        page = await who.get(f"{path}?limit=200" + (f"&after={page['next']}" if page["next"] else ""))
        found |= {item["slug"] for item in page["items"]}
    return found


async def test_guests_see_public_projects_and_their_notebooks_and_no_others(
    lab: Lab, shelf: dict[str, tuple[str, str]]
) -> None:
    guest = lab.installation.guest
    projects, notebooks = await slugs(guest, "/api/projects"), await slugs(guest, "/api/notebooks")
    for visibility, (project, notebook) in shelf.items():
        seen = visibility == "public"
        assert (project in projects) is (notebook in notebooks) is seen
        for path in (f"projects/{project}", f"notebooks/{notebook}", f"notebooks/{notebook}/progress"):
            assert (await guest.ask("GET", f"/api/{path}")).status == (200 if seen else 404), path
        assert (await guest.get(f"/api/notebooks?project={project}"))["items"] == [] or seen
    for path in ("projects", "notebooks"):
        unknown = await guest.ask("GET", f"/api/{path}/nobodys")
        hidden = await guest.ask("GET", f"/api/{path}/{shelf['private'][path == 'notebooks']}")
        assert hidden.body == unknown.body


async def test_registered_users_see_internal_projects_too_and_members_all(
    lab: Lab, shelf: dict[str, tuple[str, str]]
) -> None:
    for who, sees in ((lab.eve.token, {"internal", "public"}), (lab.bob.token, set(shelf))):
        projects, notebooks = await slugs(who, "/api/projects"), await slugs(who, "/api/notebooks")
        for visibility, (project, notebook) in shelf.items():
            assert (project in projects) is (notebook in notebooks) is (visibility in sees)
            answer = await who.ask("GET", f"/api/notebooks/{notebook}/progress")
            assert answer.status == (200 if visibility in sees else 404)


async def test_guests_see_no_people_no_log_and_no_metrics(lab: Lab) -> None:
    guest = lab.installation.guest
    for path in ("/api/users", "/api/tokens", "/api/session", "/api/audit/entries", "/metrics"):
        assert (await guest.ask("GET", path)).status == 401, path
    answer = await guest.ask("GET", f"/api/groups/{lab.group}")
    assert set(answer.page) == {"slug", "title", "created_at"}
    for path in ("/api/audit/entries", "/metrics"):
        assert (await lab.ada.token.ask("GET", path)).status == 403
        assert (await lab.ada.session.ask("GET", path)).status == 403
        assert (await lab.administrator.ask("GET", path)).status == 200


async def test_an_administrators_way_into_others_notebooks_ends_with_the_role_and_its_members_saw_it(lab: Lab) -> None:
    deputy = await person(lab.installation, lab.administrator, "deputy")
    roles, visits = f"/api/users/{deputy.id}/roles", f"/api/projects/{lab.project}/visits"
    await lab.administrator.do("PUT", roles, {"administrator": True, "auditor": False})
    holder = await deputy.session.enter(lab.notebook)
    assert (await holder.ask("GET", "/api/status", at=lab.notebook)).status == 200
    async with holder.socket(SOCKET, at=lab.notebook) as opened:
        await lab.administrator.do("PUT", roles, {"administrator": False, "auditor": True})
        await ends_soon(opened)
    assert (await holder.ask("GET", "/api/status", at=lab.notebook)).status == 403
    assert await holder.knock(SOCKET, at=lab.notebook) == 403
    seen = (await lab.bob.token.get(visits))["items"]
    assert [one["action"] for one in seen if one["user"] == deputy.id] == ["NotebookEntered"]
    assert (await deputy.token.ask("GET", visits)).status == 404
    assert (await lab.installation.guest.ask("GET", visits)).status == 401


async def test_guests_are_led_to_sign_in_and_scripts_are_told(lab: Lab) -> None:
    guest = lab.installation.guest
    assert (await guest.ask("GET", "/lab", at=lab.notebook)).status == 401
    assert await guest.knock(SOCKET, at=lab.notebook) == 401
    led = await guest.ask("GET", "/lab/tree/a.ipynb", at=lab.notebook, headers={"Accept": "text/html"})
    assert led.status == 303
    assert led.headers["Location"] == f"{lab.installation.address}/open/{lab.notebook}?next=%2Flab%2Ftree%2Fa.ipynb"


async def test_the_eleventh_wrong_password_in_a_row_is_not_even_looked_at(lab: Lab) -> None:
    guest, name = lab.installation.guest, (await person(lab.installation, lab.administrator, "victim")).username
    wrong = [await guest.ask("POST", "/api/session", {"username": name, "password": "guess"}) for _ in range(10)]
    assert [answer.status for answer in wrong] == [401] * 10
    for password in ("guess", PASSWORD):
        answer = await guest.ask("POST", "/api/session", {"username": name, "password": password})
        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) > 0
    form = urlencode({"username": name, "password": PASSWORD}).encode()
    assert (await guest.ask("POST", "/sign-in", data=form, headers=FORM)).status == 429
    nobody = await guest.ask("POST", "/api/session", {"username": "nobody-at-all", "password": "guess"})
    assert nobody.page == wrong[0].page, "an answer must not tell whether there is such a user"


async def test_logging_out_ends_the_session_and_its_passes_at_once(lab: Lab) -> None:
    session = await lab.installation.log_in(lab.bob.username)
    holder = await session.enter(lab.notebook)
    ticket = await session.ticket(lab.notebook)
    assert (await holder.ask("GET", "/api/status", at=lab.notebook)).status == 200
    assert await holder.knock(SOCKET, at=lab.notebook) == 101
    (await session.ask("DELETE", "/api/session")).expect(204)
    assert (await session.ask("GET", "/api/session")).status == 401
    assert (await session.ask("POST", "/api/groups", {"slug": "late", "title": "T"})).status == 401
    assert (await holder.ask("GET", "/api/status", at=lab.notebook)).status == 401
    assert await holder.knock(SOCKET, at=lab.notebook) == 401
    assert (await session.spend(ticket, lab.notebook)).status == 403


async def test_a_revoked_token_is_refused_at_once_by_the_api_and_by_the_notebook(lab: Lab) -> None:
    holder = await lab.installation.bearer(lab.bob.session)
    newest = (await lab.bob.session.get("/api/tokens?limit=200"))["items"][-1]["token"]
    assert (await holder.ask("GET", "/api/session")).status == 200
    assert (await holder.ask("GET", "/api/status", at=lab.notebook)).status == 200
    (await lab.bob.session.ask("DELETE", f"/api/tokens/{newest}")).expect(204)
    assert (await holder.ask("GET", "/api/session")).status == 401
    assert (await holder.ask("GET", "/api/groups")).status == 401
    assert (await holder.ask("GET", "/api/status", at=lab.notebook)).status == 401
    assert await holder.knock(SOCKET, at=lab.notebook) == 401


async def test_what_is_open_is_closed_when_that_ends_by_which_it_was_opened(lab: Lab) -> None:
    session = await lab.installation.log_in(lab.bob.username)
    by_token = await lab.installation.bearer(session)
    newest = (await session.get("/api/tokens?limit=200"))["items"][-1]["token"]
    by_pass = await session.enter(lab.notebook)
    async with (
        by_pass.socket(SOCKET, at=lab.notebook) as passed,
        by_token.socket(SOCKET, at=lab.notebook) as tokened,
    ):
        (await session.ask("DELETE", f"/api/tokens/{newest}")).expect(204)
        await ends_soon(tokened)
        (await session.ask("DELETE", "/api/session")).expect(204)
        await ends_soon(passed)


async def ends_soon(socket: ClientWebSocketResponse) -> None:
    """Wait for a WebSocket's end, whatever comes before it."""
    async with asyncio.timeout(5):
        while (await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
            pass


async def test_a_token_opens_only_what_its_scopes_name(lab: Lab) -> None:
    reader = await lab.installation.bearer(lab.ada.session, "read")
    assert (await reader.ask("GET", f"/api/notebooks/{lab.notebook}")).status == 200
    assert (await reader.ask("POST", f"/api/notebooks/{lab.notebook}/start")).status == 403
    assert (await reader.ask("GET", "/api/status", at=lab.notebook)).status == 403
    assert (await lab.ada.token.ask("POST", "/api/tokens", {"title": "more"})).status == 403
    more = await lab.ada.session.ask("POST", "/api/tokens", {"title": "more", "scopes": ["admin"]})
    assert more.status == 403


async def test_no_other_site_changes_anything_in_a_session(lab: Lab) -> None:
    cookie, csrf = lab.ada.session.headers["Cookie"], lab.ada.session.headers["X-CSRF-Token"]
    own, full = lab.installation.address, {"Cookie": cookie, "X-CSRF-Token": csrf}
    for headers in (
        {"Cookie": cookie},
        full | {"X-CSRF-Token": "0" * 64},
        full | {"X-CSRF-Token": lab.bob.session.headers["X-CSRF-Token"]},
        full | {"Origin": ELSEWHERE},
        full | {"Origin": "null"},
        full | {"Origin": lab.ada.session.origin(lab.notebook)},
        full | {"Sec-Fetch-Site": "cross-site"},
        full | {"Sec-Fetch-Site": "same-site"},
        full | {"Origin": own + ".evil.example"},
    ):
        answer = await lab.installation.guest.ask("POST", f"/api/notebooks/{lab.notebook}/stop", headers=headers)
        assert answer.status == 403, headers
        assert answer.page["type"] in ("/problems/csrf-token-missing", "/problems/cross-origin")
    form = urlencode({"username": lab.ada.username, "password": PASSWORD}).encode()
    for headers in ({"Origin": ELSEWHERE}, {"Sec-Fetch-Site": "cross-site"}):
        assert (await lab.installation.guest.ask("POST", "/sign-in", data=form, headers=FORM | headers)).status == 403
    kept = full | {"Origin": own, "Sec-Fetch-Site": "same-origin"}
    assert (
        await lab.installation.guest.ask("POST", f"/api/notebooks/{lab.notebook}/start", headers=kept)
    ).status == 202


async def test_nobody_is_led_to_another_site(lab: Lab) -> None:
    for there in EVIL:
        form = urlencode({"username": lab.bob.username, "password": PASSWORD, "next": there}).encode()
        answer = await lab.installation.guest.ask("POST", "/sign-in", data=form, headers=FORM)
        assert (answer.status, answer.headers["Location"]) == (303, "/"), there
        if len(there) < 1_000:
            opened = await lab.bob.session.ask("GET", f"/open/{lab.notebook}?next={quote(there, safe='')}")
            assert opened.status == 200, opened.text
            assert 'name="next" value="/"' in opened.text, there
        spent = await lab.bob.session.spend(await lab.bob.session.ticket(lab.notebook), lab.notebook, there)
        assert (spent.status, spent.headers["Location"]) == (303, "/"), there
    for path in ("//evil.example/..", "/%5cevil.example"):
        led = await lab.installation.guest.ask("GET", path, at=lab.notebook, headers={"Accept": "text/html"})
        assert led.headers["Location"].startswith(f"{lab.installation.address}/open/{lab.notebook}?next=%2F")


async def test_a_name_in_an_address_cannot_write_into_a_page(lab: Lab) -> None:
    for name in (
        'x"><meta http-equiv="refresh" content="0;url=evil">',
        "evil.example?",
        "evil.example#",
        "a;b",
        "a\nb",
    ):
        answer = await lab.bob.session.ask("GET", f"/open/{quote(name, safe='')}")
        assert answer.status in (400, 404), name
        assert b"<meta http" not in answer.body
    script = '"><script>alert(1)</script>'
    page = await lab.installation.guest.ask("GET", f"/sign-in?next={quote(script)}")
    assert "<script>alert" not in page.text


async def test_a_get_never_starts_a_notebook(lab: Lab, shelf: dict[str, tuple[str, str]]) -> None:
    _, notebook = shelf["private"]
    holder = await lab.bob.session.enter(notebook)
    html = {"Accept": "text/html"}
    for path in ("/", "/lab", "/.sophon/start", "/.sophon/enter"):
        for method in ("GET", "HEAD"):
            assert (await holder.ask(method, path, at=notebook, headers=html)).status in (404, 503)
    for path in (f"/api/notebooks/{notebook}/start", f"/open/{notebook}?start=1"):
        assert (await lab.bob.session.ask("GET", path)).status in (200, 405)
    assert (await holder.ask("POST", "/.sophon/start", at=notebook, headers={"Origin": ELSEWHERE})).status == 403
    assert (await lab.bob.token.get(f"/api/notebooks/{notebook}"))["status"] == "stopped"
    assert lab.installation.containers(notebook) == []


async def test_no_other_sites_page_reaches_a_notebook_by_a_pass(lab: Lab) -> None:
    holder = await lab.bob.session.enter(lab.notebook)
    own = holder.headers.pop("Origin")
    sibling = lab.bob.session.origin("other")
    for origin in (ELSEWHERE, sibling, lab.installation.address, "null", own.replace("http:", "https:"), own + "0"):
        assert await holder.knock(SOCKET, at=lab.notebook, headers={"Origin": origin}) == 403, origin
        answer = await holder.ask("POST", "/api/kernels", {}, at=lab.notebook, headers={"Origin": origin})
        assert answer.status == 403
        assert (await holder.ask("GET", "/api/status", at=lab.notebook, headers={"Origin": origin})).status == 403
    assert await holder.knock(SOCKET, at=lab.notebook) == 403
    assert await holder.knock(SOCKET, at=lab.notebook, headers={"Origin": own}) == 101
    for site in ("cross-site", "same-site"):
        for mode, destination in (("navigate", "iframe"), ("navigate", "embed"), ("no-cors", "script"), ("cors", "")):
            fetched = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": destination}
            assert (await holder.ask("GET", "/lab", at=lab.notebook, headers=fetched)).status == 403, fetched
        top = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await holder.ask("GET", "/lab", at=lab.notebook, headers=top)).status == 200


async def test_no_other_sites_frame_shows_a_notebook_or_the_platform(context: BrowserContext, lab: Lab) -> None:
    page = await context.new_page()
    notebook = lab.bob.session.origin(lab.notebook)
    await page.goto(f"{lab.installation.address}/open/{lab.notebook}?next=/api/status")
    await page.get_by_label("User name").fill(lab.bob.username)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/api/status")
    refused = "chrome-error://chromewebdata/"  # what Chromium shows of what may not be shown
    async with other_site() as there:
        for framed, shown in (
            (f"{there}/?frame=", f"{there}/?frame="),
            (f"{notebook}/lab", refused),
            (f"{notebook}/api/status", refused),
            (f"{lab.installation.address}/", refused),
            (f"{lab.installation.address}/sign-in", refused),
            (f"{lab.installation.address}/open/{lab.notebook}", refused),
        ):
            await page.goto(f"{there}/?frame={quote(framed)}")
            await page.frames[1].wait_for_url(shown, wait_until="commit", timeout=5_000)


@asynccontextmanager
async def other_site() -> AsyncGenerator[str]:
    """Serve a page of another site that shows in a frame what it is asked to; give its origin."""

    async def show(request: web.Request) -> web.Response:
        frame = f'<!doctype html><iframe src="{request.query["frame"]}"></iframe>'
        return web.Response(text=frame, content_type="text/html")

    site = web.Application()
    site.router.add_get("/", show)
    runner = web.AppRunner(site)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://evil.localhost:{port}"
    await runner.cleanup()


async def test_a_ticket_works_once_and_only_for_its_notebook(lab: Lab, shelf: dict[str, tuple[str, str]]) -> None:
    session, (_, other) = lab.bob.session, shelf["private"]
    ticket = await session.ticket(lab.notebook)
    assert (await session.spend(ticket, other)).status == 403
    first = await session.spend(ticket, lab.notebook, "/lab/tree/a%20b.ipynb?reset")
    assert (first.status, first.headers["Location"]) == (303, "/lab/tree/a%20b.ipynb?reset")
    pass_name = f"__Host-sophon-pass-{lab.installation.id}"
    assert is_a_hosts_own(first, pass_name)
    again = await session.spend(ticket, lab.notebook)
    assert again.status == 403
    assert "Set-Cookie" not in again.headers

    cookie = first.headers["Set-Cookie"].partition(";")[0]
    holder = Visitor(session.http, lab.installation.domain, {"Cookie": cookie})
    assert (await holder.ask("GET", "/api/status", at=lab.notebook)).status == 200
    assert (await holder.ask("GET", "/", at=other)).status == 401
    unspent = await session.ticket(lab.notebook)
    for forged in (f"{pass_name}={unspent}", cookie[:-1] + "x", f"{pass_name}=", f"{pass_name}=.."):
        headers = {"Cookie": forged}
        assert (await lab.installation.guest.ask("GET", "/", at=lab.notebook, headers=headers)).status == 401
    for nonsense in ("", ".", "a.b", "é.é", "\x00", "x" * 2_001, unspent[:-1], cookie.partition("=")[2]):
        assert (await session.spend(nonsense, lab.notebook)).status == 403, nonsense


async def test_the_session_is_known_by_a_cookie_of_this_host_alone(lab: Lab) -> None:
    answer = await lab.installation.guest.ask(
        "POST", "/api/session", {"username": lab.bob.username, "password": PASSWORD}
    )
    assert is_a_hosts_own(answer, f"__Host-sophon-{lab.installation.id}")


def is_a_hosts_own(answer: Answer, name: str) -> bool:
    """Whether a cookie is set that no script reads, no sibling host gets, and no other site sends along."""
    (cookie,) = answer.headers.getall("Set-Cookie")
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    return (
        cookie.startswith(f"{name}=")
        and {"path=/", "secure", "httponly", "samesite=lax"} <= attributes
        and not any(re.match("domain", attribute) for attribute in attributes)
    )


async def test_nobody_says_who_they_are_by_themselves(lab: Lab) -> None:
    claims = {
        "X-Sophon-User": lab.eve.id,
        "X-Sophon-Name": "Eve",
        "X_Sophon_User": lab.eve.id,
        "X-Sophon-Via": "session",
        "Connection": "X-Sophon-User, X-Sophon-Token, X-Sophon-Name",
    }
    me = await lab.bob.token.ask("GET", "/api/me", at=lab.notebook, headers=claims)
    assert me.expect(200).page["identity"]["username"] == lab.bob.id
    assert me.page["identity"]["name"] == lab.bob.username
    assert (await lab.installation.guest.ask("GET", "/api/me", at=lab.notebook, headers=claims)).status == 401
    for path in ("/authorise", "/.sophon/authorise", "/.sophon/../authorise", "//authorise"):
        answer = await lab.installation.guest.ask("GET", path, at=lab.notebook)
        assert answer.status in (401, 404), path
        assert not [name for name in answer.headers if name.lower().startswith("x-sophon")]
