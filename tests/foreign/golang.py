"""The verifier in Go, built where Go and its packages are."""

import os
import shutil
import subprocess
from pathlib import Path

DEBIAN = Path("/usr/share/gocode")


class NoGo(Exception):
    """There is no Go here, or not what it needs."""


def must_be_here() -> None:
    """Raise `NoGo` where it cannot be built."""
    if shutil.which("go") is None or not (DEBIAN / "src/golang.org/x/mod/sumdb/tlog").exists():
        raise NoGo("There is no Go with golang.org/x/mod: Debian has them as golang-go and golang-golang-x-mod-dev.")


def build(program: Path) -> None:
    """Build it; raises `NoGo`."""
    must_be_here()
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(DEBIAN), "GOFLAGS": ""}
    source = Path(__file__).parent / "go"
    built = subprocess.run(["go", "build", "-o", program, "."], cwd=source, env=environment, capture_output=True)
    assert built.returncode == 0, built.stderr.decode()
