"""Exports of the log into a directory: as static tiles, which anybody can verify, or as lines for other systems.

Kill it, or fill its disk, at any moment: a directory that is not whole has a file INCOMPLETE in it, the checkpoint of
the last export that was is still there, and `resume` goes on from what is good. Complete tiles are never written again.
"""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.evidence.exported import (
    CHECKPOINT,
    INCOMPLETE,
    KEYS,
    MANIFEST,
    SUMS,
    Exported,
    Format,
    Manifest,
    belongs,
    files_below,
    read_manifest,
    sums,
)
from app.audit.evidence.exporting import Lines, Tiles, Writing, replace_file
from app.audit.evidence.findings import Finding, Tampered, legible
from app.audit.evidence.hiding import must_be_typed
from app.audit.evidence.kept import KeptEntries, NotKept
from app.audit.evidence.leaves import Unequal, checked, pages
from app.audit.evidence.locate import locate
from app.audit.evidence.plain import read_plain
from app.audit.evidence.trust import Trust, Unverifiable, WrongKey
from app.audit.evidence.walk import Head, Progress, Walk
from app.audit.pruned import Prunings
from app.audit.signing.store import sync_directory
from app.audit.transparency.notes import MAX_NOTE, NoteRejected
from app.audit.transparency.tiles import WIDTH

VERIFIER = Path(__file__).parents[3] / "infra" / "verify" / "verify.sh"
README = VERIFIER.with_name("README.txt")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NotExported(Exception):
    """The export could not be made, or not ended; the message says what to do."""


class Done(Struct, frozen=True):
    """An export that is complete: so many entries, of which so many are new in it."""

    size: int
    new: int
    note: bytes


async def export_log(
    connection: AsyncConnection,
    directory: Path,
    format_: Format,
    trust: Trust,
    *,
    resume: bool = False,
    earlier: Exported | None = None,
    tell: Progress = lambda done, of: None,
) -> Done:
    """Export everything that is signed.

    What was pruned since is taken from the export that is continued, or from an `earlier` one. Lines for other systems
    say of it that it was pruned, unless there is an `earlier` one.

    Raises `NotExported` with what to do, `Tampered` before anything of what is not whole is exported, `Unverifiable`.
    """
    await must_be_typed(connection)
    newest = await _newest(connection, trust)
    with _room(directory):
        directory.mkdir(parents=True, exist_ok=True)
        old = _old(directory, format_, trust, resume)
        if old is not None:
            _continues(old, newest)
        if old is not None and old.checkpoint.size == newest.size and not (directory / INCOMPLETE).exists():
            return Done(newest.size, 0, newest.note)
        prunings = await Prunings.read(connection)
        kept = KeptEntries([one for one in (old, earlier) if one]) if format_ == "tiles" or earlier else None
        if kept:
            with _unpruned():
                await kept.must_reach(connection, prunings, old.checkpoint.size // WIDTH * WIDTH if old else 0)
        replace_file(directory / INCOMPLETE, f"An export to {newest.size} entries has not ended. Resume it.\n".encode())
        _manifest(directory, format_, trust, newest.size)
        writing: Writing = Tiles(directory, newest.size) if format_ == "tiles" else Lines(directory, format_, newest)
        walk = writing.begin(old.checkpoint if old else None)
        walk.expect([newest])
        async with connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            with _unpruned():
                await _write(connection, writing, walk, newest.size, _Content(prunings, kept), tell)
        writing.end(walk)
        _finish(directory, trust, newest)
        return Done(newest.size, newest.size - (old.checkpoint.size if old else 0), newest.note)


class _Content(Struct, frozen=True):
    """What the log says was pruned, and where that is kept; none: it is not asked for."""

    prunings: Prunings
    kept: KeptEntries | None


@contextmanager
def _unpruned() -> Generator[None]:
    try:
        yield
    except NotKept as error:
        raise NotExported(str(error)) from error


async def _write(
    connection: AsyncConnection, writing: Writing, walk: Walk, size: int, content: _Content, tell: Progress
) -> None:
    async with pages(connection, walk.tiling.size, size) as read:
        async for page in read:
            try:
                entries, hashes = checked(page, content.prunings)
                complete = walk.take(hashes, page.parts)
            except Unequal as error:
                raise Tampered(await locate(connection, page, prunings=content.prunings)) from error
            except Tampered as error:
                found = await locate(connection, page, or_else=False, prunings=content.prunings)
                raise Tampered(found or error.finding) from error
            if content.kept and content.prunings.said:  # else each has the hash of its bytes
                entries = content.kept.filled(page.after, entries, hashes)
            writing.take(page.after, entries, complete)
            tell(page.until, size)
    walk.end()


async def _newest(connection: AsyncConnection, trust: Trust) -> Head:
    """Read the newest checkpoint that was given out, and check that it is ours."""
    cursor = await connection.execute(
        "SELECT size, coalesce(root, ''), coalesce(note, '') FROM audit.checkpoints WHERE size > 0"
        " ORDER BY size DESC LIMIT 1"
    )
    row: Any = await cursor.fetchone()
    if row is None:
        raise Unverifiable("Nothing of this log is signed yet: start Sophon, and let it sign a checkpoint.")
    head = Head(row[0], bytes(row[1]), bytes(row[2]), "the newest checkpoint in the database")
    try:
        checkpoint = trust.open(head.note)
    except (NoteRejected, WrongKey) as error:
        raise Tampered(_about(head, f"The newest checkpoint in the database is not of this log: {error}")) from error
    if (checkpoint.size, checkpoint.root) != (head.size, head.root):
        raise Tampered(_about(head, "The newest checkpoint in the database is not what its note says."))
    return head


def _about(head: Head, says: str, *more: bytes) -> Finding:
    notes = (legible(head.note), *map(legible, more))
    return Finding(kind="checkpoint", says=says, first=head.size, last=head.size, notes=notes)


def _old(directory: Path, format_: Format, trust: Trust, resume: bool) -> Exported | None:
    """Read what was exported here before. Raises `NotExported` where that is not to be continued."""
    if {path.name for path in directory.iterdir()} <= {f"{INCOMPLETE}.new"}:
        return None  # empty, or all that came of an export for which there was no room
    is_unfinished = (directory / INCOMPLETE).exists()
    if not is_unfinished and not (directory / MANIFEST).exists():
        raise NotExported(f"{directory} is not empty, and no export. Choose another directory.")
    if is_unfinished and not resume:
        raise NotExported(f"The export in {directory} has not ended. Go on with --resume, or choose another directory.")
    if (directory / MANIFEST).exists():
        manifest = read_manifest(directory)
        if manifest.origin != trust.origin:
            raise Tampered(
                Finding(
                    kind="differs",
                    says=f"The export in {directory} is of another log, {manifest.origin!r}; this is {trust.origin!r}.",
                    first=1,
                    last=manifest.last,
                )
            )
        if manifest.format != format_:
            raise NotExported(f"The export in {directory} is one as {manifest.format}. Choose another directory.")
    if not (directory / CHECKPOINT).exists():
        return None
    note = read_plain(directory / CHECKPOINT, MAX_NOTE)
    try:
        return Exported(directory, read_manifest(directory), trust, trust.open(note), note)
    except WrongKey as error:
        raise NotExported(f"The export in {directory} is signed by other keys: {error}") from error
    except NoteRejected as error:
        says = f"The checkpoint in {directory} was changed: {error}"
        raise Tampered(Finding(kind="checkpoint", says=says, first=1, last=1, notes=(legible(note),))) from error


def _continues(old: Exported, newest: Head) -> None:
    """Raise `Tampered` if the log has become shorter than what was exported, or another of the same length."""
    checkpoint = old.checkpoint
    if checkpoint.size > newest.size:
        says = f"The log has {newest.size} entries that are signed; what was exported before has {checkpoint.size}."
        first, last = newest.size + 1, checkpoint.size
        notes = (legible(old.note), legible(newest.note))
        raise Tampered(Finding(kind="truncated", says=says, first=first, last=last, notes=notes))
    if checkpoint.size == newest.size and checkpoint.root != newest.root:
        says = f"Two histories of {newest.size} entries are signed: the one that was exported before is another."
        raise Tampered(_about(newest, says, old.note))


def _manifest(directory: Path, format_: Format, trust: Trust, size: int) -> None:
    manifest = Manifest(
        format=format_,
        origin=trust.origin,
        first=1,
        last=size,
        exported=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        sophon=version("sophon"),
    )
    replace_file(directory / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def _finish(directory: Path, trust: Trust, newest: Head) -> None:
    """Make everything durable, and only then say that it is there."""
    replace_file(directory / KEYS, trust.text().encode())
    replace_file(directory / "verify.sh", VERIFIER.read_bytes(), 0o755)
    replace_file(directory / "README", README.read_bytes())
    os.sync()  # thousands of files: one after the other would take a minute
    replace_file(directory / CHECKPOINT, newest.note)
    replace_file(directory / SUMS, sums(directory))
    for name in [name for name in files_below(directory) if not belongs(name, newest.size)]:
        path = directory / name
        path.unlink()
        if path.parent.name.endswith(".p") and not any(path.parent.iterdir()):
            path.parent.rmdir()
    (directory / INCOMPLETE).unlink()
    sync_directory(directory)


@contextmanager
def _room(directory: Path) -> Generator[None]:
    """Say in a sentence what a file system refuses."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            is_begun = (directory / INCOMPLETE).exists()
            raise NotExported(
                f"There is no room left for the export in {directory}. It "
                f"{'is incomplete, and says so' if is_begun else 'was not begun'}. Make room, then go on: "
                f"sophon audit export {directory} --resume"
            ) from error
        raise NotExported(f"The export in {directory} cannot be written: {error.strerror}.") from error
