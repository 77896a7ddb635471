"""Images: what is made of them outside Docker ends with whoever waits for it."""

import asyncio
from pathlib import Path

import psutil
import pytest

from app.runtime import images

MAKING = """#!/bin/sh
trap 'echo cleaned up >{mark}; exit 1' TERM
sleep 60 & echo "child $!"
wait
"""


async def test_making_the_base_image_ends_with_a_start_that_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, mark = tmp_path / "base" / "build.sh", tmp_path / "mark"
    script.parent.mkdir()
    script.write_text(MAKING.format(mark=mark))
    script.chmod(0o755)
    monkeypatch.setattr(images, "IMAGES", tmp_path)
    said: asyncio.Queue[str] = asyncio.Queue()
    making = asyncio.create_task(images._debootstrap(said.put_nowait))  # pyright: ignore[reportPrivateUsage]
    child = psutil.Process(int((await said.get()).removeprefix("child ")))
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert mark.read_text() == "cleaned up\n"
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
