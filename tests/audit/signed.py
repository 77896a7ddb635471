"""Logs that are signed, for tests of what proves them: made by the writer and the signer, and then touched."""

import asyncio
import contextlib
import shutil
from collections.abc import Generator, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import psycopg

from app.audit.evidence.export import README, VERIFIER
from app.audit.evidence.exported import CHECKPOINT, KEYS, MANIFEST, SUMS, Manifest, sums
from app.audit.evidence.trust import Trust, trust_of
from app.audit.log import Log
from app.audit.signing.edge import Edge, widths
from app.audit.signing.signer import Signer
from app.audit.signing.store import Store
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import sign_note
from app.audit.transparency.tiles import WIDTH, entries_path, pack_entries, tile_path
from app.audit.transparency.tree import perfect_root
from tests.audit.drafts import draft
from tests.database import SEALER

ORIGIN = "lab.example/audit"


async def signed_log(dsn: str, keys: Path, sizes: Sequence[int], width: int = 40) -> Trust:
    """Append until each of the sizes, and sign it there; return what the log is to be judged by."""
    async with Log.open(dsn, SEALER) as log:
        signer = Signer(log, Store(keys), ORIGIN)
        edge = await signer.begin()
        for size in sizes:
            while (missing := size - log.head) > 0:
                some = [draft("A", ("notebook:n",), data={"text": "x" * width}) for _ in range(min(missing, 100))]
                await asyncio.gather(*(log.append([one]) for one in some))
            edge = await signer.sign(edge)
    trust = trust_of(keys)
    assert trust is not None
    return trust


@contextlib.contextmanager
def superuser(dsn: str) -> Generator[psycopg.Connection]:
    """Give the connection of one whom nothing prevents: triggers and checks of keys are off."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection


def renumbered(connection: psycopg.Connection, first: int, by: int) -> None:
    """Move the entries from a position on up or down, as if one had always been missing, or been there."""
    connection.execute("UPDATE audit.entries SET position = -position WHERE position >= %s", (first,))
    connection.execute("UPDATE audit.entries SET position = -position + %s WHERE position < 0", (by,))


def unchecked(connection: psycopg.Connection) -> None:
    """Take away what would stop an owner from giving an entry a position below zero for a moment."""
    connection.execute("ALTER TABLE audit.entries DROP CONSTRAINT entries_position_check")


def written(directory: Path, entries: Sequence[bytes], keys: Sequence[SigningKey], origin: str = ORIGIN) -> bytes:
    """Write an export of these entries by hand, as somebody could who has these keys; return the note."""
    edge = Edge()
    hashes = [sha256(b"\0" + entry).digest() for entry in entries]
    tiles = {(tile.level, tile.index, WIDTH): tile.hashes for tile in edge.extend(hashes)}
    for level, width in widths(len(entries)):
        nodes = [tiles[level - 1, n, WIDTH] for n in range(len(entries) >> 8 * level)] if level else hashes
        row = nodes[len(nodes) // WIDTH * WIDTH :]
        if width:
            tiles[level, len(nodes) // WIDTH, width] = b"".join(map(perfect_root_of, row) if level else row)
    shutil.rmtree(directory / "tile", ignore_errors=True)
    for (level, index, width), octets in tiles.items():
        put(directory / tile_path(level, index, width), octets)
    for start in range(0, len(entries), WIDTH):
        some = entries[start : start + WIDTH]
        put(directory / entries_path(start // WIDTH, len(some)), pack_entries(some))
    note = sign_note(Checkpoint(origin, len(entries), edge.frontier().root()).text(), keys)
    put(directory / CHECKPOINT, note)
    put(directory / KEYS, "".join(f"{key.verifier.text()}\n" for key in keys).encode())
    manifest = Manifest(format="tiles", origin=origin, first=1, last=len(entries), exported="", sophon="0")
    put(directory / MANIFEST, msgspec.json.encode(manifest))
    put(directory / "README", README.read_bytes())
    put(directory / "verify.sh", VERIFIER.read_bytes())
    put(directory / SUMS, sums(directory))
    return note


def perfect_root_of(tile: bytes) -> bytes:
    return perfect_root([tile[at : at + 32] for at in range(0, len(tile), 32)])


def put(path: Path, octets: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(octets)


def moments(count: int, text: str = "") -> list[bytes]:
    """Make entries that have a time and little else."""
    return [
        b'{"at":"2026-11-23T00:00:%02d.%03dZ","n":%d%s}' % (n // 1000, n % 1000, n, text.encode()) for n in range(count)
    ]
