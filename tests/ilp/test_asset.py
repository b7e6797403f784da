"""Amounts as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.ilp.asset import AMOUNT_TEXT_MAX, Asset, format_amount, format_decimal, parse_amount

BTC = Asset("BTC", 8)


@pytest.mark.parametrize(
    "amount, scale, text",
    [
        (1_500_000, 8, "0.015"),
        (0, 8, "0"),
        (1, 8, "0.00000001"),
        (100_000_000, 8, "1"),
        (-5, 2, "-0.05"),
        (7, 0, "7"),
        (2**64 - 1, 18, "18.446744073709551615"),
        (2**63, 9, "9223372036.854775808"),
        (120, 1, "12"),
    ],
)
def test_amounts_are_exact_decimals(amount: int, scale: int, text: str) -> None:
    """P-1."""
    assert format_decimal(amount, scale) == text
    if amount >= 0:
        assert parse_amount(text, Asset("X", scale)) == amount


def test_amounts_carry_their_unit() -> None:
    assert format_amount(1_500_000, BTC) == "0.015 BTC"
    assert parse_amount("0.015 BTC", BTC) == 1_500_000
    assert parse_amount(" 1.50  BTC ", BTC) == 150_000_000
    with pytest.raises(ValueError, match="in USD, not in BTC"):
        parse_amount("1 USD", BTC)


def test_too_many_decimals_are_refused_with_the_smallest_amount() -> None:
    with pytest.raises(ValueError, match=r"9 decimals, but BTC has 8 here: the smallest amount is 0\.00000001 BTC"):
        parse_amount("0.000000001", BTC)
    # Zeros say nothing new.
    assert parse_amount("0.0000000100000", BTC) == 1


@pytest.mark.parametrize(
    "text", ["", " ", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "1_000", "0x10", "٣", "1.2.3", "nan", "½"]
)
def test_what_is_not_plain_digits_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount"):
        parse_amount(text, BTC)


def test_an_amount_has_a_bounded_length() -> None:
    assert parse_amount("0" * (AMOUNT_TEXT_MAX - 1) + "1", BTC) == 10**8
    with pytest.raises(ValueError, match="at most"):
        parse_amount("0" * AMOUNT_TEXT_MAX + "1", BTC)


def test_scales_are_one_byte() -> None:
    assert Asset("X", 255).scale == 255
    for scale in (-1, 256):
        with pytest.raises(ValueError, match="scale"):
            Asset("X", scale)


@given(st.integers(0, 2**80), st.integers(0, 255))
def test_amounts_round_trip_through_text(amount: int, scale: int) -> None:
    """P-1."""
    asset = Asset("ETH", scale)
    assert parse_amount(format_amount(amount, asset), asset) == amount
