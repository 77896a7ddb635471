"""Which logs are trusted, which witnesses, and how many of them must have seen a checkpoint: C2SP tlog-policy."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import LOG_KINDS, WITNESS_KINDS, Kind, Verifier
from app.audit.transparency.notes import Note, checkpoint_of, open_note
from app.audit.transparency.strict import Malformed, Rejected, decimal

NO_QUORUM = "none"
MAX_POLICY = 1 << 20
MAX_LINES = 1000

_ALLOWED = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*")


class PolicyMalformed(Malformed):
    """The text is no policy."""


class QuorumMissed(Rejected):
    """Too few of the witnesses have cosigned the checkpoint."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A log or a witness: its key, and where it is reached, if that is known."""

    verifier: Verifier
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """At least `needed` of the members (names of witnesses and groups) have seen a checkpoint."""

    needed: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A checkpoint that fulfils a policy. `witnesses`: name in the policy -> POSIX seconds of its cosignature."""

    checkpoint: Checkpoint
    note: Note
    witnesses: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom to believe. Group members are defined before the group, so there are no circles."""

    logs: tuple[Peer, ...] = ()
    witnesses: Mapping[str, Peer] = field(default_factory=dict[str, Peer])
    groups: Mapping[str, Group] = field(default_factory=dict[str, Group])
    quorum: str = NO_QUORUM

    @classmethod
    def of_logs(cls, *verifiers: Verifier) -> "Policy":
        """Believe these logs, without witnesses."""
        return cls(tuple(map(Peer, verifiers)))

    def is_met_by(self, cosigners: Collection[str]) -> bool:
        """Say whether these witnesses are enough."""
        return self.quorum == NO_QUORUM or self._saw(self.quorum, cosigners)

    def _saw(self, name: str, cosigners: Collection[str]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in cosigners
        return sum(self._saw(member, cosigners) for member in group.members) >= group.needed

    def check(self, octets: bytes) -> Checked:
        """Verify a checkpoint by this policy. Raises NoteRejected (the note, the log), QuorumMissed (the witnesses)."""
        logs = [log.verifier for log in self.logs]
        note = open_note(octets, [*logs, *(witness.verifier for witness in self.witnesses.values())])
        checkpoint = checkpoint_of(note, logs)
        times = self._times(note)
        if not self.is_met_by(times):
            raise QuorumMissed(f"The quorum {self.quorum} is missed: cosigned by {', '.join(times) or 'nobody'}.")
        return Checked(checkpoint, note, times)

    def _times(self, note: Note) -> dict[str, int]:
        """Say which witnesses have cosigned, and when last. A cosignature with the time 0 is not a witness's."""
        names = {witness.verifier: name for name, witness in self.witnesses.items()}
        cosigned = [(names[one.verifier], one.at) for one in note.signed if one.verifier in names and one.at]
        return dict(sorted(cosigned, key=lambda pair: pair[1]))

    def text(self) -> str:
        """Write the policy as a file, which `parse_policy` reads."""
        lines = [("log", *_peer(log)) for log in self.logs]
        lines += [("witness", name, *_peer(witness)) for name, witness in self.witnesses.items()]
        lines += [("group", name, str(group.needed), *group.members) for name, group in self.groups.items()]
        return "".join(f"{' '.join(line)}\n" for line in [*lines, ("quorum", self.quorum)])


def _peer(peer: Peer) -> tuple[str, ...]:
    return (peer.verifier.text(), peer.url) if peer.url else (peer.verifier.text(),)


def parse_policy(octets: bytes) -> Policy:
    """Read a policy. Raises PolicyMalformed, with the number of the line.

    Names are opaque octets: what is no UTF-8 in them is kept as surrogates.
    """
    if len(octets) > MAX_POLICY or octets.count(b"\n") > MAX_LINES:
        raise PolicyMalformed(f"A policy has at most {MAX_POLICY} bytes and {MAX_LINES} lines.")
    if not _ALLOWED.fullmatch(octets) or not octets.endswith(b"\n"):
        raise PolicyMalformed("Each line of a policy has its end, and no control characters but tabs.")
    policy = Policy(quorum="")
    for number, line in enumerate(octets.decode("utf-8", "surrogateescape").split("\n"), 1):
        words = [word for word in re.split(r"[ \t]+", line) if word]
        if not words or words[0].startswith("#"):
            continue
        try:
            policy = _with_line(policy, *words)
        except (Malformed, UnicodeEncodeError) as why:
            raise PolicyMalformed(f"Line {number} of the policy: {why}") from None
    if not policy.quorum:
        raise PolicyMalformed("A policy has a line with its quorum, if only `quorum none`.")
    return policy


def _with_line(policy: Policy, word: str, *words: str) -> Policy:
    match word, words:
        case "log", (key, *urls) if len(urls) <= 1:
            peers = (*policy.logs, _new_peer(key, urls, LOG_KINDS, policy.logs))
            return replace(policy, logs=peers)
        case "witness", (name, key, *urls) if len(urls) <= 1:
            peer = _new_peer(key, urls, WITNESS_KINDS, policy.witnesses.values())
            return replace(policy, witnesses={**policy.witnesses, _new_name(policy, name): peer})
        case "group", (name, needed, *members) if members:
            group = Group(_needed(needed, len(members)), _new_members(policy, members))
            return replace(policy, groups={**policy.groups, _new_name(policy, name): group})
        case "quorum", (name,) if not policy.quorum:
            if name != NO_QUORUM:
                _known(policy, name)
            return replace(policy, quorum=name)
        case _:
            raise Malformed(f"{word!r} is not expected here, or not with {len(words)} words.")


def _new_peer(key: str, urls: Sequence[str], kinds: Collection[Kind], others: Iterable[Peer]) -> Peer:
    verifier = Verifier.parse(key)
    if verifier.kind not in kinds:
        raise Malformed(f"A key of the kind {verifier.kind} cannot be used for this.")
    if any(other.verifier.public == verifier.public for other in others):
        raise Malformed(f"The key of {verifier.name} is there twice.")
    return Peer(verifier, *urls)


def _new_name(policy: Policy, name: str) -> str:
    if name == NO_QUORUM or name in policy.witnesses or name in policy.groups:
        raise Malformed(f"The name {name} is taken.")
    return name


def _known(policy: Policy, name: str) -> None:
    if name not in policy.witnesses and name not in policy.groups:
        raise Malformed(f"There is no witness or group {name} on the lines before.")


def _new_members(policy: Policy, members: Sequence[str]) -> tuple[str, ...]:
    taken = [member for group in policy.groups.values() for member in group.members]
    for name in members:
        _known(policy, name)
        if [*taken, *members].count(name) > 1:
            raise Malformed(f"{name} is a member twice; it could then count twice.")
    return tuple(members)


def _needed(word: str, members: int) -> int:
    needed = {"any": 1, "all": members}.get(word) or decimal(word)
    if not 1 <= needed <= members:
        raise Malformed(f"{needed} of {members} members cannot be needed.")
    return needed
