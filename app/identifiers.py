"""Identifiers, made at the edge and nowhere else: UUIDs of version 7 (RFC 9562), which sort by time."""

import base64
import os
import time
from uuid import UUID


def uuid7() -> UUID:
    """Make a UUID: 48 bits of Unix milliseconds, then 74 random ones."""
    octets = bytearray((time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(10))
    octets[6] = octets[6] & 0x0F | 0x70
    octets[8] = octets[8] & 0x3F | 0x80
    return UUID(bytes=bytes(octets))


def new_id(prefix: str) -> str:
    """Make an opaque identifier: the prefix, `_`, and a UUIDv7 in 26 digits of base 32 (extended hex, RFC 4648)."""
    return f"{prefix}_{base32(uuid7().bytes)}"


def base32(octets: bytes) -> str:
    """Write octets in lower-case base32hex without padding, which sorts as they do."""
    return base64.b32hexencode(octets).decode().rstrip("=").lower()
