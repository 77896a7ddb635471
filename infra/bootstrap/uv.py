"""Fetch uv with nothing but Python's standard library: Debian's python3 has no pip, and its venv makes none.

`python3 infra/bootstrap/uv.py DIRECTORY` puts one version, known by its digest, at DIRECTORY/uv. It is asked of the
package index that pip or uv is told to use here, by environment or pip's configuration, and else of the one that
everything else is locked to.
"""

import base64
import configparser
import hashlib
import io
import os
import platform
import ssl
import sys
import urllib.parse
import urllib.request
import zipfile
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path

VERSION = "0.13.9"
WHEELS = {
    ("Linux", "x86_64"): (
        "musllinux_1_1_x86_64",  # linked statically: it runs beside every libc
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    ("Linux", "aarch64"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Darwin", "x86_64"): (
        "macosx_10_12_x86_64",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
    ("Darwin", "arm64"): (
        "macosx_11_0_arm64",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
}
"""System and machine -> the wheel's platform tag, and its SHA-256."""

LOCK = Path(__file__).parents[2] / "uv.lock"
PATIENCE = 60.0
"""Seconds without a byte."""


class Links(HTMLParser):
    """The addresses of an index's page (PEP 503)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep where each link leads."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def main(directory: Path) -> None:
    """Put uv there, whole or not at all."""
    machine = (platform.system(), platform.machine())
    if machine not in WHEELS:
        raise SystemExit(
            f"There is no uv to fetch for {' '.join(machine)}: install it (docs.astral.sh/uv), then again."
        )
    tag, digest = WHEELS[machine]
    index = setting("index-url", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL") or locked_index()
    print(f"fetching uv {VERSION} from {without_password(index)} (once; 20 MB)", file=sys.stderr, flush=True)
    try:
        wheel = download(index, f"uv-{VERSION}-py3-none-{tag}.whl", digest)
    except (OSError, HTTPException) as error:
        raise SystemExit(f"uv could not be fetched: {error}. Install it by hand, or set UV_INDEX_URL.") from error
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / "uv.new"
    fresh.write_bytes(zipfile.ZipFile(io.BytesIO(wheel)).read(f"uv-{VERSION}.data/scripts/uv"))
    fresh.chmod(0o755)
    fresh.replace(directory / "uv")


def download(index: str, name: str, digest: str) -> bytes:
    """Get a file of uv's from an index; raises OSError, also where it is not what its digest says."""
    page = f"{index.rstrip('/')}/uv/"
    for link in Links(get(page).decode()).found:
        address = urllib.parse.urljoin(page, link.partition("#")[0])
        if urllib.parse.unquote(address.rpartition("/")[2]) == name:
            wheel = get(with_password_of(page, address))
            if hashlib.sha256(wheel).hexdigest() != digest:
                raise OSError(f"{name} is not the file that it has to be")
            return wheel
    raise OSError(f"{without_password(page)} has no {name}")


def locked_index() -> str:
    """Read from the lock file where everything else comes from."""
    return LOCK.read_text(encoding="utf-8").partition('registry = "')[2].partition('"')[0]


def setting(option: str, *variables: str) -> str | None:
    """Read a setting from the environment, or else from the files in which pip would look, nearest first."""
    for variable in variables:
        if value := os.environ.get(variable):
            return value
    home = Path.home()
    files = [
        *filter(None, [os.environ.get("PIP_CONFIG_FILE")]),
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf",
        home / "Library/Application Support/pip/pip.conf",
        home / ".pip/pip.conf",
        *(Path(each) / "pip/pip.conf" for each in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")),
        Path("/etc/pip.conf"),
    ]
    for file in files:
        known = configparser.RawConfigParser()
        known.read(file)
        if value := known.get("global", option, fallback=None):
            return value
    return None


def get(address: str) -> bytes:
    """Get what is at an address; raises OSError."""
    parts = urllib.parse.urlsplit(address)
    request = urllib.request.Request(without_password(address), headers={"Accept": "text/html, */*;q=0.1"})
    if parts.password is not None:
        pair = f"{urllib.parse.unquote(parts.username or '')}:{urllib.parse.unquote(parts.password)}"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    trusted = ssl.create_default_context(cafile=setting("cert", "SSL_CERT_FILE", "PIP_CERT"))
    with urllib.request.urlopen(request, timeout=PATIENCE, context=trusted) as answer:
        return answer.read()


def without_password(address: str) -> str:
    """Leave out who asks, as in what is shown."""
    parts = urllib.parse.urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def with_password_of(page: str, address: str) -> str:
    """Ask for a file as whoever asked for the page, if it is at the same host."""
    here, there = urllib.parse.urlsplit(page), urllib.parse.urlsplit(address)
    is_same = there.netloc == here.netloc.rpartition("@")[2]
    return there._replace(netloc=here.netloc).geturl() if is_same else address


if __name__ == "__main__":
    main(Path(sys.argv[1]))
