"""The tree: what RFC 6962 defines, compared with its definitions; and no proof shows anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.transparency.tree import (
    EMPTY_FRONTIER,
    EMPTY_ROOT,
    Frontier,
    ProofFailed,
    consistency_proof,
    frontier_of,
    inclusion_proof,
    leaf_hash,
    perfect_root,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.audit.transparency.logs import flips, leaves, naive_path, naive_root, naive_subproof, nodes

PUBLISHED_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
PUBLISHED_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The test vectors of the certificate-transparency project, for 0 to 8 leaves."""

LEAVES = leaves(700)
sizes = st.integers(1, 700)


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots_come_out(size: int) -> None:
    hashes = [leaf_hash(leaf) for leaf in PUBLISHED_LEAVES[:size]]
    assert EMPTY_FRONTIER.extended(hashes).root().hex() == PUBLISHED_ROOTS[size]
    assert root_of(size, nodes(hashes)).hex() == PUBLISHED_ROOTS[size]


@given(st.lists(st.integers(0, 90), max_size=8))
def test_a_tree_is_the_same_however_it_grew(steps: list[int]) -> None:
    frontier, at = EMPTY_FRONTIER, 0
    for step in steps:
        frontier, at = frontier.extended(iter(LEAVES[at : at + step])), at + step
    assert frontier.size == at
    assert frontier.root() == naive_root(LEAVES[:at]) == root_of(at, nodes(LEAVES))
    assert frontier == frontier_of(at, nodes(LEAVES))
    assert len(frontier.hashes) == at.bit_count()


def test_a_tree_of_many_chunks_is_the_naive_one() -> None:
    hashes = [leaf_hash(b"%d" % i) for i in range(40_000)]
    assert Frontier(1, (LEAVES[0],)).extended(hashes).root() == naive_root([LEAVES[0], *hashes])


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert EMPTY_FRONTIER.root() == EMPTY_ROOT == root_of(0, nodes([]))
    assert frontier_of(0, nodes([])) == EMPTY_FRONTIER


@pytest.mark.parametrize("octets", [b"", b"x" * 31, b"x" * 33])
def test_what_is_no_hash_is_not_appended(octets: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        EMPTY_FRONTIER.extended([*LEAVES[:3], octets])


@pytest.mark.parametrize("count", [0, 3, 6])
def test_only_a_power_of_two_of_nodes_has_a_node_above(count: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        perfect_root(LEAVES[:count])


@given(sizes, st.data())
def test_every_inclusion_proof_is_the_one_of_the_rfc_and_verifies(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, nodes(LEAVES))
    assert list(proof) == naive_path(index, LEAVES[:size])
    verify_inclusion(LEAVES[index], index, size, proof, naive_root(LEAVES[:size]))


@given(sizes, st.data())
def test_every_consistency_proof_is_the_one_of_the_rfc_and_verifies(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    proof = consistency_proof(old, new, nodes(LEAVES))
    assert list(proof) == naive_subproof(old, LEAVES[:new])
    verify_consistency(old, naive_root(LEAVES[:old]), new, naive_root(LEAVES[:new]), proof)


@pytest.mark.parametrize("new", [0, 1, 8])
def test_everything_continues_the_empty_tree_without_proof(new: int) -> None:
    assert consistency_proof(0, new, nodes(LEAVES)) == ()
    verify_consistency(0, EMPTY_ROOT, new, naive_root(LEAVES[:new]), ())


@pytest.mark.parametrize("size", range(1, 10))
def test_a_changed_bit_of_an_inclusion_proof_shows_nothing(size: int) -> None:
    root = naive_root(LEAVES[:size])
    for index in range(size):
        leaf, proof = LEAVES[index], inclusion_proof(index, size, nodes(LEAVES))
        wrong = [(bad, index, proof, root) for bad in flips(leaf)]
        wrong += [(leaf, index, proof, bad) for bad in flips(root)]
        wrong += [(leaf, index ^ 1 << bit, proof, root) for bit in range(63)]
        for i in range(len(proof)):
            wrong += [(leaf, index, (*proof[:i], bad, *proof[i + 1 :]), root) for bad in flips(proof[i])]
            wrong += [(leaf, index, (*proof[:i], *proof[i + 1 :]), root)]
        wrong += [(leaf, index, (*proof, root), root), (leaf, index, (leaf, *proof), root)]
        for bad_leaf, bad_index, bad_proof, bad_root in wrong:
            with pytest.raises(ProofFailed):
                verify_inclusion(bad_leaf, bad_index, size, bad_proof, bad_root)


@pytest.mark.parametrize("new", range(1, 10))
def test_a_changed_bit_of_a_consistency_proof_shows_nothing(new: int) -> None:
    new_root = naive_root(LEAVES[:new])
    for old in range(1, new + 1):
        old_root, proof = naive_root(LEAVES[:old]), consistency_proof(old, new, nodes(LEAVES))
        wrong = [(old, bad, new_root, proof) for bad in flips(old_root)]
        wrong += [(old, old_root, bad, proof) for bad in flips(new_root)]
        wrong += [(other, old_root, new_root, proof) for other in range(-1, new + 2) if other != old]
        for i in range(len(proof)):
            wrong += [(old, old_root, new_root, (*proof[:i], bad, *proof[i + 1 :])) for bad in flips(proof[i])]
            wrong += [(old, old_root, new_root, (*proof[:i], *proof[i + 1 :]))]
        wrong += [(old, old_root, new_root, (*proof, new_root)), (old, old_root, new_root, (old_root, *proof))]
        for bad_old, bad_old_root, bad_new_root, bad_proof in wrong:
            with pytest.raises(ProofFailed):
                verify_consistency(bad_old, bad_old_root, new, bad_new_root, bad_proof)


@given(sizes, st.data())
def test_a_proof_for_one_entry_is_none_for_another(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(-5, size + 5).filter(lambda other: other != index))
    proof = inclusion_proof(index, size, nodes(LEAVES))
    with pytest.raises(ProofFailed):
        verify_inclusion(LEAVES[index], other, size, proof, naive_root(LEAVES[:size]))


@given(sizes, st.data())
def test_a_tree_with_another_past_is_not_consistent(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    edited = data.draw(st.integers(0, old - 1))
    rewritten = [*LEAVES[:edited], leaf_hash(b"rewritten"), *LEAVES[edited + 1 : new]]
    proof = consistency_proof(old, new, nodes(rewritten))
    with pytest.raises(ProofFailed):
        verify_consistency(old, naive_root(LEAVES[:old]), new, naive_root(rewritten), proof)


@pytest.mark.parametrize("hash_", [b"", b"x" * 31, b"x" * 33])
def test_what_is_no_hash_is_no_part_of_a_proof(hash_: bytes) -> None:
    with pytest.raises(ProofFailed, match="32 bytes"):
        verify_inclusion(LEAVES[0], 0, 2, [hash_], LEAVES[0])
    with pytest.raises(ProofFailed, match="32 bytes"):
        verify_consistency(1, LEAVES[0], 2, LEAVES[1], [hash_])


def test_the_empty_tree_has_no_other_root() -> None:
    with pytest.raises(ProofFailed, match="empty tree"):
        verify_consistency(0, LEAVES[0], 2, naive_root(LEAVES[:2]), ())


def test_there_is_no_proof_of_what_is_not_there() -> None:
    for index, size in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(ValueError, match="no leaf"):
            inclusion_proof(index, size, nodes(LEAVES))
    for old, new in ((-1, 2), (3, 2)):
        with pytest.raises(ValueError, match="not the beginning"):
            consistency_proof(old, new, nodes(LEAVES))
