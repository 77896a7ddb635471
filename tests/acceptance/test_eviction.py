"""Whoever may no longer be in a notebook is put out of it: an open WebSocket ends within five seconds."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from psycopg import AsyncConnection

from app.postgres import embedded
from tests.acceptance.conftest import Lab, Person, populate
from tests.acceptance.kernel import start_kernel
from tests.installation import Installation, Visitor

WITHIN = 5.0


async def channel(who: Visitor, notebook: str, kernel: str) -> aiohttp.ClientWebSocketResponse:
    headers = {**who.headers, "Host": who.origin(notebook)[7:]}
    return await who.http.ws_connect(f"/api/kernels/{kernel}/channels", headers=headers)


async def ended(socket: aiohttp.ClientWebSocketResponse, within: float) -> bool:
    """Read on; tell whether the other side ended it in time."""
    try:
        async with asyncio.timeout(within):
            while (await socket.receive()).type not in (
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSING,
                aiohttp.WSMsgType.ERROR,
            ):
                pass
    except TimeoutError:
        return False
    return True


async def remove(lab: Lab, who: Person) -> None:
    await lab.ada.token.do("DELETE", f"/api/groups/{lab.group}/members/{who.id}")


async def log_out(lab: Lab, who: Person) -> None:
    await who.session.do("DELETE", "/api/session")


@pytest.mark.parametrize("end", [remove, log_out])
async def test_open_sockets_end_with_the_membership_or_the_session_and_a_colleagues_go_on(
    shared: Installation, end: Callable[[Lab, Person], Awaitable[None]]
) -> None:
    lab = await populate(shared)
    await lab.ada.token.start(lab.notebook)
    kernel = await start_kernel(lab.ada.token, lab.notebook)
    bob = await lab.bob.session.enter(lab.notebook)
    async with (
        await channel(lab.ada.token, lab.notebook, kernel) as adas,
        await channel(bob, lab.notebook, kernel) as bobs,
    ):
        await end(lab, lab.bob)
        assert await ended(bobs, WITHIN)
        assert not await ended(adas, 0.5)
        path = f"/api/kernels/{kernel}/channels"
        assert await bob.knock(path, at=lab.notebook) in (401, 403)
    await lab.ada.token.do("DELETE", f"/api/notebooks/{lab.notebook}")


async def test_an_open_socket_ends_when_its_session_expires(shared: Installation) -> None:
    lab = await populate(shared)
    await lab.ada.token.start(lab.notebook)
    kernel = await start_kernel(lab.ada.token, lab.notebook)
    async with (
        embedded(shared.data / "postgres") as dsn,
        await AsyncConnection.connect(dsn, autocommit=True) as connection,
    ):
        soon = "UPDATE vault.keys SET expires = now() + interval '8 s' WHERE user_id = %s AND kind = 'session'"
        assert (await connection.execute(soon, (lab.bob.id,))).rowcount == 1
    bob = await lab.bob.session.enter(lab.notebook)
    async with (
        await channel(lab.ada.token, lab.notebook, kernel) as adas,
        await channel(bob, lab.notebook, kernel) as bobs,
    ):
        assert not await ended(bobs, 4)
        assert await ended(bobs, 4 + WITHIN)
        assert not await ended(adas, 0.5)
        assert await bob.knock(f"/api/kernels/{kernel}/channels", at=lab.notebook) in (401, 403)
    await lab.ada.token.do("DELETE", f"/api/notebooks/{lab.notebook}")
