"""Sealing: what is personal stands in the log as a digest (RFC 9901), and is readable as long as its subject's key is.

Pure but for its key and its random numbers. A *disclosure* is `base64url(["salt","name",value])`; its digest, SHA-256
of that text, is what an entry has in `_sd`. The disclosure is encrypted (AES-256-GCM, NIST SP 800-38D) under a random
key of its subject's, and that key is wrapped by one that is nowhere in the database.
"""

import hashlib
import hmac
import os
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from typing import Any
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Raw, Struct

from app.domain.names import Personal

FINDABLE = ("username", "address")
"""Names of the values that can be searched for: by a keyed hash, which is deleted with the value."""

NONCE = 12
"""Octets. Each is used once."""
NEW_KEY = 32 + 16 + NONCE
"""Random octets that a new key is made of."""


class SealBroken(Exception):
    """What was sealed is not what is there, or not under this key."""


class Disclosure(Struct, frozen=True, gc=False):
    """One value that an entry holds as a digest only: whose it is, what its field is called, and how it is shown."""

    subject: str
    name: str
    digest: str
    text: str

    @property
    def value(self) -> Raw:
        """Give the value, as JSON."""
        return _triple(_unarmoured(self.text))[2]


_SAFE = bytes.maketrans(b"+/", b"-_")
_triple = msgspec.json.Decoder(tuple[str, str, Raw]).decode
_encode = msgspec.json.Encoder(order="sorted").encode
_findable = msgspec.json.Decoder(str | Personal).decode


def disclose(subject: str, name: str, value: Any) -> Disclosure:
    """Make a value's disclosure, with a salt of 128 random bits of its own."""
    text = _armoured(_encode((_armoured(os.urandom(16)), name, value)))
    return Disclosure(subject, name, digest_of(text), text)


def disclosed(subject: str, digest: str, text: str) -> Disclosure:
    """Read a disclosure that was decrypted. What its field is called stands in it, as its digest covers it."""
    return Disclosure(subject, _triple(_unarmoured(text))[1], digest, text)


def digest_of(text: str) -> str:
    """Give what stands in `_sd` for a disclosure (RFC 9901, 4.2.3)."""
    return _armoured(hashlib.sha256(text.encode("ascii")).digest())


class SubjectKey:
    """A subject's key, and how it is kept."""

    __slots__ = ("_cipher", "id", "subject", "wrapped")

    def __init__(self, subject: str, id_: UUID, wrapped: bytes, key: bytes) -> None:
        self.subject = subject
        self.id = id_
        self.wrapped = wrapped
        self._cipher = AESGCM(key)

    def seal(self, disclosure: Disclosure, nonce: bytes = b"") -> bytes:
        """Encrypt a disclosure: a random nonce, then what AES-256-GCM gives, which only its digest opens again.

        A nonce that is given has to be random, and used for nothing else.
        """
        nonce = nonce or os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, disclosure.text.encode(), disclosure.digest.encode())

    def open(self, digest: str, sealed: bytes) -> str:
        """Decrypt the disclosure of a digest; raises `SealBroken`."""
        try:
            text = self._cipher.decrypt(sealed[:NONCE], sealed[NONCE:], digest.encode()).decode("ascii")
        except (InvalidTag, ValueError):
            raise SealBroken(f"The disclosure of {digest} was changed, or is under another key.") from None
        if digest_of(text) != digest:
            raise SealBroken(f"What was sealed for {digest} has another digest.")
        return text


class Sealer:
    """Makes, wraps and unwraps the keys of subjects, under one key of 32 bytes that is kept elsewhere."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("The vault's key has 32 bytes.")
        self._wrapping = AESGCM(hmac.digest(key, b"wrap", hashlib.sha256))
        self._lookup = hmac.new(hmac.digest(key, b"lookup", hashlib.sha256), digestmod=hashlib.sha256)

    def new_key(self, subject: str, random: bytes = b"") -> SubjectKey:
        """Make a key of 256 random bits, from `NEW_KEY` random octets if there are some that nothing else uses."""
        random = random or os.urandom(NEW_KEY)
        key, id_, nonce = random[:32], UUID(bytes=random[32:48], version=4), random[48:NEW_KEY]
        return SubjectKey(subject, id_, nonce + self._wrapping.encrypt(nonce, key, _label(subject, id_)), key)

    def unwrap(self, subject: str, id_: UUID, wrapped: bytes) -> SubjectKey:
        """Read a key back; raises `SealBroken`."""
        try:
            key = self._wrapping.decrypt(wrapped[:NONCE], wrapped[NONCE:], _label(subject, id_))
        except (InvalidTag, ValueError):
            raise SealBroken(f"The key of {subject} was wrapped by another installation, or changed.") from None
        return SubjectKey(subject, id_, wrapped, key)

    def lookup(self, name: str, value: str) -> bytes:
        """Give by what a value can be found: 16 bytes that say nothing to whoever has not this key."""
        hashed = self._lookup.copy()
        hashed.update(f"{name}\0{value.strip().casefold()}".encode())
        return hashed.digest()[:16]

    def lookup_of(self, disclosure: Disclosure) -> bytes | None:
        """Give by what a disclosure can be found; none if it cannot."""
        if disclosure.name not in FINDABLE:
            return None
        value = _findable(disclosure.value)
        return self.lookup(disclosure.name, value if isinstance(value, str) else value.text)


def _label(subject: str, id_: UUID) -> bytes:
    return f"{subject}\0{id_}".encode()


def _armoured(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).translate(_SAFE).rstrip(b"=").decode()


def _unarmoured(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
