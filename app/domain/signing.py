"""The keys that sign the log itself, each announced under those before; and who outside vouches for its age."""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta

from app.domain.approvals import About, Action, JointCommand
from app.domain.event import Access, Event
from app.domain.exports import Size

VerifierKey = Annotated[str, Meta(max_length=4096, pattern=r"^[^\s+]{1,255}\+[0-9a-f]{8}\+[A-Za-z0-9+/]+={0,2}(?!\n)$")]
"""A public key in the text of C2SP signed-note: name, id and key."""

Token = Annotated[str, Meta(max_length=49_152, pattern=r"^[A-Za-z0-9+/]+={0,2}(?!\n)$")]
"""A timestamp token (RFC 3161): DER in base64."""

VerifierKeys = Annotated[tuple[VerifierKey, ...], Meta(min_length=1, max_length=4)]


class LogKeyRotated(Event, frozen=True, kw_only=True):
    """The log is signed by `keys` once the `retired` have signed this entry, and are destroyed."""

    retired: VerifierKeys
    keys: VerifierKeys


class RotateLogKey(JointCommand, frozen=True, kw_only=True):
    """Have others of its keys sign the log from now on. Two administrators do."""

    retired: VerifierKeys
    keys: VerifierKeys

    def needs(self) -> tuple[Action, About]:
        """Name what is to be approved: the change from these keys, whatever the next ones are."""
        ids = "+".join(key.split("+")[1] for key in self.retired)
        return "rotate", f"log-keys:{ids}"

    def happen(self, *_: Any) -> Iterator[Event]:
        """Yield `LogKeyRotated`."""
        yield LogKeyRotated(retired=self.retired, keys=self.keys)


class CheckpointTimestamped(Access, frozen=True, kw_only=True):
    """An authority says when the log had its first `size` entries: it has signed the digest of that checkpoint's text.

    What the text is (origin, size and root) is computed from the entries; `token` has SHA-256 of it, and the time.
    """

    size: Size
    token: Token
