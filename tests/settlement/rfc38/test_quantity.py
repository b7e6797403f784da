"""Quantities, keys and ids as they stand on the wire."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.settling import QUANTITY_MAX
from isthmus.errors import CodecError
from isthmus.settlement.rfc38.quantity import (
    decode_quantity,
    encode_quantity,
    input_mark,
    is_account,
    is_key,
    kept_key,
)


@given(amount=st.integers(0, QUANTITY_MAX), scale=st.integers(0, 255))
def test_quantities_of_any_size_come_back(amount: int, scale: int) -> None:
    """SE-1, P-1."""
    assert decode_quantity(encode_quantity(amount, scale)) == (amount, scale)


def test_the_amount_is_a_string() -> None:
    """SE-1."""
    assert encode_quantity(2**64, 9) == b'{"amount":"18446744073709551616","scale":9}'


@pytest.mark.parametrize(
    "body, field",
    [
        (b"", "quantity"),
        (b"[]", "quantity"),
        (b"\xff", "quantity"),
        (b"[" * 4_000, "quantity"),
        (b'{"scale":9}', "amount"),
        (b'{"amount":5,"scale":9}', "amount"),
        (b'{"amount":"-5","scale":9}', "amount"),
        (b'{"amount":"5.0","scale":9}', "amount"),
        (b'{"amount":"5\\n","scale":9}', "amount"),
        ('{"amount":"٥","scale":9}'.encode(), "amount"),
        (b'{"amount":"' + b"9" * 78 + b'","scale":9}', "amount"),
        (b'{"amount":"5"}', "scale"),
        (b'{"amount":"5","scale":256}', "scale"),
        (b'{"amount":"5","scale":-1}', "scale"),
        (b'{"amount":"5","scale":"9"}', "scale"),
        (b'{"amount":"5","scale":true}', "scale"),
        (b'{"amount":"5","scale":9.0}', "scale"),
    ],
)
def test_what_is_no_quantity(body: bytes, field: str) -> None:
    """SE-1, P-2."""
    with pytest.raises(CodecError) as caught:
        decode_quantity(body)
    assert caught.value.field == field


@given(st.binary(max_size=200))
def test_any_bytes_give_a_quantity_or_a_codec_error(body: bytes) -> None:
    """SE-1."""
    with contextlib.suppress(CodecError):
        decode_quantity(body)


@pytest.mark.parametrize(
    "text, good",
    [
        ("a", True),
        ("a.b_c~d-9", True),
        ("x" * 128, True),
        ("", False),
        ("x" * 129, False),
        ("a/b", False),
        ("a b", False),
        ("a\n", False),
        ("é", False),
        (".", False),
        ("..", False),
        ("%2e", False),
    ],
)
def test_ids_are_url_safe(text: str, good: bool) -> None:
    """SE-6."""
    assert is_account(text) is good


def test_keys_are_text_without_spaces() -> None:
    """SE-7."""
    assert is_key("5f3b-…".replace("…", "x")) and is_key("x" * 255)
    assert not is_key("") and not is_key("x" * 256) and not is_key("a b") and not is_key("a\n")


def test_a_key_is_found_again_whatever_its_input() -> None:
    """SE-8."""
    assert kept_key("a") == kept_key("a") != kept_key("b")
    assert input_mark(100, 2) != input_mark(1, 0)
    assert len(kept_key("x" * 255) + input_mark(QUANTITY_MAX, 255)) <= 255
