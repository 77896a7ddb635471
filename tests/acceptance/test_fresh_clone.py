"""A fresh clone, one command: what somebody does who has Python, make and git, and no more."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_make_run import PRESET
from tests.installation import ADMINISTRATOR, ENDS_WITHIN, ROOT, Installation, free_port

NOBODY = 65534
ENDINGS = (0, -signal.SIGINT)
"""Of make, which waits for what it has started, and then ends by the signal that it got."""
BARE = "/usr/local/bin:/usr/bin:/bin"


@dataclass
class Clone(Installation):
    """An installation that `make run` runs, for an ordinary user even if we are root."""

    who: dict[str, Any] = field(default_factory=dict[str, Any])
    """What makes a process that user's."""

    @property
    def directory(self) -> Path:
        return self.data.parent

    @property
    def environment(self) -> dict[str, str]:
        """What that user has set, and what the machine has for package indexes; no uv, and nobody's environment."""
        mine = {name: value for name, value in super().environment.items() if not name.startswith(("VIRTUAL", "XDG"))}
        home = self.directory / "home"
        cached = {"UV_CACHE_DIR": str(home / "cache"), "UV_LINK_MODE": "copy"}
        return mine | cached | {"HOME": str(home), "USER": "", "LOGNAME": "", "PATH": BARE}

    def launch(self) -> "subprocess.Popen[bytes]":
        with self._said.open("ab") as said:
            launched = self.process = subprocess.Popen[bytes](
                ("make", "run"),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                **self.who,
            )
        return launched

    async def end(self, how: signal.Signals) -> int:
        """Send it to all that belongs to the command, as a terminal does."""
        assert self.process is not None
        os.killpg(self.process.pid, how)
        return await asyncio.to_thread(self.process.wait, ENDS_WITHIN)

    def run(self, *command: str | Path, **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **self.who,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
async def clone() -> AsyncIterator[Clone]:
    directory = Path(tempfile.mkdtemp(prefix="sophon-clone-"))
    who: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": ()} if os.getuid() == 0 else {}
    get(directory)
    if who:
        give(directory)
    made = Clone(directory / ".sophon", free_port(), {"SOPHON_DATA": "", "SOPHON_ADMIN_PASSWORD": ""}, who=who)
    try:
        yield made
    finally:
        await made.discard()
        shutil.rmtree(directory, ignore_errors=True)


def get(directory: Path) -> None:
    """Clone it, and lend what uv has fetched for us already: its files as links, as it is much."""
    subprocess.run(("git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", directory), check=True)
    cache = directory / "home" / "cache"
    cache.mkdir(parents=True)
    if shutil.which("uv"):
        known = Path(subprocess.check_output(("uv", "cache", "dir"), text=True).strip())
        for each in known.iterdir():
            how = "-al" if each.name.startswith("archive-") else "-a"
            subprocess.run(("cp", how, each, cache), check=True)


def give(directory: Path) -> None:
    """Make it an ordinary user's, but not what is linked, which is ours too."""
    for path in (directory, *directory.rglob("*")):
        if path.is_dir() or path.lstat().st_nlink == 1:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


async def test_a_fresh_clone_needs_one_command_and_after_ctrl_c_and_a_second_everything_is_there(clone: Clone) -> None:
    first = await clone.start()
    assert "fetching uv" in clone.output
    (password,) = PRESET.findall(clone.output)
    if clone.who or "runtime      process" in clone.output:  # an ordinary user may not use the machine's Docker
        assert re.search(r"^NOT ISOLATED\..*Docker.*Not for production", clone.output, re.MULTILINE), clone.output
    toured = clone.run(
        clone.directory / ".venv" / "bin" / "python",
        clone.directory / "examples" / "first_notebook.py",
        SOPHON_URL=clone.address,
        SOPHON_USERNAME=ADMINISTRATOR,
        SOPHON_PASSWORD=password,
    )
    assert "6*7 is 42" in toured
    assert "the file says 'kept'" in toured
    before = await everything(clone, password)

    assert await clone.end(signal.SIGINT) in ENDINGS
    assert "Stopped; everything is kept." in clone.output
    assert clone.processes() == []
    second = await clone.start()
    print(f"the first start took {first:.1f} s, the second {second:.1f} s")
    assert second < 5
    assert await everything(clone, password) == before
    assert await clone.end(signal.SIGINT) in ENDINGS


async def everything(clone: Clone, password: str) -> list[Any]:
    """Give all that there is, but for what Ctrl-C changes: whether a notebook runs."""
    who = await clone.bearer(await clone.log_in(ADMINISTRATOR, password), "read", "admin")
    pages = [await who.get(f"/api/{kind}") for kind in ("users", "groups", "projects", "notebooks")]
    for notebook in pages[-1]["items"]:
        for of_its_run in ("status", "status_at", "url"):
            del notebook[of_its_run]
    return pages
