"""Timestamp tokens (RFC 3161): what was there when, as an authority says, and whether it is one that is believed."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerifierBuilder,
    decode_timestamp_response,
)

QUERY_TYPE, REPLY_TYPE = "application/timestamp-query", "application/timestamp-reply"

_SHA256 = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_GRANTED = bytes.fromhex("3003020100")
_LONGEST_NAME = 200


class NotStamped(Exception):
    """It is no timestamp of this by an authority that is believed; the message says why."""


class NoAuthority(Exception):
    """There is no certificate by which an authority could be believed; the message says why."""


class Token(Struct, frozen=True):
    """What a token says, to be believed after `Authorities.check` only. `imprint`: SHA-256 of what was there."""

    der: bytes
    imprint: bytes
    at: datetime
    authority: str
    """The subject of the certificate that goes with the signature."""


class Authorities:
    """Those whose timestamps are believed: the certificates of some roots, and of what is between them and others."""

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        self._certificates = list({one.public_bytes(Encoding.DER): one for one in certificates}.values())

    @classmethod
    def by(cls, path: Path) -> Self:
        """Read certificates (PEM). Raises `NoAuthority`."""
        try:
            return cls(x509.load_pem_x509_certificates(path.read_bytes()))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise NoAuthority(f"{path} has no certificates (PEM) of timestamp authorities: {why}") from error

    def check(self, token: Token, nonce: int | None = None) -> None:
        """Raise `NotStamped` unless one of them has signed it, in answer to the question with this nonce."""
        with _judging("It is not signed by an authority that is believed"):
            answer = decode_timestamp_response(_answer(token.der))
            VerifierBuilder(roots=self._certificates, nonce=nonce).build().verify(answer, token.imprint)


class Question(Struct, frozen=True):
    """What is sent to an authority: that it may say when there was this text. It is told the digest alone."""

    text: bytes
    nonce: int | None
    der: bytes

    @classmethod
    def of(cls, text: bytes) -> Self:
        """Make it up, with a nonce; the answer has to have the authority's certificate in it."""
        request = TimestampRequestBuilder(text, HashAlgorithm.SHA256, nonce=True, cert_req=True).build()
        return cls(text, request.nonce, request.as_bytes())

    def accept(self, answer: bytes, authorities: Authorities) -> Token:
        """Give the token that was answered. Raises `NotStamped`: none, of something else, or not to be believed."""
        with _judging("The answer is no timestamp"):
            if len(_elements(answer, *_inside(answer, 0))) == 1:
                raise NotStamped(f"The authority gives none (status {decode_timestamp_response(answer).status}).")
            decoded = decode_timestamp_response(_ordered(answer, 1, 1, 0))
            token = read_token(decoded.time_stamp_token())
        if token.imprint != sha256(self.text).digest():
            raise NotStamped("The answer is a timestamp of something else.")
        authorities.check(token, self.nonce)
        return token


def read_token(der: bytes) -> Token:
    """Read a token, and believe nothing. Raises `NotStamped`."""
    with _judging("It is no timestamp token"):
        answer = decode_timestamp_response(_answer(der))
        said = answer.tst_info
        if said.message_imprint.hash_algorithm != _SHA256:
            raise NotStamped("The token is not over SHA-256.")
        return Token(der, said.message_imprint.message, said.gen_time, _signer(answer))


@contextmanager
def _judging(what: str) -> Generator[None]:
    """Say why not, in place of the many things that the library raises for what somebody else has made up."""
    try:
        yield
    except NotStamped:
        raise
    except Exception as error:
        raise NotStamped(f"{what}: {str(error) or type(error).__name__}") from error


def _signer(answer: TimeStampResponse) -> str:
    signed = answer.signed_data
    by = {(one.issuer, one.serial_number) for one in signed.signer_infos}
    for certificate in map(x509.load_der_x509_certificate, signed.certificates):
        if (certificate.issuer, certificate.serial_number) in by:
            name = certificate.subject.rfc4514_string()
            return "".join(char if char.isprintable() else "?" for char in name)[:_LONGEST_NAME]
    raise NotStamped("The token does not have the certificate of who signed it.")


def _answer(token: bytes) -> bytes:
    """Put the answer around a token that it came in: that is what the library reads."""
    body = _GRANTED + token
    length = len(body).to_bytes(4, "big").lstrip(b"\0")
    return b"\x30" + (bytes([0x80 | len(length)]) if len(body) > 127 else b"") + length + body


def _ordered(der: bytes, *path: int) -> bytes:
    """Put the certificates in signed data into the order of DER, which authorities that use OpenSSL do not keep.

    Nothing signs the order. `path`: which element of which leads to the signed data.
    """
    begin = 0
    for step in path:
        begin, _ = _elements(der, *_inside(der, begin))[step]
    for at, end in _elements(der, *_inside(der, begin)):
        if der[at] == 0xA0:
            first, _ = _inside(der, at)
            some = sorted(der[one:other] for one, other in _elements(der, first, end))
            return der[:first] + b"".join(some) + der[end:]
    return der


def _elements(der: bytes, begin: int, end: int) -> list[tuple[int, int]]:
    """Give from where to where each of the elements that stand one after the other goes."""
    found: list[tuple[int, int]] = []
    while begin < end:
        found.append((begin, _inside(der, begin)[1]))
        begin = found[-1][1]
    return found


def _inside(der: bytes, at: int) -> tuple[int, int]:
    """Give from where to where the content of an element goes."""
    length, begin = der[at + 1], at + 2
    if length & 0x80:
        more = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + more], "big"), begin + more
    if begin + length > len(der):
        raise ValueError("It ends too early.")
    return begin, begin + length
