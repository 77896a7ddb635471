"""The image that notebooks are containers of: built where it is missing, from infra/images."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from app.runtime.containers import Refused, ask
from app.runtime.engine import EngineError

IMAGES = Path(__file__).parents[2] / "infra" / "images"
BASE = "debian:bookworm-slim"

Say = Callable[[str], None]
"""Told, line by line, how a long thing goes on."""


def image_name() -> str:
    """Name the image by what it is made of, so that a changed recipe is a new image."""
    digest = hashlib.sha256()
    for path in sorted((IMAGES / "jupyter").iterdir()):
        if path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_mode & 0o111}\0".encode() + path.read_bytes())
    return f"sophon-jupyter:{digest.hexdigest()[:12]}"


async def ensure_image(docker: Docker, say: Say) -> str:
    """Return the image's name, once it is there; a build takes a minute or two. Raises `EngineError`."""
    name = image_name()
    if not await _exists(docker, name):
        if not await _exists(docker, BASE):
            await _get_base(docker, say)
        say(f"building {name} (once; a minute or two)")
        await _build(docker, name, say)
    return name


async def _exists(docker: Docker, name: str) -> bool:
    try:
        await ask(docker, "GET", f"images/{name}/json")
    except Refused as refused:
        if refused.status == 404:
            return False
        raise
    return True


async def _get_base(docker: Docker, say: Say) -> None:
    say(f"pulling {BASE}")
    repository, _, tag = BASE.partition(":")
    try:
        params = {"fromImage": repository, "tag": tag}
        await _stream(docker, "images/create", params, b"", lambda line: say(f"pull: {line}"))
    except EngineError as error:
        say(f"it cannot be pulled ({error}); making it with debootstrap instead")
        await _debootstrap(say)


async def _debootstrap(say: Say) -> None:
    making = await asyncio.create_subprocess_exec(
        str(IMAGES / "base" / "build.sh"),
        BASE,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    last = ""
    assert making.stdout is not None  # noqa: S101
    try:
        async for line in making.stdout:
            last = line.decode(errors="replace").strip() or last
            say(last)
        await making.wait()
    finally:
        if making.returncode is None:  # nobody waits for it any more: it cleans up, and what it started ends too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(making.pid, signal.SIGTERM)
            await making.wait()
    if making.returncode != 0:
        raise EngineError(f"The base image {BASE} could be neither pulled nor made: {last}")


async def _build(docker: Docker, name: str, say: Say) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        tar.add(IMAGES / "jupyter", arcname=".", filter=_same_for_everybody)
    # The host's network: a build may need a resolver or a proxy that containers are kept from.
    params = {"t": name, "rm": "true", "forcerm": "true", "networkmode": "host"}
    await _stream(docker, "build", params, context.getvalue(), say)


async def _stream(docker: Docker, path: str, params: dict[str, str], data: bytes, say: Say) -> None:
    query = docker._query(  # pyright: ignore[reportPrivateUsage]
        path,
        "POST",
        params=params,
        data=data,
        headers={"Content-Type": "application/x-tar"},
        timeout=aiohttp.ClientTimeout(),
    )
    try:
        async with query as response:
            async for line in response.content:
                told = json.loads(line)
                if "error" in told:
                    raise EngineError(told["error"].strip())
                if text := (told.get("stream") or told.get("status") or "").strip():
                    say(text)
    except DockerError as error:
        raise EngineError(error.message) from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError(f"Docker does not answer: {error}") from error


def _same_for_everybody(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if os.path.basename(entry.name) == "__pycache__":
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry
