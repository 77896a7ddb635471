"""Notes: what is accepted is signed, whole, and has no second spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.transparency.keys import Kind, SigningKey, Verifier
from app.audit.transparency.notes import (
    MAX_NOTE,
    NoteRejected,
    SignatureLine,
    checkpoint_of,
    open_checkpoint,
    open_note,
    parse_note,
    sign_note,
    with_lines,
)
from app.audit.transparency.strict import Malformed
from tests.audit.transparency.logs import ORIGIN, flips, head, leaves, note_of

KINDS: tuple[Kind, ...] = ("ed25519", "cosignature/v1", "ml-dsa-44")
KEYS = {kind: SigningKey.generate(ORIGIN, kind) for kind in KINDS}
LOG = KEYS["ed25519"]
OTHER = SigningKey.generate("other.example", "ed25519")
TEXT = head(leaves(5)).text()

FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYj"
    "OBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
"""The example of the C2SP specification."""

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_NOTE = (
    f"{PETER_TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ry"
    "yBwJnAM=\n"
).encode()
"""The example of Go's sumdb/note."""


def test_the_example_of_the_specification_verifies() -> None:
    assert open_note(FOO_NOTE, [Verifier.parse(FOO)]).text == "This is an example message.\n"


def test_the_example_of_go_verifies_and_is_signed_again_to_the_byte() -> None:
    key = SigningKey.parse(PETER_KEY)
    assert key.encoded() == PETER_KEY
    assert key.verifier.text() == PETER
    assert open_note(PETER_NOTE, [Verifier.parse(PETER)]).text == PETER_TEXT
    assert sign_note(PETER_TEXT, [key]) == PETER_NOTE


@pytest.mark.parametrize("kind", KINDS)
def test_a_note_is_opened_by_the_key_that_signed_it(kind: Kind) -> None:
    note = open_note(sign_note(TEXT, [KEYS[kind]], at=1234), [KEYS[kind].verifier])
    assert note.text == TEXT
    assert note.is_by(KEYS[kind].verifier)
    assert not note.is_by(OTHER.verifier)
    assert [signed.at for signed in note.signed] == [None if kind == "ed25519" else 1234]


@pytest.mark.parametrize("kind", ["ed25519", "cosignature/v1"])
def test_every_flipped_bit_of_a_note_is_found(kind: Kind) -> None:
    octets = sign_note(TEXT, [KEYS[kind]], at=1234)
    accepted = [flipped for flipped in flips(octets) if _opens(flipped, KEYS[kind].verifier)]
    assert accepted == []


def test_every_flipped_bit_of_a_post_quantum_note_is_found() -> None:
    octets = sign_note(TEXT, [KEYS["ml-dsa-44"]], at=1234)
    start = octets.index(b"\n\n")
    flipped = flips(octets)
    some = flipped[-8 * start - 1000 :] + flipped[:300] + flipped[300:-1000:37]
    assert [one for one in some if _opens(one, KEYS["ml-dsa-44"].verifier)] == []


def _opens(octets: bytes, verifier: Verifier) -> bool:
    try:
        open_note(octets, [verifier])
    except NoteRejected:
        return False
    return True


def test_a_note_has_one_spelling_only() -> None:
    octets = sign_note(TEXT, [LOG])
    assert parse_note(octets).encoded() == octets
    dash, verifier = "—".encode(), LOG.verifier
    spellings = [
        octets + b"\n",
        octets + b" ",
        octets + b"x",
        octets[:-1],
        octets[:-1] + b"\r\n",
        octets.replace(b"\n", b"\r\n"),
        octets.replace(dash, b"-"),
        octets.replace(dash, "–".encode()),
        octets.replace(dash + b" ", dash),
        octets.replace(dash + b" ", dash + b"  "),
        octets.replace(dash, b" " + dash),
        octets.replace(ORIGIN.encode() + b" ", ORIGIN.encode() + b"\t"),
        octets.replace(ORIGIN.encode() + b" ", ORIGIN.encode() + b"  "),
        octets[:-1] + b" \n",
        octets[:-1] + b"=\n",
        octets[:-3] + b"=\n",
        b"\xef\xbb\xbf" + octets,
        octets.replace(b"\n\n", b"\n\n\n"),
        octets.replace(b"\n\n", b"\n"),
    ]
    assert [one for one in spellings if _opens(one, verifier)] == []


@given(st.text(max_size=60))
def test_any_text_that_can_be_signed_is_given_back(text: str) -> None:
    try:
        octets = sign_note(text, [LOG])
    except (NoteRejected, UnicodeEncodeError):
        assert not text.endswith("\n") or any(
            (char < " " and char != "\n") or "\ud800" <= char < "\ue000" for char in text
        )
    else:
        assert open_note(octets, [LOG.verifier]).text == text
        assert parse_note(octets).encoded() == octets


@given(st.binary(max_size=120) | st.text(max_size=80).map(lambda text: f"a\n\n— {text}\n".encode(errors="replace")))
def test_what_is_parsed_is_written_the_same(octets: bytes) -> None:
    try:
        note = parse_note(octets)
    except NoteRejected:
        return
    assert note.encoded() == octets


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"\n", b"a", b"a\n\n", b"a\n", "a\n\n— x AAAAAAA=".encode(), "a\n\n— x \n".encode(),
        "a\n\n—  AAAAAAA=\n".encode(),
        "a\n\n— x+y AAAAAAA=\n".encode(), "a\n\n— x\u00a0y AAAAAAA=\n".encode(), "a\n\n— x AAAAAA==\n".encode(),
        "a\n\n— x AAAAAAB=\n".encode(), "a\n\n— x AAAA AAA=\n".encode(), "a\n\n— x AAAAAA-=\n".encode(),
        "a\x00\n\n— x AAAAAAA=\n".encode(), b"a\xff\n\n\xe2\x80\x94 x AAAAAAA=\n", "a\n\n— x AAAAAAA=\n\n".encode(),
        "a\n\n— x AAAAAAA=\nrubbish\n".encode(), "a\n\n— x ÀAAAAAAA\n".encode(), "a\n\n— x\u2028 AAAAAAA=\n".encode(),
    ],
)  # fmt: skip
def test_what_is_no_note_is_rejected(octets: bytes) -> None:
    with pytest.raises(NoteRejected):
        parse_note(octets)


def test_the_smallest_note_is_parsed() -> None:
    note = parse_note("a\n\n— x AAAAAAA=\n".encode())
    assert (note.text, note.lines) == ("a\n", (SignatureLine("x", bytes(4), b"\x00"),))


def test_notes_have_bounds() -> None:
    line = "— x AAAAAAA=\n"
    assert len(parse_note(f"a\n\n{line * 64}".encode()).lines) == 64
    with pytest.raises(NoteRejected, match="64 signatures"):
        parse_note(f"a\n\n{line * 65}".encode())
    with pytest.raises(NoteRejected, match=f"{MAX_NOTE} bytes"):
        parse_note(b"a" * MAX_NOTE + f"\n\n{line}".encode())


def test_the_signatures_begin_behind_the_last_empty_line() -> None:
    text = "one\n\n— x AAAAAAA=\n\ntwo\n"
    assert open_note(sign_note(text, [LOG]), [LOG.verifier]).text == text


@pytest.mark.parametrize("text", ["one\n\n— x AAAAAAA=", "", "one"])
def test_a_text_that_does_not_end_its_last_line_is_not_signed(text: str) -> None:
    with pytest.raises(NoteRejected):
        sign_note(text, [LOG])


def test_a_note_by_nobody_known_is_rejected() -> None:
    with pytest.raises(NoteRejected, match="No key"):
        open_note(sign_note(TEXT, [LOG]), [OTHER.verifier])
    with pytest.raises(NoteRejected, match="No key"):
        open_note(sign_note(TEXT, [LOG]), [])


def test_signatures_by_unknown_keys_are_set_aside() -> None:
    note = open_note(sign_note(TEXT, [LOG, OTHER]), [LOG.verifier])
    assert [signed.verifier for signed in note.signed] == [LOG.verifier]
    assert [line.name for line in note.unknown] == [OTHER.name]


def test_one_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    octets = sign_note(TEXT, [LOG, OTHER])
    wrong = octets[:-10] + (b"A" if octets[-10:-9] != b"A" else b"B") + octets[-9:]
    with pytest.raises(NoteRejected, match=r"other\.example .* is wrong"):
        open_note(wrong, [LOG.verifier, OTHER.verifier])
    assert open_note(wrong, [LOG.verifier]).text == TEXT


def test_a_signature_over_another_text_is_wrong() -> None:
    line = parse_note(sign_note("another\n", [LOG])).lines
    with pytest.raises(NoteRejected, match="wrong"):
        open_note(with_lines(sign_note(TEXT, [OTHER]), line), [LOG.verifier, OTHER.verifier])


def test_a_key_signs_one_kind_only() -> None:
    same_seed = SigningKey(LOG.name, "cosignature/v1", LOG.seed)
    assert same_seed.verifier.id != LOG.verifier.id
    with pytest.raises(NoteRejected, match="No key"):
        open_note(sign_note(TEXT, [LOG]), [same_seed.verifier])


def test_signatures_are_added_once() -> None:
    both = sign_note(TEXT, [LOG, OTHER])
    assert with_lines(sign_note(TEXT, [LOG]), parse_note(both).lines) == both
    assert with_lines(both, parse_note(both).lines) == both


def test_a_checkpoint_is_opened_by_a_key_with_its_origin_as_name() -> None:
    octets = note_of(leaves(5), LOG, KEYS["ml-dsa-44"], OTHER)
    checkpoint, note = open_checkpoint(octets, [LOG.verifier, KEYS["ml-dsa-44"].verifier])
    assert checkpoint == head(leaves(5))
    assert len(note.signed) == 2
    with pytest.raises(NoteRejected, match="not by a key of that log"):
        open_checkpoint(octets, [OTHER.verifier])
    with pytest.raises(NoteRejected, match="not by a key of that log"):
        checkpoint_of(note, [OTHER.verifier])


def test_a_note_that_is_no_checkpoint_is_not_opened_as_one() -> None:
    with pytest.raises(NoteRejected, match="three lines"):
        open_checkpoint(sign_note("hello\n", [LOG]), [LOG.verifier])


@pytest.mark.parametrize("kind", ["cosignature/v1", "ml-dsa-44"])
def test_a_key_for_checkpoints_signs_nothing_else(kind: Kind) -> None:
    with pytest.raises(Malformed):
        sign_note("hello\n", [KEYS[kind]])
    line = parse_note(sign_note(TEXT, [KEYS[kind]])).lines
    with pytest.raises(NoteRejected, match="wrong"):
        open_note(with_lines(sign_note("hello\n", [OTHER]), line), [KEYS[kind].verifier])
