"""Receipts: read as they were written, and good for one entry of one log only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import NoteRejected
from app.audit.transparency.policies import Peer, Policy, QuorumMissed
from app.audit.transparency.proofs import Receipt, parse_receipt
from app.audit.transparency.strict import Malformed, Rejected
from app.audit.transparency.tree import ProofFailed, inclusion_proof, leaf_hash
from tests.audit.transparency.logs import ORIGIN, entries, flips, head, leaves, nodes, note_of

LOG = SigningKey.generate(ORIGIN, "ed25519")
WITNESS = SigningKey.generate("witness.example", "cosignature/v1")
POLICY = Policy((Peer(LOG.verifier),), {"w": Peer(WITNESS.verifier)}, {}, "w")
SIZE = 21


def receipt(index: int, size: int = SIZE, extra: bytes | None = None) -> Receipt:
    hashes = leaves(size)
    note = note_of(hashes, LOG, WITNESS, at=1234)
    return Receipt(index, inclusion_proof(index, size, nodes(hashes)), note, extra)


@given(st.integers(1, 300), st.data(), st.none() | st.binary(max_size=40))
def test_a_receipt_is_read_as_it_was_written_and_holds(size: int, data: st.DataObject, extra: bytes | None) -> None:
    index = data.draw(st.integers(0, size - 1))
    one = receipt(index, size, extra)
    assert parse_receipt(one.encoded()) == one
    checked = one.check(leaf_hash(entries(size)[index]), POLICY)
    assert checked.checkpoint == head(leaves(size))
    assert checked.witnesses == {"w": 1234}


def test_a_receipt_looks_as_specified() -> None:
    lines = receipt(2, 3, b"more").encoded().decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra bW9yZQ==", "index 2"]
    assert lines[4:7] == ["", ORIGIN, "3"]


def test_every_flipped_bit_of_a_receipt_is_found() -> None:
    leaf = leaf_hash(entries(3)[1])
    octets = receipt(1, 3).encoded()

    def holds(octets: bytes) -> bool:
        try:
            parse_receipt(octets).check(leaf, POLICY)
        except Rejected:
            return False
        return True

    assert holds(octets)
    assert [flipped for flipped in flips(octets) if holds(flipped)] == []


def test_a_receipt_is_for_one_entry() -> None:
    one = receipt(4)
    for other in range(SIZE):
        if other != 4:
            with pytest.raises(ProofFailed):
                one.check(leaves(SIZE)[other], POLICY)
            with pytest.raises(ProofFailed):
                Receipt(other, one.proof, one.checkpoint).check(leaves(SIZE)[4], POLICY)


def test_a_receipt_is_for_one_log_and_its_witnesses() -> None:
    one, leaf = receipt(4), leaves(SIZE)[4]
    with pytest.raises(NoteRejected):
        one.check(leaf, Policy.of_logs(SigningKey.generate(ORIGIN, "ed25519").verifier))
    with pytest.raises(QuorumMissed):
        Receipt(4, one.proof, note_of(leaves(SIZE), LOG)).check(leaf, POLICY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"), ("index 4", "index 04"), ("index 4", "index -1"),
        ("index 4", "Index 4"), ("index 4\n", ""), ("index 4\n", "extra\nindex 4\n"),
        ("index 4\n", "extra AA=\nindex 4\n"),
        ("index 4\n", "index 4\nextra AA==\n"), ("index 4\n", "index 4\nAAAA\n"), ("index 4\n", "index 4\r\n"),
        ("index 4\n", "index 4\né\n"), ("\n\n", "\n"), ("index 4\n", "index 4\n" + "A" * 43 + "=\n" * 64),
        ("index 4\n", "index 4\n" + ("A" * 43 + "=\n") * 64),
    ],
)  # fmt: skip
def test_what_is_no_receipt_is_malformed(old: str, new: str) -> None:
    text = receipt(4).encoded().decode()
    changed = text.replace(old, new, 1) if old != "\n\n" else text.replace(old, new)
    assert changed != text
    with pytest.raises(Malformed):
        parse_receipt(changed.encode())


def test_a_receipt_has_bounds() -> None:
    one = receipt(4)
    with pytest.raises(Malformed, match="too long"):
        parse_receipt(one.encoded() + b"x" * (1 << 20))
    for wrong in (Receipt(-1, one.proof, one.checkpoint), Receipt(4, (b"x",), one.checkpoint)):
        with pytest.raises(Malformed):
            wrong.encoded()
