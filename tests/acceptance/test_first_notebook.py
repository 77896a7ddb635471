"""A newcomer's first minute: the example in the README, as it stands there."""

import asyncio
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

from playwright.async_api import BrowserContext

from tests.acceptance.conftest import Lab
from tests.installation import ADMINISTRATOR, PASSWORD, ROOT, Installation


async def test_the_example_makes_a_notebook_runs_code_in_it_finds_its_file_and_leads_a_browser_into_it(
    shared: Installation, context: BrowserContext, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "SOPHON_URL": shared.address,
        "SOPHON_USERNAME": ADMINISTRATOR,
        "SOPHON_PASSWORD": PASSWORD,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        (sys.executable, ROOT / "examples" / "first_notebook.py"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "6*7 is 42" in done.stdout
    assert "the file says 'kept'" in done.stdout
    last = done.stdout.splitlines()[-1]
    (address, username, password) = re.findall(r"open (\S+) in .* sign in as (\S+) with the password (\S+)$", last)[0]
    page = await context.new_page()
    await page.goto(address)
    await page.get_by_label("User name").fill(username)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_text("result.txt").wait_for(timeout=60_000)
    await page.screenshot(path=tmp_path / "lab.png")
    administrator = await shared.administrator()
    await administrator.do("DELETE", f"/api/notebooks/{address.rpartition('/')[2]}")


async def test_a_browser_is_led_from_signing_in_by_a_start_button_to_jupyterlab(
    context: BrowserContext, lab: Lab, tmp_path: Path
) -> None:
    notebook = f"fresh-{secrets.token_hex(3)}"
    await lab.ada.token.do("POST", "/api/notebooks", {"slug": notebook, "project": lab.project, "title": "Fresh"})
    page = await context.new_page()
    answer = await page.goto(f"{lab.installation.address}/open/{notebook}")
    assert answer is not None
    assert answer.status == 200
    await page.get_by_label("User name").fill(lab.ada.username)
    await page.get_by_label("Password").fill("not this one")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("alert").wait_for()
    await page.get_by_label("User name").fill(lab.ada.username)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("button", name="Start it").wait_for()
    assert (await lab.ada.token.get(f"/api/notebooks/{notebook}"))["status"] == "stopped"
    await page.screenshot(path=tmp_path / "stopped.png")
    await page.get_by_role("button", name="Start it").click()
    await page.wait_for_selector(".jp-Launcher", timeout=60_000)
    await page.screenshot(path=tmp_path / "lab.png")
    assert page.url.startswith(lab.ada.session.origin(notebook))
    await lab.ada.token.do("DELETE", f"/api/notebooks/{notebook}")
