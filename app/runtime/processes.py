"""Child processes, where there is no Docker: each run is a JupyterLab of its own. Nothing isolates them. Linux only."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from app.domain.names import NotebookName
from app.domain.runs import RunId
from app.runtime.engine import EngineError, Instance
from app.runtime.proc import ENDED, Process, marked

CONFIGURATION = Path(__file__).parents[2] / "infra" / "images" / "jupyter" / "jupyter_server_config.py"
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_STOP = 5  # as for containers: for kernels to end, and shared documents to be written
SECONDS_TO_DIE = 5  # after SIGKILL
SECONDS_TO_LOOK_AGAIN = 0.05  # while we wait for either
LINES, LINE = 20, 500  # of last words: how many, and the characters of each

_DIGITS = 12  # of the run's id that name its directory: 58 random bits
LONGEST_SOCKETS = 107 - len(f"/{'-' * _DIGITS}/kernel-00000000-0000-0000-0000-000000000000-ipc-1")
"""Bytes of the path `sockets`: a Unix socket's path has 107 at most, and the kernels' are the longest."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Record(Struct, frozen=True, kw_only=True):
    """What is kept of a run on disk. It has a token until it has a process."""

    notebook: NotebookName
    run: RunId
    token: str | None
    process: Process | None = None
    started_at: datetime | None = None


class Processes:
    """Runs as child processes that outlive us, and that whoever comes after us finds by their records.

    `<root>/volumes/<notebook>` is kept until it is purged; `<root>/runs/<run>.json` and `.log` and `<sockets>/<end of
    the run's id>`, for sockets and what else is worth nothing afterwards, until the run is removed.

    A server waits for its token, in a pipe, and ends if the pipe is closed without one. We write the record before the
    token: so whenever we are killed, a server is on record, or ends before it listens.
    """

    name: Literal["process"] = "process"

    def __init__(self, root: Path, sockets: Path) -> None:
        """Raise `EngineError` where there is no /proc; ValueError if `sockets` is too long or has a space."""
        if sys.platform != "linux":
            raise EngineError("The process runtime knows its processes by /proc, and so needs Linux. Use Docker.")
        self._volumes, self._runs = root.absolute() / "volumes", root.absolute() / "runs"
        self._sockets = sockets.absolute()
        if len(os.fsencode(self._sockets)) > LONGEST_SOCKETS or re.search(r"\s", str(self._sockets)):
            raise ValueError(f"at most {LONGEST_SOCKETS} bytes without a space, for sockets: {self._sockets}")
        self._exit_codes: dict[RunId, int] = {}
        self._alone = threading.Lock()  # of all that looks before it acts, as each call has a thread of its own

    async def instances(self, notebook: NotebookName | None = None) -> list[Instance]:
        """List what is on record, and what has become of it."""
        return [each for each in await _aside(self._look_at_all) if notebook in (None, each.notebook)]

    async def create(self, notebook: NotebookName, run: RunId, token: str) -> None:
        """Make the record and the notebook's directory."""
        await _aside(self._create, Record(notebook=notebook, run=run, token=token))

    async def start(self, instance: Instance) -> None:
        """Start JupyterLab; raises `EngineError` if nothing was created."""
        await _aside(self._start, instance.run)

    async def remove(self, instance: Instance) -> None:
        """End the server and all that came of it, then forget the run. Its record goes last: a crash repeats this."""
        if (record := await _aside(self._read, instance.run)) and record.process:
            record.process.send(signal.SIGTERM)
            await self._until_ended(record, SECONDS_TO_STOP)
        await self._kill_the_rest(instance.run)
        if record:
            await self._until_ended(record, 0)  # reaped, if it took a SIGKILL
        await _aside(self._forget, instance.run)

    async def remove_volume(self, notebook: NotebookName) -> bool:
        """Remove a notebook's files; whether there were any. Raises `EngineError` while a run is on record."""
        if await self.instances(notebook):
            raise EngineError(f"A run of {notebook} is still there.")
        volume = self._volumes / notebook
        is_there = volume.exists()
        if is_there:
            await _aside(shutil.rmtree, volume)
        return is_there

    async def last_words(self, instance: Instance) -> str:
        """Give the end of what it wrote: up to 20 lines of up to 500 characters."""
        with suppress(EngineError):
            return await _aside(_end_of, self._log(instance.run))
        return ""

    async def happenings(self) -> AsyncGenerator[NotebookName | None]:
        """Tell within a second what has changed, by looking: that finds what others started, too."""
        seen = {each.run: each for each in await self.instances()}
        yield None
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            now = {each.run: each for each in await self.instances()}
            for run, instance in (seen | now).items():
                if seen.get(run) != now.get(run):
                    yield instance.notebook
            seen = now

    async def close(self) -> None:
        """Hold nothing: the processes go on."""

    def _look_at_all(self) -> list[Instance]:
        records = (self._read(path.stem) for path in sorted(self._runs.glob("*.json")))
        return [self._look_at(record) for record in records if record]

    def _look_at(self, record: Record) -> Instance:
        process = record.process
        with self._alone:
            state = process.state if process else None
            if process and state == "Z":
                self._reap(record.run, process)
            is_running = state not in ENDED
            return Instance(
                id=record.run,
                notebook=record.notebook,
                run=record.run,
                state="created" if not process else "running" if is_running else "exited",
                upstream=f"unix/{self._socket(record.run)}" if is_running else None,
                started_at=record.started_at,
                exit_code=self._exit_codes.get(record.run),
            )

    def _reap(self, run: RunId, process: Process) -> None:
        with suppress(ChildProcessError):  # adopted: its end is told to somebody else
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._exit_codes[run] = code if code >= 0 else 128 - code  # as shells and Docker say it

    def _create(self, record: Record) -> None:
        with self._alone:
            for directory in (self._runs, self._sockets, self._volumes / record.notebook):
                _make_private(directory)
            if not self._record(record.run).exists():
                self._write(record)

    def _start(self, run: RunId) -> None:
        with self._alone:
            record = self._read(run)
            if record is None:
                raise EngineError(f"{run} cannot be started: it was not created, or it is removed.")
            if record.token is None:
                return
            ours, theirs = os.pipe()
            try:
                process = self._spawn(record, ours)
                self._write(replace(record, token=None, process=process, started_at=datetime.now(UTC)))
                os.write(theirs, record.token.encode())
            finally:
                os.close(ours)
                os.close(theirs)

    def _spawn(self, record: Record, token: int) -> Process:
        _make_private(self._directory(record.run))
        with open(self._log(record.run), "ab", opener=_private) as log:
            child = subprocess.Popen(
                self._command(record),
                env=self._environment(record) | {"SOPHON_TOKEN_FD": str(token)},
                cwd=self._volumes / record.notebook,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(token,),
                start_new_session=True,  # ^C is for us
            )
        child.returncode = 0  # it is reaped by us: Popen would do it too, and complain of one that outlives us
        process = Process.numbered(child.pid)
        if process is None:  # until it is reaped it has its number
            raise EngineError("A process that was just started is not in /proc: is that mounted?")
        return process

    def _command(self, record: Record) -> list[str]:
        return [
            *(sys.executable, "-I", "-m", "jupyterlab"),  # -I: no file of the notebook's stands in for a module
            f"--config={CONFIGURATION}",
            f"--ServerApp.sock={self._socket(record.run)}",
            f"--ServerApp.root_dir={self._volumes / record.notebook}",
            "--ServerApp.allow_root=True",  # Jupyter refuses root, but in many a container there is no other
            "--KernelManager.transport=ipc",
        ]

    def _environment(self, record: Record) -> dict[str, str]:
        """Nothing of ours, which holds secrets; all that Jupyter, IPython and pip write, in the notebook's home."""
        home, directory = self._volumes / record.notebook, self._directory(record.run)
        packages = str(home / ".local" / "packages")  # pip's default is where we run from ourselves
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "SHELL": os.environ.get("SHELL", "/bin/sh"),
            "HOME": str(home),
            "JUPYTER_RUNTIME_DIR": str(directory),
            "JUPYTER_CONFIG_DIR": str(directory / "config"),
            "PIP_TARGET": packages,
            "PYTHONPATH": packages,
        }

    async def _until_ended(self, record: Record, seconds: float) -> None:
        for _ in range(1 + int(seconds / SECONDS_TO_LOOK_AGAIN)):
            if (await _aside(self._look_at, record)).state != "running":
                return
            await asyncio.sleep(SECONDS_TO_LOOK_AGAIN)

    async def _kill_the_rest(self, run: RunId) -> None:
        """End what is left, as a container's end would: kernels in their own sessions, and what they started.

        They inherited a variable that names the run's directory. The server has an argument too: it does not let
        others of its user read its environment. In the middle of execve(2) a process has neither, so that one look
        which finds nothing is none: it takes two in succession.
        """
        marks = {f"JUPYTER_RUNTIME_DIR={self._directory(run)}", f"--ServerApp.sock={self._socket(run)}"}
        was_clear = False
        for _ in range(int(SECONDS_TO_DIE / SECONDS_TO_LOOK_AGAIN)):
            left = await _aside(marked, frozenset(map(os.fsencode, marks)))
            if was_clear and not left:
                return
            was_clear = not left
            for process in left:
                process.send(signal.SIGKILL)
            await asyncio.sleep(SECONDS_TO_LOOK_AGAIN)
        raise EngineError(f"Something of {run} goes on after SIGKILL.")

    def _forget(self, run: RunId) -> None:
        shutil.rmtree(self._directory(run), ignore_errors=True)
        for path in (self._log(run), self._record(run).with_suffix(".new"), self._record(run)):
            path.unlink(missing_ok=True)
        self._exit_codes.pop(run, None)

    def _read(self, run: RunId) -> Record | None:
        try:
            return msgspec.json.decode(self._record(run).read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise EngineError(f"{self._record(run)} is no record of a run: {error}") from error

    def _write(self, record: Record) -> None:
        path = self._record(record.run)
        fresh = path.with_suffix(".new")
        with open(fresh, "wb", opener=_private) as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def _record(self, run: RunId) -> Path:
        return self._runs / f"{run}.json"

    def _log(self, run: RunId) -> Path:
        return self._runs / f"{run}.log"

    def _directory(self, run: RunId) -> Path:
        return self._sockets / run[-_DIGITS:]

    def _socket(self, run: RunId) -> Path:
        return self._directory(run) / "lab"


async def _aside(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do it in a thread; what the operating system refuses becomes an `EngineError`."""
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except OSError as error:
        raise EngineError(str(error)) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _make_private(directory: Path) -> None:
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4 * LINES * LINE))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(line[:LINE] for line in lines[-LINES:])
