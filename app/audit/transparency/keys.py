"""Signing keys and verifier keys of notes, and their text. C2SP signed-note, tlog-cosignature."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from app.audit.transparency.checkpoints import parse_checkpoint
from app.audit.transparency.cosignatures import ed25519_message, subtree_message, timestamped, untimestamped
from app.audit.transparency.strict import Malformed, Rejected, decode64, encode64

Kind = Literal["ed25519", "cosignature/v1", "ml-dsa-44"]
"""Ed25519 over a note's text; Ed25519 over a time and a checkpoint; ML-DSA-44 over a time and a checkpoint."""

TYPE: dict[Kind, int] = {"ed25519": 0x01, "cosignature/v1": 0x04, "ml-dsa-44": 0x06}
"""Kind -> the signature type byte that the specifications assign."""

LOG_KINDS: frozenset[Kind] = frozenset({"ed25519", "ml-dsa-44"})
WITNESS_KINDS: frozenset[Kind] = frozenset({"cosignature/v1", "ml-dsa-44"})
"""Which keys a log signs with, and a witness: only with these a witness's statement is about a time."""

_KIND: dict[int, Kind] = {octet: kind for kind, octet in TYPE.items()}
_PUBLIC_LENGTH: dict[Kind, int] = {"ed25519": 32, "cosignature/v1": 32, "ml-dsa-44": 1312}
_SEED = 32
_PRIVATE = "PRIVATE+KEY+"
_ID = re.compile(r"[0-9a-f]{8}")


class WrongSignature(Rejected):
    """The signature is not by this key over this text."""


def is_name(text: str) -> bool:
    """Say whether a text can be the name of a key: not empty, no space of Unicode, no plus, nothing invisible to us."""
    return text != "" and not any(char.isspace() or char == "+" or char < " " for char in text)


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with a name. `public` is 32 bytes (Ed25519) or 1312 (ML-DSA-44)."""

    name: str
    kind: Kind
    public: bytes

    @property
    def id(self) -> bytes:
        """Give the 4 bytes by which a signature names its key."""
        return sha256(self.name.encode() + b"\n" + self._typed()).digest()[:4]

    def text(self) -> str:
        """Give the verifier key ("vkey") on one line: name, id and key."""
        return f"{self.name}+{self.id.hex()}+{encode64(self._typed())}"

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Read a verifier key. Raises Malformed; also when id and key do not belong together."""
        name, id_, kind, public = _parts(text)
        verifier = cls(name, kind, public)
        if len(public) != _PUBLIC_LENGTH[kind] or verifier.id.hex() != id_:
            raise Malformed(f"The key of {name!r} does not have the length or the id that it should have.")
        return verifier

    def verify(self, text: str, signature: bytes) -> int | None:
        """Check a signature of a note's text; give its time in POSIX seconds if it has one. Raises WrongSignature."""
        try:
            return self._verified(text, signature)
        except (InvalidSignature, Malformed, ValueError) as why:
            raise WrongSignature(f"The signature by {self.name} ({self.kind}) is wrong.") from why

    def _verified(self, text: str, signature: bytes) -> int | None:
        if self.kind == "ed25519":
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
            return None
        checkpoint = parse_checkpoint(text)
        at, signature = untimestamped(signature)
        if self.kind == "cosignature/v1":
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, ed25519_message(text, at))
        else:
            message = subtree_message(self.name, at, checkpoint)
            MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)
        return at

    def _typed(self) -> bytes:
        return bytes([TYPE[self.kind]]) + self.public


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with a name; `seed` is the 32 bytes that the key is made from (RFC 8032, FIPS 204)."""

    name: str
    kind: Kind
    seed: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.name!r}, {self.kind!r})"

    @classmethod
    def generate(cls, name: str, kind: Kind) -> "SigningKey":
        """Make a new key. Raises ValueError for what cannot be a key's name."""
        if not is_name(name):
            raise ValueError(f"{name!r} cannot be the name of a key: no spaces and no plus.")
        private = MLDSA44PrivateKey if kind == "ml-dsa-44" else Ed25519PrivateKey
        return cls(name, kind, private.generate().private_bytes_raw())

    @property
    def verifier(self) -> Verifier:
        """Give the public key."""
        private = self._mldsa() if self.kind == "ml-dsa-44" else self._ed25519()
        return Verifier(self.name, self.kind, private.public_key().public_bytes_raw())

    def encoded(self) -> str:
        """Give the secret text of the key, as Go's sumdb/note writes it."""
        typed = bytes([TYPE[self.kind]]) + self.seed
        return f"{_PRIVATE}{self.name}+{self.verifier.id.hex()}+{encode64(typed)}"

    @classmethod
    def parse(cls, text: str) -> "SigningKey":
        """Read what `encoded` gives. Raises Malformed, without saying what was in it."""
        if not text.startswith(_PRIVATE):
            raise Malformed("This is no signing key.")
        name, id_, kind, seed = _parts(text.removeprefix(_PRIVATE))
        key = cls(name, kind, seed)
        if len(seed) != _SEED or key.verifier.id.hex() != id_:
            raise Malformed(f"The signing key of {name!r} does not have the length or the id that it should have.")
        return key

    def sign(self, text: str, at: int = 0) -> bytes:
        """Sign a note's text. `at`: POSIX seconds, or 0 to say nothing about time; kind ed25519 takes no notice of it.

        Raises Malformed when a timestamped kind is to sign what is no checkpoint.
        """
        if self.kind == "ed25519":
            return self._ed25519().sign(text.encode())
        checkpoint = parse_checkpoint(text)
        if self.kind == "cosignature/v1":
            return timestamped(at, self._ed25519().sign(ed25519_message(text, at)))
        return timestamped(at, self._mldsa().sign(subtree_message(self.name, at, checkpoint)))

    def _ed25519(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def _mldsa(self) -> MLDSA44PrivateKey:
        return MLDSA44PrivateKey.from_seed_bytes(self.seed)


def _parts(text: str) -> tuple[str, str, Kind, bytes]:
    """Take a key's text apart: name, id in hex, kind, and the key's octets. Never quotes it: it may be secret."""
    name, _, rest = text.partition("+")
    id_, _, octets = rest.partition("+")
    if len(text) > 4096 or not is_name(name) or not _ID.fullmatch(id_):
        raise Malformed("A key is name+id+base64, the id in eight hexadecimal digits.")
    try:
        typed = decode64(octets)
    except Malformed:
        raise Malformed(f"The key of {name!r} is no base64 in its only spelling.") from None
    if not typed or typed[0] not in _KIND:
        raise Malformed(f"The key of {name!r} is of a type that is not supported.")
    return name, id_, _KIND[typed[0]], typed[1:]
