"""A platform without notebooks, proxy and sockets: what its API answers, and what its log says then."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import argon2
import httpx

from app.audit.entry import Record
from app.audit.signing import signer
from app.identity.hashing import Hashing
from app.keys import Keys
from app.main import create_app
from app.platform import Platform
from app.settings import Settings

KEYS = Keys(b"k" * 32)
PASSWORD = "correct horse battery staple"
HOME = "192.0.2.1"
SOON = 0.1
"""Seconds between two checkpoints, at least: many tests wait for one."""


class Person:
    """Somebody who asks, by whatever headers prove who they are."""

    def __init__(self, client: httpx.AsyncClient, user: str, headers: dict[str, str]) -> None:
        self._client = client
        self.user = user
        self.headers = headers

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Ask once, from home."""
        sent = {"X-Forwarded-For": HOME, **self.headers, **(headers or {})}
        return await self._client.request(method, path, json=body, headers=sent)

    async def get(self, path: str) -> Any:
        """Get a page that has to be there."""
        return (await self.ask("GET", path)).raise_for_status().json()

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        """Change something that may be changed."""
        answer = (await self.ask(method, path, body)).raise_for_status()
        return answer.json() if answer.content else None


class Town:
    """The platform, the log behind it, and the people in it."""

    def __init__(self, platform: Platform, client: httpx.AsyncClient) -> None:
        self.platform = platform
        self.client = client
        self.guest = Person(client, "", {})
        self.admin: Person
        self.people: tuple[Person, ...] = ()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, dsn: str, data: Path, **settings: Any) -> AsyncGenerator[Self]:
        """Open it on an empty log, with its administrator logged in."""
        chosen = Settings(data=data, **settings)
        with patch.object(signer, "EVERY", SOON):
            async with Platform.open(chosen, KEYS, dsn) as platform:
                platform.identity.hashing = Hashing(argon2.PasswordHasher(1, 8, 1))
                transport = httpx.ASGITransport(app=create_app(platform))  # pyright: ignore[reportArgumentType]
                async with httpx.AsyncClient(transport=transport, base_url=chosen.address) as client:
                    town = cls(platform, client)
                    await platform.set_up("admin", PASSWORD)
                    town.admin = await town.log_in("admin")
                    yield town

    async def log_in(self, username: str, password: str = PASSWORD) -> Person:
        """Open a session."""
        answer = await self.guest.ask("POST", "/api/session", {"username": username, "password": password})
        page = answer.raise_for_status().json()
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        self.client.cookies.clear()
        return Person(self.client, page["user"], {"Cookie": cookie, "X-CSRF-Token": page["csrf_token"]})

    async def person(self, username: str, **roles: bool) -> Person:
        """Make an account, and log in to it."""
        await self.admin.do("POST", "/api/users", {"username": username, "password": PASSWORD, **roles})
        return await self.log_in(username)

    async def bearer(self, person: Person, *scopes: str) -> Person:
        """Make a token, and give who holds it."""
        made = await person.do("POST", "/api/tokens", {"title": "test", "scopes": scopes or ("read", "write")})
        return Person(self.client, person.user, {"Authorization": f"Bearer {made['secret']}"})

    @property
    def head(self) -> int:
        """Where the log ends."""
        return self.platform.log.head

    async def signed(self) -> int:
        """Wait until a checkpoint of everything is given out, which is after it is signed; give how much that is."""
        head = self.head
        async with asyncio.timeout(30):
            while (newest := await self.platform.tree.newest()) is None or newest.size < head:
                self.platform.signer.hurry()
                await asyncio.sleep(0.05)
        return newest.size

    async def since(self, position: int, *types: str) -> list[Record]:
        """Give what was appended after a position, of some types or of all."""
        page = await self.platform.log.read(after=position)
        return [record for record in page.records if not types or record.entry.type in types]

    async def kinds(self, position: int) -> list[str]:
        """Name what was appended after a position."""
        return [record.entry.type for record in await self.since(position)]


async def lab(town: Town) -> tuple[Person, Person]:
    """Begin Ada's lab, with Bob in it, a private project and a notebook; give the two."""
    ada, bob = await town.person("ada"), await town.person("bob")
    await ada.do("POST", "/api/groups", {"slug": "lab", "title": "Lab"})
    await ada.do("PUT", f"/api/groups/lab/members/{bob.user}")
    await ada.do("POST", "/api/projects", {"slug": "apollo", "group": "lab", "title": "Apollo"})
    await ada.do("POST", "/api/notebooks", {"slug": "plots", "project": "apollo", "title": "Plots"})
    return ada, bob
