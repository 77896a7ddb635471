"""What exactly a timestamped signature of a checkpoint signs. C2SP tlog-cosignature."""

from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.strict import Malformed

MAX_TIME = (1 << 63) - 1
TIME = 8
"""Bytes of the time in front of a signature."""


def timestamped(at: int, signature: bytes) -> bytes:
    """Put the time (POSIX seconds) in front of a signature."""
    return at.to_bytes(TIME, "big") + signature


def untimestamped(octets: bytes) -> tuple[int, bytes]:
    """Take time and signature apart. Raises Malformed."""
    at = int.from_bytes(octets[:TIME], "big")
    if len(octets) <= TIME or at > MAX_TIME:
        raise Malformed("A cosignature is a time below 2^63 and a signature.")
    return at, octets[TIME:]


def ed25519_message(text: str, at: int) -> bytes:
    """Give what an Ed25519 cosigner signs (`cosignature/v1`): the time, and the checkpoint's whole text."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def subtree_message(cosigner: str, at: int, checkpoint: Checkpoint) -> bytes:
    """Give what an ML-DSA-44 cosigner signs (`subtree/v1`) for the whole tree of a checkpoint.

    A time of 0 says nothing about when. Extension lines are not signed. Raises Malformed for names of over 255 bytes.
    """
    return b"".join(
        (
            b"subtree/v1\n\0",
            _short(cosigner),
            at.to_bytes(8, "big"),
            _short(checkpoint.origin),
            bytes(8),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def _short(name: str) -> bytes:
    octets = name.encode()
    if not 1 <= len(octets) <= 255:
        raise Malformed(f"A name of {len(octets)} bytes cannot be cosigned: 1 to 255 can.")
    return bytes([len(octets)]) + octets
