"""What a payment is to be."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.client.streams import as_fraction, base_rate, whole_rate
from isthmus.client.terms import Minimum, PaymentRequest, offer
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.stream.orders import Quote

BTC = Asset("BTC", 8)
ETH = Asset("ETH", 9)
rates = st.fractions(min_value=0, max_value=10**12)
assets = st.builds(Asset, st.sampled_from(["BTC", "ETH", "USD"]), st.integers(0, 30))


def a_request(amount: int | str = "0.01", *, deliver: bool = False, minimum: Minimum | None = None) -> PaymentRequest:
    return PaymentRequest(target="$bob.example", amount=amount, deliver=deliver, minimum=minimum)


def a_quote(source: int = 1_000_000, destination: int = 250_000_000) -> Quote:
    return Quote(source, destination, 0, source, Fraction(destination, source), None)


# --- rates -----------------------------------------------------------------------------------------------------------


@given(rates, assets, assets)
def test_rates_keep_their_exact_value_between_whole_and_base_units(rate: Fraction, one: Asset, other: Asset) -> None:
    """CONN-11: fractions, never floats."""
    assert whole_rate(base_rate(rate, one, other), one, other) == rate


def test_scales_are_part_of_a_base_rate() -> None:
    assert base_rate(Fraction(49, 2), BTC, ETH) == 245


@pytest.mark.parametrize("rate", ["-1", "x", "", "1" * 101, -3, "nan", "inf"])
def test_what_is_no_rate_is_refused(rate: str | int) -> None:
    with pytest.raises(ValueError):
        as_fraction(rate)


@pytest.mark.parametrize(("rate", "value"), [("24.5", Fraction(49, 2)), ("1/3", Fraction(1, 3)), (7, Fraction(7))])
def test_rates_are_read_exactly(rate: str | int, value: Fraction) -> None:
    assert as_fraction(rate) == value


# --- minimum rates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minimum", "rate"),
    [
        (Minimum(rate=Fraction(24)), Fraction(24)),
        (Minimum(price=Fraction(25)), Fraction(99, 4)),
        (Minimum(price=Fraction(25), slippage=Fraction(0)), Fraction(25)),
        (Minimum(prices={"BTC": Fraction(100), "ETH": Fraction(4)}, slippage=Fraction(1, 10)), Fraction(45, 2)),
    ],
)
def test_the_minimum_is_the_rate_or_the_price_less_the_slippage(minimum: Minimum, rate: Fraction) -> None:
    assert minimum.whole(BTC, ETH) == rate


@pytest.mark.parametrize("prices", [{}, {"BTC": Fraction(1)}, {"BTC": Fraction(1), "ETH": Fraction(0)}])
def test_a_missing_price_is_a_mistake(prices: dict[str, Fraction]) -> None:
    with pytest.raises(ConfigError, match="no price of"):
        Minimum(prices=prices).whole(BTC, ETH)


# --- offers ----------------------------------------------------------------------------------------------------------


def test_an_offer_names_the_least_that_arrives_and_the_most_that_leaves() -> None:
    found = offer(a_request(minimum=Minimum(rate=Fraction(24))), a_quote(), BTC, ETH)
    assert (found.destination_minimum, found.source_max, found.is_enough) == (239_999_999, 1_000_000, True)
    delivered = offer(a_request("0.25", deliver=True, minimum=Minimum(rate=Fraction(24))), a_quote(), BTC, ETH)
    assert (delivered.destination_minimum, delivered.source_max) == (250_000_000, 1_041_667)


@pytest.mark.parametrize(("rate", "enough"), [("25", True), ("25.0000001", False), ("26", False), ("0", True)])
def test_an_offer_is_compared_with_the_minimum(rate: str, enough: bool) -> None:
    assert offer(a_request(minimum=Minimum(rate=as_fraction(rate))), a_quote(), BTC, ETH).is_enough is enough


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.0100", "0.01", True),
        ("0.01 BTC", "00.01", True),
        ("0.01", "0.001", False),
        ("10", "1", False),
        (10, "10", False),
    ],
)
def test_terms_are_the_same_for_the_same_amount(one: int | str, other: int | str, same: bool) -> None:
    assert (a_request(one).terms() == a_request(other).terms()) is same


def test_a_minimum_is_part_of_the_terms_only_if_it_was_a_number() -> None:
    """A price moves between two tries of the same payment; what the user wrote doesn't."""
    assert (
        a_request(minimum=Minimum(price=Fraction(1))).terms() == a_request(minimum=Minimum(price=Fraction(2))).terms()
    )
    assert a_request(minimum=Minimum(rate=Fraction(1))).terms() != a_request(minimum=Minimum(rate=Fraction(2))).terms()


@given(
    st.builds(
        PaymentRequest,
        target=st.text(max_size=20),
        amount=st.integers(1, 2**80) | st.text(max_size=20),
        deliver=st.booleans(),
        minimum=st.none()
        | st.builds(Minimum, rate=rates)
        | st.builds(Minimum, prices=st.dictionaries(st.text(max_size=4), rates), slippage=st.just(Fraction(1, 3))),
        key=st.text(max_size=20),
        secret=st.binary(max_size=32),
    )
)
def test_requests_survive_the_socket(request_: PaymentRequest) -> None:
    assert PaymentRequest.from_json(json.loads(json.dumps(request_.to_json()))) == request_


@pytest.mark.parametrize("key", ["x" * 201, "a\nb", "\x07"])
def test_keys_that_can_t_be_shown_are_mistakes(key: str) -> None:
    with pytest.raises(ConfigError, match="key"):
        PaymentRequest(target="$b.example", amount=1, key=key).check()
