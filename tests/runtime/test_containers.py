"""Containers: what Docker says while it is busy with something else, which no real one can be made to say."""

import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiodocker import Docker
from aiohttp import web

from app.runtime.containers import Containers, Limits
from tests.domain.cast import PLOTS, RUN

LABELS = {"sophon.installation": "here", "sophon.notebook": PLOTS, "sophon.run": RUN}


class Removing:
    """Answers as Docker does while another removes a container: it is listed, and not removed twice."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_gone = False

    async def answer(self, request: web.Request) -> web.Response:
        asked = f"{request.method} {request.path.partition('/containers/')[2]}"
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": "1.41"})
        self.asked.append(asked)
        match asked:
            case "GET json":
                one: dict[str, Any] = {"Id": "c1", "Labels": LABELS, "State": "removing", "Ports": [], "Created": 0}
                return web.json_response([] if self.is_gone else [one])
            case "POST c1/stop":
                return web.Response(status=304)
            case "DELETE c1":
                message = {"message": "removal of container c1 is already in progress"}
                return web.json_response(message, status=409)
            case "POST c1/wait" if request.query["condition"] == "removed":
                self.is_gone = True
                return web.json_response({"StatusCode": 0})
            case _:
                return web.Response(status=404, text=json.dumps({"message": asked}))


@pytest.fixture
async def removing() -> AsyncIterator[tuple[Removing, Docker]]:
    engine, app = Removing(), web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "docker.sock"
        await web.UnixSite(runner, str(socket)).start()
        async with Docker(url=f"unix://{socket}") as docker:
            yield engine, docker
        await runner.cleanup()


async def test_what_somebody_else_is_removing_is_waited_for(removing: tuple[Removing, Docker]) -> None:
    engine, docker = removing
    containers = Containers(docker, "here", "image", Limits(256, 1, 64))
    (seen,) = await containers.instances(PLOTS)
    await containers.remove(seen)
    assert await containers.instances(PLOTS) == []
    assert engine.asked == ["GET json", "POST c1/stop", "DELETE c1", "POST c1/wait", "GET json"]
