"""Choosing among hops by what packets show: liquidity, refusals, delays; and around pairs whose rate is stopped."""

from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.events import AccountId
from isthmus.connector.routing.price import write_price
from isthmus.connector.routing.records import (
    COUNT_MAX,
    DELAY_MS_MAX,
    DELAY_PPM_PER_MS,
    HALF_LIFE_MS,
    PENALTY_PPM,
    STEP_PPM,
    Record,
)
from isthmus.connector.routing.rests import REST_MS_FIRST, Rests
from isthmus.connector.routing.rib import STAYS_PPM, Rib, Source
from isthmus.connector.routing.shown import PREFIXES_MAX, Showings
from isthmus.connector.routing.splits import SCARCE_MS_FIRST, SPLIT_MS, SPLITS_MAX, Splits
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.tables import RatesChanged, RateTable, TablesChanged
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.ilp.ccp import Route, RouteUpdate, encode_response, encode_update
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode, encode_fulfill, encode_prepare, encode_reject

if TYPE_CHECKING:
    from isthmus.connector.events import Outbound
    from tests.connector.routing.conftest import Net, Spoken

FAR = 10**14
FULFILLMENT = bytes(32)
CONDITION = bytes.fromhex("66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925")
HOPS = ("bob", "carl", "dora")


class Fork:
    """The node `me` between Sam and three hops that all reach `test.x`, at prices of their own; all are played."""

    def __init__(self, net: "Net", spoken: "Spoken", prices: dict[str, int | None], **terms: object) -> None:
        self.net = net
        net.add("me", *[spoken(name, **terms) for name in HOPS], spoken("sam", routes=RouteTerms()))
        for name in (*HOPS, "sam"):
            net.link("me", name)
        net.run(1)
        self.prices = prices
        for name in prices:
            self.announce(name)
        net.run(500)

    def announce(self, name: str, *, table: str = "", since: int = 0, withdraws: bool = False) -> None:
        """A hop tells its route in a table, or withdraws it."""
        for frame in self.net.taken("me", name):
            self.net.answer(name, "me", frame, encode_response())
        ppm = self.prices[name]
        route = Route("test.x", (f"test.{name}",), bytes(32), () if ppm is None else (write_price(ppm),))
        new, gone = ((), ("test.x",)) if withdraws else ((route,), ())
        number = (table or name).encode().ljust(16)
        update = RouteUpdate(number, since + 1, since, since + 1, 600_000, f"test.{name}", new, gone)
        self.net.play(name, "me", encode_update(update, FAR))
        self.net.run(400)

    @property
    def rib(self) -> Rib:
        return self.net.kernels["me"].switch.router.rib

    def pay(self, amount: int = 5) -> tuple[str, "Outbound"]:
        """Sam sends a packet; gives the hop that it went to."""
        now = self.net.now()
        self.net.play("sam", "me", encode_prepare(Prepare(amount, now.wall_ms + 20_000, CONDITION, "test.x.z", b"")))
        for name in HOPS:
            for frame in self.net.taken("me", name):
                packet = decode(frame.packet)
                if isinstance(packet, Prepare) and packet.destination == "test.x.z":
                    return name, frame
        return "", self.net.taken("me", "sam")[-1]

    def goes(self) -> str:
        """Where the next packet goes; it is fulfilled."""
        name, frame = self.pay()
        self.net.answer(name, "me", frame, encode_fulfill(Fulfill(FULFILLMENT)))
        return name

    def reject(self, code: str, by: str = "test.hop") -> str:
        """The next packet is rejected with this code."""
        name, frame = self.pay()
        self.net.answer(name, "me", frame, encode_reject(Reject(code, by, "")))
        return name


@pytest.fixture
def fork(net: "Net", make_spoken: "Spoken") -> Fork:
    """Bob is the best; Carl is within 0.2 % of him, Dora is not."""
    return Fork(net, make_spoken, {"bob": 1_000, "carl": 3_000, "dora": 3_001})


# --- liquidity -------------------------------------------------------------------------------------------------------


def test_what_lacks_liquidity_is_divided_a_packet_at_a_time(fork: Fork) -> None:
    """ILP-20: the packet after a T04 goes elsewhere, and back as soon as the best has had a moment."""
    assert fork.goes() == "bob"
    assert fork.reject("T04") == "bob"
    assert fork.goes() == "carl"
    assert fork.goes() == "carl"
    fork.net.run(SCARCE_MS_FIRST)
    assert fork.reject("T04") == "bob"
    fork.net.run(SCARCE_MS_FIRST)
    assert fork.goes() == "carl"  # twice in a row: twice as long
    fork.net.run(SCARCE_MS_FIRST)
    assert fork.goes() == "bob"


def test_only_over_hops_whose_price_is_near(fork: Fork) -> None:
    """So that a minimum per packet that a sender was quoted holds for each."""
    fork.reject("T04")
    assert fork.reject("T04") == "carl"
    assert fork.reject("T04") == "bob"  # Dora is a ppm too dear
    tables = replace(fork.net.tables["me"], split_ppm=2_001)
    fork.net.change("me", tables)
    fork.net.run(SCARCE_MS_FIRST * 4)
    assert [fork.reject("T04") for _ in range(3)] == ["bob", "carl", "dora"]


def test_where_no_price_is_known_nothing_is_divided(net: "Net", make_spoken: "Spoken") -> None:
    fork = Fork(net, make_spoken, dict.fromkeys(HOPS))
    fork.reject("T04")
    assert fork.goes() == "bob"


def test_a_t04_of_the_receiver_divides_nothing(fork: Fork) -> None:
    fork.reject("T04", by="test.x.z")
    assert fork.goes() == "bob"


def test_a_packet_that_our_own_account_has_no_room_for_goes_elsewhere_at_once(
    net: "Net", make_spoken: "Spoken"
) -> None:
    """Nothing of it was written: it is the same packet."""
    fork = Fork(net, make_spoken, {"bob": 0, "carl": 1, "dora": 2}, in_flight_max=10)
    assert [fork.pay(7)[0] for _ in range(3)] == ["bob", "carl", "dora"]
    name, frame = fork.pay(7)
    reject = decode(frame.packet)
    assert (name, isinstance(reject, Reject) and reject.code) == ("", "T04")
    assert fork.pay(3)[0] in HOPS


def test_it_is_divided_for_a_while_only(fork: Fork) -> None:
    fork.reject("T04")
    router = fork.net.kernels["me"].switch.router
    assert router.is_divided(b"test.x")
    fork.net.run(SPLIT_MS)
    assert not router.is_divided(b"test.x") and not router.splits
    assert fork.goes() == "bob"


def test_divided_prefixes_are_bounded() -> None:
    rib, splits = Rib(), Splits()
    sources = [Source(AccountId(name), "peer", 0) for name in ("a", "b")]
    for number in range(SPLITS_MAX + 1):
        for source in sources:
            rib.put(source, Route(f"test.x{number}", (), bytes(32), (write_price(0),)))
        assert splits.begin(rib, b"test.x%d" % number, "a", 0)
    assert b"test.x0" not in splits and b"test.x1" in splits


def test_how_near_prices_must_be_has_bounds(fork: Fork) -> None:
    for ppm in (-1, 100_001):
        with pytest.raises(ConfigError, match="split_within"):
            replace(fork.net.tables["me"], split_ppm=ppm).check()


# --- what packets show of a price ------------------------------------------------------------------------------------


def test_whoever_tells_a_price_and_delivers_less_is_left(net: "Net", make_spoken: "Spoken") -> None:
    """A liar says that it costs nothing; receivers refuse what arrives. After a while it gets another chance."""
    fork = Fork(net, make_spoken, {"bob": 0, "carl": 1_000})
    went: list[str] = []
    for _ in range(40):
        went.append(fork.reject("F99", by="test.x.z") if went.count("carl") == 0 else fork.goes())
        fork.net.run(200)
    assert went[0] == "bob" and went[-1] == "carl"
    assert went == sorted(went)  # it changes once
    fork.net.run(HALF_LIFE_MS * 8)
    assert fork.goes() == "bob"


def test_a_slow_hop_costs_something(net: "Net", make_spoken: "Spoken") -> None:
    fork = Fork(net, make_spoken, {"bob": 1_000, "carl": 1_500})
    for _ in range(200):
        name, frame = fork.pay()
        fork.net.run(900 if name == "bob" else 20)
        fork.net.answer(name, "me", frame, encode_fulfill(Fulfill(FULFILLMENT)))
        if name == "carl":
            break
    assert fork.goes() == "carl"


def test_no_hop_flaps_between_two_that_are_nearly_alike() -> None:
    rib = Rib()
    for name in ("bob", "carl"):
        rib.put(Source(AccountId(name), "peer", 0), Route("test.x", (), bytes(32), (write_price(1_000),)))
    bob, carl = rib.candidates("test.x")
    record = rib.note(bob).record = Record(0)
    record.bad = 2 * COUNT_MAX * STEP_PPM // PENALTY_PPM
    record.good = COUNT_MAX - record.bad
    assert 0 < bob.penalty(0) < STAYS_PPM
    for current in ("bob", "carl"):
        best = rib.choose("test.x", 0, current)
        assert best is not None and best.source.account == current
    best = rib.choose("test.x", 0)
    assert best is carl


@given(st.lists(st.tuples(st.integers(0, 100_000), st.booleans(), st.integers(-5, 10**6)), max_size=300))
def test_a_record_is_bounded_and_forgets(story: list[tuple[int, bool, int]]) -> None:
    record, now = Record(0), 0
    for wait, is_good, delay in story:
        now += wait
        record.fulfilled(delay, now) if is_good else record.failed(now)
        assert record.good + record.bad <= COUNT_MAX
        assert 0 <= record.penalty(now) <= PENALTY_PPM + DELAY_MS_MAX * DELAY_PPM_PER_MS
    later = now + HALF_LIFE_MS * COUNT_MAX.bit_length()
    assert record.penalty(later) == 0 and not record.remembers(later)


# --- what a hop can't wash off --------------------------------------------------------------------------------------


def tells_again(fork: Fork, name: str, how: str) -> None:
    """The neighbour's route goes, and comes back."""
    if how == "withdrawn":
        fork.announce(name, since=1, withdraws=True)
        assert [one.source.account for one in fork.rib.candidates("test.x")] == ["carl"]
        fork.announce(name, since=2)
    elif how == "another table":
        fork.announce(name, table="other")
    else:
        fork.net.cut("me", name)
        fork.net.run(400)
        fork.net.link("me", name)
        fork.net.run(400)
        fork.announce(name)
    assert {one.source.account for one in fork.rib.candidates("test.x")} == {"bob", "carl"}


WAYS = pytest.mark.parametrize("how", ["withdrawn", "another table", "link down and up"])


@WAYS
def test_a_liar_that_tells_its_route_again_is_the_same_liar(net: "Net", make_spoken: "Spoken", how: str) -> None:
    fork = Fork(net, make_spoken, {"bob": 0, "carl": 1_000})
    while fork.reject("F99", by="test.x.z") == "bob":
        fork.net.run(200)
    tells_again(fork, "bob", how)
    assert fork.goes() == "carl"
    fork.net.run(HALF_LIFE_MS * 8)
    assert fork.goes() == "bob"  # it is forgiven after a while, as if it had never gone


@WAYS
def test_a_black_hole_that_tells_its_route_again_rests_on(net: "Net", make_spoken: "Spoken", how: str) -> None:
    fork = Fork(net, make_spoken, {"bob": 0, "carl": 1_000})
    assert fork.reject("F02") == "bob"
    tells_again(fork, "bob", how)
    assert fork.goes() == "carl"
    fork.net.run(REST_MS_FIRST)
    assert fork.reject("F02") == "bob"
    fork.net.run(REST_MS_FIRST)
    assert fork.goes() == "carl"  # it failed again: twice as long


def test_hops_that_left_for_good_are_forgotten(net: "Net", make_spoken: "Spoken") -> None:
    fork = Fork(net, make_spoken, {"bob": 0, "carl": 1_000})
    assert fork.reject("F02") == "bob"
    assert fork.rib.showings.of(AccountId("bob"), "test.x") is not None
    tables = fork.net.tables["me"]
    bob = replace(tables.accounts[AccountId("bob")], routes=RouteTerms())
    fork.net.change("me", replace(tables, accounts={**tables.accounts, bob.id: bob}))
    assert fork.rib.showings.of(AccountId("bob"), "test.x") is None


def test_what_is_remembered_of_a_neighbour_is_bounded_and_is_no_others_loss() -> None:
    showings = Showings()
    bob, carl = AccountId("bob"), AccountId("carl")
    kept = showings.note(carl, "test.x")
    for number in range(PREFIXES_MAX):
        showings.note(bob, f"test.x{number}")
    first = showings.note(bob, "test.x0")  # noted of just now: not the next to go
    showings.note(bob, "test.one_more")
    assert showings.of(bob, "test.x0") is first
    assert showings.of(bob, "test.x1") is None
    assert showings.of(bob, "test.x2") is not None
    assert showings.of(carl, "test.x") is kept


def test_whoever_tells_too_low_a_price_is_no_measure_for_the_others(net: "Net", make_spoken: "Spoken") -> None:
    """Dora says zero; once receivers have missed something, the honest ones are divided over as if without her."""
    fork = Fork(net, make_spoken, {"bob": 3_000, "carl": 4_000, "dora": 0})
    assert len(fork.rib.alike("test.x", fork.net.now().mono_ms, 2_000)) == 1
    while fork.reject("F99", by="test.x.z") == "dora":
        fork.net.run(200)
    assert fork.reject("T04") == "bob"
    assert fork.goes() == "carl"


def test_lack_of_liquidity_and_slowness_make_no_way_dearer(net: "Net", make_spoken: "Spoken") -> None:
    """They decide which hop is first, and not whether packets may be divided over it: the rate is the same."""
    fork = Fork(net, make_spoken, {"bob": 1_000, "carl": 1_500})
    for _ in range(20):
        fork.reject("T04")
        fork.net.run(60)
    shown = [one.penalty(fork.net.now().mono_ms) for one in fork.rib.candidates("test.x")]
    assert max(shown) > 2_000
    assert len(fork.rib.alike("test.x", fork.net.now().mono_ms + 5_000, 2_000)) == 2


# --- whatever the state ----------------------------------------------------------------------------------------------

PREFERENCES, PPMS = st.integers(0, 1), st.sampled_from([None, 0, 500, 1_000, 2_500, 50_000])
RELATIONS = st.sampled_from(["child", "peer", "parent"])
HOP = st.tuples(PREFERENCES, RELATIONS, st.integers(0, 2), PPMS)
EVENTS = st.tuples(
    st.integers(0, 5), st.sampled_from(["scarce", "short", "good", "rest", "gone"]), st.integers(0, 3_000)
)


@given(st.lists(HOP, min_size=1, max_size=6), st.lists(EVENTS, max_size=40), st.randoms(use_true_random=False))
def test_the_choice_is_one_of_the_best_and_is_the_same_in_any_order(
    hops: list[tuple[int, str, int, int | None]], story: list[tuple[int, str, int]], random: Random
) -> None:
    """By policy, relation and length, whatever packets showed; and dividing stays within 0.2 % of the best price."""
    rib, splits, rests, now = Rib(), Splits(), Rests(), 0
    splits.within_ppm = 2_000
    sources = [Source(AccountId(f"n{at}"), hop[1], hop[0]) for at, hop in enumerate(hops)]
    routes = [
        Route(
            "test.x",
            tuple(f"test.h{n}" for n in range(hop[2])),
            bytes(32),
            () if hop[3] is None else (write_price(hop[3]),),
        )
        for hop in hops
    ]
    told = list(zip(sources, routes, strict=True))
    for source, route in told:
        rib.put(source, route)
    for at, what, wait in story:
        now += wait
        source, route = told[at % len(told)]
        candidate = source.candidates.get("test.x")
        if candidate is None:
            rib.put(source, route)
        elif what == "gone":
            rib.remove(source, "test.x")
        elif what == "rest":
            rests.failed(rib, candidate, now)
        elif what == "scarce":
            splits.begin(rib, b"test.x", source.account, now)
        else:
            shown = rib.note(candidate)
            shown.record = shown.record or Record(now)
            shown.record.failed(now, is_short=True) if what == "short" else shown.record.fulfilled(wait, now)
    living = rib.candidates("test.x")
    best = rib.choose("test.x", now)
    if best is None:
        assert not living
        return
    orders = {one.source.account: one.order(now, by_relation=True) for one in living}
    first = orders[best.source.account]
    assert first[:4] == min(order[:4] for order in orders.values())
    assert [one.source.account for one in rib.ranked("test.x", now)] == sorted(orders, key=lambda name: orders[name])
    for current in (one.source.account for one in living):
        stays = rib.choose("test.x", now, current)
        assert stays is not None
        order = orders[stays.source.account]
        assert order[:4] == first[:4]
        assert order[4] - first[4] < STAYS_PPM
    divided = splits.choose(rib, b"test.x", now)
    prices = [one.proven_price(now) for one in divided]
    assert not prices or max(prices) - min(prices) <= splits.within_ppm
    assert len({(one.source.preference, one.source.order, one.rests(now)) for one in divided}) <= 1
    waits = [one.scarce_until(now) for one in divided]
    assert waits == sorted(waits)
    again = Rib()
    random.shuffle(living)
    for one in living:
        again.put(Source(one.source.account, one.source.relation, one.source.preference), one.route)
        again.candidates("test.x")[-1].shown = one.shown
    chosen = again.choose("test.x", now)
    assert chosen is not None and chosen.source.account == best.source.account


# --- rates -----------------------------------------------------------------------------------------------------------


def test_a_hop_whose_pair_is_stopped_is_passed_over(net: "Net", make_spoken: "Spoken") -> None:
    """CONN-12: T01 only where no other hop exchanges."""
    fork = Fork(net, make_spoken, {"bob": 0, "carl": 1_000})
    accounts = dict(net.tables["me"].accounts)
    del net.kernels["me"], net.tables["me"]
    eur = replace(accounts[AccountId("bob")], asset=Asset("EUR", 9))
    net.add("me", eur, accounts[AccountId("carl")], accounts[AccountId("sam")])
    fork = Fork.__new__(Fork)
    fork.net = net
    for name in ("bob", "carl", "sam"):
        net.link("me", name)
    net.run(1)
    for name in ("bob", "carl"):
        for frame in net.taken("me", name):
            net.answer(name, "me", frame, encode_response())
        route = Route("test.x", (f"test.{name}",), bytes(32), ())
        update = RouteUpdate(name.encode().ljust(16), 1, 0, 1, 45_000, f"test.{name}", (route,), ())
        net.play(name, "me", encode_update(update, FAR))
    net.run(500)
    net.tell("me", RatesChanged(RateTable({("USD", "EUR"): Fraction(1)})))
    assert fork.goes() == "bob"
    net.tell("me", RatesChanged(RateTable({("USD", "EUR"): Fraction(1)}, stopped={("USD", "EUR"): "too old"})))
    assert fork.goes() == "carl"
    net.cut("me", "carl")
    net.run(300)
    reject = decode(fork.pay()[1].packet)
    assert isinstance(reject, Reject) and (reject.code, "too old" in reject.message) == ("T01", True)


def test_a_spread_that_changes_with_the_rates_alone_is_told(net: "Net", make_spoken: "Spoken") -> None:
    net.add("a", make_spoken("b"))
    net.add("b", make_spoken("a"), make_spoken("c"), spread=Fraction(1, 1_000))
    net.add("c", make_spoken("b"))
    net.link("a", "b")
    net.link("b", "c")
    net.run(2_000)
    router = net.kernels["a"].switch.router
    assert [one.price for one in router.rib.candidates("test.c")] == [1_000]
    net.tell("b", RatesChanged(RateTable({}, spread=Fraction(1, 200))))
    net.run(1_000)
    assert [one.price for one in router.rib.candidates("test.c")] == [5_000]


def test_tables_with_the_default_are_written_as_before(fork: Fork) -> None:
    tables = fork.net.tables["me"]
    assert b"split" not in tables.encode()
    changed = replace(tables, split_ppm=7)
    assert b'"split_ppm":"7"' in changed.encode()
    fork.net.tell("me", TablesChanged(changed), RatesChanged(RateTable({}, spread=Fraction(1, 9))))
    assert b'"split_ppm":"7"' in fork.net.kernels["me"].books.terms
