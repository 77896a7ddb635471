"""What a log is judged by: its name, its keys and the sizes that they sign, and what its signer signed last."""

from collections.abc import Collection, Sequence
from pathlib import Path

from msgspec import Struct

from app.audit.signing.store import Store
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey, Verifier
from app.audit.transparency.notes import NoteRejected, open_checkpoint, parse_note
from app.audit.transparency.strict import Malformed, Rejected, decimal


class Unverifiable(Exception):
    """It cannot be found out whether it is whole; the message says what is missing."""


class WrongKey(Unverifiable):
    """No key that was given has signed: it is the wrong key, or somebody else's log."""


class Term(Struct, frozen=True):
    """A verifier key, and the sizes of the checkpoints that it signs: from `since` to `until`, if it is retired."""

    verifier: Verifier
    since: int = 0
    until: int | None = None

    def text(self) -> str:
        """Write it as `parse_term` reads it."""
        return f"{self.verifier.text()} {self.since} {'-' if self.until is None else self.until}"


class Trust(Struct, frozen=True):
    """The keys of one log. `newest`: the note that the signer remembers, outside of the database."""

    origin: str
    terms: tuple[Term, ...]
    newest: bytes | None = None

    @property
    def verifiers(self) -> list[Verifier]:
        """Give every key, the present ones first."""
        return [term.verifier for term in self.terms]

    def text(self) -> str:
        """Write the keys as `read_keys` reads them, each with the sizes that it signs."""
        return "".join(f"{term.text()}\n" for term in self.terms)

    def open(self, note: bytes) -> Checkpoint:
        """Read a checkpoint of this log, signed by a key that was in force.

        Raises `WrongKey` if none of the keys signed it, `NoteRejected` if it is malformed or a signature is wrong.
        """
        parsed = parse_note(note)
        known = {(verifier.name, verifier.id) for verifier in self.verifiers}
        if not any((line.name, line.id) in known for line in parsed.lines):
            raise WrongKey(f"The checkpoint is not signed by any key of {self.origin} that we were given.")
        checkpoint, opened = open_checkpoint(note, self.verifiers)
        if checkpoint.origin != self.origin:
            raise NoteRejected(f"The checkpoint is one of {checkpoint.origin!r}, not of {self.origin!r}.")
        if not any(self._in_force(signed.verifier, checkpoint.size) for signed in opened.signed):
            raise NoteRejected(f"The key that signed the checkpoint of {checkpoint.size} entries had been retired.")
        return checkpoint

    def _in_force(self, verifier: Verifier, size: int) -> bool:
        return any(
            term.verifier == verifier and term.since <= size and (term.until is None or size <= term.until)
            for term in self.terms
        )


def trust_of(directory: Path) -> Trust | None:
    """Read the keys in the signer's directory, and what it remembers; none if there are none.

    Where the signer is elsewhere, its public keys, which an administrator has put there as `vkeys`.
    """
    store = Store(directory)
    keyring, signed = store.keyring(), store.signed()
    if keyring is None:
        public = directory / "vkeys"
        return read_keys(public.read_text()) if public.is_file() else None
    terms = [Term(SigningKey.parse(key).verifier, keyring.since) for key in keyring.keys]
    for old in reversed(keyring.retired):
        terms += [Term(Verifier.parse(text), old.since, old.until) for text in old.verifiers]
    return Trust(keyring.origin, tuple(terms), signed.note.encode() if signed else None)


def read_keys(text: str) -> Trust:
    """Read verifier keys, one on each line, all of one log. Raises `Unverifiable`.

    A key alone is good for any size; with the first and the last size that it signs (`-`: it still does) behind it, as
    `/audit/log/vkeys` writes them, for those only.
    """
    lines = text.split("\n")
    try:
        terms = [parse_term(line) for line in lines[:-1]]
    except Rejected as error:
        raise Unverifiable(f"A verifier key cannot be read: {error}") from error
    if lines[-1] or not terms or len(terms) > 100:
        raise Unverifiable("There have to be verifier keys, one on each line, and each line has its end.")
    return _one_log(terms)


def parse_term(line: str) -> Term:
    """Read a key, alone or with the first and the last size that it signs. Raises `Malformed`."""
    key, *sizes = line.split(" ")
    verifier = Verifier.parse(key)
    match sizes:
        case []:
            return Term(verifier)
        case [since, "-"]:
            return Term(verifier, decimal(since))
        case [since, until]:
            return Term(verifier, decimal(since), decimal(until))
        case _:
            raise Malformed("Behind a key stand the first and the last size that it signs, or nothing.")


def one_log(verifiers: Collection[Verifier]) -> Trust:
    """Trust these keys for any size; raises `Unverifiable` if they are not of one log."""
    return _one_log(list(map(Term, verifiers)))


def _one_log(terms: Sequence[Term]) -> Trust:
    names = sorted({term.verifier.name for term in terms})
    if len(names) != 1:
        raise Unverifiable(f"The keys are of several logs: {', '.join(names[:5])}.")
    return Trust(names[0], tuple(terms))


def open_all(trust: Trust, notes: Sequence[bytes]) -> list[Checkpoint]:
    """Read checkpoints that somebody saved; raises as `Trust.open` does."""
    return [trust.open(note) for note in notes]
