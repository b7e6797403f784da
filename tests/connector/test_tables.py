"""Terms, routes and rates: what the operator may say, and what follows from it."""

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.connector.events import AccountId
from isthmus.connector.tables import HOLD_MS_LIMIT, RateTable, RouteTable, Tables
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms

ALICE = AccountId("alice")
BOB = AccountId("bob")


def test_prefixes_end_on_segments() -> None:
    """ADDR-8, ADDR-9, ADDR-4: bare schemes and the empty default are prefixes."""
    routes = RouteTable({"": BOB, "g": ALICE, "g.far.away": BOB})
    assert routes.find(b"g.far.away.x.y") == (b"g.far.away", BOB)
    assert routes.find(b"g.far.awayx") == (b"g", ALICE)
    assert routes.find(b"g.far") == (b"g", ALICE)
    assert routes.find(b"gx.far") == (b"", BOB)
    assert routes.lookup(b"G.far") == BOB


def test_without_a_default_there_may_be_no_route() -> None:
    """CONN-12, ADDR-8."""
    assert RouteTable({"g.far": ALICE}).lookup(b"g.other") is None
    assert RouteTable({}).lookup(b"g.other") is None


def test_a_hundred_thousand_prefixes() -> None:
    """ADDR-8."""
    routes = RouteTable({f"g.n{number}.x": AccountId(f"a{number % 7}") for number in range(100_000)})
    assert routes.lookup(b"g.n99999.x.token") == "a4"
    assert routes.lookup(b"g.n99999.y.token") is None
    assert routes.lookup(b"g.n1.x" + b".s" * 508) == "a1"


@pytest.mark.parametrize("prefix", ["g.", ".g", "what", "g..a", "g.a b", "peer", "peer.config"])
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    """ADDR-9, ADDR-5, PEER-5."""
    with pytest.raises(ConfigError):
        RouteTable({prefix: ALICE})


@pytest.mark.parametrize(
    "changes",
    [
        {"relation": "friend"},
        {"receivable_max": -1},
        {"payable_max": -1},
        {"packet_amount_max": -1},
        {"packets_per_minute": 0},
        {"packets_burst": 0},
        {"amount_per_second": 0},
        {"amount_burst": 0},
        {"expiry_margin_ms": -1},
        {"expiry_margin_ms": 30_000},
        {"hold_ms_max": HOLD_MS_LIMIT + 1},
        {"open_legs_max": 0},
        {"inbox_max": 0},
        {"prepares_per_batch_max": 0},
        {"child_address": "not an address"},
        {"ildcp_server": True},
        {"ildcp_client": True},
    ],
)
def test_terms_that_can_not_work_are_refused(make_terms: "MakeTerms", changes: dict[str, Any]) -> None:
    """CONN-14, CONN-9: with key and remedy."""
    with pytest.raises(ConfigError, match=r"accounts\.alice"):
        make_terms("alice", **changes).check()


def test_tables_that_contradict_themselves_are_refused(make_terms: "MakeTerms") -> None:
    """CONN-14, ADDR-1: two parents, an unknown account, our own address."""
    rates, none = RateTable({}), RouteTable({})
    parents = {AccountId(name): make_terms(name, relation="parent", ildcp_client=True) for name in ("p", "q")}
    for tables in (
        Tables("test.x", parents, none, rates),
        Tables("test.x", {}, RouteTable({"": ALICE}), rates),
        Tables("nonsense", {}, none, rates),
    ):
        with pytest.raises(ConfigError):
            tables.check()


def test_rates_go_both_ways_and_know_scales(make_terms: "MakeTerms") -> None:
    """CONN-11, CONN-2."""
    rates = RateTable({("BTC", "USD"): Fraction(60_000)})
    btc, usd = make_terms("a", asset=Asset("BTC", 8)), make_terms("b", asset=Asset("USD", 9))
    there, back = rates.conversion(btc, usd), rates.conversion(usd, btc)
    assert there is not None
    assert back is not None
    assert there.outgoing(1) == 600_000
    assert back.outgoing(600_000) == 1
    assert back.outgoing(599_999) == 0
    assert rates.conversion(btc, make_terms("c", asset=Asset("XAM", 1))) is None


def test_the_spread_is_that_of_the_pair_or_the_account(make_terms: "MakeTerms") -> None:
    """CONN-11."""
    rates = RateTable(
        {("USD", "EUR"): Fraction(1)},
        spread=Fraction(1, 100),
        pair_spreads={("USD", "EUR"): Fraction(2, 100)},
        account_spreads={AccountId("gold"): Fraction(0)},
    )
    usd, eur, gold = make_terms("u"), make_terms("e", asset=Asset("EUR", 9)), make_terms("gold")
    local = make_terms("here", relation="local")

    def kept(source: Any, target: Any) -> int:
        conversion = rates.conversion(source, target)
        assert conversion is not None
        return 10_000 - conversion.outgoing(10_000)

    assert kept(usd, eur) == 200
    assert kept(usd, replace(usd, id=AccountId("v"))) == 100
    assert kept(usd, gold) == 0
    assert kept(gold, usd) == 0
    assert kept(usd, local) == 0


@pytest.mark.parametrize("spread", [Fraction(-1, 100), Fraction(51, 100)])
def test_absurd_spreads_and_rates_are_refused(spread: Fraction) -> None:
    """CONN-11."""
    with pytest.raises(ConfigError):
        RateTable({}, spread=spread)
    with pytest.raises(ConfigError):
        RateTable({("A", "B"): Fraction(0)})


def test_equal_tables_give_equal_bytes(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    one, other = make_terms("alice"), make_terms("bob")
    assert make_node(one, other).tables.encode() == make_node(other, one).tables.encode()
    assert make_node(one).tables.encode() != make_node(replace(one, payable_max=3)).tables.encode()


@pytest.mark.parametrize(
    ("own", "destination", "allowed"),
    [
        ("g.us", "g.x", True),
        ("g.us", "test.x", False),
        ("test.us", "g.x", False),
        ("test1.us", "test.x", True),
        ("g.us", "private.x", False),
        ("private.us", "private.x", True),
        ("private.us", "g.x", False),
        ("example.us", "example.x", True),
        ("g.us", "self.x", False),
        ("g.us", "peer.config", False),
        ("", "g.x", True),
        ("", "local.x", False),
        ("g.us", "g..x", False),
    ],
)
def test_which_addresses_are_carried(own: str, destination: str, allowed: bool) -> None:
    """ADDR-5, ADDR-6, ADDR-7."""
    assert Tables(own, {}, RouteTable({}), RateTable({})).allows(destination) is allowed
