"""A tree's head as text: its origin, size and root. C2SP tlog-checkpoint."""

from dataclasses import dataclass

from app.audit.transparency.strict import Malformed, decimal, decode_hash, encode64

MAX_ORIGIN = 255
"""Bytes of an origin: an ML-DSA-44 cosignature writes its length in one byte."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """That the log named `origin` has `size` entries, whose tree has this `root`.

    `extensions` are further lines; nobody else can check them, so this software writes none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """Give the text that is signed."""
        text = "".join(f"{line}\n" for line in (self.origin, self.size, encode64(self.root), *self.extensions))
        parse_checkpoint(text)
        return text


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a note (without signatures) as a checkpoint. Raises Malformed."""
    *lines, rest = text.split("\n")
    if rest or len(lines) < 3 or not all(lines):
        raise Malformed("A checkpoint has three lines or more, none of them empty, each with its end.")
    origin, size, root, *extensions = lines
    if len(origin.encode()) > MAX_ORIGIN:
        raise Malformed(f"The origin of a checkpoint has at most {MAX_ORIGIN} bytes.")
    return Checkpoint(origin, decimal(size), decode_hash(root), tuple(extensions))
