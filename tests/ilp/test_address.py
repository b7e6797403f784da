"""ILP addresses (RFC 0015)."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.address import (
    ADDRESS_BYTES_MAX,
    BOUNDED_SCHEMES,
    SCHEMES,
    append_segments,
    is_prefix_of,
    is_test,
    is_valid,
    is_valid_prefix,
    parse_address,
    scheme_of,
)

VALUES = json.loads((Path(__file__).parents[1] / "vectors/codec-values.json").read_text())


@pytest.mark.parametrize("address", VALUES["addresses"])
def test_addresses_have_a_scheme_and_segments(address: str) -> None:
    """ADDR-1."""
    assert is_valid(address)
    assert is_valid_prefix(address)
    assert parse_address(address) == address
    assert parse_address(address.encode()) == address
    assert scheme_of(address) in SCHEMES


@pytest.mark.parametrize("address", VALUES["addresses_bad"])
def test_anything_else_is_no_address(address: str) -> None:
    """ADDR-1, ADDR-3, P-2: also with a newline at the end, other alphabets, other digits."""
    assert not is_valid(address)
    for form in (address, address.encode()):
        with pytest.raises(CodecError) as error:
            parse_address(form, "destination", 57)
        assert (error.value.field, error.value.offset) == ("destination", 57)


def test_an_address_has_at_most_1023_bytes() -> None:
    """ADDR-2."""
    longest = "g." + "a" * (ADDRESS_BYTES_MAX - 2)
    assert is_valid(longest)
    assert len(parse_address(longest.encode())) == 1023
    assert not is_valid(longest + "a")
    assert not is_valid_prefix(longest + "a")
    with pytest.raises(CodecError, match="1024 bytes"):
        parse_address(longest + "a")


def test_addresses_are_compared_with_their_case() -> None:
    """ADDR-4."""
    assert not is_prefix_of("g.Alice", "g.alice.1")
    assert not is_valid("Test.a")


def test_schemes_say_who_may_carry_an_address() -> None:
    """ADDR-5, ADDR-6, ADDR-7: peer is for the neighbour, test networks are apart, some never leave the house."""
    assert scheme_of("peer.config") == "peer"
    assert [scheme for scheme in SCHEMES if is_test(f"{scheme}.a")] == ["test", "test1", "test2", "test3"]
    assert not is_test("g.test")
    assert set(BOUNDED_SCHEMES) == {"self", "local", "private", "example"}


@pytest.mark.parametrize(
    "prefix, address, covered",
    [
        ("g.alice", "g.alice", True),
        ("g.alice", "g.alice.1", True),
        ("g.alice", "g.alicex", False),
        ("g.alice", "g.alic", False),
        ("g", "g.alice", True),
        ("test", "test1.a", False),
        ("", "g.alice", True),
        ("g.alice.1", "g.alice", False),
    ],
)
def test_prefixes_end_at_segments(prefix: str, address: str, covered: bool) -> None:
    """ADDR-8, ADDR-9."""
    assert is_prefix_of(prefix, address) is covered


def test_a_bare_scheme_and_the_default_are_prefixes_and_no_addresses() -> None:
    """ADDR-9."""
    for prefix in ("", "g", "test1"):
        assert is_valid_prefix(prefix)
        assert not is_valid(prefix)
    for text in ("x", "g.", "g\n", ".", "gx"):
        assert not is_valid_prefix(text)


def test_an_empty_destination_is_invalid() -> None:
    """ADDR-10."""
    with pytest.raises(CodecError, match="empty"):
        parse_address(b"", "destination")


def test_children_extend_the_address_up_to_the_limit() -> None:
    """ADDR-11."""
    assert append_segments("g.parent", "child", "x") == "g.parent.child.x"
    base = "g." + "a" * 1000
    assert len(append_segments(base, "b" * 20)) == ADDRESS_BYTES_MAX
    with pytest.raises(ValueError, match="longer than"):
        append_segments(base, "b" * 21)
    with pytest.raises(ValueError, match="not an ILP address"):
        append_segments("g.parent", "no dots. or spaces")


@given(st.binary(max_size=1100) | st.from_regex(rb"(g|test4?|peer)(\.[a-z0-9~_-]{0,3}){0,4}\n?"))
def test_any_bytes_give_an_address_or_a_codec_error(octets: bytes) -> None:
    """ADDR-1."""
    try:
        address = parse_address(octets)
    except CodecError:
        return
    assert is_valid(address)
    assert address.encode("ascii") == octets
