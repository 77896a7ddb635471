"""Keys: their text, their ids, and that a secret is not shown."""

import struct

import pytest
from dilithium_py.ml_dsa import ML_DSA_44  # pyright: ignore[reportMissingTypeStubs]
from hypothesis import given
from hypothesis import strategies as st

from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import Kind, SigningKey, Verifier, WrongSignature
from app.audit.transparency.strict import Malformed
from tests.audit.transparency.logs import flips

KINDS: tuple[Kind, ...] = ("ed25519", "cosignature/v1", "ml-dsa-44")
FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
GO = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


@pytest.mark.parametrize("text", [FOO, GO])
def test_a_published_verifier_key_is_read_and_written_the_same(text: str) -> None:
    verifier = Verifier.parse(text)
    assert verifier.kind == "ed25519"
    assert verifier.text() == text


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_read_as_they_were_written(kind: Kind) -> None:
    key = SigningKey.generate("log.example/é", kind)
    assert SigningKey.parse(key.encoded()) == key
    assert Verifier.parse(key.verifier.text()) == key.verifier


@pytest.mark.parametrize("kind", KINDS)
def test_the_type_bytes_and_lengths_are_the_specified_ones(kind: Kind) -> None:
    verifier = SigningKey.generate("a", kind).verifier
    octets = {"ed25519": (1, 32, "01"), "cosignature/v1": (4, 32, "04"), "ml-dsa-44": (6, 1312, "06")}[kind]
    assert len(verifier.public) == octets[1]
    assert len(verifier.id) == 4
    signature = SigningKey.generate("a", kind).sign("o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", 7)
    assert len(signature) == {"ed25519": 64, "cosignature/v1": 72, "ml-dsa-44": 2428}[kind]


def test_every_flipped_bit_of_a_verifier_key_is_found() -> None:
    for flipped in flips(FOO.encode()):
        try:
            text = flipped.decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises(Malformed):
            Verifier.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "+", "++", "a+b", FOO + "\n", " " + FOO, FOO + "=", FOO.upper(), FOO.replace("530d903a", "530D903A"),
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "a+00000000+", "a+00000000+Ag==", "a" * 5000,
        "a+00000000+AQ==",
    ],
)  # fmt: skip
def test_what_is_no_key_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Verifier.parse(text)
    with pytest.raises(Malformed):
        SigningKey.parse(f"PRIVATE+KEY+{text}")
    with pytest.raises(Malformed):
        SigningKey.parse(text)


def test_a_signing_key_that_is_malformed_is_not_quoted() -> None:
    secret = SigningKey.generate("log.example", "ed25519").encoded()
    octets = secret.split("+")[-1]
    for text in (secret[:-4], secret + "A", secret.replace("log.example", "other.example"), secret + "\n"):
        with pytest.raises(Malformed) as why:
            SigningKey.parse(text)
        assert octets[:20] not in str(why.value)


def test_a_signing_key_does_not_show_its_secret() -> None:
    key = SigningKey.generate("log.example", "ml-dsa-44")
    assert repr(key) == "SigningKey('log.example', 'ml-dsa-44')"


@given(st.sampled_from(["", "a b", "a+b", "a\tb", "a\nb", "a\u00a0b", "a\u2003b", "\x00"]))
def test_a_name_that_would_not_be_read_again_is_not_given(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        SigningKey.generate(name, "ed25519")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signature", [b"", b"x", bytes(64), bytes(72), bytes(2428), b"\xff" * 2428])
def test_rubbish_is_a_wrong_signature(kind: Kind, signature: bytes) -> None:
    verifier = SigningKey.generate("a", kind).verifier
    for text in ("o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", "no checkpoint\n"):
        with pytest.raises(WrongSignature):
            verifier.verify(text, signature)


def test_what_ml_dsa_signs_another_implementation_accepts_and_with_one_bit_changed_rejects() -> None:
    """By dilithium-py, which follows FIPS 204, over what C2SP tlog-cosignature says, put together by hand."""
    key = SigningKey.generate("log.example", "ml-dsa-44")
    root = bytes(range(32))
    signature = key.sign(Checkpoint("log.example/audit", 1000, root).text(), at=1_700_000_000)
    message = (
        b"subtree/v1\n\0\x0blog.example"
        + struct.pack(">Q", 1_700_000_000)
        + b"\x11log.example/audit"
        + struct.pack(">QQ", 0, 1000)
        + root
    )
    assert signature[:8] == struct.pack(">Q", 1_700_000_000)
    public, signed = key.verifier.public, bytearray(signature[8:])
    assert ML_DSA_44.verify(public, message, bytes(signed))
    assert not ML_DSA_44.verify(public, message[:-1] + b"\x1e", bytes(signed))
    signed[1000] ^= 1
    assert not ML_DSA_44.verify(public, message, bytes(signed))


def test_what_another_implementation_signs_by_ml_dsa_is_verified() -> None:
    public, private = ML_DSA_44.keygen()
    verifier = Verifier("w.example", "ml-dsa-44", public)
    checkpoint = Checkpoint("log.example/audit", 3, bytes(32))
    message = (
        b"subtree/v1\n\0\x09w.example" + bytes(8) + b"\x11log.example/audit" + struct.pack(">QQ", 0, 3) + bytes(32)
    )
    assert verifier.verify(checkpoint.text(), bytes(8) + ML_DSA_44.sign(private, message)) == 0
