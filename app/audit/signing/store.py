"""The signer's own directory: its keys and what it signed last. Never in the database that it watches over."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T", bound=Struct)


class Signed(Struct, frozen=True, kw_only=True):
    """What the signer signed last: a tree of `size` leaves, as the roots of its perfect subtrees, largest first."""

    size: int
    frontier: tuple[str, ...]
    root: str
    note: str


class Retired(Struct, frozen=True, kw_only=True):
    """Verifier keys that signed checkpoints of sizes `since` to `until`, and whose signing keys are destroyed."""

    verifiers: tuple[str, ...]
    since: int
    until: int


class Keyring(Struct, frozen=True, kw_only=True):
    """The name of the log, the keys that sign it from size `since` on, and those that did before."""

    origin: str
    keys: tuple[str, ...]
    since: int
    retired: tuple[Retired, ...] = ()


class Staged(Struct, frozen=True, kw_only=True):
    """Keys that sign once the log says so."""

    keys: tuple[str, ...]


class SignerBusy(Exception):
    """Another process signs with this directory. Two logs cannot share one."""


class Store:
    """A directory that only its owner can read. A file in it is replaced whole, and durably, or not at all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writing = threading.Lock()
        self._newest = 0

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Hold the directory; raises `SignerBusy` where somebody else does. Ends with the process, however it ends."""
        self._make()
        with (self.directory / "lock").open("a+") as file:
            os.chmod(file.fileno(), 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SignerBusy(f"Another process signs with the keys in {self.directory}.") from None
            yield

    def keyring(self) -> Keyring | None:
        """Read the keys; none if this is a new directory."""
        return self._read("keys.json", Keyring)

    def signed(self) -> Signed | None:
        """Read what was signed last; none if nothing was."""
        return self._read("state.json", Signed)

    def staged(self) -> Staged | None:
        """Read the keys that are to follow."""
        return self._read("next.json", Staged)

    def keep_keyring(self, keyring: Keyring) -> None:
        """Keep the keys; those that they replace are written over as far as the file system lets one."""
        self._replace("keys.json", keyring, shred=True)

    def keep_staged(self, staged: Staged) -> None:
        """Keep keys that are to follow."""
        self._replace("next.json", staged, shred=True)

    def drop_staged(self) -> None:
        """Destroy the keys that were to follow."""
        path = self.directory / "next.json"
        with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
            path.unlink()
            sync_directory(self.directory)
            _overwrite(file.fileno())

    def keep_signed(self, signed: Signed) -> None:
        """Keep what is about to be published. Raises `ValueError` for less than was kept before: it never shrinks."""
        with self._writing:
            if signed.size < self._newest:
                raise ValueError(f"Size {self._newest} was signed already, and {signed.size} is less.")
            self._newest = signed.size
            self._replace("state.json", signed)

    def _read(self, name: str, type_: type[T]) -> T | None:
        path = self.directory / name
        while True:
            try:
                with path.open("rb") as file:
                    try:
                        return msgspec.json.decode(file.read(), type=type_)
                    except msgspec.DecodeError:
                        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                            raise
                        # It was replaced and written over while we read it.
            except FileNotFoundError:
                return None

    def _replace(self, name: str, value: Struct, *, shred: bool = False) -> None:
        self._make()
        write(self.directory / name, msgspec.json.format(msgspec.json.encode(value)), shred=shred)

    def _make(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write(path: Path, octets: bytes, *, shred: bool = False) -> None:
    """Replace a file: afterwards the new one is durable; kill us before, and it is the old one, whole."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.ExitStack() as stack:
        old: Any = stack.enter_context(path.open("r+b")) if shred and path.exists() else None
        fresh.rename(path)
        sync_directory(path.parent)
        if old is not None:
            _overwrite(old.fileno())


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _overwrite(opened: int) -> None:
    os.pwrite(opened, bytes(os.fstat(opened).st_size), 0)
    os.fsync(opened)
