"""Policies: read as specified, and met by those only who meet them."""

from itertools import product

import pytest

from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import NoteRejected
from app.audit.transparency.policies import Group, Peer, Policy, PolicyMalformed, QuorumMissed, parse_policy
from tests.audit.transparency.logs import ORIGIN, head, leaves, note_of

LOG = SigningKey.generate(ORIGIN, "ed25519")
PQ = SigningKey.generate(ORIGIN, "ml-dsa-44")
W = {
    name: SigningKey.generate(f"{name}.example", "ml-dsa-44" if name == "Y1" else "cosignature/v1")
    for name in ("X1", "X2", "X3", "Y1", "Y2")
}
VKEY = {name: key.verifier.text() for name, key in W.items()}
HEAD = leaves(5)

TEXT = f"""# Whom we believe
log {LOG.verifier.text()} https://log.example/
\tlog  {PQ.verifier.text()}\t

witness X1 {VKEY["X1"]}
witness X2 {VKEY["X2"]} https://x2.example/
witness X3 {VKEY["X3"]}
group X 2 X1 X2 X3
witness Y1 {VKEY["Y1"]}
witness Y2 {VKEY["Y2"]}
group Y any Y1 Y2
group both all X Y
quorum both
"""


def test_the_policy_of_the_specification_is_read() -> None:
    policy = parse_policy(TEXT.encode())
    assert policy.logs == (Peer(LOG.verifier, "https://log.example/"), Peer(PQ.verifier))
    assert policy.witnesses["X2"] == Peer(W["X2"].verifier, "https://x2.example/")
    assert policy.groups == {
        "X": Group(2, ("X1", "X2", "X3")),
        "Y": Group(1, ("Y1", "Y2")),
        "both": Group(2, ("X", "Y")),
    }
    assert policy.quorum == "both"


def test_a_policy_is_read_as_it_was_written() -> None:
    policy = parse_policy(TEXT.encode())
    assert parse_policy(policy.text().encode()) == policy
    assert parse_policy(Policy.of_logs(LOG.verifier).text().encode()) == Policy.of_logs(LOG.verifier)


@pytest.mark.parametrize("cosigners", list(product((False, True), repeat=5)))
def test_a_quorum_is_met_by_exactly_those_who_meet_it(cosigners: tuple[bool, ...]) -> None:
    policy = parse_policy(TEXT.encode())
    names = [name for name, has in zip(W, cosigners, strict=True) if has]
    enough = sum(cosigners[:3]) >= 2 and any(cosigners[3:])
    assert policy.is_met_by(names) is enough
    note = note_of(HEAD, LOG, *(W[name] for name in names), at=1234)
    if enough:
        checked = policy.check(note)
        assert checked.checkpoint == head(HEAD)
        assert checked.witnesses == dict.fromkeys(names, 1234)
    else:
        with pytest.raises(QuorumMissed, match="both is missed"):
            policy.check(note)


def test_a_quorum_may_be_one_witness_or_none() -> None:
    one = parse_policy(f"log {LOG.verifier.text()}\nwitness w {VKEY['X1']}\nquorum w\n".encode())
    assert one.check(note_of(HEAD, LOG, W["X1"], at=1)).witnesses == {"w": 1}
    with pytest.raises(QuorumMissed, match="nobody"):
        one.check(note_of(HEAD, LOG, W["X2"], at=1))
    none = parse_policy(f"log {LOG.verifier.text()}\nquorum none\n".encode())
    assert none.check(note_of(HEAD, LOG)).witnesses == {}


def test_a_cosignature_without_a_time_does_not_count() -> None:
    policy = parse_policy(f"log {LOG.verifier.text()}\nwitness w {VKEY['Y1']}\nquorum w\n".encode())
    with pytest.raises(QuorumMissed):
        policy.check(note_of(HEAD, LOG, W["Y1"], at=0))


def test_the_latest_time_of_a_witness_is_told() -> None:
    policy = parse_policy(f"log {LOG.verifier.text()}\nwitness w {VKEY['X1']}\nquorum w\n".encode())
    twice = note_of(HEAD, LOG, W["X1"], at=9) + note_of(HEAD, W["X1"], at=5).split(b"\n\n")[1]
    assert policy.check(twice).witnesses == {"w": 9}


def test_witnesses_alone_do_not_make_a_checkpoint_of_a_log() -> None:
    policy = parse_policy(TEXT.encode())
    with pytest.raises(NoteRejected, match="not by a key of that log"):
        policy.check(note_of(HEAD, *W.values(), at=1))
    with pytest.raises(NoteRejected, match="No key"):
        policy.check(note_of(HEAD, SigningKey.generate(ORIGIN, "ed25519")))


def test_a_wrong_cosignature_of_a_known_witness_spoils_the_checkpoint() -> None:
    policy = parse_policy(f"log {LOG.verifier.text()}\nwitness w {VKEY['X1']}\nquorum none\n".encode())
    other = note_of(leaves(4), W["X1"], at=1).split(b"\n\n")[1]
    with pytest.raises(NoteRejected, match="wrong"):
        policy.check(note_of(HEAD, LOG) + other)


WITNESS = f"witness w {VKEY['X1']}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has its end"),
        ("quorum none", "has its end"),
        ("quorum none\r\n", "control characters"),
        ("\x0bquorum none\n", "control characters"),
        ("# nothing\n", "line with its quorum"),
        ("quorum none\nquorum none\n", "Line 2"),
        ("quorum\n", "Line 1"),
        ("quorum none none\n", "not expected"),
        ("quorum w\n" + WITNESS, "no witness or group w"),
        (WITNESS + WITNESS + "quorum none\n", "Line 2.*twice"),
        (WITNESS + f"witness w {VKEY['X2']}\nquorum none\n", "is taken"),
        (f"witness none {VKEY['X1']}\nquorum none\n", "is taken"),
        (f"witness w {LOG.verifier.text()}\nquorum none\n", "cannot be used"),
        (f"log {VKEY['X1']}\nquorum none\n", "cannot be used"),
        (f"log {LOG.verifier.text()[:-1]}\nquorum none\n", "Line 1"),
        (WITNESS + "group g any\nquorum none\n", "not expected"),
        (WITNESS + "group g 0 w\nquorum none\n", "cannot be needed"),
        (WITNESS + "group g 2 w\nquorum none\n", "cannot be needed"),
        (WITNESS + "group g some w\nquorum none\n", "no decimal"),
        (WITNESS + "group g any w w\nquorum none\n", "member twice"),
        (WITNESS + "group g any w\ngroup h any w\nquorum none\n", "member twice"),
        (WITNESS + "group g any none\nquorum none\n", "no witness or group none"),
        (WITNESS + "group g any g\nquorum none\n", "no witness or group g"),
        (WITNESS + "group w any w\nquorum none\n", "is taken"),
        ("hello\n", "not expected"),
        ("\u00a0quorum none\n", "not expected"),
        ("#\n" * 1001, "1000 lines"),
    ],
    ids=lambda value: "policy" if "+" in value else value[:40],  # keys are made anew in each process
)
def test_what_is_no_policy_is_malformed(text: str, why: str) -> None:
    with pytest.raises(PolicyMalformed, match=why):
        parse_policy(text.encode())


def test_names_are_octets() -> None:
    policy = parse_policy(
        b"witness \xff " + VKEY["X1"].encode() + b"\nwitness \xfe " + VKEY["X2"].encode() + b"\nquorum \xff\n"
    )
    assert len(policy.witnesses) == 2
    assert parse_policy(policy.text().encode("utf-8", "surrogateescape")) == policy
