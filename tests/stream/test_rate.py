"""Rates as exact integers."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.ilp.packet import AMOUNT_MAX
from isthmus.stream.rate import COARSE_REPLIES_MAX, MinimumRate, PathRate, minimum_rate

RATES = st.fractions(min_value=0, max_value=10**12, max_denominator=10**12)


@given(rate=RATES, amount=st.integers(0, AMOUNT_MAX))
def test_the_minimum_is_exact_and_rounded_up(rate: Fraction, amount: int) -> None:
    """STREAM-10."""
    least = MinimumRate(rate).destination(amount)
    assert least >= amount * rate > least - 1


@given(rate=RATES)
def test_the_largest_amount_has_a_minimum_that_fits_a_packet(rate: Fraction) -> None:
    """P-1."""
    minimum = MinimumRate(rate)
    assert minimum.destination(minimum.amount_max()) <= AMOUNT_MAX
    if rate > 1:
        assert minimum.destination(minimum.amount_max() + 1) > AMOUNT_MAX


@given(rate=RATES, amount=st.integers(1, AMOUNT_MAX))
def test_alignment_costs_at_most_a_hundredth_and_makes_minima_whole(rate: Fraction, amount: int) -> None:
    aligned = MinimumRate(rate).align(amount)
    assert amount * 99 <= aligned * 100 <= amount * 100
    assert aligned == amount or (aligned * rate).denominator == 1


def test_slippage_is_taken_off_exactly() -> None:
    assert minimum_rate(Fraction(25), Fraction(1, 100)) == Fraction(99, 4)
    assert minimum_rate(Fraction(1, 3), Fraction(0)) == Fraction(1, 3)
    for price, slippage in ((Fraction(-1), Fraction(0)), (Fraction(1), Fraction(1)), (Fraction(1), Fraction(-1, 9))):
        with pytest.raises(ValueError, match="slippage"):
            minimum_rate(price, slippage)
    with pytest.raises(ValueError, match="negative"):
        MinimumRate(Fraction(-1))


def test_one_unit_may_be_lost_to_rounding_and_no_more() -> None:
    minimum = MinimumRate(Fraction(99, 100))
    assert minimum.accepts(100, 99)
    assert minimum.accepts(10, 9)  # 9.9
    assert not minimum.accepts(100, 98)


@given(
    rate=st.fractions(min_value=Fraction(1, 10**9), max_value=10**9, max_denominator=10**9),
    seen=st.integers(1, 10**12),
    amount=st.integers(1, 10**12),
)
def test_estimates_enclose_what_is_delivered(rate: Fraction, seen: int, amount: int) -> None:
    path = PathRate()
    path.observe(seen, int(seen * rate))
    delivered = int(amount * rate)
    assert path.expected(amount) <= delivered <= path.expected_max(amount)


@given(
    rate=st.fractions(min_value=Fraction(1, 10**6), max_value=10**6, max_denominator=10**6),
    seen=st.integers(10**7, 10**12),
    wanted=st.integers(1, 10**9),
)
def test_the_source_amount_for_a_destination_is_enclosed(rate: Fraction, seen: int, wanted: int) -> None:
    path = PathRate()
    path.observe(seen, int(seen * rate))
    assert int(path.source_max(wanted) * rate) >= wanted
    assert int((path.source_min(wanted) - 1) * rate) < wanted


def test_a_coarse_observation_replaces_an_exact_one_only_after_a_while() -> None:
    path = PathRate()
    path.observe(1_000_000, 2_000_000)
    for _ in range(COARSE_REPLIES_MAX):
        path.observe(3, 5)
    assert path.fraction() == 2
    path.observe(3, 5)
    assert path.fraction() == Fraction(5, 3)
    path.observe(0, 0)
    path.forget()
    assert not path.known
    assert (path.expected(5), path.expected_max(5), path.fraction()) == (0, 0, Fraction(0))


def test_the_best_rate_is_that_of_the_largest_packets() -> None:
    path = PathRate()
    assert path.best_max(1_000) == 0
    for amount, received in ((10, 30), (1_000, 1_980), (900, 1_790), (800, 1_500), (400, 900)):
        path.observe(amount, received)
    assert path.best_max(900) == 1_791
