"""Numbers from text and cross rates: exact, bounded, and always the same."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.node.rates.exact import (
    DIGITS_MAX,
    RATE_MAX,
    RATE_MIN,
    AnswerError,
    cross,
    decimal_text,
    read_rate,
    split_pair,
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1.0705", Fraction(10705, 10_000)),
        ("0.1", Fraction(1, 10)),
        ("64253.40000", Fraction(642534, 10)),
        ("4.373e-1", Fraction(4373, 10_000)),
        ("1E+3", Fraction(1000)),
        (" 7 ", Fraction(7)),
        ("1e30", RATE_MAX),
        ("1e-30", RATE_MIN),
        ("9" * DIGITS_MAX, Fraction(int("9" * DIGITS_MAX))),
    ],
)
def test_a_number_is_read_as_it_is_written(text: str, rate: Fraction) -> None:
    """P-1: no float on the way."""
    assert read_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0.000", "0e5", "-1", "+1", "NaN", "nan", "inf", "Infinity", "1e400", "1e31", "9e30", "1e-31"),
        *("1e-400", "1,5", "1.5.2", ".5", "5.", "0x10", "1_000", "１", "1 2", "true", "9" * (DIGITS_MAX + 1)),
        "1" * 100_000,
    ],
)
def test_what_is_no_price_is_refused(text: str) -> None:
    """P-1, P-9: in a few words, however long it is."""
    with pytest.raises(AnswerError) as raised:
        read_rate(text)
    assert len(str(raised.value)) < 150


@given(st.text(max_size=100))
def test_any_text_is_a_positive_rate_or_refused(text: str) -> None:
    """P-9."""
    try:
        rate = read_rate(text)
    except AnswerError:
        return
    assert RATE_MIN <= rate <= RATE_MAX


QUOTES = {("EUR", "USD"): Fraction("1.0705"), ("EUR", "CHF"): Fraction("0.9634"), ("BTC", "EUR"): Fraction(60_000)}


def test_cross_rates_are_exact_and_go_one_way() -> None:
    """CONN-11: direct, then inverse, then through the source's own currency."""
    assert cross(QUOTES, "EUR", "USD", None) == Fraction("1.0705")
    assert cross(QUOTES, "USD", "EUR", None) == Fraction(2000, 2141)
    assert cross(QUOTES, "USD", "CHF", "EUR") == Fraction(9634, 10705)
    assert cross(QUOTES, "BTC", "USD", "EUR") == Fraction(64_230)
    assert cross(QUOTES, "USD", "BTC", "EUR") == Fraction(1, 64_230)
    assert cross(QUOTES, "USD", "CHF", None) is None
    assert cross(QUOTES, "USD", "XAM", "EUR") is None
    both = {**QUOTES, ("USD", "CHF"): Fraction(2)}
    assert cross(both, "USD", "CHF", "EUR") == 2
    assert cross(both, "CHF", "USD", "EUR") == Fraction(1, 2)


@given(st.fractions(RATE_MIN, RATE_MAX), st.fractions(RATE_MIN, RATE_MAX))
def test_there_and_back_is_where_one_was(one: Fraction, other: Fraction) -> None:
    quotes = {("A", "X"): one, ("B", "X"): other}
    there, back = cross(quotes, "A", "B", "X"), cross(quotes, "B", "A", "X")
    assert there is not None and back is not None and there * back == 1


@given(st.fractions(RATE_MIN, RATE_MAX))
def test_what_people_are_shown_is_never_above_the_rate(rate: Fraction) -> None:
    shown = Fraction(decimal_text(rate))
    assert shown <= rate
    assert rate - shown <= rate / 10**11


def test_pairs_are_two_codes() -> None:
    assert split_pair("BTC/USD") == ("BTC", "USD")
    for text in ("BTCUSD", "/USD", "BTC/", "A/B/C", "", "/", " /A"):
        assert split_pair(text) is None
