"""Over HTTPS, as anywhere but on localhost: a browser signs in, stays so, and works in JupyterLab."""

import asyncio
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext

from tests.certificates import certificate
from tests.installation import ADMINISTRATOR, GREETING, PASSWORD, READY_WITHIN, installation


async def change(context: BrowserContext, address: str, path: str, body: dict[str, Any] | None = None) -> None:
    """Ask for a change as the one who is logged in in this browser."""
    session = await (await context.request.get(f"{address}/api/session")).json()
    headers = {"X-CSRF-Token": session["csrf_token"]}
    answer = await context.request.post(f"{address}{path}", headers=headers, data=body)
    assert answer.status in (201, 202), await answer.text()


async def test_a_browser_signs_in_over_https_and_works_in_a_notebook(browser: Browser, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, "localhost", "*.localhost")
    tls = {"SOPHON_TLS_CERTIFICATE": str(chain), "SOPHON_TLS_KEY": str(key)}
    async with installation(SOPHON_RUNTIME="process", **tls) as fresh:
        process, give_up = fresh.launch(), time.monotonic() + READY_WITHIN
        while GREETING not in fresh.output:
            assert process.poll() is None, fresh.output
            assert time.monotonic() < give_up, fresh.output
            await asyncio.sleep(0.05)
        address = f"https://localhost:{fresh.port}"
        assert address in fresh.output
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        await page.goto(f"{address}/sign-in")
        await page.get_by_label("User name").fill(ADMINISTRATOR)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_text("You are signed in").wait_for()
        await change(context, address, "/api/groups", {"slug": "lab", "title": "Lab"})
        await change(context, address, "/api/projects", {"slug": "apollo", "group": "lab", "title": "Apollo"})
        await change(context, address, "/api/notebooks", {"slug": "plots", "project": "apollo", "title": "Plots"})
        await change(context, address, "/api/notebooks/plots/start")
        await page.goto(f"{address}/open/plots")
        await page.wait_for_selector(".jp-Launcher", timeout=60_000)
        await page.screenshot(path=tmp_path / "lab.png")
        assert page.url.startswith(f"https://plots.localhost:{fresh.port}/")
        cookies = {cookie.get("name"): cookie.get("secure") for cookie in await context.cookies()}
        ours = (f"__Host-sophon-{fresh.id}", f"__Host-sophon-pass-{fresh.id}")
        assert [cookies[name] for name in ours] == [True, True]
        await context.close()
