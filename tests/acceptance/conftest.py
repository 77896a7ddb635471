"""What acceptance tests are given: one running installation that they share, people on it, and a browser."""

import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser, BrowserContext, async_playwright

from tests.installation import PASSWORD, Installation, Visitor, installation

CHROMIUM = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def must_have(part: str, why_not: str | None) -> None:
    """Skip where a part is missing, unless SOPHON_REQUIRE names it: then its absence is a failure."""
    if why_not is None:
        return
    if part in os.environ.get("SOPHON_REQUIRE", ""):
        pytest.fail(f"{why_not} SOPHON_REQUIRE asks for it.")
    pytest.skip(why_not)


@pytest.fixture(scope="session")
def engine() -> None:
    """Docker, or no test."""
    must_have("docker", _why_no_docker())


def _why_no_docker() -> str | None:
    if shutil.which("docker") is None:
        return "There is no docker command."
    asked = subprocess.run(("docker", "version"), capture_output=True, text=True, check=False, timeout=30)
    return f"Docker does not answer: {asked.stderr.strip()}" if asked.returncode else None


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, or no test."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    must_have("browser", None if path else "There is no Chromium.")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=[*CHROMIUM])
        yield chromium
        await chromium.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser of one's own: no cookie of anybody else's."""
    context = await browser.new_context()
    yield context
    await context.close()


@pytest.fixture(scope="session")
async def shared(engine: None) -> AsyncIterator[Installation]:
    """A running installation, for tests that leave it running."""
    async with installation() as made:
        await made.start()
        yield made


@pytest.fixture
async def fresh(engine: None) -> AsyncIterator[Installation]:
    """An installation of one's own, not started yet."""
    async with installation() as made:
        yield made


@dataclass(frozen=True)
class Person:
    """Somebody with an account: in a session, and by a token."""

    username: str
    session: Visitor
    token: Visitor

    @property
    def id(self) -> str:
        return self.session.user


@dataclass(frozen=True)
class Lab:
    """A group with two members, its private project and notebook, and somebody who is no member."""

    installation: Installation
    administrator: Visitor
    ada: Person
    bob: Person
    eve: Person
    group: str
    project: str
    notebook: str


async def person(where: Installation, administrator: Visitor, name: str) -> Person:
    """Make an account, and let its user in."""
    username = f"{name}-{secrets.token_hex(3)}"
    await administrator.do("POST", "/api/users", {"username": username, "password": PASSWORD})
    session = await where.log_in(username)
    return Person(username, session, await where.bearer(session))


async def populate(where: Installation) -> Lab:
    """Make the lab; every name is new."""
    administrator = await where.administrator()
    ada, bob, eve = [await person(where, administrator, name) for name in ("ada", "bob", "eve")]
    suffix = secrets.token_hex(3)
    group, project, notebook = (f"{kind}-{suffix}" for kind in ("space-lab", "apollo", "plots"))
    await ada.token.do("POST", "/api/groups", {"slug": group, "title": "Space lab"})
    await ada.token.do("PUT", f"/api/groups/{group}/members/{bob.id}", {"role": "member"})
    await ada.token.do("POST", "/api/projects", {"slug": project, "group": group, "title": "Apollo"})
    await ada.token.do("POST", "/api/notebooks", {"slug": notebook, "project": project, "title": "Plots"})
    return Lab(where, administrator, ada, bob, eve, group, project, notebook)


@pytest.fixture(scope="session")
async def lab(shared: Installation) -> Lab:
    """The shared installation's lab, its notebook ready."""
    lab = await populate(shared)
    await lab.ada.token.start(lab.notebook)
    return lab
