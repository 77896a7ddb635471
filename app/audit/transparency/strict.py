"""Encodings with exactly one spelling of each value, so that no bit of a signed file can change unseen."""

import base64
import binascii
import re

HASH = 32
"""Bytes of a SHA-256 hash."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class Rejected(ValueError):
    """What was given is not accepted; the message says why."""


class Malformed(Rejected):
    """It is not in the form that its specification asks for."""


def decimal(text: str) -> int:
    """Read an ASCII decimal without sign or leading zeros, below 2^63. Raises Malformed."""
    if not _DECIMAL.fullmatch(text) or (number := int(text)) >= 1 << 63:
        raise Malformed(f"{text[:40]!r} is no decimal number below 2^63 in its only spelling.")
    return number


def encode64(octets: bytes) -> str:
    """Write octets in the standard base64 of RFC 4648, section 4, with padding."""
    return base64.b64encode(octets).decode("ascii")


def decode64(text: str) -> bytes:
    """Read base64 that is padded, without line ends, and whose unused bits are zero. Raises Malformed."""
    try:
        octets = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        octets = b""
    if encode64(octets) != text:
        raise Malformed(f"{text[:60]!r} is no base64 in its only spelling.")
    return octets


def decode_hash(text: str) -> bytes:
    """Read the base64 of one SHA-256 hash. Raises Malformed."""
    octets = decode64(text)
    if len(octets) != HASH:
        raise Malformed(f"A hash has {HASH} bytes, not {len(octets)}.")
    return octets
