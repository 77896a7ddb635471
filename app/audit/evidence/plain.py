"""Files that somebody else has written: read without a wait, without following a link, and up to a length."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from app.audit.evidence.trust import Unverifiable

LONGEST = 1 << 20
"""Bytes of a file beside the tiles."""


def read(path: Path, longest: int = 1 << 30) -> bytes:
    """Read a file; raises `Unverifiable` with a sentence that says which."""
    try:
        if path.stat().st_size > longest:
            raise Unverifiable(f"{path} is too long to be what it should be.")
        return path.read_bytes()
    except OSError as error:
        raise Unverifiable(f"{path} cannot be read: {error.strerror}.") from error


def read_plain(path: Path, longest: int = LONGEST) -> bytes:
    """Read a file of an export, which somebody may have made to keep us waiting, or to lead us elsewhere.

    Raises `Unverifiable` where it is a link, a pipe or a device, or too long.
    """
    try:
        with open_plain(path) as file:
            octets = file.read(longest + 1)
    except OSError as error:
        raise Unverifiable(f"{path} cannot be read: {error.strerror}.") from error
    if len(octets) > longest:
        raise Unverifiable(f"{path} is too long to be what it should be.")
    return octets


def open_plain(path: Path) -> BinaryIO:
    """Open a file of an export, without a wait. Raises `OSError`, or `Unverifiable` where it is something else."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise no_file(path) from error
        raise
    mode = os.fstat(opened).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(opened, "rb")
    os.close(opened)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise no_file(path)


def put_file(path: str, octets: bytes, mode: int = 0o644, *, new: bool = False) -> None:
    """Write a file with as few calls as there can be. Raises `FileExistsError` if it is to be new, and there is one."""
    # Neither through a link that somebody put there, nor into a pipe that nobody reads.
    how = os.O_EXCL if new else os.O_TRUNC
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | how | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    try:
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(opened, rest) :]
    finally:
        os.close(opened)


def no_file(path: Path | str) -> Unverifiable:
    """Say that something is in the place of a file."""
    return Unverifiable(f"{path} is a link, a pipe or a device; an export has files, and nothing else.")


def must_be_plain(directory: Path) -> None:
    """Raise `Unverifiable` for anything below `tile` that is neither a file nor a directory."""
    waiting = [str(directory / "tile")]
    if os.path.islink(waiting[0]):
        raise no_file(waiting[0])
    try:
        while waiting and os.path.isdir(parent := waiting.pop()):
            with os.scandir(parent) as found:
                for one in found:
                    if one.is_dir(follow_symlinks=False):
                        waiting.append(one.path)
                    elif not one.is_file(follow_symlinks=False):
                        raise no_file(one.path)
    except OSError as error:
        raise Unverifiable(f"{error.filename} cannot be read: {error.strerror}.") from error


def read_text(path: Path) -> str:
    """Read a small file of text; raises `Unverifiable`."""
    return text_of(read(path, LONGEST), path)


def text_of(octets: bytes, path: Path) -> str:
    """Decode what a file had in it; raises `Unverifiable`."""
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        raise Unverifiable(f"{path} is no text.") from error
