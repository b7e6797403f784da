"""What is said of a hop, for `isthmus routes show --why`."""

import pytest

from isthmus.connector.events import AccountId
from isthmus.connector.routing.price import write_price
from isthmus.connector.routing.records import Record
from isthmus.connector.routing.rests import REST_MS_FIRST, Rests
from isthmus.connector.routing.rib import Candidate, Rib, Source
from isthmus.connector.routing.splits import SCARCE_MS_FIRST, Splits
from isthmus.connector.routing.unsteady import RETURNS, UNSTEADY_MS
from isthmus.ilp.ccp import Route
from isthmus.node.routes_view import facts, unsteadiness

X = "test.x"


@pytest.fixture
def rib() -> Rib:
    """Bob tells a price of 1,000 ppm, Carl none; we keep 500 of packets to each."""
    rib = Rib()
    rib.put(Source(AccountId("bob"), "peer", 0, 500), Route(X, (), bytes(32), (write_price(1_000),)))
    rib.put(Source(AccountId("carl"), "peer", 0, 500), Route(X, (), bytes(32), ()))
    return rib


def hop(rib: Rib, name: str) -> Candidate:
    return next(one for one in rib.candidates(X) if one.source.account == name)


def test_a_price_is_told_with_what_we_keep(rib: Rib) -> None:
    assert facts(hop(rib, "bob"), 0) == ["tells 1500 ppm, with what we keep"]
    assert facts(hop(rib, "carl"), 0) == ["tells no price"]


def test_what_packets_showed_is_told_until_it_is_forgotten(rib: Rib) -> None:
    record = rib.note(hop(rib, "bob")).record = Record(0)
    record.fulfilled(100, 0)
    for _ in range(16):
        record.failed(0, is_short=True)
    said = facts(hop(rib, "bob"), 0)
    assert said[1:] == ["packets showed 16 fulfilled and 16 refused of late, in 100 ms: 5000 ppm"]
    assert facts(hop(rib, "bob"), 10**7) == ["tells 1500 ppm, with what we keep"]


def test_a_rest_is_told_as_long_as_it_lasts(rib: Rib) -> None:
    Rests().failed(rib, hop(rib, "carl"), 100)
    assert facts(hop(rib, "carl"), 101)[1:] == [f"rests for {REST_MS_FIRST - 1} ms more, after a failure"]
    assert facts(hop(rib, "carl"), 100 + REST_MS_FIRST)[1:] == []


def test_a_lack_of_liquidity_is_told_as_long_as_it_counts(rib: Rib) -> None:
    rib.put(Source(AccountId("dora"), "peer", 0, 500), Route(X, (), bytes(32), (write_price(1_000),)))
    splits = Splits()
    splits.within_ppm = 2_000
    assert splits.begin(rib, X.encode(), "bob", 100)
    assert facts(hop(rib, "bob"), 101)[1:] == [f"lacked liquidity, and is left out for {SCARCE_MS_FIRST - 1} ms"]
    assert facts(hop(rib, "bob"), 100 + SCARCE_MS_FIRST)[1:] == []
    assert facts(hop(rib, "dora"), 101)[1:] == []


def test_a_prefix_that_goes_back_and_forth_is_told_as_long_as_it_is_unsteady(rib: Rib) -> None:
    assert unsteadiness(rib, X, 0) == ""
    for relation in [2, 1] * RETURNS:
        rib.unsteady.changed(X, (0, relation), 0)
    assert "(6 times in a row): for 299 s more" in unsteadiness(rib, X, 1_500)
    assert unsteadiness(rib, X, UNSTEADY_MS) == ""
