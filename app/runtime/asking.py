"""Asking a run something, as the platform itself: with its token, and speaking for nobody."""

import contextlib
from collections.abc import AsyncGenerator

import aiohttp

from app.domain.runs import Upstream

PROBLEMS = (aiohttp.ClientError, OSError, TimeoutError)
"""What it is to get no answer."""


@contextlib.asynccontextmanager
async def asking(upstream: Upstream, token: str) -> AsyncGenerator[aiohttp.ClientSession]:
    """Give a session with a run, wherever it answers; each question has five seconds."""
    path = upstream.removeprefix("unix/") if upstream.startswith("unix/") else None
    connector = aiohttp.UnixConnector(path) if path else aiohttp.TCPConnector()
    base = "http://notebook" if path else f"http://{upstream}"
    patience = aiohttp.ClientTimeout(total=5)
    headers = {"X-Sophon-Token": token}
    async with aiohttp.ClientSession(base, connector=connector, timeout=patience, headers=headers) as session:
        yield session
