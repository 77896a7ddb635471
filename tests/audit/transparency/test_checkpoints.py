"""Checkpoints and what cosigners sign of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.transparency.checkpoints import Checkpoint, parse_checkpoint
from app.audit.transparency.cosignatures import ed25519_message, subtree_message, timestamped, untimestamped
from app.audit.transparency.strict import Malformed, decode64

SEA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
"""The example of the C2SP specifications."""

ROOT = decode64("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
SOFA = Checkpoint("example.com/behind-the-sofa", 20852163, ROOT)

lines = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"]), min_size=1, max_size=20)


def test_the_example_of_the_specification_is_read_and_written_the_same() -> None:
    assert parse_checkpoint(SEA) == SOFA
    assert SOFA.text() == SEA


@given(lines, st.integers(0, (1 << 63) - 1), st.binary(min_size=32, max_size=32), st.lists(lines, max_size=3))
def test_a_checkpoint_is_read_as_it_was_written(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert parse_checkpoint(checkpoint.text()) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", SEA[:-1], SEA + "\n", "\n" + SEA, SEA.replace("2085", "02085"), SEA.replace("2085", "-2085"),
        SEA.replace("2085", " 2085"), SEA.replace("I=\n", "J=\n"), SEA.replace("CsUY", ""), "a\n1\n", "a\n\n1\n",
        SEA.replace("example", "e" * 256), SEA.replace("20852163", str(1 << 63)),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint("", 1, ROOT), Checkpoint("a\nb", 1, ROOT), Checkpoint("a", -1, ROOT), Checkpoint("a", 1 << 63, ROOT),
        Checkpoint("a", 1, ROOT[:-1]), Checkpoint("a", 1, ROOT, ("",)),
    ],
)  # fmt: skip
def test_a_checkpoint_that_nobody_could_read_is_not_written(checkpoint: Checkpoint) -> None:
    with pytest.raises(Malformed):
        checkpoint.text()


def test_an_ed25519_cosigner_signs_the_text_of_the_specification() -> None:
    assert ed25519_message(SEA, 1679315147).decode() == f"cosignature/v1\ntime 1679315147\n{SEA}"


def test_an_ml_dsa_cosigner_signs_the_structure_of_the_specification() -> None:
    assert subtree_message("witness.example/w1", 1679315147, SOFA) == (
        b"subtree/v1\n\x00"
        b"\x12witness.example/w1"
        b"\x00\x00\x00\x00\x64\x18\x50\xcb"
        b"\x1bexample.com/behind-the-sofa"
        b"\x00\x00\x00\x00\x00\x00\x00\x00"
        b"\x00\x00\x00\x00\x01\x3e\x2d\xc3" + ROOT
    )


def test_extension_lines_are_not_part_of_what_an_ml_dsa_cosigner_signs() -> None:
    extended = parse_checkpoint(SEA + "an extension\n")
    assert subtree_message("w", 1, extended) == subtree_message("w", 1, SOFA)


@pytest.mark.parametrize("name", ["", "n" * 256])
def test_a_name_that_does_not_fit_is_not_cosigned(name: str) -> None:
    with pytest.raises(Malformed, match="1 to 255"):
        subtree_message(name, 1, SOFA)


@given(st.integers(0, (1 << 63) - 1), st.binary(min_size=1, max_size=80))
def test_time_and_signature_come_apart_again(at: int, signature: bytes) -> None:
    assert untimestamped(timestamped(at, signature)) == (at, signature)


@pytest.mark.parametrize("octets", [b"", bytes(8), b"\x80" + bytes(20)])
def test_what_has_no_time_or_no_signature_is_malformed(octets: bytes) -> None:
    with pytest.raises(Malformed, match="2\\^63"):
        untimestamped(octets)
