"""The octet encoding rules, against RFC 0030 and what the conformance list adds."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.oer import (
    U64_MAX,
    encode_length,
    encode_uint,
    encode_var_octets,
    encode_var_uint,
    read_length,
    read_octets,
    read_uint,
    read_var_octets,
    read_var_octets_max,
    read_var_uint,
)

VALUES = json.loads((Path(__file__).parent / "vectors/codec-values.json").read_text())


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_unsigned_integers_are_big_endian_and_of_fixed_size(size: int) -> None:
    """OER-1."""
    top = 2 ** (8 * size) - 1
    for number in (0, 1, 2 ** (8 * size - 1), top):
        octets = encode_uint(number, size)
        assert octets == number.to_bytes(size, "big")
        assert read_uint(b"x" + octets, 1, size, "n") == (number, 1 + size)
    with pytest.raises(ValueError, match="does not fit"):
        encode_uint(top + 1, size)
    with pytest.raises(ValueError, match="does not fit"):
        encode_uint(-1, size)
    with pytest.raises(CodecError) as error:
        read_uint(bytes(size - 1), 0, size, "n")
    assert (error.value.field, error.value.offset) == ("n", 0)


def test_large_fixed_integers_are_raw_octets() -> None:
    """OER-1, OER-8."""
    assert read_octets(b"-" + bytes(range(32)) + b"-", 1, 32, "condition") == (bytes(range(32)), 33)
    with pytest.raises(CodecError):
        read_octets(bytes(31), 0, 32, "condition")


@pytest.mark.parametrize("octets, length", VALUES["lengths"])
def test_lengths_have_one_encoding(octets: str, length: int) -> None:
    """OER-2, OER-3, X-4, X-5: short up to 127 inclusive, then as many bytes as it takes."""
    assert encode_length(length).hex() == octets
    data = bytes.fromhex(octets)
    # Zero bytes stand for the content: only their number matters.
    assert read_length(data + bytes(length), 0, "x") == (length, len(data))


@pytest.mark.parametrize("octets, why", VALUES["lengths_bad"].items())
def test_lengths_that_are_not_canonical_or_not_there_are_refused(octets: str, why: str) -> None:
    """OER-4."""
    data = bytes.fromhex(octets)
    follows = b"" if why in ("nothing follows", "missing", "cut off") else bytes(300)
    with pytest.raises(CodecError) as error:
        read_length(b"?" + data + follows, 1, "body")
    assert (error.value.field, error.value.offset) == ("body", 1)


def test_a_length_is_believed_up_to_the_last_byte_that_is_there() -> None:
    """OER-4: the bound and one past it."""
    assert read_length(b"\x05hello", 0, "x") == (5, 1)
    with pytest.raises(CodecError):
        read_length(b"\x05hell", 0, "x")
    assert read_var_octets_max(b"\x05hello", 0, "x", 5) == (b"hello", 6)
    with pytest.raises(CodecError, match="more than 4"):
        read_var_octets_max(b"\x05hello", 0, "x", 4)


def test_a_huge_length_allocates_nothing() -> None:
    """OER-4, P-9."""
    data = b"\x88\x7f\xff\xff\xff\xff\xff\xff\xff" + bytes(100)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            read_var_octets(data, 0, "x")
        with pytest.raises(CodecError):
            read_var_uint(data, 0, "x")
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "octets, number",
    [
        ("0100", 0),
        ("0101", 1),
        ("01ff", 255),
        ("020100", 256),
        ("08ffffffffffffffff", U64_MAX),
        ("09" + "01" + "00" * 8, 2**64),
    ],
)
def test_var_uints_are_minimal(octets: str, number: int) -> None:
    """OER-5, X-4, P-1."""
    data = bytes.fromhex(octets)
    assert encode_var_uint(number) == data
    assert read_var_uint(data, 0, "x") == (number, len(data))


@pytest.mark.parametrize("octets", ["00", "020001", "03000000", "02000000", "0201", "", "01"])
def test_var_uints_that_are_not_minimal_are_refused(octets: str) -> None:
    """OER-5."""
    with pytest.raises(CodecError):
        read_var_uint(bytes.fromhex(octets), 0, "x")


def test_encoders_refuse_what_has_no_encoding() -> None:
    """OER-2, OER-5."""
    for misuse in (-1, 2**64):
        with pytest.raises(ValueError, match="length"):
            encode_length(misuse)
    with pytest.raises(ValueError, match="negative"):
        encode_var_uint(-1)


@given(st.integers(0, 2**2100))
def test_var_uints_round_trip(number: int) -> None:
    """OER-5."""
    octets = encode_var_uint(number)
    assert read_var_uint(octets, 0, "x") == (number, len(octets))


@given(st.binary(max_size=400), st.binary(max_size=3))
def test_octet_strings_round_trip(octets: bytes, after: bytes) -> None:
    """OER-2, OER-7, OER-8: a sequence has no framing, so what follows is the next field's."""
    data = encode_var_octets(octets) + after
    assert read_var_octets(data, 0, "x") == (octets, len(data) - len(after))


@given(st.binary(max_size=40), st.integers(0, 45), st.integers(0, 9))
def test_any_bytes_give_a_value_within_them_or_a_codec_error(data: bytes, offset: int, size: int) -> None:
    """OER-4, P-9."""
    for read in (
        lambda: read_length(data, offset, "x"),
        lambda: read_var_octets(data, offset, "x"),
        lambda: read_var_octets_max(data, offset, "x", 9),
        lambda: read_var_uint(data, offset, "x"),
        lambda: read_uint(data, offset, size, "x"),
        lambda: read_octets(data, offset, size, "x"),
    ):
        try:
            _, end = read()
        except CodecError:
            continue
        assert offset <= end <= len(data)
