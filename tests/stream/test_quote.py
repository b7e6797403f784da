"""Quotes: what probes find out, and that they can't move money."""

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from isthmus.stream.orders import Failure, Quote, QuoteFailed, QuoteReady
from isthmus.stream.settings import Settings

if TYPE_CHECKING:
    from tests.stream.conftest import Hop, MakeWorld, World


def quote(world: "World", *, source: int = 0, destination: int = 0) -> Quote:
    world.alice.connection.start_quote(source=source, destination=destination)
    world.run(60_000, until=lambda: bool(world.alice.told(QuoteReady) or world.alice.told(QuoteFailed)))
    return world.alice.first(QuoteReady).quote


def refusal(world: "World", *, source: int = 0, destination: int = 0) -> QuoteFailed:
    world.alice.connection.start_quote(source=source, destination=destination)
    world.run(90_000, until=lambda: bool(world.alice.told(QuoteReady) or world.alice.told(QuoteFailed)))
    return world.alice.first(QuoteFailed)


def test_a_quote_for_a_source_amount(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-11: probes are unfulfillable; the minimum is the caller's."""
    hops = [make_hop(rate=Fraction(25), maximum=10_000), make_hop(rate=Fraction(999, 1000))]
    world = make_world(hops=hops, minimum=Fraction(24))
    found = quote(world, source=1_000_000)
    assert found.source_amount == found.source_max == 1_000_000
    assert found.rate == Fraction(249_750, 10_000)
    assert found.destination_amount == 24_975_000
    assert found.destination_minimum == 23_999_999
    assert found.packet_max == 10_000
    assert world.posted == world.arrived == 0


def test_a_quote_for_a_destination_amount(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(rate=Fraction(25), maximum=10_000)], minimum=Fraction(24))
    found = quote(world, destination=25_000_000)
    assert found.source_amount == 1_000_000
    assert found.destination_amount == found.destination_minimum == 25_000_000
    assert found.source_max == -(-25_000_000 // 24)


def test_a_quote_without_a_minimum_promises_nothing(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(rate=Fraction(2))], minimum=None)
    found = quote(world, source=5_000)
    assert (found.destination_amount, found.destination_minimum) == (10_000, 0)
    assert found.packet_max is None


def test_a_quote_without_an_amount(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(rate=Fraction(2), maximum=123_456)])
    found = quote(world)
    assert found.rate == 2
    assert found.packet_max == 123_456


def test_a_quote_below_the_minimum_fails_before_money_moves(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-11."""
    world = make_world(hops=[make_hop(rate=Fraction(2))], minimum=Fraction(21, 10))
    failed = refusal(world, source=5_000)
    assert failed.failure is Failure.RATE_TOO_LOW
    assert failed.quote is not None
    assert failed.quote.rate == 2
    assert world.posted == 0


@pytest.mark.parametrize(
    "code, failure",
    [
        ("F02", Failure.NO_ROUTE),
        ("T04", Failure.NO_LIQUIDITY),
        ("F00", Failure.PATH_ERROR),
        ("R01", Failure.TOO_SMALL),
        ("F42", Failure.PATH_ERROR),
        ("T42", Failure.PATH_ERROR),
        ("R02", Failure.PATH_ERROR),
    ],
)
def test_a_quote_fails_with_a_reason(
    make_world: "MakeWorld", make_hop: "type[Hop]", code: str, failure: Failure
) -> None:
    """ILP-18 (unknown codes go by their letter), ILP-19 (R is retried boundedly)."""
    world = make_world(hops=[make_hop(refuse=code)])
    failed = refusal(world, source=5_000)
    assert failed.failure is failure
    assert failed.code == code
    assert len(world.alice.prepares) < 40


def test_a_quote_with_scarce_liquidity_probes_less(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(rate=Fraction(3), liquidity=1_000)], minimum=Fraction(29, 10))
    found = quote(world, source=1_000_000)
    assert 2 < found.rate <= 3


def test_a_quote_for_a_huge_destination_amount_at_scale_18(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """P-1."""
    world = make_world(hops=[make_hop(rate=Fraction(10**9))], minimum=Fraction(10**9))
    found = quote(world, destination=3 * 10**20)
    assert found.source_amount == 3 * 10**11


def test_a_quote_takes_few_round_trips(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(maximum=10_000)])
    started = world.now
    quote(world, source=10**9)
    assert world.now - started <= 3 * 20


def test_a_quote_while_nobody_answers(make_world: "MakeWorld") -> None:
    world = make_world(alice=Settings(stall_ms=5_000, timeout_ms=2_000))
    world.lose = lambda prepare: True
    assert refusal(world, source=100).failure is Failure.NO_ANSWER


def test_quoting_asks_for_no_grant(make_world: "MakeWorld") -> None:
    world = make_world()
    world.alice.connection.grant(0, 0)
    quote(world, source=100)
    assert world.alice.grants == 0


def test_a_rate_that_only_tiny_packets_told_is_asked_for_again(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """A connector that has just been paid has liquidity a moment later: three units that came as seven are no rate."""
    world = make_world(hops=[make_hop(rate=Fraction(251, 100), liquidity=20)], minimum=Fraction(25, 10))
    world.alice.connection.start_quote(source=1_000_000)
    world.run(300)
    assert not world.alice.told(QuoteReady) and not world.alice.told(QuoteFailed)
    world.hops[0].liquidity = None
    world.run(60_000, until=lambda: bool(world.alice.told(QuoteReady) or world.alice.told(QuoteFailed)))
    assert world.alice.first(QuoteReady).quote.rate > Fraction(2505, 1000)


def test_a_path_that_only_ever_has_room_for_a_little_is_quoted_all_the_same(
    make_world: "MakeWorld", make_hop: "type[Hop]"
) -> None:
    world = make_world(hops=[make_hop(rate=Fraction(2), liquidity=20)])
    found = quote(world, source=1_000_000)
    assert found.rate == 2
