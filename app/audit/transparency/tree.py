"""The Merkle tree of RFC 6962, section 2: hashes, roots, and proofs of inclusion and of consistency.

A *node* is a perfect subtree: `(level, index)` has the 2^level leaves from index * 2^level on. Level 0 are the leaf
hashes themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from itertools import islice

from app.audit.transparency.strict import HASH, Rejected

EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves."""

Nodes = Callable[[int, int], bytes]
"""(level, index) -> the hash of that node; asked for nodes within the tree only."""

_CHUNK = 1 << 14
"""Leaves hashed at once: memory stays the same however many there are."""


class ProofFailed(Rejected):
    """The proof does not show what it is said to show."""


def leaf_hash(octets: bytes) -> bytes:
    """Hash an entry."""
    return sha256(b"\x00" + octets).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into the one above them."""
    return sha256(b"\x01" + left + right).digest()


_NODE = sha256(b"\x01")
"""A node's hash as it begins: to copy it takes less than to begin another."""


def _row_above(row: Sequence[bytes]) -> list[bytes]:
    hashes, begin = iter(row), _NODE.copy
    pairs = zip(hashes, hashes, strict=False)
    return [node.digest() for left, right in pairs if not (node := begin()).update(left + right)]  # it returns nothing


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Hash 2^n nodes of one level, which lie beside each other, into the node n levels above."""
    if not hashes or len(hashes) & (len(hashes) - 1):
        raise ValueError(f"{len(hashes)} is no power of two.")
    while len(hashes) > 1:
        hashes = _row_above(hashes)
    return hashes[0]


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that is needed of a tree to append to it: the roots of its perfect subtrees, the largest first.

    One hash for each bit that is set in `size`; the whole state of somebody who follows a log.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def extended(self, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """Append leaves, given as their 32-byte hashes. Raises ValueError for anything of another length."""
        size, hashes, leaves = self.size, list(self.hashes), iter(leaf_hashes)
        while row := list(islice(leaves, _CHUNK)):
            if set(map(len, row)) != {HASH}:
                raise ValueError(f"A leaf's hash has {HASH} bytes.")
            count = len(row)
            _absorb(hashes, size, row)
            size += count
        return Frontier(size, tuple(hashes))

    def root(self) -> bytes:
        """Give the root of the tree."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT


EMPTY_FRONTIER = Frontier()


def _absorb(hashes: list[bytes], size: int, row: list[bytes]) -> None:
    """Carry a row of new leaves upwards, level by level; what finds no partner stays. Uses up the row."""
    left_over: list[bytes] = []
    while row:
        if size & 1:
            row.insert(0, hashes.pop())
        if len(row) & 1:
            left_over.append(row.pop())
        row = _row_above(row)
        size >>= 1
    hashes.extend(reversed(left_over))


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join perfect subtrees, the largest first, as RFC 6962 does: the smallest are joined first."""
    return reduce(lambda right, left: node_hash(left, right), reversed(hashes))


def _range_root(start: int, end: int, nodes: Nodes) -> bytes:
    """Give the root of the leaves [start, end), where start is a multiple of a power of two >= end - start."""
    hashes: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        hashes.append(nodes(level, start >> level))
        start += 1 << level
    return _fold(hashes)


def root_of(size: int, nodes: Nodes) -> bytes:
    """Give the root of the first `size` leaves."""
    return _range_root(0, size, nodes) if size else EMPTY_ROOT


def frontier_of(size: int, nodes: Nodes) -> Frontier:
    """Give the frontier of the first `size` leaves."""
    levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
    return Frontier(size, tuple(nodes(level, (size >> level) - 1) for level in levels))


def inclusion_proof(index: int, size: int, nodes: Nodes) -> tuple[bytes, ...]:
    """Give the audit path of a leaf, its sibling first (RFC 6962, section 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError(f"There is no leaf {index} in a tree of {size}.")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, nodes))
            end = middle
        else:
            path.append(_range_root(start, middle, nodes))
            start = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, nodes: Nodes) -> tuple[bytes, ...]:
    """Show that the tree of `old` leaves is the beginning of that of `new` (RFC 6962, section 2.1.2)."""
    if not 0 <= old <= new:
        raise ValueError(f"A tree of {old} is not the beginning of one of {new}.")
    if old in (0, new):
        return ()
    path: list[bytes] = []
    start, end = 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range_root(middle, end, nodes))
            end = middle
        else:
            path.append(_range_root(start, middle, nodes))
            start = middle
    return tuple(reversed(path if start == 0 else [*path, _range_root(start, end, nodes)]))


def _split(count: int) -> int:
    """Give the largest power of two below `count` (which is at least 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with this *hash* is at `index` of the tree (RFC 9162, section 2.1.3.2). Raises ProofFailed.

    The size is not proved: take size and root from the same checkpoint.
    """
    if not 0 <= index < size:
        raise ProofFailed(f"There is no leaf {index} in a tree of {size}.")
    here, last = index, size - 1
    for hash_ in _hashes(proof):
        if last == 0:
            raise ProofFailed("The inclusion proof is too long.")
        if here & 1 or here == last:
            leaf = node_hash(hash_, leaf)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            leaf = node_hash(leaf, hash_)
        here, last = here >> 1, last >> 1
    if last != 0:
        raise ProofFailed("The inclusion proof is too short.")
    if leaf != root:
        raise ProofFailed(f"The entry is not at position {index} of the tree with this root.")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the older tree is the beginning of the newer one (RFC 9162, section 2.1.4.2). Raises ProofFailed."""
    if not 0 <= old <= new:
        raise ProofFailed(f"A tree of {old} is not the beginning of one of {new}.")
    if old == 0 and old_root != EMPTY_ROOT:
        raise ProofFailed("The older tree has no leaves, but not the root of the empty tree.")
    if old in (0, new):
        if proof:
            raise ProofFailed("The consistency proof is too long: none is needed.")
        if old == new and old_root != new_root:
            raise ProofFailed(f"Two different trees of the same size, {new}.")
        return
    if _climb(old, old_root, new, _hashes(proof)) != (old_root, new_root):
        raise ProofFailed(f"The tree of {old} is not the beginning of that of {new}.")


def _climb(old: int, old_root: bytes, new: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Recompute both roots from a consistency proof."""
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise ProofFailed("The consistency proof is too short.")
    here, last = old - 1, new - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    older = newer = path[0]
    for hash_ in path[1:]:
        if last == 0:
            raise ProofFailed("The consistency proof is too long.")
        if here & 1 or here == last:
            older, newer = node_hash(hash_, older), node_hash(hash_, newer)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            newer = node_hash(newer, hash_)
        here, last = here >> 1, last >> 1
    if last != 0:
        raise ProofFailed("The consistency proof is too short.")
    return older, newer


def _hashes(proof: Sequence[bytes]) -> Sequence[bytes]:
    if any(len(hash_) != HASH for hash_ in proof):
        raise ProofFailed(f"A hash of a proof has {HASH} bytes.")
    return proof
