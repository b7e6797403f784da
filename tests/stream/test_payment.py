"""Payments from end to end over a simulated path: fixed source, fixed destination, limits, rates, and vices."""

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.ilp.packet import AMOUNT_MAX, Fulfill, Reject
from isthmus.stream.orders import Failure, SendDone, SendFailed, SendPrepare
from isthmus.stream.settings import Settings

if TYPE_CHECKING:
    from tests.stream.conftest import Hop, MakeWorld, World


def pay(world: "World", amount: int, ms: int = 120_000) -> int:
    """Send a fixed source amount; gives the stream's id."""
    stream_id = world.alice.connection.open_stream()
    assert stream_id is not None
    world.alice.connection.send_total(stream_id, amount)
    world.run(ms, until=lambda: bool(world.alice.told(SendDone) or world.alice.told(SendFailed)))
    return stream_id


def deliver(world: "World", amount: int, source_max: int = 2**70) -> int:
    stream_id = world.alice.connection.open_stream()
    assert stream_id is not None
    world.alice.connection.deliver_total(stream_id, amount, source_max=source_max)
    world.run(120_000, until=lambda: bool(world.alice.told(SendDone) or world.alice.told(SendFailed)))
    return stream_id


def test_a_fixed_source_amount_arrives_whole(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(rate=Fraction(25), maximum=1_000)], minimum=Fraction(24))
    pay(world, 1_000_000)
    done = world.alice.first(SendDone)
    assert (done.sent, done.delivered, done.unsent) == (1_000_000, 25_000_000, 0)
    assert world.posted == 1_000_000
    assert world.arrived == world.bob.connection.received == 25_000_000
    totals = world.alice.connection.totals
    assert (totals.delivered, totals.delivered_max, totals.unknown, totals.in_flight) == (25_000_000, 25_000_000, 0, 0)


def test_many_packets_are_in_flight(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """A window of packets shares each round trip."""
    world = make_world(hops=[make_hop(maximum=100)])
    started = world.now
    pay(world, 100_000)
    assert world.now - started < 1_000 * 10 // 5  # a thousand packets, ten milliseconds round trip
    assert world.alice.connection.window > 10


def test_a_path_may_have_several_maxima(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """ILP-17: F08 scales by ratio, in the rejecting connector's units (P-8), as often as connectors ask for it."""
    hops = [make_hop(rate=Fraction(3), maximum=50_000), make_hop(rate=Fraction(1, 7), maximum=90_000)]
    hops.append(make_hop(maximum=700))
    world = make_world(hops=hops, minimum=Fraction(2, 5))
    pay(world, 1_000_000)
    assert world.alice.first(SendDone).sent == 1_000_000
    assert world.alice.connection.packet_max is not None
    assert world.alice.connection.packet_max <= 700 * 7 // 3 + 3


def test_f08_without_data_is_answered_by_halving(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """ILP-17, X-16 (Java sends none)."""
    world = make_world(hops=[make_hop(maximum=12_345, f08_data=False)])
    pay(world, 5_000_000)
    assert world.alice.first(SendDone).sent == 5_000_000
    assert world.alice.connection.packet_max is not None
    assert 6_000 <= world.alice.connection.packet_max <= 12_345


def test_a_path_that_carries_nothing_ends_the_payment(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """ILP-17: a maximum of zero."""
    world = make_world(hops=[make_hop(maximum=0)])
    pay(world, 1_000)
    assert world.alice.first(SendFailed).failure is Failure.NO_CAPACITY
    assert world.posted == 0


def test_the_packet_maximum_grows_again(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    hop = make_hop(maximum=1_000)
    world = make_world(hops=[hop])
    stream_id = world.alice.connection.open_stream()
    assert stream_id is not None
    total = 0
    for minute in range(8):
        if minute == 2:
            hop.maximum = 100_000
        total += 50_000
        world.alice.connection.send_total(stream_id, total)
        world.run(60_000)
    assert world.sent == total
    assert world.alice.connection.packet_max is not None
    assert world.alice.connection.packet_max > 1_000


@pytest.mark.parametrize("code, failure", [("F02", Failure.NO_ROUTE), ("F00", Failure.PATH_ERROR)])
def test_final_errors_end_a_payment_at_once(
    make_world: "MakeWorld", make_hop: "type[Hop]", code: str, failure: Failure
) -> None:
    """ILP-19: F is not retried unchanged."""
    world = make_world(hops=[make_hop(refuse=code)])
    pay(world, 1_000)
    failed = world.alice.first(SendFailed)
    assert (failed.failure, failed.code) == (failure, code)
    assert len(world.alice.prepares) < 10


@pytest.mark.parametrize("code, failure", [("T04", Failure.NO_LIQUIDITY), ("T05", Failure.PATH_ERROR)])
def test_temporary_errors_are_retried_with_patience_and_then_given_up(
    make_world: "MakeWorld", make_hop: "type[Hop]", code: str, failure: Failure
) -> None:
    """P-10, ILP-19: T04 may mean a full balance, so the path isn't hammered."""
    world = make_world(hops=[make_hop(refuse=code)])
    pay(world, 1_000)
    assert world.alice.first(SendFailed).failure is failure
    assert len(world.alice.prepares) < 30  # in thirty seconds
    world.run(60_000)
    assert len(world.alice.prepares) < 30  # and none after giving up


def test_a_payment_recovers_when_liquidity_returns(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """P-10: sending resumes by itself."""
    hop = make_hop(maximum=1_000)
    world = make_world(hops=[hop])
    world.at(world.now + 100, lambda: setattr(hop, "refuse", "T04"))
    world.at(world.now + 8_000, lambda: setattr(hop, "refuse", ""))
    pay(world, 10_000_000)
    assert world.alice.first(SendDone).sent == 10_000_000
    assert world.alice.connection.totals.rejected["T04"] < 256 + 128 + 30  # windows that were out, then questions


def test_scarce_liquidity_is_shared_out_among_packets(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """The window shrinks until what is in flight fits."""
    world = make_world(hops=[make_hop(maximum=1_000, liquidity=3_500)])
    pay(world, 300_000)
    assert world.alice.first(SendDone).sent == 300_000
    rejected = world.alice.connection.totals.rejected["T04"]
    assert rejected < 300


def test_less_liquidity_than_a_packet_makes_packets_smaller(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    hop = make_hop(maximum=10_000)
    world = make_world(hops=[hop])
    world.at(world.now + 60, lambda: setattr(hop, "liquidity", 900))
    pay(world, 300_000)
    assert world.alice.first(SendDone).sent == 300_000


@pytest.mark.parametrize("left", [10**6 + 3_051, 10**7 + 54_321, 10**8 + 2])
def test_packets_are_never_so_small_that_rounding_looks_like_a_bad_rate(
    make_world: "MakeWorld", make_hop: "type[Hop]", left: int
) -> None:
    """What was paid ahead is used up to the last bit before there is more; fine units to coarse ones (XRP to USD)."""
    credit = left

    def refuse(prepare: SendPrepare) -> bool:
        nonlocal credit
        hop.refuse = "T04" if prepare.amount > credit else ""
        credit -= 0 if hop.refuse else prepare.amount
        return False

    def refill() -> None:
        nonlocal credit
        credit = 10**12

    hop = make_hop(rate=Fraction(4_985, 10**7), maximum=10**6)
    world = make_world(hops=[hop], minimum=Fraction(49, 10**5))
    world.lose = refuse
    world.at(world.now + 15_000, refill)
    pay(world, 10**9)
    assert world.alice.first(SendDone).sent == 10**9


def test_a_connector_that_cheats_from_the_first_packet_gets_nothing(
    make_world: "MakeWorld", make_hop: "type[Hop]"
) -> None:
    """STREAM-11: the minimum comes from outside the path, so what probes say can't lower it. No money moves."""
    world = make_world(
        hops=[make_hop(rate=Fraction(2), steal=lambda amount: amount * 9 // 10)], minimum=Fraction(199, 100)
    )
    pay(world, 1_000_000)
    assert world.alice.first(SendFailed).failure is Failure.RATE_TOO_LOW
    assert world.posted == world.arrived == 0


def test_a_connector_that_is_honest_to_probes_only_gets_nothing(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-10, STREAM-11: each packet carries its minimum, and the receiver insists on it."""
    hop = make_hop(maximum=1_000)
    world = make_world(hops=[hop])
    world.run(100)
    stream_id = world.alice.connection.open_stream()
    assert stream_id is not None
    world.alice.connection.start_quote(source=100_000)
    world.run(1_000)
    hop.steal = lambda amount: amount * 98 // 100
    world.alice.connection.send_total(stream_id, 100_000)
    world.run(60_000)
    assert world.alice.first(SendFailed).failure is Failure.RATE_TOO_LOW
    assert world.posted == 0


def test_tiny_packets_can_not_hide_theft_in_rounding(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-11: the minimum is exact over the whole payment, but for one unit."""
    world = make_world(hops=[make_hop(maximum=10, steal=lambda amount: amount - 1)])
    pay(world, 1_000)
    assert world.posted <= 10
    assert world.alice.first(SendFailed).failure is Failure.RATE_TOO_LOW


def test_without_a_minimum_no_money_leaves(make_world: "MakeWorld") -> None:
    """STREAM-11."""
    world = make_world(minimum=None)
    pay(world, 1_000)
    assert world.alice.first(SendFailed).failure is Failure.NO_MINIMUM
    assert world.posted == 0


@given(
    amount=st.integers(1, 10**7),
    numerator=st.integers(1, 10**6),
    denominator=st.integers(1, 10**6),
    maximum=st.integers(1, 10**6),
    slippage=st.integers(0, 50),
)
def test_the_sender_never_gets_less_than_its_minimum(
    make_world: "MakeWorld",
    make_hop: "type[Hop]",
    amount: int,
    numerator: int,
    denominator: int,
    maximum: int,
    slippage: int,
) -> None:
    """STREAM-10, STREAM-11: whatever the amounts, and both sides' counts agree with the accounts."""
    rate = Fraction(numerator, denominator)
    minimum = rate * (1000 - slippage) / 1000
    world = make_world(hops=[make_hop(rate=rate, maximum=max(maximum, amount // 500 + 1))], minimum=minimum)
    pay(world, amount)
    assert world.alice.connection.totals.sent == world.posted
    assert world.bob.connection.received == world.arrived == world.alice.connection.totals.delivered
    assert world.arrived + 1 > world.posted * minimum - 1
    assert world.alice.told(SendDone) or world.posted < amount


@given(
    goal=st.integers(1, 10**9),
    numerator=st.integers(1, 10**6),
    denominator=st.integers(1, 10**6),
    parts=st.integers(1, 300),
)
def test_a_fixed_destination_amount_is_met_and_not_exceeded(
    make_world: "MakeWorld", make_hop: "type[Hop]", goal: int, numerator: int, denominator: int, parts: int
) -> None:
    """At least N arrives, and at most what one more source unit buys; the receiver's maximum is N, too."""
    rate = Fraction(numerator, denominator)
    needed = int(goal / rate) + 1
    if needed > 2**60:
        return
    world = make_world(hops=[make_hop(rate=rate, maximum=needed // parts + 1)], minimum=rate * Fraction(9, 10))
    world.bob.connection.restore([(1, 0)])
    world.bob.connection.set_receive_max(1, goal)
    deliver(world, goal)
    if world.alice.told(SendDone):
        assert world.arrived >= goal
        assert world.arrived <= goal + max(1, int(rate) + 1)
    else:
        # Packets of a few units lose more to rounding than the slippage allows.
        assert world.alice.first(SendFailed).failure in (Failure.RATE_TOO_LOW, Failure.TOO_SMALL)
        assert int(needed // parts * rate) < 40
    assert world.arrived == world.bob.connection.received


def test_one_source_unit_may_buy_more_than_what_is_wanted(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """A destination amount of 300 costs one unit, which buys 500; the receiver takes the surplus."""
    world = make_world(hops=[make_hop(rate=Fraction(500))], minimum=Fraction(499))
    world.bob.connection.restore([(1, 0)])
    world.bob.connection.set_receive_max(1, 300)
    deliver(world, 300)
    assert world.alice.first(SendDone).sent == 1
    assert world.arrived == 500


def test_amounts_near_2_63_at_scale_18(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """P-1: amounts at and beyond 2^63 in one packet, totals beyond 2^64."""
    world = make_world(hops=[make_hop(maximum=2**63 + 12_345)], minimum=Fraction(1))
    pay(world, 2**66 + 7)
    assert world.alice.first(SendDone).sent == world.arrived == 2**66 + 7
    assert max(prepare.amount for prepare in world.alice.prepares if prepare.amount <= 2**63 + 12_345) == 2**63 + 12_345
    assert world.bob.connection.stream_received(1) == 2**66 + 7


def test_a_rate_that_lifts_amounts_to_the_limit(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """P-1: scale 9 to scale 18, packets that arrive as up to 2^64-1."""
    world = make_world(hops=[make_hop(rate=Fraction(10**9))], minimum=Fraction(10**9))
    pay(world, 10**11)
    assert world.alice.first(SendDone).delivered == world.arrived == 10**20
    assert max(prepare.amount for prepare in world.alice.prepares[-5:]) * 10**9 <= AMOUNT_MAX


def test_what_can_not_be_expressed_is_refused_first(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """One source unit would arrive as more than 2^64-1."""
    world = make_world(hops=[make_hop(rate=Fraction(10**20))], minimum=Fraction(10**20))
    pay(world, 1)
    assert world.alice.first(SendFailed).failure is Failure.NOT_EXPRESSIBLE
    assert world.alice.prepares == []


def test_an_amount_too_small_to_arrive_is_said_to_be(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(rate=Fraction(1, 1000))], minimum=Fraction(99, 100_000))
    pay(world, 10)
    assert world.alice.first(SendFailed).failure is Failure.TOO_SMALL
    assert world.posted == 0


def test_dust_is_reported_as_unsent(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(rate=Fraction(1, 1000))], minimum=Fraction(1, 1000))
    stream_id = pay(world, 100_000)
    world.alice.news.clear()
    world.alice.connection.send_total(stream_id, 100_400)
    world.run(1_000)
    assert world.alice.first(SendDone).unsent == 400


def test_reordered_and_slow_packets_change_nothing(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(maximum=1_000)])
    world.delay_ms = (1, 400)
    pay(world, 500_000)
    assert world.sent == world.arrived == 500_000


def test_lost_packets_are_sent_again_after_their_expiry(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """The sender's own connector says R00; what expired was never paid."""
    world = make_world(hops=[make_hop(maximum=1_000)], alice=Settings(timeout_ms=2_000))
    world.lose = lambda prepare: prepare.number % 17 == 5
    pay(world, 300_000)
    assert world.sent == world.posted == world.arrived == 300_000


def test_an_outcome_that_nobody_tells_stays_unknown_and_counts_as_sent(
    make_world: "MakeWorld", make_hop: "type[Hop]"
) -> None:
    """STREAM-28: between X and Y delivered; nothing is sent twice."""
    world = make_world(hops=[make_hop(maximum=1_000)], alice=Settings(timeout_ms=2_000))
    world.expired_reject = False
    world.lose_reply = lambda prepare, reply: isinstance(reply, Fulfill) and prepare.number % 10 == 5
    pay(world, 50_000)
    totals = world.alice.connection.totals
    assert totals.unknown > 0
    assert totals.sent + totals.unknown == 50_000
    assert totals.delivered < world.arrived <= totals.delivered_max


def test_a_late_outcome_replaces_the_unknown(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-28."""
    world = make_world(hops=[make_hop(maximum=1_000)], alice=Settings(timeout_ms=2_000))
    world.expired_reject = False
    kept: list[tuple[int, Fulfill | Reject]] = []

    def keep(prepare: SendPrepare, reply: Fulfill | Reject) -> bool:
        if isinstance(reply, Fulfill) and prepare.number == 15:
            kept.append((prepare.number, reply))
            return True
        return False

    world.lose_reply = keep
    pay(world, 50_000)
    assert world.alice.connection.totals.unknown == 1_000
    number, reply = kept[0]
    assert world.alice.connection.reply_received(number, reply, world.now)
    assert not world.alice.connection.reply_received(number, reply, world.now)  # only once
    totals = world.alice.connection.totals
    assert (totals.sent, totals.delivered, totals.delivered_max, totals.unknown) == (50_000, 50_000, 50_000, 0)


@pytest.mark.parametrize(
    "garble",
    [lambda data: b"", lambda data: data[:20], lambda data: data[:-1] + bytes((data[-1] ^ 1,))],
    ids=["empty", "short", "changed"],
)
def test_an_unreadable_fulfill_counts_as_sent_with_the_minimum_arrived(
    make_world: "MakeWorld", make_hop: "type[Hop]", garble: Callable[[bytes], bytes]
) -> None:
    """STREAM-28, P-7 (the tag covers all), P-9 (short envelopes)."""
    world = make_world(hops=[make_hop(maximum=1_000)])
    world.garble = lambda reply: Fulfill(reply.fulfillment, garble(reply.data)) if isinstance(reply, Fulfill) else reply
    pay(world, 10_000)
    totals = world.alice.connection.totals
    assert totals.sent == world.posted == 10_000
    assert totals.delivered == 9_900
    assert totals.delivered_max >= world.arrived == 10_000


def test_a_wrong_fulfillment_is_a_reject(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """ILP-9: the sender checks, too."""
    world = make_world(hops=[make_hop(maximum=1_000)])
    world.garble = lambda reply: Fulfill(bytes(32), reply.data) if isinstance(reply, Fulfill) else reply
    pay(world, 10_000)
    assert world.sent == 0
    assert world.alice.connection.totals.rejected["F05"] >= 1


def test_the_rate_may_fall_within_the_slippage_in_mid_payment(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    hop = make_hop(rate=Fraction(2), maximum=1_000)
    world = make_world(hops=[hop], minimum=Fraction(19, 10))
    world.at(world.now + 50, lambda: setattr(hop, "rate", Fraction(195, 100)))
    pay(world, 1_000_000)
    assert world.alice.first(SendDone).sent == 1_000_000


def test_a_rate_that_falls_below_the_minimum_ends_the_payment_with_what_was_delivered(
    make_world: "MakeWorld", make_hop: "type[Hop]"
) -> None:
    hop = make_hop(rate=Fraction(2), maximum=1_000)
    world = make_world(hops=[hop], minimum=Fraction(19, 10))
    world.at(world.now + 80, lambda: setattr(hop, "rate", Fraction(18, 10)))
    pay(world, 1_000_000)
    assert world.alice.first(SendFailed).failure is Failure.RATE_TOO_LOW
    assert 0 < world.sent < 1_000_000
    assert world.arrived == world.alice.connection.totals.delivered == 2 * world.sent


def test_nobody_answers(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(alice=Settings(timeout_ms=2_000, stall_ms=10_000))
    world.lose = lambda prepare: True
    pay(world, 1_000)
    assert world.alice.first(SendFailed).failure is Failure.NO_ANSWER


def test_a_whole_window_lost_with_one_connection_does_not_end_a_payment(
    make_world: "MakeWorld", make_hop: "type[Hop]"
) -> None:
    """BTP-18: what was written is lost for sure only at its expiry, as late as we would give up."""
    world = make_world(hops=[make_hop(maximum=100)], alice=Settings(timeout_ms=10_000, stall_ms=10_000))
    world.at(world.now + 200, lambda: setattr(world, "lose", lambda prepare: True))
    world.at(world.now + 1_000, lambda: setattr(world, "lose", None))
    pay(world, 1_000_000)
    assert world.alice.first(SendDone).sent == 1_000_000


def test_a_payment_goes_on_before_lost_packets_expire(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """A node is killed with a whole window. Its packets' money stays committed, and the rest takes the other way."""
    world = make_world(hops=[make_hop(maximum=100)], alice=Settings(timeout_ms=30_000))
    began = world.now
    world.at(began + 200, lambda: setattr(world, "lose", lambda prepare: True))
    world.at(began + 300, lambda: setattr(world, "lose", None))
    pay(world, 1_000_000, ms=10_000)
    totals = world.alice.connection.totals
    lost = totals.in_flight
    assert lost > 0
    assert totals.sent == world.arrived == 1_000_000 - lost  # while the lost packets may still be fulfilled
    world.run(30_000, until=lambda: bool(world.alice.told(SendDone)))
    assert world.arrived == world.alice.first(SendDone).sent == 1_000_000


def test_silence_bounds_what_is_in_flight(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """Where nothing passes any more, single packets ask, after pauses that grow."""
    world = make_world(hops=[make_hop(maximum=100)], alice=Settings(window_max=32))
    began = world.now
    world.at(began + 200, lambda: setattr(world, "lose", lambda prepare: True))
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, world.alice.connection.totals.packets_in_flight)
        return bool(world.alice.told(SendFailed))

    stream_id = world.alice.connection.open_stream()
    assert stream_id is not None
    world.alice.connection.send_total(stream_id, 10**9)
    world.run(200_000, until=look)
    assert 32 < most <= 2 * 32
    assert world.alice.first(SendFailed).failure is Failure.NO_ANSWER


@pytest.mark.parametrize("expired_reject", [True, False], ids=["told", "not told"])
def test_a_way_with_smaller_packets_takes_over_from_one_that_was_lost(
    make_world: "MakeWorld", make_hop: "type[Hop]", expired_reject: bool
) -> None:
    """A node is killed with a whole window, and the way around it says F08 first: no receiver is full."""
    hop = make_hop(maximum=1_000)
    world = make_world(hops=[hop], alice=Settings(timeout_ms=30_000, stall_ms=10_000))
    world.expired_reject = expired_reject

    def around() -> None:
        hop.maximum = 100
        world.lose = None

    world.at(world.now + 50, lambda: setattr(world, "lose", lambda prepare: True))
    world.at(world.now + 1_000, around)
    pay(world, 1_000_000, ms=300_000)
    totals = world.alice.connection.totals
    assert totals.sent + totals.unknown == 1_000_000
    assert (totals.unknown > 0) is not expired_reject
    assert world.alice.first(SendDone).sent == totals.sent


def test_a_connector_that_finds_every_packet_too_large_is_not_believed_for_ever(
    make_world: "MakeWorld", make_hop: "type[Hop]"
) -> None:
    """Each F08 names a maximum just below what came."""
    hop = make_hop()
    world = make_world(hops=[hop], alice=Settings(timeout_ms=2_000, stall_ms=10_000))
    started = world.now

    def shrink(prepare: SendPrepare) -> bool:
        hop.maximum = max(0, prepare.amount - 1)
        return False

    world.lose = shrink
    pay(world, 10**12)
    assert world.alice.first(SendFailed).failure is Failure.PATH_ERROR
    assert world.now - started < 30_000


def test_asking_again_after_a_failure_tries_again(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    hop = make_hop(refuse="F02")
    world = make_world(hops=[hop])
    stream_id = pay(world, 1_000)
    hop.refuse = ""
    world.alice.connection.stop_sending(stream_id)
    world.run(10)
    world.alice.connection.send_total(stream_id, 1_000)
    world.run(10_000)
    assert world.sent == 1_000


def test_stopping_leaves_what_is_in_flight_to_end(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """Ctrl-C says exactly what was delivered."""
    world = make_world(hops=[make_hop(maximum=100)])
    stream_id = world.alice.connection.open_stream()
    assert stream_id is not None
    world.alice.connection.send_total(stream_id, 10**9)
    world.run(200)
    world.alice.connection.stop_sending(stream_id)
    world.run(10_000)
    done = world.alice.first(SendDone)
    assert done.sent == world.posted
    assert done.delivered == world.arrived
    assert world.alice.connection.totals.in_flight == 0
