"""What ways cost, as neighbours tell it: added hop by hop, believed within a range, and good for breaking ties only."""

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.events import AccountId
from isthmus.connector.routing.price import (
    PPM,
    PRICE_BYTES,
    PRICE_MAX,
    PRICE_PROP,
    add_prices,
    ppm_of,
    read_price,
    spread_of,
    without_price,
    write_price,
)
from isthmus.connector.routing.rib import Rib, Source
from isthmus.connector.tables import RateTable
from isthmus.ilp.ccp import Route, RouteProp, route_bytes

if TYPE_CHECKING:
    from tests.connector.routing.conftest import Net, Spoken


def test_a_price_is_read_as_it_was_written() -> None:
    """CCP-5."""
    for ppm in (0, 1, 2_500, PRICE_MAX):
        assert read_price((write_price(ppm),)) == ppm
    route = Route("test.x", (), bytes(32), ())
    assert route_bytes(replace(route, props=(write_price(7),))) - route_bytes(route) == PRICE_BYTES


@pytest.mark.parametrize(
    "value", [b"", b"\x00\x00\x00\x07", b"isthmus ppm \x00\x00\x07", b"isthmus ppm \xff\xff\xff\xff"]
)
def test_others_properties_and_absurd_prices_are_unknown(value: bytes) -> None:
    """CCP-5: missing is unknown, never zero."""
    prop = RouteProp(PRICE_PROP, value, is_optional=True, is_transitive=True, is_partial=False, is_utf8=False)
    other = replace(write_price(7), id=9)
    assert read_price((prop,)) is None
    assert read_price((other,)) is None
    assert read_price(()) is None
    assert without_price((prop, other)) == (other,)


@given(st.integers(0, PRICE_MAX), st.integers(0, PRICE_MAX))
def test_two_hops_keep_what_both_keep(first: int, second: int) -> None:
    exact = 1 - (1 - Fraction(first, PPM)) * (1 - Fraction(second, PPM))
    assert 0 <= Fraction(add_prices(first, second), PPM) - exact < Fraction(1, PPM)


def test_a_spread_in_ppm_is_rounded_up(make_spoken: "Spoken") -> None:
    table = RateTable({}, spread=Fraction(1, 3_000_000))
    conversion = table.conversion(make_spoken("a"), make_spoken("b"))
    assert conversion is not None
    assert spread_of(conversion) == ppm_of(Fraction(1, 3_000_000)) == 1
    assert ppm_of(Fraction(1, 500)) == 2_000


def test_a_price_breaks_ties_within_policy_only() -> None:
    """CCP-18: not before preference, relation and length; unknown comes last."""
    rib = Rib()
    path = ("test.a", "test.x")
    told = [("amy", None), ("bob", 3_000), ("carl", 2_000), ("dan", 2_000)]
    sources = {name: Source(AccountId(name), "peer", 0) for name, _ in told}
    for name, ppm in told:
        rib.put(sources[name], Route("test.x", path, bytes(32), () if ppm is None else (write_price(ppm),)))
    chosen = []
    for _ in told:
        best = rib.choose("test.x", 0)
        assert best is not None
        chosen.append(best.source.account)
        rib.remove(best.source, "test.x")
    assert chosen == ["carl", "dan", "bob", "amy"]
    rib.put(sources["amy"], Route("test.x", path, bytes(32), (write_price(0),)))
    rib.put(sources["bob"], Route("test.x", path[:1], bytes(32), ()))
    best = rib.choose("test.x", 0)
    assert best is not None
    assert best.source.account == "bob"  # the shorter path, whatever the other tells


def test_our_own_spread_counts_too() -> None:
    rib = Rib()
    for name, spread_ppm, ppm in (("bob", 5_000, 1_000), ("carl", 0, 2_000)):
        rib.put(Source(AccountId(name), "peer", 0, spread_ppm), Route("test.x", (), bytes(32), (write_price(ppm),)))
    best = rib.choose("test.x", 0)
    assert best is not None
    assert best.source.account == "carl"


def diamond(net: "Net", spoken: "Spoken") -> None:
    """From `a` to `d` over `b`, who keeps 1 %, or over `c`, who keeps 0.1 %."""
    net.add("a", spoken("b"), spoken("c"))
    net.add("b", spoken("a"), spoken("d"), spread=Fraction(1, 100))
    net.add("c", spoken("a"), spoken("d"), spread=Fraction(1, 1_000))
    net.add("d", spoken("b"), spoken("c"), spread=Fraction(1, 200))
    for pair in ("ab", "ac", "bd", "cd"):
        net.link(*pair)
    net.run(2_000)


def test_the_cheaper_of_two_equal_ways_is_taken(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-18, CCP-5: each hop adds what it keeps between the two accounts."""
    diamond(net, make_spoken)
    assert net.hop("a", "test.d.x") == "c"
    router = net.kernels["a"].switch.router
    assert {one.source.account: one.price for one in router.rib.candidates("test.d")} == {"b": 10_000, "c": 1_000}


def test_a_changed_spread_is_told(net: "Net", make_spoken: "Spoken") -> None:
    diamond(net, make_spoken)
    net.change("c", replace(net.tables["c"], rates=RateTable({}, spread=Fraction(2, 100))))
    net.run(1_000)
    assert net.hop("a", "test.d.x") == "b"


def test_beyond_a_node_that_drops_it_the_price_is_unknown(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-5: as behind an ilp-connector."""
    names = ("a", "b", "c", "d")
    for before, name, after in zip(("", *names[:-1]), names, (*names[1:], ""), strict=True):
        net.add(name, *[make_spoken(one) for one in (before, after) if one], spread=Fraction(1, 100))
    for pair in ("ab", "bc", "cd"):
        net.link(*pair)
    net.run(2_000)
    [found] = net.kernels["a"].switch.router.rib.candidates("test.d")
    assert found.price == 19_900
    rib = net.kernels["b"].switch.router.rib
    [known] = rib.candidates("test.d")
    rib.put(known.source, replace(known.route, props=()))
    net.tell("b")
    net.run(1_000)
    [found] = net.kernels["a"].switch.router.rib.candidates("test.d")
    assert found.price is None
