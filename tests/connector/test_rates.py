"""Rates that change while packets pass, and pairs that are stopped."""

import json
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.connector.events import AccountId, Log, TablesTaken
from isthmus.connector.record import RatesEntry, SettingChanged, decode_record
from isthmus.connector.replay import Replay
from isthmus.connector.tables import (
    RATES_BYTES_MAX,
    RatesChanged,
    RateTable,
    RouteTable,
    Tables,
    TablesChanged,
    rates_of,
    with_rates,
)
from isthmus.errors import CodecError, ConfigError
from isthmus.ilp.asset import Asset

if TYPE_CHECKING:
    from tests.connector.conftest import MakeTerms, Node

USD_EUR = ("USD", "EUR")
STALE = "its rate is too old"


def stopped(rate: str | None = "0.9") -> RateTable:
    return RateTable({} if rate is None else {USD_EUR: Fraction(rate)}, stopped={USD_EUR: STALE})


@pytest.mark.parametrize("rate", ["0.9", None])
def test_packets_in_a_stopped_pair_get_t01_and_pass_again_with_a_rate(trader: "Node", rate: str | None) -> None:
    """CONN-11: temporary, both ways, whether or not there is a rate to show. Nothing is booked."""
    before = trader.kernel.books.peers[AccountId("alice")].balance
    trader.tell(RatesChanged(stopped(rate)))
    trader.prepare("alice", "test.node.bob.x", 1_000_000)
    reject = trader.rejected("alice")
    assert (reject.code, reject.message) == ("T01", f"USD is not exchanged for EUR now: {STALE}")
    trader.prepare("bob", "test.node.alice.x", 1_000)
    assert trader.rejected("bob").code == "T01"
    assert trader.kernel.books.peers[AccountId("alice")].balance == before
    trader.tell(RatesChanged(RateTable({USD_EUR: Fraction("0.5")})))
    trader.prepare("alice", "test.node.bob.x", 1_000_000)
    assert trader.forwarded("bob").amount == 500


def test_only_the_stopped_direction_is_refused_if_the_way_back_has_a_rate_of_its_own(trader: "Node") -> None:
    """CONN-11."""
    rates = RateTable({USD_EUR: Fraction("0.9"), ("EUR", "USD"): Fraction(1)}, stopped={USD_EUR: STALE})
    trader.tell(RatesChanged(rates))
    trader.prepare("alice", "test.node.bob.x", 1_000_000)
    assert trader.rejected("alice").code == "T01"
    trader.prepare("bob", "test.node.alice.x", 1_000)
    assert trader.forwarded("alice").amount == 1_000_000


def test_pairs_that_are_never_exchanged_stay_final(trader: "Node") -> None:
    """CONN-11: F02, also while other pairs are stopped."""
    trader.tell(RatesChanged(RateTable({}, stopped={("USD", "XAM"): STALE})))
    trader.prepare("alice", "test.node.bob.x", 1_000_000)
    assert trader.rejected("alice").code == "F02"


def test_a_packet_in_flight_ends_at_its_own_rate(trader: "Node") -> None:
    """CONN-3: what was reserved is what is posted, whatever the rates are by then."""
    trader.prepare("alice", "test.node.bob.x", 1_000_000)
    request = trader.taken("bob")
    trader.tell(RatesChanged(stopped()))
    trader.fulfil("bob", request.request_id)
    trader.fulfilled("alice")
    assert (trader.balance("alice"), trader.balance("bob")) == (1_000_000, -891)


def test_changed_rates_are_journaled_alone_and_only_when_they_differ(trader: "Node") -> None:
    """P-1: replay, which the node's shadow does after each batch, has the same terms."""
    rates = RateTable({USD_EUR: Fraction("0.9")}, spread=Fraction("0.01"), stopped={("USD", "XAM"): STALE})
    count = len(trader.records)
    trader.tell(RatesChanged(rates))
    assert decode_record(trader.records[-1]) == [RatesEntry(rates.encode())]
    assert trader.kernel.books.terms == trader.kernel.tables.encode()
    assert rates_of(trader.kernel.books.terms)["stopped"] == {"USD/XAM": STALE}
    trader.tell(RatesChanged(RateTable(rates.rates, spread=rates.spread, stopped=rates.stopped)))
    trader.tell(TablesChanged(trader.kernel.tables))
    assert len(trader.records) == count + 1
    trader.tables = trader.kernel.tables
    assert trader.restarted().kernel.books.terms == trader.kernel.books.terms


def test_rates_are_journaled_with_their_settings_and_answered_when_durable(trader: "Node") -> None:
    """P-1: an account's spread is not theirs to change."""
    trader.durable = False
    setting = (b"rate:USD/EUR", b"{}")
    effects = trader.tell(RatesChanged(stopped("0.8"), [setting], 7))
    assert not [effect for effect in effects if isinstance(effect, TablesTaken)]
    assert TablesTaken(7, "") in trader.commit()
    assert decode_record(trader.records[-1])[1:] == [SettingChanged(*setting)]
    assert trader.kernel.books.settings == dict([setting])
    [refused] = trader.tell(RatesChanged(stopped("0.7"), [(b"k" * 256, b"")], 8))
    assert isinstance(refused, TablesTaken) and refused.token == 8 and refused.problem


def test_accounts_keep_their_spreads_when_rates_change(trader: "Node") -> None:
    """CONN-11."""
    spreads = {AccountId("bob"): Fraction(1, 4)}
    rates = RateTable({USD_EUR: Fraction(1)}, account_spreads=spreads)
    trader.tell(TablesChanged(replace(trader.tables, rates=rates)))
    trader.tell(RatesChanged(RateTable({USD_EUR: Fraction(2)}, account_spreads={})))
    assert trader.kernel.tables.rates.account_spreads == spreads
    trader.prepare("alice", "test.node.bob.x", 1_000_000)
    assert trader.forwarded("bob").amount == 1_500
    assert trader.kernel.books.terms == trader.kernel.tables.encode()


def test_rates_too_large_for_the_journal_are_refused(trader: "Node") -> None:
    """The old ones stay, and the log says so."""
    before = trader.kernel.books.terms
    huge = RateTable({USD_EUR: Fraction(2)}, stopped={USD_EUR: "y" * RATES_BYTES_MAX})
    effects = trader.tell(RatesChanged(huge))
    assert [effect.event for effect in effects if isinstance(effect, Log)] == ["rates_refused"]
    assert trader.kernel.books.terms == before
    with pytest.raises(ConfigError, match="rates"):
        huge.check()


NAMES = st.sampled_from(["routes", "rates", "a", '"rates":{', "notes", 'x,"routes":[']) | st.text(max_size=8)
RATES = st.builds(
    RateTable,
    st.dictionaries(st.tuples(NAMES, NAMES), st.fractions(1, 10), max_size=3),
    account_spreads=st.dictionaries(NAMES.map(AccountId), st.fractions(0, Fraction(1, 2)), max_size=3),
    stopped=st.dictionaries(st.tuples(NAMES, NAMES), NAMES, max_size=2),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=RATES, new=RATES, name=NAMES, code=st.text(min_size=1, max_size=9))
def test_rates_put_into_encoded_tables_are_as_if_encoded_with_them(
    make_terms: "MakeTerms", old: RateTable, new: RateTable, name: str, code: str
) -> None:
    """P-1: whatever accounts and assets are called."""
    accounts = {AccountId(name): make_terms(name, asset=Asset(code, 2))}
    routes = RouteTable({"test.rates": AccountId(name), "": AccountId(name)})
    with_old, with_new = (Tables("test.routes", accounts, routes, rates) for rates in (old, new))
    assert with_rates(with_old.encode(), new.encode()) == with_new.encode()
    assert rates_of(with_new.encode()) == json.loads(new.encode())


@pytest.mark.parametrize("terms", [b"", b"terms of another time", b'{"rates":{}}'])
def test_a_journal_with_rates_but_no_tables_is_an_error_of_the_codec(node: "Node", terms: bytes) -> None:
    """P-9."""
    books = node.kernel.books
    books.terms = terms
    with pytest.raises(CodecError):
        Replay(books).apply(b"\x01" + b"\x12" + (2).to_bytes(4, "big") + b"{}")
    assert rates_of(b"") == {}
