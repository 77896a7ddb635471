"""The signer: every size it signs has one root, whatever breaks, and nothing else than what was appended."""

import asyncio
import contextlib
import stat
import threading
from pathlib import Path
from uuid import uuid4

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit.database.provision import application
from app.audit.entry import Context
from app.audit.log import Log
from app.audit.signing import continuity
from app.audit.signing import signer as signer_module
from app.audit.signing import store as store_module
from app.audit.signing.continuity import AnotherHistory, Refused
from app.audit.signing.edge import CompleteTile, Edge
from app.audit.signing.rotation import NothingToRotate, stage
from app.audit.signing.store import SignerBusy, Staged, Store
from app.audit.signing.tree import NotInTree, Tampered, Tree, publish
from app.audit.transparency.keys import Verifier
from app.audit.transparency.notes import open_checkpoint, open_note
from app.audit.transparency.policies import Policy
from app.audit.transparency.proofs import parse_receipt
from app.audit.transparency.tiles import WIDTH
from app.audit.transparency.tree import leaf_hash, node_hash, verify_consistency
from app.audit.writer import LogUnavailable
from app.keys import Keys
from tests.audit.signing import ORIGIN, Signing, grow, running
from tests.conftest import SEALER
from tests.database import Databases

CONTEXT = Context()

slow = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def root_of(leaves: list[bytes]) -> bytes:
    """Compute a root as RFC 6962 defines it."""
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(root_of(leaves[:middle]), root_of(leaves[middle:]))


async def leaves(log: Log) -> list[bytes]:
    return [leaf_hash(record.octets) for record in (await log.read()).records]


async def change(dsn: str, *statements: str) -> None:
    """Do what nothing but a superuser can."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement.encode())


@given(st.lists(st.integers(0, 700), min_size=1, max_size=6))
def test_an_edge_has_the_tiles_and_the_root_of_the_whole_tree(steps: list[int]) -> None:
    hashes = [leaf_hash(str(number).encode()) for number in range(sum(steps))]
    edge, at = Edge(), 0
    tiles: list[CompleteTile] = []
    for step in steps:
        tiles += edge.extend(hashes[at : at + step])
        at += step
        edge = edge.copy()
    assert edge.size == len(hashes)
    assert not hashes or edge.frontier().root() == root_of(hashes)
    assert [tile.index for tile in tiles] == list(range(len(hashes) // WIDTH))
    assert b"".join(tile.hashes for tile in tiles) == b"".join(hashes[: len(hashes) // WIDTH * WIDTH])
    assert all(tile.root == root_of(hashes[tile.index * WIDTH : (tile.index + 1) * WIDTH]) for tile in tiles)


def test_an_edge_grows_two_levels() -> None:
    hashes = [leaf_hash(str(number).encode()) for number in range(WIDTH * WIDTH + 3)]
    edge = Edge()
    tiles = edge.extend(hashes)
    assert [(tile.level, tile.index) for tile in tiles[-2:]] == [(0, 255), (1, 0)]
    assert edge.frontier().hashes[0] == tiles[-1].root
    assert edge.frontier().root() == root_of(hashes)


async def test_what_is_signed_is_the_root_of_what_was_appended(log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    edge = await signing.sign()
    with pytest.raises(AssertionError):
        await signing.checkpoint()
    for count in (1, 2, 300, 400, 1):
        await grow(log, count)
        edge = await signing.signer.sign(edge)
        checkpoint = await signing.checkpoint()
        assert (checkpoint.origin, checkpoint.size) == (ORIGIN, log.head)
        assert checkpoint.root == root_of(await leaves(log))
    newest = await signing.tree.newest()
    assert newest is not None
    assert {one.verifier.kind for one in open_note(newest.note, signing.verifiers()).signed} == {"ed25519", "ml-dsa-44"}


async def test_keys_and_memory_are_readable_by_their_owner_only(log: Log, tmp_path: Path) -> None:
    await grow(log, 1)
    await Signing(log, tmp_path / "signer").sign()
    assert stat.S_IMODE((tmp_path / "signer").stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "signer").iterdir()}
    assert files == {"keys.json": 0o600, "state.json": 0o600}


@slow
@given(sizes=st.lists(st.integers(1, 300), min_size=2, max_size=5), data=st.data())
async def test_proofs_from_the_tiles_are_those_of_the_tree(
    databases: Databases, tmp_path: Path, sizes: list[int], data: st.DataObject
) -> None:
    with databases.fresh() as dsn:
        async with Log.open(dsn, SEALER) as log:
            signing = Signing(log, tmp_path / str(uuid4()))
            heads: list[int] = []
            for size in sizes:
                heads.append(await grow(log, size))
                await signing.sign()
            hashes = await leaves(log)
            old, new = sorted((data.draw(st.sampled_from(heads)), data.draw(st.sampled_from(heads))))
            proof = await signing.tree.consistency(old, new)
            verify_consistency(old, root_of(hashes[:old]), new, root_of(hashes[:new]), proof)
            position = data.draw(st.integers(1, len(hashes)))
            receipt = parse_receipt(await signing.receipt(position))
            checked = receipt.check(hashes[position - 1], Policy.of_logs(*signing.verifiers()))
            assert checked.checkpoint.size == next(head for head in heads if head >= position)


class Killed(BaseException):
    """The process ends here."""


STEPS = [
    *((continuity, name) for name in ("keep_tiles", "read_leaves", "read_size", "read_checkpoints", "read_edge")),
    *((signer_module, name) for name in ("publish", "read_size", "read_checkpoints", "sign_note")),
]


@slow
@given(data=st.data())
async def test_a_signer_killed_at_any_step_never_signs_two_roots_of_one_size(
    databases: Databases, tmp_path: Path, data: st.DataObject
) -> None:
    with databases.fresh() as dsn, pytest.MonkeyPatch.context() as patch:
        async with Log.open(dsn, SEALER) as log:
            directory = tmp_path / str(uuid4())
            signed: list[bytes] = []
            fuse = [0]

            def burn() -> None:
                fuse[0] -= 1
                if fuse[0] == 0:
                    raise Killed

            real_keep = Store.keep_signed

            def keep(store: Store, kept: store_module.Signed) -> None:
                burn()
                real_keep(store, kept)
                signed.append(kept.note.encode())
                burn()

            patch.setattr(Store, "keep_signed", keep)
            for module, name in STEPS:
                real = getattr(module, name)

                def before_and_after(*args: object, real: object = real, **named: object) -> object:
                    burn()
                    return real(*args, **named)  # pyright: ignore

                patch.setattr(module, name, before_and_after)
            for _ in range(data.draw(st.integers(2, 6))):
                await grow(log, data.draw(st.integers(1, 400)))
                fuse[0] = data.draw(st.integers(0, 14))
                with contextlib.suppress(Killed):
                    await Signing(log, directory).sign()
                newest, kept = await Tree(log.pool).newest(), Store(directory).signed()
                assert newest is None or (kept is not None and newest.size <= kept.size)
            fuse[0] = 0
            signing = Signing(log, directory)
            await signing.sign()
            hashes = await leaves(log)
            assert (await signing.checkpoint()).size == len(hashes)
            async with log.pool.connection() as connection:
                rows = await (await connection.execute("SELECT note FROM audit.checkpoints")).fetchall()
            for note in {*signed, *(row[0] for row in rows)}:
                checkpoint = open_checkpoint(note, signing.verifiers())[0]
                assert checkpoint.root == root_of(hashes[: checkpoint.size])


async def test_a_memory_that_cannot_be_kept_is_not_published(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 3)
    edge = await signing.signer.begin()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "write", full)
    with pytest.raises(OSError, match="No space"):
        await signing.signer.sign(edge)
    assert await signing.tree.newest() is None
    monkeypatch.undo()
    await signing.sign()
    assert (await signing.checkpoint()).size == 3


async def test_a_memory_never_shrinks(log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 3)
    await signing.sign()
    signed = signing.store.signed()
    await grow(log, 1)
    await signing.sign()
    assert signed is not None
    with pytest.raises(ValueError, match="Size 4"):
        signing.store.keep_signed(signed)


async def test_the_login_of_the_application_may_sign_and_not_change_what_is_signed(dsn: str, tmp_path: Path) -> None:
    async with Log.open(await application(dsn, Keys(b"k" * 32)), SEALER) as log:
        await grow(log, 300)
        await Signing(log, tmp_path / "signer").sign()
        for change_ in ("UPDATE audit.checkpoints SET at = now()", "DELETE FROM audit.tiles"):
            async with log.pool.connection() as connection:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(change_.encode())


def test_whoever_reads_keys_while_they_are_replaced_and_destroyed_reads_them_whole_or_none(tmp_path: Path) -> None:
    store, keys = Store(tmp_path), Staged(keys=("one" * 50, "other" * 50))
    is_done = threading.Event()

    def change() -> None:
        for _ in range(200):
            store.keep_staged(keys)
            store.keep_staged(keys)
            store.drop_staged()
        is_done.set()

    changing = threading.Thread(target=change)
    changing.start()
    seen: set[Staged | None] = set()
    try:
        while not is_done.is_set():
            seen.add(Store(tmp_path).staged())
    finally:
        changing.join()
    assert seen == {keys, None}


def test_keys_that_were_damaged_are_no_keys(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_staged(Staged(keys=("one",)))
    (tmp_path / "next.json").write_bytes(bytes(20))
    with pytest.raises(msgspec.DecodeError):
        store.staged()


async def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    with Store(tmp_path).held(), pytest.raises(SignerBusy), Store(tmp_path).held():
        pass


async def test_an_entry_whose_bytes_were_edited_is_named_and_not_signed(dsn: str, log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 700)
    edited = "replace(bytes::text, 'entry:', 'entri:')::json"
    await change(dsn, f"UPDATE audit.entries SET bytes = {edited} WHERE position = 600")
    with pytest.raises(Tampered, match="Entry 600"):
        await signing.sign()
    assert await signing.tree.newest() is None
    await change(dsn, "DELETE FROM audit.entries WHERE position = 600")
    with pytest.raises(Tampered, match="Entry 600 is missing"):
        await signing.sign()


@pytest.mark.parametrize("column", ["bytes", "leaf_hash"])
async def test_an_entry_that_was_emptied_is_named_and_not_signed(
    dsn: str, log: Log, tmp_path: Path, column: str
) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 300)
    computed = ("bytes", "leaf_hash", "id", "type", "tags", "outcome", "at")
    await change(
        dsn,
        *(f"ALTER TABLE audit.entries ALTER {one} DROP NOT NULL" for one in computed),
        f"UPDATE audit.entries SET {column} = NULL WHERE position = 300",
    )
    with pytest.raises(Tampered, match="Entry 300"):
        await signing.sign()


async def test_a_tile_of_which_the_hashes_are_gone_is_named(dsn: str, log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 300)
    await signing.sign()
    await change(dsn, "ALTER TABLE audit.tiles ALTER hashes DROP NOT NULL", "UPDATE audit.tiles SET hashes = NULL")
    with pytest.raises(Tampered, match="tile of entries 1 to 256 is gone"):
        await signing.sign()


async def test_a_tile_that_was_replaced_is_named(dsn: str, log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 300)
    await signing.sign()
    await change(dsn, "UPDATE audit.tiles SET hashes = substr(hashes, 2) || '\\x00'::bytea")
    with pytest.raises(Tampered, match="Entries 1 to 256"):
        await signing.sign()
    await change(dsn, "DELETE FROM audit.tiles", "DELETE FROM audit.checkpoints")
    await signing.sign()  # all of it is derived again, and is what was signed
    assert len(await signing.tree.tile(0, 0)) == 32 * WIDTH
    assert (await signing.checkpoint()).size == 300


async def test_an_older_memory_takes_up_what_it_signed_later(log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 3)
    await signing.sign()
    older = (tmp_path / "signer" / "state.json").read_bytes()
    await grow(log, 3)
    await signing.sign()
    (tmp_path / "signer" / "state.json").write_bytes(older)
    again = Signing(log, tmp_path / "signer")
    await grow(log, 3)
    await again.sign()
    assert (await again.checkpoint()).size == 9


async def test_a_signed_log_is_not_signed_by_new_keys(log: Log, tmp_path: Path) -> None:
    await grow(log, 3)
    await Signing(log, tmp_path / "signer").sign()
    with pytest.raises(Refused, match="keys are not in"):
        await Signing(log, tmp_path / "another").sign()
    assert log.frozen is None


async def test_a_checkpoint_of_one_size_has_one_root(log: Log, tmp_path: Path) -> None:
    async with log.pool.connection() as connection:
        await publish(connection, 1, bytes(32), b"a")
        await publish(connection, 1, bytes(32), b"b")
        with pytest.raises(Tampered):
            await publish(connection, 1, bytes(31) + b"1", b"a")


async def test_a_running_signer_signs_freezes_and_says_so(dsn: str, log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 70)
    async with running(signing.signer):
        async with asyncio.timeout(10):
            while signing.signer.size < 70:
                await asyncio.sleep(0.01)
            await grow(log, 1)
            signing.signer.hurry()
            while signing.signer.size < 71:
                await asyncio.sleep(0.01)
            assert signing.signer.faults() == []
            await change(dsn, "DELETE FROM audit.entries WHERE position > 50")
            signing.signer.hurry()
            while not signing.signer.faults():
                await asyncio.sleep(0.01)
    assert "ends at 50, and 71 entries were signed" in signing.signer.faults()[0]
    with pytest.raises(LogUnavailable, match="sophon state recover --from-export DIR"):
        await grow(log, 1)


async def test_a_running_signer_whose_table_is_altered_says_so_and_goes_on(
    dsn: str, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer_module, "AGAIN", 0.1)
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 70)
    async with running(signing.signer):
        async with asyncio.timeout(10):
            while signing.signer.size < 70:
                await asyncio.sleep(0.01)
            await change(dsn, "ALTER TABLE audit.entries RENAME leaf_hash TO other")
            signing.signer.hurry()
            while not any("leaf_hash" in fault for fault in signing.signer.faults()):
                await asyncio.sleep(0.01)
            await change(dsn, "ALTER TABLE audit.entries RENAME other TO leaf_hash")
            while signing.signer.faults():
                await asyncio.sleep(0.01)


async def test_keys_are_rotated_and_old_receipts_stay_good(log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    with pytest.raises(NothingToRotate):
        stage(signing.store)
    await grow(log, 5)
    edge = await signing.sign()
    old, receipt = signing.verifiers(), await signing.receipt(2)
    secrets = (tmp_path / "signer" / "keys.json").read_text()
    announced = stage(signing.store)
    assert stage(signing.store) == announced  # asked again, by a second administrator: the same keys
    await grow(log, 5)
    edge = await signing.signer.sign(edge)
    assert signing.verifiers() == old  # nothing announces the new ones yet
    await log.append([CONTEXT.draft(announced)])
    await signing.signer.sign(edge)
    new = signing.verifiers()
    assert [one.text() for one in new] == list(announced.keys)
    assert (await signing.checkpoint(*old)).size == 11  # the announcement is signed by the old keys
    await grow(log, 5)
    await Signing(log, tmp_path / "signer").sign()
    assert (await signing.checkpoint(*new)).size == 16
    parse_receipt(receipt).check(leaf_hash(await signing.tree.entry(2)), Policy.of_logs(*old))
    lines = [line.split() for line in signing.signer.verifier_keys().splitlines()]
    assert [(Verifier.parse(key), since, until) for key, since, until in lines] == [
        *((key, "12", "-") for key in new),
        *((key, "0", "11") for key in old),
    ]
    left = "".join(path.read_text() for path in (tmp_path / "signer").iterdir())
    assert not [key for key in secrets.split('"') if key.startswith("PRIVATE") and key in left]


async def test_what_is_not_in_the_tree_is_not_made_up(log: Log, tmp_path: Path) -> None:
    await grow(log, 3)
    tree = Tree(log.pool)
    for asked in (tree.tile(0, 0), tree.tile(0, 0, 4), tree.tile(1, 0, 1), tree.entries(0, 4), tree.entry(4)):
        with pytest.raises(NotInTree):
            await asked
    assert len(await tree.tile(0, 0, 3)) == 96


async def test_another_history_is_seen_before_anything_is_appended(dsn: str, log: Log, tmp_path: Path) -> None:
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 3)
    await signing.sign()
    await change(dsn, "DELETE FROM audit.entries WHERE position = 3")
    await Signing(log, tmp_path / "signer").signer.check()
    assert log.frozen is not None
    with pytest.raises(AnotherHistory):
        await signing.signer.begin()
