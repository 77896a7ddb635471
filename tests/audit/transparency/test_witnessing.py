"""A witness: it cosigns what continues what it saw, and says with the right status why not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey
from app.audit.transparency.notes import NoteRejected, open_note, sign_note
from app.audit.transparency.tree import EMPTY_ROOT, consistency_proof, leaf_hash
from app.audit.transparency.witnessing import (
    NOTHING_SEEN,
    Cosigned,
    Refused,
    Request,
    Seen,
    Witness,
    origin_hash,
    parse_request,
    request,
    with_cosignatures,
)
from tests.audit.transparency.logs import ORIGIN, head, leaves, naive_root, nodes, note_of

LOG = SigningKey.generate(ORIGIN, "ed25519")
KEYS = (SigningKey.generate("w.example", "cosignature/v1"), SigningKey.generate("w.example", "ml-dsa-44"))
WITNESS = Witness(KEYS, {ORIGIN: (LOG.verifier,)})
LEAVES = leaves(300)
NOW = 1_700_000_000


def asked(old: int, new: int, hashes: list[bytes] = LEAVES) -> Request:
    return request(old, consistency_proof(old, new, nodes(hashes)), note_of(hashes[:new], LOG))


def seen(size: int) -> Seen:
    return Seen(size, naive_root(LEAVES[:size]))


def refusal(asked: Request, seen: Seen, witness: Witness = WITNESS) -> int:
    with pytest.raises(Refused) as why:
        witness.consider(asked, seen, NOW)
    assert str(why.value)
    return why.value.status


def cosigned(asked: Request, seen: Seen) -> Cosigned:
    return WITNESS.consider(asked, seen, NOW)


@given(st.integers(0, 300), st.integers(0, 300))
def test_what_continues_the_tree_is_cosigned(one: int, other: int) -> None:
    old, new = sorted((one, other))
    answer = cosigned(parse_request(asked(old, new).encoded()), seen(old))
    assert answer.seen == seen(new)
    verifiers = [key.verifier for key in KEYS]
    note = with_cosignatures(note_of(LEAVES[:new], LOG), answer.body, verifiers)
    opened = open_note(note, [LOG.verifier, *verifiers])
    assert [(signed.verifier, signed.at) for signed in opened.signed] == [
        (LOG.verifier, None), (KEYS[0].verifier, NOW), (KEYS[1].verifier, NOW),
    ]  # fmt: skip
    assert answer.note == note


def test_what_was_never_seen_begins_with_nothing() -> None:
    assert seen(0) == NOTHING_SEEN
    assert cosigned(asked(0, 7), NOTHING_SEEN).seen == seen(7)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_request_is_read_as_it_was_written(one: int, other: int) -> None:
    old, new = sorted((one, other))
    assert parse_request(asked(old, new).encoded()) == asked(old, new)


def test_signatures_of_others_are_not_passed_on() -> None:
    stranger = SigningKey.generate("stranger.example", "ed25519")
    answer = cosigned(request(0, (), note_of(LEAVES[:7], LOG, stranger)), NOTHING_SEEN)
    assert b"stranger" not in answer.note


def test_an_unknown_log_is_not_found() -> None:
    assert refusal(asked(0, 7), NOTHING_SEEN, Witness(KEYS, {})) == 404


def test_a_checkpoint_by_another_key_is_forbidden() -> None:
    forged = request(0, (), note_of(LEAVES[:7], SigningKey.generate(ORIGIN, "ed25519")))
    assert refusal(forged, NOTHING_SEEN) == 403


def test_a_wrong_signature_by_the_log_is_forbidden_even_beside_a_good_one() -> None:
    second = SigningKey.generate(ORIGIN, "ml-dsa-44")
    good, other = note_of(LEAVES[:7], LOG), note_of(LEAVES[:8], second)
    spoilt = request(0, (), good + other.split(b"\n\n")[1])
    assert refusal(spoilt, NOTHING_SEEN, Witness(KEYS, {ORIGIN: (LOG.verifier, second.verifier)})) == 403


def test_an_old_size_beyond_the_checkpoint_is_a_bad_request() -> None:
    assert refusal(request(8, (), note_of(LEAVES[:7], LOG)), seen(8)) == 400


@pytest.mark.parametrize("was", [0, 4, 6, 7])
def test_another_old_size_is_a_conflict_that_tells_the_size(was: int) -> None:
    with pytest.raises(Refused) as why:
        cosigned(asked(5, 7), seen(was))
    assert (why.value.status, why.value.content_type) == (409, "text/x.tlog.size")
    assert why.value.body == f"{was}\n".encode()


def test_a_rollback_is_a_conflict() -> None:
    assert refusal(asked(5, 5), seen(7)) == 409
    assert refusal(asked(0, 5), seen(7)) == 409


def test_a_fork_cannot_be_processed() -> None:
    forked = [*LEAVES[:3], leaf_hash(b"forked"), *LEAVES[4:]]
    assert refusal(asked(5, 7, forked), seen(5)) == 422
    assert refusal(request(5, asked(5, 7).proof, asked(5, 7, forked).note.encoded()), seen(5)) == 422


def test_another_tree_of_the_same_size_cannot_be_processed() -> None:
    forked = [*LEAVES[:3], leaf_hash(b"forked"), *LEAVES[4:]]
    assert refusal(asked(7, 7, forked), seen(7)) == 422


@pytest.mark.parametrize(("old", "new"), [(0, 7), (7, 7), (0, 0)])
def test_a_proof_where_none_is_needed_cannot_be_processed(old: int, new: int) -> None:
    assert refusal(request(old, (LEAVES[0],), note_of(LEAVES[:new], LOG)), seen(old)) == 422


def test_an_empty_tree_with_a_root_cannot_be_processed() -> None:
    text = Checkpoint(ORIGIN, 0, LEAVES[0]).text()
    assert refusal(request(0, (), sign_note(text, [LOG])), NOTHING_SEEN) == 422
    assert cosigned(asked(0, 0), NOTHING_SEEN).seen == Seen(0, EMPTY_ROOT)


GOOD = asked(5, 7).encoded()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"old 5\n", GOOD.replace(b"old 5", b"old 05"), GOOD.replace(b"old 5", b"old -1"),
        GOOD.replace(b"old 5", b"new 5"),
        GOOD.replace(b"old 5\n", b""), GOOD.replace(b"\n\n", b"\n", 1), GOOD[:-1], GOOD + b"x",
        GOOD.replace(b"\n7\n", b"\n07\n"),
        GOOD.replace(b"old 5\n", b"old 5\nAAAA\n"), GOOD.replace(b"old 5\n", b"old 5\n" + (b"A" * 43 + b"=\n") * 64),
        GOOD.replace(b"old 5\n", b"old 5\n\xff\n"), GOOD + b"x" * 300_000, b"old 0\n\n" + sign_note("hello\n", [LOG]),
    ],
)  # fmt: skip
def test_what_is_no_request_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(Refused) as why:
        parse_request(body)
    assert why.value.status == 400
    assert why.value.content_type.startswith("text/plain")


def test_a_witness_signs_with_keys_that_sign_a_time() -> None:
    for keys in ((), (LOG,), (KEYS[0], LOG)):
        with pytest.raises(ValueError, match="signs with keys"):
            Witness(keys, {})


def test_a_client_keeps_only_cosignatures_that_verify() -> None:
    note, known = note_of(LEAVES[:7], LOG), [key.verifier for key in KEYS]
    body = cosigned(asked(0, 7), NOTHING_SEEN).body
    stranger = note_of(LEAVES[:7], SigningKey.generate("x", "cosignature/v1"), at=1).split(b"\n\n")[1]
    assert with_cosignatures(note, stranger + body, known) == with_cosignatures(note, body, known)
    assert with_cosignatures(with_cosignatures(note, body, known), body, known) == with_cosignatures(note, body, known)
    for wrong in (stranger, b"", b"\xff\n", body[:-1], b"x" * 300_000, cosigned(asked(0, 6), NOTHING_SEEN).body):
        with pytest.raises(NoteRejected):
            with_cosignatures(note, wrong, known)


def test_a_client_does_not_keep_a_cosignature_without_a_time() -> None:
    timeless = note_of(LEAVES[:7], KEYS[1], at=0).split(b"\n\n")[1]
    with pytest.raises(NoteRejected, match="no time"):
        with_cosignatures(note_of(LEAVES[:7], LOG), timeless, [KEYS[1].verifier])


def test_a_monitor_finds_a_log_by_the_hash_of_its_origin() -> None:
    assert origin_hash("") == EMPTY_ROOT.hex()
    assert head(LEAVES).origin == ORIGIN
    assert len(origin_hash(ORIGIN)) == 64
