"""Small logs, and the definitions of RFC 6962 written down as they stand there, to compare with."""

from collections.abc import Callable, Sequence
from hashlib import sha256

from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import sign_note
from app.audit.transparency.tiles import TileNodes, pack_hashes
from app.audit.transparency.tree import EMPTY_FRONTIER, EMPTY_ROOT, Nodes, leaf_hash, perfect_root

ORIGIN = "log.example/sophon"


def entries(count: int) -> list[bytes]:
    """Give entries that all differ, some of them empty or long."""
    return [b"" if i == 3 else b"entry %d" % i * (1 + i % 5) for i in range(count)]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(entry) for entry in entries(count)]


def nodes(hashes: Sequence[bytes]) -> Nodes:
    """Look nodes up in a list of all leaves."""
    return lambda level, index: perfect_root(hashes[index << level : (index + 1) << level])


def tile_reader(hashes: Sequence[bytes]) -> Callable[[int, int, int], bytes]:
    """Make tiles of a list of all leaves, each node by itself."""
    node = nodes(hashes)
    return lambda level, index, width: pack_hashes(node(8 * level, index * 256 + i) for i in range(width))


def tile_nodes(hashes: Sequence[bytes]) -> TileNodes:
    return TileNodes(tile_reader(hashes), len(hashes))


def head(hashes: Sequence[bytes], origin: str = ORIGIN) -> Checkpoint:
    return Checkpoint(origin, len(hashes), EMPTY_FRONTIER.extended(hashes).root())


def note_of(hashes: Sequence[bytes], *keys: SigningKey, at: int = 0) -> bytes:
    return sign_note(head(hashes).text(), keys, at)


def flips(octets: bytes) -> list[bytes]:
    """Give every neighbour of the octets that differs in one bit."""
    number = int.from_bytes(octets, "big")
    return [(number ^ 1 << bit).to_bytes(len(octets), "big") for bit in range(8 * len(octets))]


def naive_root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, of leaves that are hashed already."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = naive_split(len(hashes))
    return sha256(b"\x01" + naive_root(hashes[:k]) + naive_root(hashes[k:])).digest()


def naive_path(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(hashes) == 1:
        return []
    k = naive_split(len(hashes))
    if m < k:
        return [*naive_path(m, hashes[:k]), naive_root(hashes[k:])]
    return [*naive_path(m - k, hashes[k:]), naive_root(hashes[:k])]


def naive_subproof(m: int, hashes: Sequence[bytes], known: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2; PROOF with known = True."""
    if m == len(hashes):
        return [] if known else [naive_root(hashes)]
    k = naive_split(len(hashes))
    if m <= k:
        return [*naive_subproof(m, hashes[:k], known), naive_root(hashes[k:])]
    return [*naive_subproof(m - k, hashes[k:], False), naive_root(hashes[:k])]


def naive_split(count: int) -> int:
    return max(1 << i for i in range(count.bit_length()) if 1 << i < count)
