"""A superuser's hand in the log: not prevented, but found, and where."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psycopg
import pytest

from app.audit.evidence.export import export_log
from app.audit.evidence.findings import Finding, Tampered, keep_evidence
from app.audit.evidence.leaves import hashes_of
from app.audit.evidence.replica import compare
from app.audit.evidence.trust import Trust, Unverifiable, WrongKey, read_keys, trust_of
from app.audit.evidence.verify import connected, verify_log
from app.audit.evidence.walk import Walk, Whole
from app.audit.log import Log
from app.audit.signing import continuity
from app.audit.signing.continuity import Refused
from app.audit.signing.store import Store
from app.audit.signing.tree import Tree
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import NoteRejected, sign_note
from app.audit.transparency.policies import Peer, Policy
from tests.audit.drafts import draft
from tests.audit.signed import ORIGIN, moments, renumbered, signed_log, superuser, unchecked
from tests.database import SEALER, Databases

SIZES = (5, 300, 520, 600)

Change = Callable[[psycopg.Connection], object]


@pytest.fixture(scope="module")
async def original(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Path]]:
    """A signed log of 600 entries, which nobody changes, and its signer's directory."""
    data = tmp_path_factory.mktemp("verify")
    with databases.fresh() as dsn:
        await signed_log(dsn, data / "signer", SIZES)
        yield dsn, data


@pytest.fixture
def signed(original: tuple[str, Path], databases: Databases, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A copy of it, to be tampered with."""
    dsn, data = original
    shutil.copytree(data / "signer", tmp_path / "signer")
    with databases.fresh() as copy:
        for table in ("entries", "tiles", "checkpoints"):
            _copy(dsn, copy, table)
        yield copy, tmp_path


def _copy(source: str, target: str, table: str) -> None:
    columns = "position, bytes, leaf_hash" if table == "entries" else "*"
    names = f"audit.{table}" + (f" ({columns})" if table == "entries" else "")
    with psycopg.connect(source) as here, psycopg.connect(target) as there:
        out = f"COPY (SELECT {columns} FROM audit.{table}) TO STDOUT".encode()
        with here.cursor().copy(out) as read, there.cursor().copy(f"COPY {names} FROM STDIN".encode()) as write:
            for block in read:
                write.write(block)


def _trust(data: Path) -> Trust:
    trust = trust_of(data / "signer")
    assert trust is not None
    return trust


async def verify(dsn: str, trust: Trust, *saved: bytes) -> Whole:
    async with connected(dsn) as connection:
        return await verify_log(connection, trust, saved)


async def found_in(dsn: str, trust: Trust, *saved: bytes) -> Finding:
    with pytest.raises(Tampered) as caught:
        await verify(dsn, trust, *saved)
    return caught.value.finding


def edit(position: int, *, rehash: bool = False) -> Change:
    def change(connection: psycopg.Connection) -> None:
        connection.execute(
            "UPDATE audit.entries SET bytes = replace(bytes::text, 'xxx', 'xxy')::json WHERE position = %s", (position,)
        )
        if rehash:
            connection.execute(
                "UPDATE audit.entries SET leaf_hash = sha256('\\x00'::bytea || convert_to(bytes::text, 'UTF8'))"
                " WHERE position = %s",
                (position,),
            )

    return change


def edit_hash(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE audit.entries SET leaf_hash = sha256('') WHERE position = 200")


def break_the_line(connection: psycopg.Connection) -> None:
    """Put a line end between two tokens, where JSON may have one, and hash what that gives."""
    connection.execute(
        "UPDATE audit.entries SET bytes = regexp_replace(bytes::text, '^{', E'{\\n')::json WHERE position = 602"
    )
    connection.execute(
        "UPDATE audit.entries SET leaf_hash = sha256('\\x00'::bytea || convert_to(bytes::text, 'UTF8'))"
        " WHERE position = 602"
    )


def empty(table: str, column: str, where: str) -> Change:
    columns = ("bytes", "leaf_hash", "id", "type", "tags", "outcome", "at") if table == "entries" else (column,)

    def change(connection: psycopg.Connection) -> None:
        for one in columns:
            connection.execute(f"ALTER TABLE audit.{table} ALTER {one} DROP NOT NULL".encode())
        connection.execute(f"UPDATE audit.{table} SET {column} = NULL WHERE {where}".encode())

    return change


def delete(*positions: int) -> Change:
    def change(connection: psycopg.Connection) -> None:
        connection.execute("DELETE FROM audit.entries WHERE position = ANY(%s)", (list(positions),))

    return change


def delete_and_move_up(connection: psycopg.Connection) -> None:
    unchecked(connection)
    delete(200)(connection)
    renumbered(connection, 201, -1)


def insert(connection: psycopg.Connection) -> None:
    unchecked(connection)
    renumbered(connection, 200, 1)
    connection.execute(
        "INSERT INTO audit.entries (position, bytes, leaf_hash) SELECT 200, line::json, sha256('\\x00'::bytea ||"
        " convert_to(line, 'UTF8')) FROM (SELECT replace(replace(bytes::text, 'xxx', 'xyz'), bytes ->> 'id',"
        " gen_random_uuid()::text) AS line FROM audit.entries WHERE position = 199) AS forged"
    )


def swap(connection: psycopg.Connection) -> None:
    unchecked(connection)
    for old, new in ((100, -200), (200, 100), (-200, 200)):
        connection.execute("UPDATE audit.entries SET position = %s WHERE position = %s", (new, old))


def truncate(connection: psycopg.Connection) -> None:
    connection.execute("DELETE FROM audit.entries WHERE position > 550")


def truncate_with_its_checkpoints(connection: psycopg.Connection) -> None:
    connection.execute("DELETE FROM audit.entries WHERE position > 520")
    connection.execute("DELETE FROM audit.checkpoints WHERE size > 520")


def truncate_all(connection: psycopg.Connection) -> None:
    connection.execute("TRUNCATE audit.entries, audit.tiles, audit.checkpoints")


def edit_tile(connection: psycopg.Connection) -> None:
    connection.execute(
        "UPDATE audit.tiles SET hashes = overlay(hashes placing sha256('') from 32 * 199 + 1) WHERE index = 0"
    )


def delete_tile(connection: psycopg.Connection) -> None:
    connection.execute("DELETE FROM audit.tiles WHERE index = 1")


def edit_note(connection: psycopg.Connection) -> None:
    connection.execute(
        "UPDATE audit.checkpoints SET note = set_byte(note, 30, get_byte(note, 30) # 1) WHERE size = 300"
    )


def edit_root(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE audit.checkpoints SET root = sha256('') WHERE size = 300")


def shift_hash(connection: psycopg.Connection) -> None:
    """One after the other, the two are what they were."""
    loosely(
        "entries",
        "UPDATE audit.entries AS next SET leaf_hash = substr(this.leaf_hash, 30) || next.leaf_hash"
        " FROM audit.entries AS this WHERE this.position = 200 AND next.position = 201",
        "UPDATE audit.entries SET leaf_hash = substr(leaf_hash, 1, 29) WHERE position = 200",
    )(connection)


def sign_with_another_key(connection: psycopg.Connection) -> None:
    root = connection.execute("SELECT root FROM audit.checkpoints WHERE size = 600").fetchone()
    assert root is not None
    note = sign_note(Checkpoint(ORIGIN, 600, root[0]).text(), [SigningKey.generate(ORIGIN, "ed25519")])
    connection.execute("UPDATE audit.checkpoints SET note = %s WHERE size = 600", (note,))


def loosely(table: str, *statements: str) -> Change:
    """Change a table that has no constraint any more."""

    def change(connection: psycopg.Connection) -> None:
        for (name,) in connection.execute(
            "SELECT quote_ident(conname) FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('c', 'p')",
            (f"audit.{table}",),
        ).fetchall():
            connection.execute(f"ALTER TABLE audit.{table} DROP CONSTRAINT {name}".encode())
        for statement in statements:
            connection.execute(statement.encode())

    return change


def another_checkpoint(size: str) -> Change:
    return loosely(
        "checkpoints",
        "ALTER TABLE audit.checkpoints ALTER size DROP NOT NULL",
        f"INSERT INTO audit.checkpoints (size, root, note) SELECT {size}, root, note FROM audit.checkpoints"
        " WHERE size = 600",
    )


def another_tile(level: int, index: int) -> Change:
    return loosely("tiles", f"INSERT INTO audit.tiles SELECT {level}, {index}, hashes, root FROM audit.tiles LIMIT 1")


MATRIX: dict[str, tuple[Change, str, int, int]] = {
    "edited": (edit(200), "edited", 200, 200),
    "edited, in no tile yet": (edit(590), "edited", 590, 590),
    "edited with its hash": (edit(200, rehash=True), "edited", 200, 200),
    "edited with its hash, in no tile yet": (edit(590, rehash=True), "rewritten", 521, 600),
    "its hash edited": (edit_hash, "hash", 200, 200),
    "its hash cut off, and the rest put before the next": (shift_hash, "hash", 200, 200),
    "emptied": (empty("entries", "bytes", "position = 200"), "edited", 200, 200),
    "all emptied": (empty("entries", "bytes", "true"), "edited", 1, 1),
    "its hash emptied": (empty("entries", "leaf_hash", "position = 200"), "hash", 200, 200),
    "deleted": (delete(200), "deleted", 200, 200),
    "several deleted": (delete(200, 201, 202, 400), "deleted", 200, 202),
    "the first deleted": (delete(1), "deleted", 1, 1),
    "deleted and the rest moved up": (delete_and_move_up, "deleted", 200, 200),
    "inserted": (insert, "inserted", 200, 200),
    "swapped": (swap, "swapped", 100, 100),
    "truncated": (truncate, "truncated", 551, 600),
    "truncated with its checkpoints": (truncate_with_its_checkpoints, "truncated", 521, 600),
    "all gone": (truncate_all, "truncated", 1, 600),
    "a tile edited": (edit_tile, "tile", 200, 200),
    "a tile emptied": (empty("tiles", "hashes", "index = 1"), "tile", 257, 512),
    "a tile's root emptied": (empty("tiles", "root", "index = 1"), "tile", 257, 512),
    "a tile deleted": (delete_tile, "tile", 257, 512),
    "a checkpoint's note edited": (edit_note, "checkpoint", 300, 300),
    "a checkpoint's note emptied": (empty("checkpoints", "note", "size = 300"), "checkpoint", 300, 300),
    "a checkpoint's root emptied": (empty("checkpoints", "root", "size = 300"), "checkpoint", 300, 300),
    "a checkpoint's root edited": (edit_root, "checkpoint", 300, 300),
    "a tile cut off": (loosely("tiles", "UPDATE audit.tiles SET hashes = 'abc'"), "tile", 1, 256),
    "a tile of entries that are not there yet": (another_tile(0, 2), "tile", 600, 600),
    "a tile of no tree": (another_tile(-1, 0), "tile", 600, 600),
    "a checkpoint of no size": (another_checkpoint("NULL"), "checkpoint", 0, 0),
    "a checkpoint of fewer than none": (another_checkpoint("-3"), "checkpoint", -3, -3),
    "a checkpoint of all that can be": (another_checkpoint(str(2**63 - 1)), "checkpoint", 2**63 - 1, 2**63 - 1),
    "signed with another key": (sign_with_another_key, "checkpoint", 600, 600),
}


async def test_a_log_that_nobody_touched_is_whole(signed: tuple[str, Path]) -> None:
    dsn, data = signed
    whole = await verify(dsn, _trust(data))
    assert (whole.entries, whole.checkpoints, whole.unsigned) == (600, len(SIZES), 0)
    assert whole.newest is not None
    assert whole.newest.root == whole.root


@pytest.mark.parametrize(("change", "kind", "first", "last"), MATRIX.values(), ids=MATRIX.keys())
async def test_what_a_superuser_does_is_found_and_located(
    change: Change, kind: str, first: int, last: int, signed: tuple[str, Path]
) -> None:
    dsn, data = signed
    with superuser(dsn) as connection:
        change(connection)
    finding = await found_in(dsn, _trust(data))
    assert (finding.kind, finding.first, finding.last) == (kind, first, last), finding.says
    assert str(first) in finding.says


def retype(table: str, column: str, type_: str) -> Change:
    def change(connection: psycopg.Connection) -> None:
        connection.execute(f"ALTER TABLE audit.{table} DROP CONSTRAINT IF EXISTS {table}_{column}_check".encode())
        if type_.startswith("text"):
            connection.execute(f"ALTER TABLE audit.{table} ALTER {column} DROP EXPRESSION IF EXISTS".encode())
        connection.execute(f"ALTER TABLE audit.{table} ALTER {column} TYPE {type_}".encode())

    return change


RETYPED: tuple[Change, ...] = (
    retype("entries", "position", "numeric"),
    retype("entries", "position", "float8"),
    retype("entries", "leaf_hash", "text USING encode(leaf_hash, 'hex')"),
    retype("entries", "id", "text"),
    retype("tiles", "hashes", "text USING encode(hashes, 'hex')"),
    retype("checkpoints", "size", "numeric"),
    retype("checkpoints", "root", "text USING encode(root, 'hex')"),
    retype("checkpoints", "note", "text USING convert_from(note, 'UTF8')"),
    lambda connection: connection.execute("ALTER TABLE audit.entries DROP at"),
)


@pytest.mark.parametrize("change", RETYPED)
async def test_a_column_of_another_type_is_found_and_stops_export_and_signer(
    change: Change, signed: tuple[str, Path]
) -> None:
    dsn, data = signed
    with superuser(dsn) as connection:
        change(connection)
    finding = await found_in(dsn, _trust(data))
    assert finding.kind == "hidden"
    assert "The column " in finding.says
    async with connected(dsn) as reading:
        with pytest.raises(Tampered, match="The column "):
            await export_log(reading, data / "export", "tiles", _trust(data))
        with pytest.raises(Refused, match="The column "):
            await continuity.compare(reading, Store(data / "signer").signed())


async def test_a_checkpoint_of_no_size_is_given_to_nobody(signed: tuple[str, Path]) -> None:
    dsn, data = signed
    with superuser(dsn) as connection:
        another_checkpoint("NULL")(connection)
    async with connected(dsn) as reading:
        assert (await export_log(reading, data / "export", "tiles", _trust(data))).size == 600
    async with Log.open(dsn, SEALER) as log:
        newest = await Tree(log.pool).newest()
    assert newest is not None
    assert newest.size == 600


async def test_a_table_that_is_a_file_of_somebodys_is_found(signed: tuple[str, Path]) -> None:
    dsn, data = signed
    with superuser(dsn) as connection:
        connection.execute("ALTER TABLE audit.checkpoints RENAME TO true_ones")
        connection.execute("CREATE FOREIGN DATA WRAPPER anything")
        connection.execute("CREATE SERVER elsewhere FOREIGN DATA WRAPPER anything")
        connection.execute(
            "CREATE FOREIGN TABLE audit.checkpoints (size bigint, root bytea, note bytea) SERVER elsewhere"
        )
    finding = await found_in(dsn, _trust(data))
    assert (finding.kind, "is no table" in finding.says) == ("hidden", True)


async def test_an_entry_of_two_lines_is_found_though_it_has_the_hash_of_its_bytes(signed: tuple[str, Path]) -> None:
    dsn, data = signed
    async with Log.open(dsn, SEALER) as log:
        for _ in range(3):
            await log.append([draft("A")])
    with superuser(dsn) as connection:
        break_the_line(connection)
    finding = await found_in(dsn, _trust(data))
    assert (finding.kind, finding.first, finding.last) == ("edited", 602, 602)
    assert "line end" in finding.says


async def test_an_entry_of_another_history_is_found_by_what_the_signer_remembers(
    databases: Databases, tmp_path: Path
) -> None:
    """The thief has the log's key, and signs a history of their own; the signer has signed the true one."""
    with databases.fresh() as true, databases.fresh() as forged:
        trust = await signed_log(true, tmp_path / "signer", (50, 300))
        store = Store(tmp_path / "stolen")
        keyring = Store(tmp_path / "signer").keyring()
        assert keyring is not None
        store.keep_keyring(keyring)
        stolen = await signed_log(forged, tmp_path / "stolen", (50, 300), width=41)
        assert (await verify(forged, stolen)).entries == 300  # by itself it is whole

        finding = await found_in(forged, trust)
        assert finding.kind == "rewritten"
        assert len(finding.notes) >= 1
        saved = trust.newest
        assert saved is not None
        finding = await found_in(forged, stolen, saved)
        assert (finding.kind, finding.last) == ("rewritten", 300)


async def test_a_saved_checkpoint_of_more_entries_than_there_are_is_told(
    original: tuple[str, Path], databases: Databases
) -> None:
    data = original[1]
    trust = _trust(data)
    assert trust.newest is not None
    with databases.fresh() as empty:
        finding = await found_in(empty, Trust(trust.origin, trust.terms), trust.newest)
    assert (finding.kind, finding.first, finding.last) == ("truncated", 1, 600)


async def test_a_checkpoint_by_nobody_we_know_proves_nothing(original: tuple[str, Path]) -> None:
    dsn, data = original
    text = Checkpoint(ORIGIN, 1, bytes(32)).text()
    with pytest.raises(WrongKey):
        await verify(dsn, _trust(data), sign_note(text, [SigningKey.generate(ORIGIN, "ed25519")]))
    with pytest.raises(NoteRejected):
        await verify(dsn, _trust(data), b"no note")


async def test_a_replica_is_compared_entry_by_entry(original: tuple[str, Path], signed: tuple[str, Path]) -> None:
    ours, replica = signed[0], original[0]
    async with connected(ours) as here, connected(replica) as there:
        assert await compare(here, there) == 600
        with superuser(ours) as connection:
            edit(200, rehash=True)(connection)
        with pytest.raises(Tampered) as caught:
            await compare(here, there)
        finding = caught.value.finding
        assert (finding.kind, finding.first) == ("differs", 200)
        assert finding.entry is not None
        assert finding.beside == finding.entry.replace("xxy", "xxx")
        with superuser(ours) as connection:
            connection.execute("DELETE FROM audit.entries WHERE position = 100")
        with pytest.raises(Tampered, match="Entry 100 is gone"):
            await compare(here, there)


async def test_a_replica_may_lag_but_have_no_more(original: tuple[str, Path], signed: tuple[str, Path]) -> None:
    with superuser(signed[0]) as connection:
        truncate(connection)
    async with connected(signed[0]) as fewer, connected(original[0]) as more:
        assert await compare(more, fewer) == 550
        with pytest.raises(Tampered, match="551 to 600 are gone"):
            await compare(fewer, more)


def test_a_time_before_that_of_the_entry_in_front_is_found() -> None:
    entries = moments(10)
    entries[5], entries[6] = entries[6], entries[5]
    with pytest.raises(Tampered) as caught:
        Walk().take(hashes_of(entries), [b"\n".join(entries)])
    assert (caught.value.finding.kind, caught.value.finding.first) == ("time", 7)
    walk = Walk()
    walk.take(hashes_of(entries[6:]), [b"\n".join(entries[6:])])
    with pytest.raises(Tampered, match="Entry 5 is none of this log"):
        walk.take(hashes_of(entries[:1]), [entries[0]])
    with pytest.raises(Tampered, match="Entry 1 is none"):
        Walk().take(hashes_of([b"{}"]), [b"{}"])


def test_keys_are_read_strictly() -> None:
    key = SigningKey.generate(ORIGIN, "ed25519").verifier.text()
    assert read_keys(f"{key}\n").origin == ORIGIN
    listed = read_keys(f"{key} 7 -\n{key} 0 6\n")  # as /audit/log/vkeys writes them
    assert [(term.since, term.until) for term in listed.terms] == [(7, None), (0, 6)]
    for wrong in ("7", "7 8 9", "-1 -", "07 -", " -"):
        with pytest.raises(Unverifiable):
            read_keys(f"{key} {wrong}\n")
    other = SigningKey.generate("other.example", "ed25519").verifier.text()
    for text in ("", "\n", key, f"{key}\n{other}\n", f"{key[:-1]}\n", f"{key}\n\n", f"x{key}\n"):
        with pytest.raises(Unverifiable):
            read_keys(text)


def test_evidence_is_a_file_with_all_that_was_found(tmp_path: Path) -> None:
    finding = Finding(kind="edited", says="Entry 7 is not what it was.", first=7, last=7, expected="aa", found="bb")
    kept = msgspec.json.decode(keep_evidence(finding, tmp_path).read_bytes())
    assert (kept["kind"], kept["first"], kept["expected"], kept["found"]) == ("edited", 7, "aa", "bb")
    assert datetime.fromisoformat(kept["noticed"]) <= datetime.now(UTC)


SECRET = {"SOPHON_SECRET": "k" * 32}
"""For commands that record what they read."""


async def command(dsn: str, data: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "SOPHON_DATA": str(data), "SOPHON_DATABASE_URL": dsn, **variables}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "app", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def test_the_command_exits_with_0_whole_1_tampered_2_could_not_3_policy(signed: tuple[str, Path]) -> None:
    dsn, data = signed
    done = await command(dsn, data, "audit", "verify")
    assert (done.returncode, done.stdout[:18]) == (0, "whole: 600 entries"), done.stderr

    witness = SigningKey.generate("witness.example", "cosignature/v1").verifier
    policy = data / "policy"
    policy.write_text(Policy((), {"w": Peer(witness)}, {}, "w").text())
    done = await command(dsn, data, "audit", "verify", SOPHON_WITNESS_POLICY=str(policy))
    assert done.returncode == 3, done.stderr
    assert "quorum w is missed" in " ".join(done.stderr.split())

    with superuser(dsn) as connection:
        edit(200)(connection)
    done = await command(dsn, data, "audit", "verify", "--evidence", str(data))
    assert done.returncode == 1, done.stderr
    assert "position: 200" in done.stdout
    [evidence] = data.glob("sophon-evidence-*.json")
    assert msgspec.json.decode(evidence.read_bytes())["first"] == 200

    done = await command(dsn, data / "elsewhere", "audit", "verify")
    assert done.returncode == 2
    assert "There are no keys" in done.stderr
    done = await command("postgresql://127.0.0.1:1/none", data, "audit", "verify")
    assert done.returncode == 2
    assert "does not answer" in done.stderr


async def test_an_id_in_capitals_is_a_spelling_and_no_tampering(databases: Databases, tmp_path: Path) -> None:
    with databases.fresh() as dsn:
        trust = await signed_log(dsn, tmp_path, (5,))
        async with Log.open(dsn, SEALER) as log:
            await log.append([draft("A")])
        with superuser(dsn) as connection:
            connection.execute(
                "UPDATE audit.entries SET bytes = replace(bytes::text, id::text, upper(id::text))::json"
                " WHERE position = 6"
            )
            connection.execute(
                "UPDATE audit.entries SET leaf_hash = sha256('\\x00'::bytea || convert_to(bytes::text, 'UTF8'))"
                " WHERE position = 6"
            )
        assert (await verify(dsn, trust)).unsigned == 1
