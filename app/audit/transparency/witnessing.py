"""What a witness does with a checkpoint, and what its client sends and keeps: C2SP tlog-witness, without the HTTP.

The witness's side, for whoever serves it: `parse_request`, then *in one transaction* read what was seen of
`request.checkpoint.origin`, `Witness.consider`, and store `Cosigned.seen`; only then answer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from app.audit.transparency.checkpoints import Checkpoint, parse_checkpoint
from app.audit.transparency.keys import WITNESS_KINDS, SigningKey, Verifier
from app.audit.transparency.notes import (
    MAX_NOTE,
    Note,
    NoteRejected,
    UnverifiedNote,
    parse_lines,
    parse_note,
    signature_line,
    verify_note,
    with_lines,
)
from app.audit.transparency.strict import Malformed, Rejected, decimal, decode_hash, encode64
from app.audit.transparency.tree import EMPTY_ROOT, ProofFailed, verify_consistency

MAX_HASHES = 63
MAX_REQUEST = MAX_NOTE + 4096
"""Bytes of a request: read no more of it."""

SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"


class Refused(Rejected):
    """The witness does not cosign. `status`, `content_type` and `body` are the HTTP response to give."""

    def __init__(self, status: int, why: str, size: int | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.content_type = TEXT_TYPE if size is None else SIZE_TYPE
        self.body = f"{why if size is None else size}\n".encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a witness remembers of a log: the size and the root that it cosigned last."""

    size: int = 0
    root: bytes = EMPTY_ROOT


NOTHING_SEEN = Seen()


@dataclass(frozen=True, slots=True)
class Request:
    """A checkpoint to be cosigned, not verified, and the proof that it continues the tree of `old` entries."""

    old: int
    proof: tuple[bytes, ...]
    note: UnverifiedNote
    checkpoint: Checkpoint

    def encoded(self) -> bytes:
        """Give the body of the request."""
        lines = (f"old {self.old}", *map(encode64, self.proof), "")
        return "".join(f"{line}\n" for line in lines).encode() + self.note.encoded()


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What a witness has decided: remember `seen`, then answer `body`. `note` is what it serves to monitors."""

    seen: Seen
    body: bytes
    note: bytes


def origin_hash(origin: str) -> str:
    """Give the path element under which a witness serves the newest checkpoint of a log."""
    return sha256(origin.encode()).hexdigest()


def request(old: int, proof: Sequence[bytes], note: bytes) -> Request:
    """Ask for cosignatures of a checkpoint. Raises NoteRejected or Malformed if the note is none."""
    unverified = parse_note(note)
    return Request(old, tuple(proof), unverified, parse_checkpoint(unverified.text))


def parse_request(body: bytes) -> Request:
    """Read the body of a request to `add-checkpoint`. Raises Refused (400)."""
    head, gap, note = body.partition(b"\n\n")
    try:
        old, *proof = head.decode("ascii").split("\n")
        if len(body) > MAX_REQUEST or not gap or not old.startswith("old ") or len(proof) > MAX_HASHES:
            raise Malformed("The request is not `old <size>`, at most 63 hashes, an empty line and a checkpoint.")
        return request(decimal(old.removeprefix("old ")), tuple(map(decode_hash, proof)), note)
    except (Rejected, UnicodeDecodeError) as why:
        raise Refused(400, str(why)) from None


@dataclass(frozen=True, slots=True)
class Witness:
    """One who cosigns what continues what it has seen. `logs`: origin -> the keys of that log."""

    keys: tuple[SigningKey, ...]
    logs: Mapping[str, tuple[Verifier, ...]]

    def __post_init__(self) -> None:
        """Raise ValueError for keys whose signatures have no time, or for none."""
        if not self.keys or any(key.kind not in WITNESS_KINDS for key in self.keys):
            raise ValueError(f"A witness signs with keys of the kinds {', '.join(sorted(WITNESS_KINDS))}.")

    def consider(self, request: Request, seen: Seen, at: int) -> Cosigned:
        """Cosign, or raise Refused. `seen`: what was stored for the origin; `at`: now, in POSIX seconds, not 0."""
        checkpoint = request.checkpoint
        verified = self._by_the_log(request)
        if request.old > checkpoint.size:
            raise Refused(400, f"The old size {request.old} is larger than that of the checkpoint.")
        if request.old != seen.size:
            raise Refused(409, f"The last size seen is {seen.size}.", seen.size)
        _continues(seen, checkpoint, request.proof)
        lines = [signature_line(request.note.text, key, at) for key in self.keys]
        by_the_log = tuple(signed.line for signed in verified.signed)
        return Cosigned(
            Seen(checkpoint.size, checkpoint.root),
            "".join(line.text() for line in lines).encode(),
            UnverifiedNote(verified.text, (*by_the_log, *lines)).encoded(),
        )

    def _by_the_log(self, request: Request) -> Note:
        verifiers = self.logs.get(request.checkpoint.origin)
        if verifiers is None:
            raise Refused(404, "The log with this origin is not known here.")
        try:
            return verify_note(request.note, verifiers)
        except NoteRejected as why:
            raise Refused(403, str(why)) from None


def _continues(seen: Seen, checkpoint: Checkpoint, proof: Sequence[bytes]) -> None:
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise Refused(422, "The tree without entries has another root.")
    try:
        verify_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, proof)
    except ProofFailed as why:
        raise Refused(422, str(why)) from None


def with_cosignatures(note: bytes, answer: bytes, witness: Collection[Verifier]) -> bytes:
    """Add to a note the cosignatures by a witness's keys from its answer; those by other keys are left out.

    Raises NoteRejected when there is none, or when one of them is wrong or has no time.
    """
    if len(answer) > MAX_NOTE:
        raise NoteRejected("The answer of the witness is too long.")
    try:
        lines = parse_lines(answer.decode())
    except UnicodeDecodeError:
        raise NoteRejected("The answer of the witness is no UTF-8.") from None
    signed = verify_note(UnverifiedNote(parse_note(note).text, lines), witness).signed
    if not all(one.at for one in signed):
        raise NoteRejected("A cosignature of the witness has no time.")
    return with_lines(note, [one.line for one in signed])
