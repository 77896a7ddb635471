"""A timestamp authority for tests: a root, a certificate under it, `openssl ts -reply`, and a web server."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.audit.signing.tokens import QUERY_TYPE, REPLY_TYPE

_CONFIGURATION = """
[tsa]
default_tsa = here
[here]
serial = {0}/serial
signer_cert = {0}/tsa.pem
signer_key = {0}/tsa.key
certs = {0}/root.pem
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""

Answer = Callable[[bytes], bytes]


class Authority:
    """Signs what it is asked for, and says when that was. `root` is the file by which it is believed."""

    def __init__(self, directory: Path, name: str = "Test Timestamps") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.root = directory / "root.pem"
        root, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        above = _named(f"{name} Root")
        self.root.write_bytes(_certified(above, above, root, root, None).public_bytes(Encoding.PEM))
        certificate = _certified(_named(name), above, signer, root, ExtendedKeyUsageOID.TIME_STAMPING)
        (directory / "tsa.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (directory / "tsa.key").write_bytes(signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (directory / "serial").write_text("01\n")
        (directory / "tsa.cnf").write_text(_CONFIGURATION.format(directory))

    def reply(self, query: bytes) -> bytes:
        """Answer a query."""
        asked, answer = self._directory / "asked.tsq", self._directory / "answer.tsr"
        asked.write_bytes(query)
        subprocess.run(
            ["openssl", "ts", "-reply", "-config", self._directory / "tsa.cnf", "-queryfile", asked, "-out", answer],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        return answer.read_bytes()


@contextlib.asynccontextmanager
async def answering(answer: Answer, status: int = 200) -> AsyncGenerator[str]:
    """Give the address of a web server that answers every query so."""

    async def handle(request: web.Request) -> web.Response:
        assert request.content_type == QUERY_TYPE
        body = await asyncio.to_thread(answer, await request.read())
        return web.Response(body=body, status=status, content_type=REPLY_TYPE)

    async with serving(handle) as address:
        yield address


@contextlib.asynccontextmanager
async def serving(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncGenerator[str]:
    """Give the address of a web server that handles every POST so."""
    application = web.Application()
    application.router.add_post("/{path:.*}", handle)
    async with TestServer(application) as server:
        yield str(server.make_url("/tsa"))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certified(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    usage: x509.ObjectIdentifier | None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
    return builder.sign(by, hashes.SHA256())
