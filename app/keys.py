"""Keys derived from the installation's one secret: so that many need not be kept."""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from app.identifiers import base32


class Keys:
    """Derives by HMAC-SHA256 under the secret, with the purpose in front, so that no key serves two."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def kept_in(cls, path: Path) -> "Keys":
        """Read the secret, or make one of 256 random bits, readable by its owner only. Losing it ends all sessions."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)
        return cls(path.read_bytes())

    @property
    def installation(self) -> str:
        """Name the installation, where several may meet: in one Docker, in one browser. It is no secret."""
        return base32(self.derive("installation", ""))[:8]

    def derive(self, purpose: str, message: str) -> bytes:
        """Give 32 bytes that only this installation can compute."""
        return hmac.digest(self._secret, f"{purpose}\0{message}".encode(), hashlib.sha256)

    def vault_key(self) -> bytes:
        """Give the key that wraps the keys of the vault: a dump of the database is of no use without it."""
        return self.derive("vault", "")

    def username_digest(self, username: str) -> str:
        """Give what stands for a user name in a tag: without the secret it cannot be guessed back."""
        return base32(self.derive("username", username)[:16])

    def run_token(self, run: str) -> str:
        """Give the token of one run: nowhere kept, known to the run and to whoever holds the secret."""
        return self.derive("run", run).hex()

    def csrf_token(self, session: str) -> str:
        """Give what a page has to send with every change that it makes in a session."""
        return self.derive("csrf", session).hex()

    def sign(self, purpose: str, message: bytes) -> str:
        """Write a message so that it can be read back only unchanged, only here, and only for this purpose."""
        text = base64.urlsafe_b64encode(message).decode().rstrip("=")
        return f"{text}.{self.derive(purpose, text).hex()}"

    def verify(self, purpose: str, signed: str) -> bytes | None:
        """Read back what was signed; none if it was not, or not for this purpose."""
        text, _, mark = signed.partition(".")
        if not hmac.compare_digest(mark.encode(), self.derive(purpose, text).hex().encode()):
            return None
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def digest_of(secret: str) -> bytes:
    """Give what the vault keeps of a secret of 256 random bits: nothing can be guessed from its SHA-256."""
    return hashlib.sha256(secret.encode()).digest()
