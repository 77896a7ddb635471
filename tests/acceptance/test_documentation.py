"""The API's own documentation: it says how each route is asked, and is a page that somebody can work with."""

import json
import secrets
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Locator, Page

from tests.installation import ADMINISTRATOR, PASSWORD, Installation

Needed = dict[str, list[str]]
SESSION: Needed = {"session": []}
CHANGE: Needed = {"session": [], "csrf": []}
TOKEN: Needed = {"token": []}
GUEST: Needed = {}


async def test_a_client_learns_from_the_document_what_each_route_is_asked_with(shared: Installation) -> None:
    document = await shared.guest.get("/schema/openapi.json")
    csrf = document["components"]["securitySchemes"]["csrf"]
    assert (csrf["type"], csrf["in"], csrf["name"]) == ("apiKey", "header", "X-CSRF-Token")
    assert "security" not in document
    said = {
        (method, path): operation["security"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert said["post", "/api/session"] == [GUEST]
    assert said["post", "/api/groups"] == said["delete", "/api/notebooks/{notebook}"] == [CHANGE, TOKEN]
    assert said["get", "/api/users"] == [SESSION, TOKEN]
    assert said["get", "/api/projects"] == [SESSION, TOKEN, GUEST]
    for (method, path), security in said.items():
        if method == "get" and "{" not in path and path != "/api/audit/tail":
            answer = await shared.guest.ask("GET", path)
            assert (answer.status == 401) == (GUEST not in security), path


async def executed(page: Page, operation: str, body: dict[str, Any]) -> tuple[str, str]:
    """Try a route out as a person does; give the status and the body of the answer."""
    block = page.locator(f"#operations-{operation}")
    await block.locator(".opblock-summary-control").click()
    await block.locator(".try-out__btn").click()
    await block.locator("textarea.body-param__text").fill(json.dumps(body))
    await block.locator("button.execute").click()
    answer: Locator = block.locator(".live-responses-table .response")
    await answer.wait_for()
    return (
        (await answer.locator(".response-col_status").inner_text()).split()[0],
        await answer.locator(".highlight-code code").first.inner_text(),
    )


async def test_somebody_logs_in_and_makes_a_change_on_the_page(
    context: BrowserContext, shared: Installation, tmp_path: Path
) -> None:
    page = await context.new_page()
    await page.set_viewport_size({"width": 1300, "height": 1600})
    await page.goto(f"{shared.address}/schema")
    status, told = await executed(page, "session-ApiSessionLogIn", {"username": ADMINISTRATOR, "password": PASSWORD})
    assert status == "200", told
    await page.locator("button.authorize").first.click()
    scheme = page.locator(".auth-container").filter(has_text="csrf (apiKey)")
    await scheme.locator("input").fill(json.loads(told)["csrf_token"])
    await scheme.locator("button[type=submit]").click()
    await page.screenshot(path=tmp_path / "authorised.png")
    await page.locator(".btn-done").first.click()
    slug = f"seen-{secrets.token_hex(3)}"
    status, told = await executed(page, "groups-ApiGroupsCreateGroup", {"slug": slug, "title": "Seen"})
    await page.screenshot(path=tmp_path / "made.png")
    assert (status, json.loads(told)["slug"]) == ("201", slug)
