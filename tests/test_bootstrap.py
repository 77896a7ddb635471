"""Fetching uv with nothing but an interpreter, from the package index that pip is told to use."""

import base64
import hashlib
import importlib.util
import io
import os
import platform
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "infra" / "bootstrap" / "uv.py"


class Index:
    """A package index with one wheel, whose `uv` is a shell script."""

    def __init__(self) -> None:
        wheel, self.name = io.BytesIO(), f"uv-{bootstrap.VERSION}-py3-none-{tag()}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"uv-{bootstrap.VERSION}.data/scripts/uv", "#!/bin/sh\necho fetched\n")
        self.wheel = wheel.getvalue()
        self.asked: list[tuple[str, str | None]] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append((self.path, self.headers["Authorization"]))
                pages = {
                    "/simple/uv/": f'<a href="../../files/{index.name}#sha256=of-no-account">{index.name}</a>'.encode(),
                    f"/files/{index.name}": index.wheel,
                }
                self.send_response(200 if self.path in pages else 404)
                self.end_headers()
                self.wfile.write(pages.get(self.path, b""))

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def address(self, who: str = "") -> str:
        return f"http://{who}127.0.0.1:{self.server.server_port}/simple"


def tag() -> str:
    return bootstrap.WHEELS[platform.system(), platform.machine()][0]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("bootstrap_uv", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load()


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    serving = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    yield made
    made.server.shutdown()
    serving.join()
    made.server.server_close()


@pytest.fixture
def trusted(index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Index:
    """The index's wheel is the one that is asked for, and nothing of this machine says where."""
    digest = hashlib.sha256(index.wheel).hexdigest()
    monkeypatch.setattr(bootstrap, "WHEELS", {(platform.system(), platform.machine()): (tag(), digest)})
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return index


@pytest.mark.parametrize("told_by", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "HOME"])
def test_uv_comes_from_the_index_that_pip_or_uv_is_told_to_use(
    trusted: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told_by: str
) -> None:
    configuration = tmp_path / "home" / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True)
    if told_by in ("PIP_CONFIG_FILE", "HOME"):
        configuration.write_text(f"[global]\nindex-url = {trusted.address()}\n")
    if told_by == "PIP_CONFIG_FILE":
        monkeypatch.setenv("HOME", str(tmp_path))
    if told_by != "HOME":
        monkeypatch.setenv(told_by, str(configuration) if told_by == "PIP_CONFIG_FILE" else trusted.address())
    bootstrap.main(tmp_path / "bin")
    assert subprocess.check_output((tmp_path / "bin" / "uv",), text=True) == "fetched\n"


def test_a_password_goes_to_the_index_and_is_not_shown(
    trusted: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", trusted.address("ada:p%40ss@"))
    bootstrap.main(tmp_path)
    assert {who for _, who in trusted.asked} == {f"Basic {base64.b64encode(b'ada:p@ss').decode()}"}
    assert "p%40ss" not in capsys.readouterr().err


def test_what_is_not_the_wheel_that_it_has_to_be_is_not_unpacked_and_nothing_but_the_interpreter_is_needed(
    index: Index, tmp_path: Path
) -> None:
    done = subprocess.run(
        (sys.executable, "-I", "-S", SCRIPT, tmp_path),
        env={"UV_INDEX_URL": index.address(), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{index.name} is not the file that it has to be" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
