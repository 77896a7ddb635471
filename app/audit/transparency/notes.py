"""Text with signatures, parsed strictly: C2SP signed-note.

Strict means: a note that is accepted has one spelling only. Whatever differs in one bit is another note, or none.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from app.audit.transparency.checkpoints import Checkpoint, parse_checkpoint
from app.audit.transparency.keys import SigningKey, Verifier, WrongSignature, is_name
from app.audit.transparency.strict import Malformed, Rejected, decode64, encode64

MAX_NOTE = 1 << 18
"""Bytes of a note."""

MAX_SIGNATURES = 64

_DASH = "— "


class NoteRejected(Rejected):
    """The note is malformed, or not signed by whom it should be signed by, or a signature is wrong."""


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature, not verified: whose it says it is (name, 4-byte id), and its octets."""

    name: str
    id: bytes
    signature: bytes

    def text(self) -> str:
        """Give the line, with its end."""
        return f"{_DASH}{self.name} {encode64(self.id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature that was verified. `at`: POSIX seconds, None if this kind of signature has no time."""

    verifier: Verifier
    at: int | None
    line: SignatureLine


@dataclass(frozen=True, slots=True)
class UnverifiedNote:
    """A note that is well-formed, and nothing more: its text is not to be believed."""

    text: str
    lines: tuple[SignatureLine, ...]

    def encoded(self) -> bytes:
        """Give the note's octets."""
        return f"{self.text}\n{''.join(line.text() for line in self.lines)}".encode()


@dataclass(frozen=True, slots=True)
class Note:
    """A note with one or more verified signatures. `unknown`: the lines by keys that we were not given."""

    text: str
    signed: tuple[Signed, ...]
    unknown: tuple[SignatureLine, ...] = ()

    def is_by(self, verifier: Verifier) -> bool:
        """Say whether this key has signed."""
        return any(signed.verifier == verifier for signed in self.signed)


def parse_lines(text: str) -> tuple[SignatureLine, ...]:
    """Read signature lines, each with its end. Raises NoteRejected."""
    *lines, rest = text.split("\n")
    if rest or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise NoteRejected(f"A note has 1 to {MAX_SIGNATURES} signatures, each on a line with its end.")
    return tuple(map(_parse_line, lines))


def _parse_line(line: str) -> SignatureLine:
    name, space, signature = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not is_name(name):
        raise NoteRejected("A signature's line is an em dash, a space, a key's name, a space and base64.")
    try:
        octets = decode64(signature)
    except Malformed as why:
        raise NoteRejected(str(why)) from None
    if len(octets) < 5:
        raise NoteRejected("A signature is a key's id of 4 bytes, and at least one more.")
    return SignatureLine(name, octets[:4], octets[4:])


def parse_note(octets: bytes) -> UnverifiedNote:
    """Take a note apart without verifying it. Raises NoteRejected."""
    if len(octets) > MAX_NOTE:
        raise NoteRejected(f"A note has at most {MAX_NOTE} bytes.")
    try:
        whole = octets.decode()
    except UnicodeDecodeError:
        raise NoteRejected("A note is UTF-8.") from None
    if any(char < " " and char != "\n" for char in whole):
        raise NoteRejected("A note has no control characters but the ends of its lines.")
    text, gap, lines = whole.rpartition("\n\n")
    if not gap:
        raise NoteRejected("There is no empty line between the text of the note and its signatures.")
    return UnverifiedNote(text + "\n", parse_lines(lines))


def open_note(octets: bytes, verifiers: Collection[Verifier]) -> Note:
    """Parse a note and verify every signature by the keys given. Raises NoteRejected, also if none has signed."""
    return verify_note(parse_note(octets), verifiers)


def verify_note(note: UnverifiedNote, verifiers: Collection[Verifier]) -> Note:
    """Verify every signature by the keys given. Raises NoteRejected if one is wrong, or if none has signed."""
    known = {(verifier.name, verifier.id): verifier for verifier in verifiers}
    signed: list[Signed] = []
    unknown: list[SignatureLine] = []
    for line in note.lines:
        if (verifier := known.get((line.name, line.id))) is None:
            unknown.append(line)
            continue
        try:
            signed.append(Signed(verifier, verifier.verify(note.text, line.signature), line))
        except WrongSignature as why:
            raise NoteRejected(str(why)) from None
    if not signed:
        raise NoteRejected("No key that we know has signed the note.")
    return Note(note.text, tuple(signed), tuple(unknown))


def open_checkpoint(octets: bytes, logs: Collection[Verifier]) -> tuple[Checkpoint, Note]:
    """Open a note that a log signed with one of its keys, which bear its origin as name. Raises NoteRejected."""
    note = open_note(octets, logs)
    return checkpoint_of(note, logs), note


def checkpoint_of(note: Note, logs: Collection[Verifier]) -> Checkpoint:
    """Read the checkpoint in a note, which one of these keys of its log has to have signed. Raises NoteRejected."""
    try:
        checkpoint = parse_checkpoint(note.text)
    except Malformed as why:
        raise NoteRejected(str(why)) from None
    if not any(signed.verifier in logs and signed.verifier.name == checkpoint.origin for signed in note.signed):
        raise NoteRejected(f"The checkpoint of {checkpoint.origin!r} is signed, but not by a key of that log.")
    return checkpoint


def signature_line(text: str, key: SigningKey, at: int = 0) -> SignatureLine:
    """Sign a text, which ends its last line. `at` as in SigningKey.sign. Raises Malformed."""
    return SignatureLine(key.name, key.verifier.id, key.sign(text, at))


def sign_note(text: str, keys: Sequence[SigningKey], at: int = 0) -> bytes:
    """Make a note of a text, signed with each key; `at` (POSIX seconds) is for those that sign a time.

    Raises NoteRejected for a text that cannot be one of a note.
    """
    note = UnverifiedNote(text, tuple(signature_line(text, key, at) for key in keys)).encoded()
    if parse_note(note).text != text:
        raise NoteRejected("The text of a note ends its last line.")
    return note


def with_lines(octets: bytes, lines: Iterable[SignatureLine]) -> bytes:
    """Add signatures to a note; none twice. Raises NoteRejected."""
    note = parse_note(octets)
    return parse_and_encode(UnverifiedNote(note.text, tuple(dict.fromkeys((*note.lines, *lines)))))


def parse_and_encode(note: UnverifiedNote) -> bytes:
    """Give a note's octets, having made sure that they can be read. Raises NoteRejected."""
    octets = note.encoded()
    parse_note(octets)
    return octets
