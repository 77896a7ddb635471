"""Numbers and base64 that have one spelling each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.transparency.strict import Malformed, decimal, decode64, decode_hash, encode64


@given(st.integers(0, (1 << 63) - 1))
def test_a_number_is_read_as_it_was_written(number: int) -> None:
    assert decimal(str(number)) == number


@pytest.mark.parametrize("text", ["", "00", "01", "+1", "-1", " 1", "1 ", "1\n", "1_0", "1e3", "٣", "²", str(1 << 63)])
def test_another_spelling_of_a_number_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        decimal(text)


@given(st.binary(max_size=70))
def test_octets_are_read_as_they_were_written(octets: bytes) -> None:
    assert decode64(encode64(octets)) == octets


@given(st.text(max_size=12) | st.text(alphabet="AQgw+/=-_ \n", max_size=12))
def test_base64_that_is_read_is_the_only_spelling_of_its_octets(text: str) -> None:
    try:
        octets = decode64(text)
    except Malformed:
        return
    assert encode64(octets) == text


def test_a_hash_has_32_bytes() -> None:
    assert decode_hash(encode64(b"x" * 32)) == b"x" * 32
    for octets in (b"", b"x" * 31, b"x" * 33):
        with pytest.raises(Malformed, match="32 bytes"):
            decode_hash(encode64(octets))
