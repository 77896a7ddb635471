"""From asking for a start to the first 200 from JupyterLab, through API, log, runtime and proxy, beside `docker run`.

The peer runs a container of the same image under the same limits and hardening, with a new volume as ours has, and is
asked at the port it publishes. Both are asked every 10 ms, from before the start is asked for.
"""

import contextlib
import http.client
import itertools
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Iterator

from app.keys import Keys
from app.runtime.containers import HOME
from app.runtime.images import image_name
from bench.installation import Client, Installation, free_port, installation
from bench.measure import Comparison, Effort, Missing, Target, alternate

GIVE_UP = 120.0
HARDENING = (
    "--memory=2048m",
    "--memory-swap=2048m",
    "--cpus=2",
    "--pids-limit=512",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--tmpfs=/tmp:size=256m,mode=1777",
    "--restart=no",
    "--log-opt=max-size=1m",
    "--log-opt=max-file=1",
)
_numbers = itertools.count()


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare, each time with a notebook that never ran; raises `Missing` where there is no Docker."""
    if shutil.which("docker") is None or not _docker("version"):
        raise Missing("start needs a Docker Engine that this user may use, and its command docker.")
    with installation(SOPHON_RUNTIME="docker") as running, _swept(running):
        api = running.client()
        api.do("POST", "/api/groups", {"slug": "space-lab", "title": "Space lab"})
        api.do("POST", "/api/projects", {"slug": "apollo", "group": "space-lab", "title": "Apollo"})
        ours, theirs = alternate(effort.rounds, lambda: _start(running, api), _docker_run)
    yield Comparison(
        what="start of a notebook until it answers",
        unit="s",
        peer="docker run of the same image",
        ours=ours,
        theirs=theirs,
        target=Target(1.25, at_most=True),
    )


def _start(running: Installation, api: Client) -> float:
    slug = f"notebook-{next(_numbers)}"
    api.do("POST", "/api/notebooks", {"slug": slug, "project": "apollo", "title": "Plots"})
    host = {"Host": f"{slug}.localhost:{running.port}"}
    begin = time.perf_counter()
    api.do("POST", f"/api/notebooks/{slug}/start")
    _poll(lambda: running.client(proxied=True), host)
    took = time.perf_counter() - begin
    api.do("POST", f"/api/notebooks/{slug}/stop")
    while api.do("GET", f"/api/notebooks/{slug}")["status"] != "stopped":
        time.sleep(0.1)
    return took


def _docker_run() -> float:
    name, token, port = f"bench-{secrets.token_hex(4)}", secrets.token_hex(32), free_port()
    where = [f"--publish=127.0.0.1:{port}:8888", f"--mount=type=volume,source={name},target={HOME}"]
    command = ["docker", "run", "--detach", f"--name={name}", f"--env=SOPHON_TOKEN={token}", *where, *HARDENING]
    try:
        begin = time.perf_counter()
        subprocess.run([*command, image_name()], check=True, stdout=subprocess.DEVNULL)
        who = {"X-Sophon-Token": token, "X-Sophon-User": "usr_bench", "X-Sophon-Name": "Bench", "X-Sophon-Via": "token"}
        _poll(lambda: Client(port), who)
        return time.perf_counter() - begin
    finally:
        _docker("rm", "--force", name)
        _docker("volume", "rm", "--force", name)


def _poll(connect: Callable[[], Client], headers: dict[str, str]) -> None:
    """Ask, on a new connection each time, until the answer is 200."""
    give_up = time.perf_counter() + GIVE_UP
    while time.perf_counter() < give_up:
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connect()) as client:
            if client.ask("GET", "/api/status", headers=headers)[0] == 200:
                return
        time.sleep(0.01)
    raise TimeoutError("no 200 from JupyterLab")


@contextlib.contextmanager
def _swept(running: Installation) -> Generator[None]:
    """Remove what the installation leaves in Docker on purpose: volumes, and its network."""
    label = f"label=sophon.installation={Keys.kept_in(running.data / 'secret').installation}"
    try:
        yield
    finally:
        for kind, remove in (("container", ("rm", "--force")), ("volume", ("rm", "--force")), ("network", ("rm",))):
            everything = ("--all",) if kind == "container" else ()
            found = _docker(kind, "ls", "--quiet", *everything, "--filter", label).split()
            if found:
                _docker(kind, *remove, *found)


def _docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""
