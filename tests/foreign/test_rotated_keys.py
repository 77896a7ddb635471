"""Keys that were rotated: what the old ones signed stays good by every verifier, and they sign nothing more."""

import asyncio
from pathlib import Path

import pytest

from app.audit.entry import Context
from app.audit.evidence.exported import open_exported, verify_exported
from app.audit.evidence.trust import read_keys, trust_of
from app.audit.log import Log
from app.audit.signing.rotation import stage
from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import NoteRejected
from tests.audit.signing import ORIGIN, Signing, grow
from tests.audit.test_export import export
from tests.foreign.conftest import Verify
from tests.foreign.exports import accompany, checkpoint_of, write_export, write_terms
from tests.foreign.matrix import ENTRIES, LOG

NEW = SigningKey.generate(LOG.name, "ed25519")


def exported(directory: Path, size: int, key: SigningKey) -> Path:
    log = write_export(directory, ENTRIES[:size], [key])
    accompany(log)
    return log


def since(path: Path, size: int, key: SigningKey) -> Path:
    path.write_bytes(checkpoint_of(ENTRIES[:size], [key]))
    return path


def test_what_a_retired_key_signed_is_continued_by_its_successor(any_verify: Verify, tmp_path: Path) -> None:
    trusted = write_terms(tmp_path / "vkeys", (NEW, 201, None), (LOG, 0, 200))
    for size in (1, 200):
        older = since(tmp_path / "since", size, LOG)
        done = any_verify("--key", trusted, "--since", older, exported(tmp_path / f"log-{size}", 300, NEW))
        assert (done.returncode, done.stderr) == (0, "")
    assert any_verify("--key", trusted, exported(tmp_path / "old", 200, LOG)).returncode == 0


@pytest.mark.parametrize(("size", "key"), [(201, LOG), (300, LOG), (200, NEW)], ids=["next", "later", "too soon"])
def test_a_key_signs_nothing_beyond_its_term(any_verify: Verify, size: int, key: SigningKey, tmp_path: Path) -> None:
    trusted = write_terms(tmp_path / "vkeys", (NEW, 201, None), (LOG, 0, 200))
    done = any_verify("--key", trusted, exported(tmp_path / "log", size, key))
    assert done.returncode == 1, done.stdout
    older = since(tmp_path / "since", size, key)
    if size <= 300:
        done = any_verify("--key", trusted, "--since", older, exported(tmp_path / "longer", 300, NEW))
        assert done.returncode == 1, done.stdout


@pytest.mark.parametrize("sizes", ["", " ", " 0", " 0 ", " x -", " 0 y", " 00 -", " 0 - -", "  0 -"])
def test_a_key_stands_with_two_sizes_or_none(any_verify: Verify, sizes: str, tmp_path: Path) -> None:
    trusted = tmp_path / "vkeys"
    trusted.write_text(f"{LOG.verifier.text()}{sizes}\n")
    done = any_verify("--key", trusted, exported(tmp_path / "log", 3, LOG))
    assert (done.returncode == 0) == (sizes == "")


async def test_a_log_whose_keys_were_rotated_is_accepted_with_an_old_checkpoint(
    any_verify: Verify, log: Log, dsn: str, tmp_path: Path
) -> None:
    """All real: the signer, the rotation, the exports, and the keys as they are given out."""
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 5)
    edge = await signing.sign()
    old = await signing.tree.newest()
    assert old is not None
    (tmp_path / "saved").write_bytes(old.note)
    await log.append([Context().draft(stage(signing.store))])
    await signing.signer.sign(edge)
    await grow(log, 5)
    await Signing(log, tmp_path / "signer").sign()
    (tmp_path / "vkeys").write_text(signing.signer.verifier_keys())
    trust = trust_of(tmp_path / "signer")
    assert trust is not None
    await export(dsn, tmp_path / "export", trust)

    given = read_keys((tmp_path / "vkeys").read_text())
    assert verify_exported(open_exported(tmp_path / "export", given), [old.note]).entries == 11
    assert (tmp_path / "export" / "vkeys").read_text() == (tmp_path / "vkeys").read_text()
    for keys in ([], ["--key", tmp_path / "vkeys"]):
        done = await asyncio.to_thread(any_verify, *keys, "--since", tmp_path / "saved", tmp_path / "export")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"whole: 11 entries of {ORIGIN}" in done.stdout


def test_our_own_verifier_holds_a_key_to_its_term(tmp_path: Path) -> None:
    trusted = read_keys(write_terms(tmp_path / "vkeys", (NEW, 201, None), (LOG, 0, 200)).read_text())
    for size, key in ((0, LOG), (200, LOG), (201, NEW), (300, NEW)):
        assert trusted.open(checkpoint_of(ENTRIES[:size], [key])).size == size
    for size, key in ((201, LOG), (300, LOG), (200, NEW)):
        with pytest.raises(NoteRejected, match="retired"):
            trusted.open(checkpoint_of(ENTRIES[:size], [key]))
