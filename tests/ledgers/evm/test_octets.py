"""Addresses, numbers and hex from strangers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ledgers.evm.octets import checksummed, hexed, keccak256, parse_address, parse_hex, parse_quantity, word

anything = st.none() | st.integers() | st.text(max_size=80) | st.lists(st.integers(), max_size=2)


def test_keccak_is_not_sha3() -> None:
    """The hash of nothing, as the yellow paper has it."""
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@pytest.mark.parametrize(
    "address", ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"]
)
def test_addresses_have_the_checksums_of_erc_55(address: str) -> None:
    assert checksummed(address.lower()) == address
    assert parse_address(address) == parse_address("0x" + address[2:].upper()) == address.lower()
    wrong = address[:-1] + ("D" if address[-1] == "d" else "e")
    with pytest.raises(CodecError):
        parse_address(wrong)


@given(anything)
def test_anything_is_a_value_or_a_codec_error(value: object) -> None:
    for parse in (parse_address, parse_hex, parse_quantity):
        try:
            parse(value, "field")
        except CodecError:
            continue


@given(st.integers(0, 2**256 - 1), st.binary(max_size=100))
def test_numbers_and_bytes_come_back(number: int, data: bytes) -> None:
    assert parse_quantity(hex(number), "number") == number
    assert int.from_bytes(word(number), "big") == number
    assert parse_hex(hexed(data), "data") == data
    with pytest.raises(CodecError):
        parse_hex(hexed(data), "data", size=len(data) + 1)


def test_a_number_above_a_word_is_none() -> None:
    with pytest.raises(CodecError):
        parse_quantity(hex(2**256), "number")
