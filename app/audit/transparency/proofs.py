"""A receipt that an entry is in a log, to be checked without the log: C2SP tlog-proof."""

from dataclasses import dataclass

from app.audit.transparency.notes import MAX_NOTE
from app.audit.transparency.policies import Checked, Policy
from app.audit.transparency.strict import Malformed, decimal, decode64, decode_hash, encode64
from app.audit.transparency.tree import verify_inclusion

SUFFIX = ".tlog-proof"
MAX_HASHES = 63
MAX_EXTRA = 1 << 17
"""Bytes of what is added; a whole entry has room."""

_MAGIC = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an entry is, how its hash leads to the root, and the signed checkpoint with that root.

    `extra` is proved by nothing, unless it is what is hashed: then it is checked by hashing it.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encoded(self) -> bytes:
        """Write the receipt. Raises Malformed for what `parse_receipt` would not read."""
        extra = () if self.extra is None else (f"extra {encode64(self.extra)}",)
        lines = (_MAGIC, *extra, f"index {self.index}", *map(encode64, self.proof), "")
        octets = "".join(f"{line}\n" for line in lines).encode() + self.checkpoint
        parse_receipt(octets)
        return octets

    def check(self, leaf: bytes, policy: Policy) -> Checked:
        """Verify that the entry with this leaf *hash* is in the log, as the policy demands it.

        Raises NoteRejected (the checkpoint), QuorumMissed (its witnesses), ProofFailed (the entry).
        """
        checked = policy.check(self.checkpoint)
        head = checked.checkpoint
        verify_inclusion(leaf, self.index, head.size, self.proof, head.root)
        return checked


def parse_receipt(octets: bytes) -> Receipt:
    """Read a receipt, without checking it. Raises Malformed."""
    if len(octets) > MAX_NOTE + 2 * MAX_EXTRA:
        raise Malformed("This is too long for a receipt.")
    head, gap, checkpoint = octets.partition(b"\n\n")
    try:
        magic, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        magic, lines = "", []
    if magic != _MAGIC or not gap:
        raise Malformed(f"A receipt begins with {_MAGIC}, and its checkpoint follows an empty line.")
    extra = decode64(lines.pop(0).removeprefix("extra ")) if lines and lines[0].startswith("extra ") else None
    if not lines or not lines[0].startswith("index ") or len(lines) > 1 + MAX_HASHES or len(extra or b"") > MAX_EXTRA:
        raise Malformed("A receipt has the index of its entry, and at most 63 hashes.")
    index, *hashes = lines
    return Receipt(decimal(index.removeprefix("index ")), tuple(map(decode_hash, hashes)), checkpoint, extra)
