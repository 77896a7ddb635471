"""Verifiers that others wrote accept our logs, and reject every one that was tampered with."""

from pathlib import Path

import pytest

from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import parse_note
from app.audit.transparency.proofs import Receipt
from app.audit.transparency.tree import inclusion_proof, leaf_hash
from tests.audit.transparency.logs import ORIGIN, entries, nodes
from tests.foreign.conftest import Verify
from tests.foreign.exports import accompany, checkpoint_of, write_export, write_keys
from tests.foreign.matrix import CASES, LOG, Case

PQ = SigningKey.generate(ORIGIN, "ml-dsa-44")
WITNESS = SigningKey.generate("witness.example/w1", "cosignature/v1")
SIZES = [0, 1, 2, 255, 256, 257, 1000]


@pytest.mark.parametrize("size", SIZES)
def test_a_whole_log_is_accepted(verify: Verify, size: int, tmp_path: Path) -> None:
    done = verify(write_export(tmp_path / "log", entries(size), [LOG, PQ, WITNESS]))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"whole: {size} entries of {ORIGIN}" in done.stdout


@pytest.mark.parametrize("since", [0, 1, 2, 255, 256, 257, 300])
def test_a_log_that_grew_is_accepted(verify: Verify, since: int, tmp_path: Path) -> None:
    older = tmp_path / "since"
    older.write_bytes(checkpoint_of(entries(since), [LOG]))
    log = write_export(tmp_path / "log", entries(300), [LOG])
    done = verify("--key", write_keys(tmp_path / "trusted", [LOG.verifier]), "--since", older, log)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_tampered_log_is_rejected(verify: Verify, case: Case, tmp_path: Path) -> None:
    done = verify(*case.attempt(tmp_path).arguments())
    assert done.returncode == 1
    assert done.stderr.startswith("rejected: ")


def test_the_stolen_key_is_found_by_the_checkpoint_that_was_kept_only(verify: Verify, tmp_path: Path) -> None:
    stolen = next(case for case in CASES if "stolen" in case.name)
    attempt = stolen.attempt(tmp_path)
    assert verify(*attempt._replace(since=None).arguments()).returncode == 0
    assert verify(*attempt.arguments()).returncode == 1


def test_every_flipped_bit_of_an_export_is_rejected(verify: Verify, tmp_path: Path) -> None:
    done = verify("--flip", write_export(tmp_path / "log", entries(6), [LOG]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "flips was rejected" in done.stdout


def test_every_flipped_bit_of_a_cosigned_export_is_rejected_by_go(go: Verify, tmp_path: Path) -> None:
    done = go("--all", "--flip", write_export(tmp_path / "log", entries(6), [LOG, WITNESS]))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"signed by {ORIGIN}, witness.example/w1" in done.stdout
    assert "flips was rejected" in done.stdout


@pytest.mark.parametrize("size", SIZES)
def test_go_compares_the_root_alone(go: Verify, size: int, tmp_path: Path) -> None:
    """As it does for a log that is too large to have each of its entries proven."""
    log = write_export(tmp_path / "log", entries(size), [LOG])
    done = go("--head", log)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"the root is that of {size} entries of {ORIGIN}" in done.stdout
    if size:
        (log / "checkpoint").write_bytes(checkpoint_of([b"another", *entries(size)[1:]], [LOG]))
        assert go("--head", log).returncode == 1


def test_go_says_what_it_does_not_check(go: Verify, tmp_path: Path) -> None:
    done = go("--all", write_export(tmp_path / "log", entries(6), [LOG, PQ]))
    assert "(not checked: ML-DSA-44)" in done.stdout
    assert go(write_export(tmp_path / "other", entries(6), [PQ])).returncode == 1


@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_a_receipt_is_accepted_for_its_entry_only(verify: Verify, size: int, tmp_path: Path) -> None:
    log = entries(size)
    hashes = [leaf_hash(entry) for entry in log]
    index = size // 2
    receipt, entry, other = tmp_path / "e.tlog-proof", tmp_path / "entry", tmp_path / "other"
    note = checkpoint_of(log, [LOG, PQ, WITNESS])
    receipt.write_bytes(Receipt(index, inclusion_proof(index, size, nodes(hashes)), note, b"extra").encoded())
    entry.write_bytes(log[index])
    other.write_bytes(log[index] + b"!")
    key = write_keys(tmp_path / "trusted", [LOG.verifier])
    assert verify("--key", key, "--receipt", receipt, entry).returncode == 0
    assert verify("--key", key, "--receipt", receipt, other).returncode == 1


@pytest.mark.parametrize("size", SIZES)
def test_openssl_and_coreutils_accept_a_whole_log(shell: Verify, size: int, tmp_path: Path) -> None:
    log = write_export(tmp_path / "log", entries(size), [LOG, PQ, WITNESS])
    accompany(log)
    key = write_keys(tmp_path / "trusted", [LOG.verifier])
    done = shell("--key", key, log)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"whole: {size} entries of {ORIGIN}" in done.stdout
    if size:
        done = shell("--key", key, "--text", str(size), log)
        assert done.stdout == parse_note((log / "checkpoint").read_bytes()).text


@pytest.mark.parametrize("case", CASES, ids=str)
def test_openssl_and_coreutils_reject_a_tampered_log(shell: Verify, case: Case, tmp_path: Path) -> None:
    """It exits with 2, "could not check", where the auditor may have given the wrong key or no log at all."""
    attempt = case.attempt(tmp_path)
    accompany(attempt.directory)
    done = shell(*attempt.arguments())
    by_another_key = case.name.endswith("with another key") or case.name == "a checkpoint of another log"
    without_it = case.name in ("truncated: the first, re-hashed", "checkpoint is missing")
    assert done.returncode == (2 if by_another_key or without_it else 1), done.stderr
