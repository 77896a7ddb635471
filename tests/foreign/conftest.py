"""The foreign verifiers, built where their languages are there."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.foreign.golang import NoGo, build

HERE = Path(__file__).parent

NAMED = ("sh", "awk", "cmp", "find", "openssl")
COREUTILS = (
    *("base64", "cat", "cp", "echo", "fold", "head", "mkdir", "mktemp", "mv", "od", "paste", "printf", "rm"),
    *("sha256sum", "tail", "tr", "wc"),
)
"""What verify.sh says that it needs."""

Verify = Callable[..., "subprocess.CompletedProcess[str]"]
"""(arguments) -> what the verifier said."""


def absent(part: str, why_not: str) -> None:
    """Skip where a part is missing, unless SOPHON_REQUIRE names it: then its absence is a failure."""
    if part in os.environ.get("SOPHON_REQUIRE", "").split(","):
        pytest.fail(f"{why_not} SOPHON_REQUIRE asks for it.")
    pytest.skip(why_not)


def runs(*command: str | Path, env: dict[str, str] | None = None) -> Verify:
    """Make a verifier of a command."""

    def verify(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False, env=env)

    return verify


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Verify:
    """Go's sumdb/note and sumdb/tlog."""
    program = tmp_path_factory.mktemp("go") / "verify"
    try:
        build(program)
    except NoGo as error:
        absent("go", str(error))
    return runs(program)


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Verify:
    """Sigstore's @sigstore/verify, installed once by the lock file."""
    npm, program = shutil.which("npm"), shutil.which("node")
    if npm is None or program is None:
        absent("node", "There is no node with npm.")
    assert pytestconfig.cache is not None
    lock = (HERE / "node" / "package-lock.json").read_bytes()
    home = pytestconfig.cache.mkdir(f"foreign-{hashlib.sha256(lock).hexdigest()[:16]}")
    for name in ("package.json", "package-lock.json", "verify.mjs"):
        shutil.copy(HERE / "node" / name, home)
    if not (home / "node_modules" / "@sigstore" / "verify").exists():
        install = [str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=home, capture_output=True, text=True, timeout=240)
        if done.returncode != 0:
            absent("node", f"npm could not install @sigstore/verify: {done.stderr[-500:]}")
    return runs(str(program), home / "verify.mjs")


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Verify:
    """What every export brings along: the script that lies in it, with nothing there but the tools that it names."""
    tools = tmp_path_factory.mktemp("tools")
    for name in (*NAMED, *COREUTILS):
        there = shutil.which(name)
        assert there is not None, f"there is no {name}"
        (tools / name).symlink_to(there)

    def verify(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return runs(Path(arguments[-1], "verify.sh"), env={"PATH": str(tools)})(*arguments)

    return verify


@pytest.fixture(params=["go", "node", "shell"])
def any_verify(request: pytest.FixtureRequest) -> Verify:
    """Each of the three."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["go", "node"])
def verify(request: pytest.FixtureRequest) -> Verify:
    """Each of the foreign verifiers."""
    return request.getfixturevalue(request.param)
