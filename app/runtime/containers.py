"""Containers: the engine that is Docker. Everything that is asked of Docker is asked here (and for images, beside)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, Self

import aiohttp
import structlog
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from msgspec import Struct

from app.domain.names import NotebookName
from app.domain.runs import RunId
from app.runtime.engine import EngineAway, EngineError, Instance

PORT = "8888/tcp"
HOME = "/home/researcher"
ANSWER_WITHIN = 60.0
STOP_WITHIN = 5
LINES, LINE = 20, 500
NO_ANSWER = 900
"""From here on a status is aiodocker's own, and says that there was no connection."""

_log = structlog.get_logger(__name__)


class Limits(Struct, frozen=True):
    """What one notebook may use: MiB of memory (no swap beside it), CPUs, processes."""

    memory: int
    cpus: float
    pids: int


class Containers:
    """Holds each run in a container named after it, so that there cannot be two; its notebook's files in a volume.

    `installation` goes into every name and label: two installations may share one Docker.
    """

    name: Literal["docker"] = "docker"

    def __init__(self, docker: Docker, installation: str, image: str, limits: Limits) -> None:
        self._docker = docker
        self._installation = installation
        self._image = image
        self._limits = limits

    @classmethod
    @asynccontextmanager
    async def open(cls, installation: str, image: str, limits: Limits) -> AsyncGenerator[Self]:
        """Make the network that keeps notebooks apart, where it is missing; raises `EngineAway` or `EngineError`."""
        async with connect() as docker:
            containers = cls(docker, installation, image, limits)
            await containers._make_network()
            try:
                yield containers
            finally:
                await containers._remove_network()

    async def instances(self, notebook: NotebookName | None = None) -> list[Instance]:
        """List this installation's containers in one call, and one more for each that has exited."""
        labels = [f"sophon.installation={self._installation}"]
        if notebook is not None:
            labels.append(f"sophon.notebook={notebook}")
        found = await self._ask("GET", "containers/json", {"all": "true", "filters": json.dumps({"label": labels})})
        return [await self._instance(summary) for summary in found]

    async def create(self, notebook: NotebookName, run: RunId, token: str) -> None:
        """Create the run's container and, at its first, the notebook's volume."""
        labels = {
            "sophon.installation": self._installation,
            "sophon.notebook": notebook,
            "sophon.run": run,
        }
        volume = volume_of(self._installation, notebook)
        kept = {key: value for key, value in labels.items() if key != "sophon.run"}
        await self._ask("POST", "volumes/create", body={"Name": volume, "Labels": kept})
        config = self._config(labels, volume, token)
        try:
            await self._ask("POST", "containers/create", {"name": f"sophon-{self._installation}-{run}"}, config)
        except Refused as refused:
            if refused.status != 409:  # it exists: the call before this one was not answered
                raise

    async def start(self, instance: Instance) -> None:
        """Start the container."""
        await self._ask("POST", f"containers/{instance.id}/start")

    async def remove(self, instance: Instance) -> None:
        """Give JupyterLab five seconds to end, then remove the container."""
        try:
            if instance.state == "running":
                await self._ask("POST", f"containers/{instance.id}/stop", {"t": str(STOP_WITHIN)})
            await self._delete(instance.id)
        except Refused as refused:
            if refused.status != 404:  # it is gone
                raise

    async def _delete(self, container: str) -> None:
        try:
            await self._ask("DELETE", f"containers/{container}", {"force": "true", "v": "false"})
        except Refused as refused:
            if refused.status != 409:
                raise
            # Somebody is removing it. Until that is done it is listed, and whoever looks would remove it again.
            await self._ask("POST", f"containers/{container}/wait", {"condition": "removed"})

    async def last_words(self, instance: Instance) -> str:
        """Give the end of what the container wrote to its standard output and error."""
        container: Any = self._docker.containers.container(instance.id)  # pyright: ignore[reportUnknownMemberType]
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                lines: list[str] = await container.log(stdout=True, stderr=True, tail=LINES)
        except (DockerError, aiohttp.ClientError, OSError, TimeoutError):
            return ""
        return "\n".join(line.rstrip()[:LINE] for line in "".join(lines).splitlines()[-LINES:])

    async def happenings(self) -> AsyncGenerator[NotebookName | None]:
        """Follow Docker's events, on a connection of our own: aiodocker's does not come back when Docker restarts."""
        while True:
            yield None
            try:
                async with connect() as docker:
                    async for notebook in self._events(docker):
                        yield notebook
            except (EngineError, DockerError, aiohttp.ClientError, OSError) as error:
                _log.warning("docker.away", error=str(error))
            await asyncio.sleep(1)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._docker.close()

    async def _events(self, docker: Docker) -> AsyncGenerator[NotebookName]:
        filters = {
            "type": ["container"],
            "event": ["die", "oom", "start", "destroy", "pause", "unpause"],
            "label": [f"sophon.installation={self._installation}"],
        }
        query = docker._query(  # pyright: ignore[reportPrivateUsage]
            "events", params={"filters": json.dumps(filters)}, timeout=aiohttp.ClientTimeout()
        )
        async with query as response:
            try:
                async for line in response.content:
                    event = json.loads(line)
                    if event["Action"] == "die":
                        await self._until_listed(event["Actor"]["ID"])
                    yield event["Actor"]["Attributes"]["sophon.notebook"]
            finally:
                response.close()  # a stream that is only left would keep its connection for ever

    async def _until_listed(self, container: str) -> None:
        """Wait until Docker's list knows of a death, some 0.1 s after its event: a question about the one waits."""
        with contextlib.suppress(Refused):
            await self._ask("GET", f"containers/{container}/json")

    async def _instance(self, summary: dict[str, Any]) -> Instance:
        labels = summary["Labels"]
        running = summary["State"] in ("running", "restarting", "paused", "removing")
        seen = Instance(
            id=summary["Id"],
            notebook=labels["sophon.notebook"],
            run=labels["sophon.run"],
            state="running" if running else "created" if summary["State"] == "created" else "exited",
            # What is paused answers nobody, though its port is there.
            upstream=_upstream(summary["Ports"]) if summary["State"] == "running" else None,
            started_at=datetime.fromtimestamp(summary["Created"], UTC),
        )
        return await self._autopsy(seen) if seen.state == "exited" else seen

    async def _autopsy(self, seen: Instance) -> Instance:
        try:
            state = (await self._ask("GET", f"containers/{seen.id}/json"))["State"]
        except Refused:
            return seen
        return Instance(
            id=seen.id,
            notebook=seen.notebook,
            run=seen.run,
            state="exited",
            started_at=seen.started_at,
            exit_code=state["ExitCode"],
            out_of_memory=state["OOMKilled"],
        )

    def _config(self, labels: Mapping[str, str], volume: str, token: str) -> dict[str, Any]:
        memory = self._limits.memory * 1024 * 1024
        return {
            "Image": self._image,
            "Labels": labels,
            "Env": [f"SOPHON_TOKEN={token}"],
            "ExposedPorts": {PORT: {}},
            "HostConfig": {
                "Memory": memory,
                "MemorySwap": memory,
                "NanoCpus": int(self._limits.cpus * 1e9),
                "PidsLimit": self._limits.pids,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "ReadonlyRootfs": True,
                "Tmpfs": {"/tmp": "size=256m,mode=1777"},  # noqa: S108  (the container's own)
                "Mounts": [{"Type": "volume", "Source": volume, "Target": HOME}],
                "NetworkMode": self._network,
                "PortBindings": {PORT: [{"HostIp": "127.0.0.1", "HostPort": ""}]},
                "RestartPolicy": {"Name": "no"},
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
            },
        }

    @property
    def _network(self) -> str:
        return f"sophon-{self._installation}"

    async def _make_network(self) -> None:
        found = await self._ask("GET", "networks", {"filters": json.dumps({"name": [self._network]})})
        if any(network["Name"] == self._network for network in found):
            return
        config = {
            "Name": self._network,
            "Driver": "bridge",
            "Options": {"com.docker.network.bridge.enable_icc": "false"},
            "Labels": {"sophon.installation": self._installation},
        }
        await self._ask("POST", "networks/create", body=config)

    async def _remove_network(self) -> None:
        """Give the network back, of which Docker has few, unless containers go on in it."""
        with contextlib.suppress(EngineError):
            await self._ask("DELETE", f"networks/{self._network}")

    async def _ask(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        return await ask(self._docker, method, path, params, body)


def volume_of(installation: str, notebook: NotebookName) -> str:
    """Name the volume that a notebook's files are in."""
    return f"sophon-{installation}-{notebook}"


async def remove_volume(docker: Docker, installation: str, notebook: NotebookName) -> bool:
    """Remove a notebook's volume, and all files in it; whether there was one. Raises `EngineError` if it is in use."""
    try:
        await ask(docker, "DELETE", f"volumes/{volume_of(installation, notebook)}")
    except Refused as refused:
        if refused.status == 404:
            return False
        raise
    return True


class Refused(EngineError):
    """Docker answered, and said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def ask(
    docker: Docker,
    method: str,
    path: str,
    params: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> Any:
    """Ask Docker one thing; raises `Refused`, or `EngineAway` where nobody answers within a minute."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            query = docker._query(  # pyright: ignore[reportPrivateUsage]
                path, method, params=dict(params or {}), data=json.dumps(body) if body is not None else None
            )
            async with query as response:
                text = await response.text()
                return json.loads(text) if text.strip() else None
    except DockerError as error:
        if error.status >= NO_ANSWER:
            raise EngineAway(f"Docker does not answer ({_cause(error)}).") from error
        raise Refused(error.status, error.message) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise EngineAway(f"Docker does not answer: {error or type(error).__name__}") from error


@asynccontextmanager
async def connect() -> AsyncGenerator[Docker]:
    """Connect to the engine that `DOCKER_HOST`, or Docker's own configuration, names; raises `EngineAway`."""
    try:
        docker = Docker(timeout=aiohttp.ClientTimeout(sock_connect=5))
    except (AssertionError, ValueError, OSError, DockerError) as error:
        raise EngineAway(f"There is no Docker Engine to be found. {error}".strip()) from error
    async with docker:
        yield docker


def _cause(error: DockerError) -> str:
    """Give the operating system's own words, without aiohttp's around them."""
    cause = error.__cause__ or error.__context__
    return (cause.strerror if isinstance(cause, OSError) else None) or error.message


def _upstream(ports: list[dict[str, Any]]) -> str | None:
    published = [port["PublicPort"] for port in ports if port.get("PrivatePort") == 8888 and port.get("PublicPort")]
    return f"127.0.0.1:{published[0]}" if published else None
