"""Money that waits, repeated packets, grants, and going on after a crash."""

from fractions import Fraction
from hashlib import sha256
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import PREPARE, Fulfill, Prepare, Reject
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import DecisionWanted, PeerTotal, SendFailed, SendPrepare
from isthmus.stream.packet import (
    StreamMoney,
    StreamPacket,
    encode_packet,
)
from isthmus.stream.settings import Settings

if TYPE_CHECKING:
    from tests.stream.conftest import End, Hop, MakeWorld, Raw

SECRET = bytes(range(32))
KEYS = Keys(SECRET)
BOB = "test.bob.token"


def open_stream(end: "End") -> int:
    stream_id = end.connection.open_stream()
    assert stream_id is not None
    return stream_id


# --- held money -------------------------------------------------------------------------------------------------------


def test_money_waits_for_the_applications_word(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(maximum=1_000)], bob=Settings(ask=True))
    world.bob.decide = lambda wanted: wanted.request % 2 == 0
    world.alice.connection.send_total(open_stream(world.alice), 10_000)
    world.run(5_000, until=lambda: world.arrived >= 5_000)
    assert world.arrived >= 5_000
    assert world.bob.connection.received == world.arrived


def test_undecided_money_goes_back_at_the_deadline(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    world = make_world(bob=Settings(ask=True))
    raw = make_raw(world)
    answers = world.inject(world.bob, raw.prepare(StreamMoney(1, 1), amount=5), deadline=world.now + 1_000)
    assert answers == []
    request = world.bob.first(DecisionWanted).request
    world.run(2_000)
    assert isinstance(answers[0], Reject)
    assert not world.bob.connection.accept(request)
    assert world.bob.connection.received == 0


def test_held_money_counts_against_the_maximum(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    world = make_world(bob=Settings(ask=True, receive_max=1_000))
    raw = make_raw(world)
    assert world.inject(world.bob, raw.prepare(StreamMoney(1, 600), amount=600)) == []
    assert isinstance(world.inject(world.bob, raw.prepare(StreamMoney(1, 600), amount=600))[0], Reject)
    assert world.bob.connection.accept(world.bob.first(DecisionWanted).request)
    world.poll(world.bob)
    assert world.bob.connection.received == 600


def test_a_held_packet_is_not_held_twice(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    world = make_world(bob=Settings(ask=True))
    raw = make_raw(world)
    prepare = raw.prepare(StreamMoney(1, 1), amount=5)
    assert world.inject(world.bob, prepare) == []
    assert isinstance(world.inject(world.bob, prepare)[0], Reject)


# --- durability -------------------------------------------------------------------------------------------------------


def test_a_repeated_packet_gets_the_same_answer_and_no_second_credit(
    make_world: "MakeWorld", make_raw: "type[Raw]"
) -> None:
    world = make_world()
    raw = make_raw(world)
    prepare = raw.prepare(StreamMoney(1, 1), amount=5)
    first = raw.give(prepare)
    second = raw.give(prepare)
    assert isinstance(first, Fulfill)
    assert isinstance(second, Fulfill)
    assert first.fulfillment == second.fulfillment
    assert (raw.read(second).sequence, raw.read(second).prepare_amount) == (1, 5)
    assert world.bob.connection.received == 5
    assert [order.credit is None for order in world.bob.credits] == [False, True]


def test_another_packet_with_a_used_sequence_is_refused(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-7."""
    world = make_world()
    raw = make_raw(world)
    assert isinstance(raw.give(raw.prepare(StreamMoney(1, 1), amount=5, sequence=7)), Fulfill)
    assert isinstance(raw.give(raw.prepare(StreamMoney(1, 1), amount=5, sequence=7)), Reject)
    assert world.bob.connection.received == 5


def test_a_sequence_too_old_to_remember_is_refused(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """The memory is bounded: 1024 packets."""
    world = make_world()
    raw = make_raw(world)
    first = raw.prepare(StreamMoney(1, 1), amount=5)
    assert isinstance(raw.give(first), Fulfill)
    for _ in range(1_023):
        raw.send(StreamMoney(1, 1), amount=5)
    assert isinstance(raw.give(first), Fulfill)
    raw.send(StreamMoney(1, 1), amount=5)
    assert isinstance(raw.give(first), Reject)
    assert world.bob.connection.received == 1_025 * 5


def test_a_receiver_goes_on_after_a_crash_where_its_journal_ends(
    make_world: "MakeWorld", make_raw: "type[Raw]"
) -> None:
    world = make_world()
    raw = make_raw(world)
    prepares = [raw.prepare(StreamMoney(1, 1), amount=5) for _ in range(3)]
    for prepare in prepares:
        raw.give(prepare)
    credits = [order.credit for order in world.bob.credits if order.credit is not None]
    again = make_world()
    seen = [(credit.sequence, credit.fingerprint, credit.amount) for credit in credits]
    again.bob.connection.restore([(1, credits[-1].money[0].total)], seen)
    raw = make_raw(again)
    assert isinstance(raw.give(prepares[1]), Fulfill)
    assert again.bob.connection.received == again.bob.connection.stream_received(1) == 15
    # Without the fingerprint nobody can tell whether it is the same packet: refused, and no credit either.
    third = make_world()
    third.bob.connection.restore([(1, 15)], [(credit.sequence, b"", credit.amount) for credit in credits])
    assert isinstance(make_raw(third).give(prepares[1]), Reject)
    assert third.bob.connection.received == 15


def test_a_fulfill_that_never_left_is_undone(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    world = make_world()
    raw = make_raw(world)
    raw.send(StreamMoney(1, 1), amount=5)
    prepare = raw.prepare(StreamMoney(1, 1), amount=7)
    raw.give(prepare)
    last = world.bob.credits[-1].credit
    assert last is not None
    world.bob.connection.undo(last)
    world.bob.connection.undo(last)  # only once
    assert world.bob.connection.received == world.bob.connection.stream_received(1) == 5
    assert isinstance(raw.give(prepare), Fulfill)  # and may come again
    assert world.bob.connection.received == 12


def test_packets_leave_only_within_the_grant(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """One grant covers many packets, and more is asked for ahead of need."""
    world = make_world(hops=[make_hop(maximum=100)])
    world.alice.connection.grant(0, 0)
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 1_000_000)
    world.run(60_000)
    assert world.sent == 1_000_000
    assert world.alice.grants < 300
    world = make_world(hops=[make_hop(maximum=100)])
    world.auto_grant = False
    world.alice.connection.grant(550, 1_000)
    world.alice.connection.send_total(open_stream(world.alice), 1_000_000)
    world.run(5_000)
    assert world.sent == world.posted == 500


def test_what_a_stream_committed_counts_after_it_is_gone(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """Found by fuzzing: a closed stream's packets without an outcome were forgotten, and their grant used again."""
    world = make_world(hops=[make_hop(maximum=1_000)], alice=Settings(timeout_ms=2_000))
    world.expired_reject = False
    connection = world.alice.connection
    connection.grant(0, 10_000)
    first, second = open_stream(world.alice), open_stream(world.alice)
    connection.send_total(first, 3_000)
    world.lose_reply = lambda prepare, reply: isinstance(reply, Fulfill) and prepare.amount > 0
    world.run(60_000, until=lambda: connection.totals.unknown == 3_000)
    world.auto_grant = False
    granted = 3_000
    world.lose_reply = None
    connection.close_stream(first)
    world.run(5_000)
    assert not connection.has_stream(first)
    connection.send_total(second, 2_000)
    world.run(5_000)
    assert connection.totals.sent + connection.totals.unknown <= granted
    assert connection.totals.sent == 0


def test_no_packet_leaves_with_a_number_above_the_grant(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(maximum=100)])
    world.auto_grant = False
    world.alice.connection.grant(10**6, 20)
    world.alice.connection.send_total(open_stream(world.alice), 10**6)
    world.run(5_000)
    assert max(order.number for order in world.alice.prepares if order.amount == 100) <= 20


def test_a_sender_resumes_and_asks_for_the_receivers_total(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """After a kill: higher sequence numbers, the unknown counts as sent, and the receiver's own total is learned."""
    hop = make_hop(maximum=1_000)
    world = make_world(hops=[hop])
    world.alice.connection.send_total(open_stream(world.alice), 100_000)
    world.run(80)
    used = world.alice.connection.next_number
    arrived = world.arrived
    settings = Settings(first_sequence=used + 1_000, address="test.alice", asset=Asset("BTC", 8))
    second = make_world(hops=[make_hop(maximum=1_000)], alice=settings)
    second.bob = world.bob
    second.now = world.now
    second.alice.connection.resume_stream(1, sent=10_000, delivered=10_000, unknown=90_000)
    second.alice.connection.ask_total(1)
    second.run(1_000)
    assert second.alice.first(PeerTotal).total_received == second.bob.connection.stream_received(1)
    assert second.bob.connection.stream_received(1) >= arrived
    assert second.posted == 0
    assert min(order.number for order in second.alice.prepares) == used + 1_000
    second.alice.connection.send_total(1, 120_000)
    second.run(5_000)
    assert second.posted == 20_000


def test_a_peer_that_does_not_say_its_total_leaves_it_open(make_world: "MakeWorld") -> None:
    world = make_world()
    world.alice.connection.resume_stream(1, sent=10, delivered=10)
    world.alice.connection.ask_total(1)
    world.run(1_000)
    assert world.alice.first(PeerTotal).total_received is None  # bob never heard of the stream


def test_the_peers_total_tells_what_its_replies_did_not(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-28 leaves open what arrived; the peer may say it after all."""
    world = make_world(hops=[make_hop(maximum=1_000)])
    world.garble = lambda reply: Fulfill(reply.fulfillment) if isinstance(reply, Fulfill) else reply
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 10_000)
    world.run(60_000)
    world.garble = None
    totals = world.alice.connection.totals
    assert (totals.delivered, world.alice.connection.stream_delivered_max(stream_id)) == (9_900, totals.delivered_max)
    world.alice.connection.ask_total(stream_id)
    world.run(1_000)
    told = world.alice.first(PeerTotal).total_received
    assert told == world.arrived
    assert not world.alice.connection.believe_total(stream_id, 9_899)  # each packet brought its minimum
    assert world.alice.connection.believe_total(stream_id, told)
    assert totals.delivered == totals.delivered_max == world.arrived
    assert world.alice.connection.stream_sent(stream_id) == (10_000, world.arrived, 0)
    assert world.alice.connection.stream_delivered_max(stream_id) == world.arrived


def test_a_total_that_a_late_outcome_may_be_in_is_not_taken(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """Else the packet would be counted twice once its outcome is told."""
    world = make_world(hops=[make_hop(maximum=1_000)], alice=Settings(timeout_ms=2_000))
    world.expired_reject = False
    kept: list[tuple[int, Fulfill | Reject]] = []

    def keep(prepare: SendPrepare, reply: Fulfill | Reject) -> bool:
        if prepare.number == 15:
            kept.append((prepare.number, reply))
        return prepare.number == 15

    world.lose_reply = keep
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 50_000)
    world.run(60_000)
    assert not world.alice.connection.believe_total(stream_id, 50_000)
    assert world.alice.connection.reply_received(*kept[0], world.now)
    assert world.alice.connection.believe_total(stream_id, 50_000)
    assert world.alice.connection.totals.delivered == 50_000


def test_an_old_answer_is_no_total_of_what_was_sent_since(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """A question whose answer comes late, after more money went and was fulfilled (simulator, seed 8737)."""
    world = make_world(hops=[make_hop(maximum=1_000)], alice=Settings(timeout_ms=2_000))
    world.expired_reject = False
    connection = world.alice.connection
    stream_id = open_stream(world.alice)
    connection.send_total(stream_id, 5_000)
    world.run(60_000)
    late: list[tuple[int, Fulfill | Reject]] = []

    def keep(prepare: SendPrepare, reply: Fulfill | Reject) -> bool:
        late.append((prepare.number, reply))
        return True

    world.lose_reply = keep
    connection.ask_total(stream_id)
    world.run(1_000)
    world.lose_reply = None
    connection.send_total(stream_id, 8_000)
    world.run(60_000, until=lambda: world.arrived == 8_000)
    assert late
    for number, reply in late:
        connection.reply_received(number, reply, world.now)
    world.run(5_000)  # the question goes out again by itself
    assert [one.total_received for one in world.alice.told(PeerTotal)] == [8_000]


def test_the_total_can_be_asked_for_after_a_failure(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    hop = make_hop(maximum=1_000)
    world = make_world(hops=[hop], alice=Settings(stall_ms=5_000))
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 10**6)
    world.at(world.now + 60, lambda: setattr(hop, "refuse", "T04"))
    world.run(60_000, until=lambda: bool(world.alice.told(SendFailed)))
    posted = world.posted
    hop.refuse = ""
    world.alice.connection.stop_sending(stream_id)
    world.alice.connection.ask_total(stream_id)
    world.run(5_000)
    assert world.alice.first(PeerTotal).total_received == world.arrived
    assert world.posted == posted  # money doesn't go on
    assert len(world.alice.told(SendFailed)) == 1


def test_what_is_fulfilled_brought_its_minimum_whatever_the_rate_seems_to_be(
    make_world: "MakeWorld", make_hop: "type[Hop]"
) -> None:
    hop = make_hop(rate=Fraction(2), maximum=1_000)
    world = make_world(hops=[hop], minimum=Fraction(19, 10), alice=Settings(timeout_ms=2_000))
    world.expired_reject = False
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 400_000)
    world.at(world.now + 60, lambda: setattr(hop, "rate", Fraction(1)))  # the receiver refuses, and says what came
    world.run(60_000, until=lambda: bool(world.alice.connection.rate == 1))
    hop.rate = Fraction(2)
    world.lose_reply = lambda prepare, reply: True
    world.run(60_000)
    totals = world.alice.connection.totals
    assert totals.unknown
    assert totals.delivered_max - totals.delivered >= totals.unknown * 19 // 10


def test_what_silence_leaves_open_is_estimated_by_the_best_rate_that_was_seen(
    make_world: "MakeWorld", make_hop: "type[Hop]"
) -> None:
    """Simulator, seeds 1250 and 1924: the rate was learned with a packet so small that each hop rounded much away."""
    scarce = make_hop(rate=Fraction(1, 10), maximum=1_000, liquidity=200)
    world = make_world(hops=[scarce, make_hop(rate=Fraction(10))], minimum=Fraction(9, 10))
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 20_000)
    world.run(60_000, until=lambda: world.alice.connection.rate > 0)
    assert world.alice.connection.rate == Fraction(120, 125)
    scarce.liquidity = None
    silent = iter(range(5))
    world.garble = lambda reply: (
        Fulfill(reply.fulfillment) if isinstance(reply, Fulfill) and next(silent, None) is not None else reply
    )
    world.run(60_000)
    totals = world.alice.connection.totals
    assert totals.sent == world.arrived == 20_000
    assert totals.delivered == 20_000 - 5 * 100
    assert totals.delivered_max >= world.arrived


def test_the_condition_covers_all_of_the_data(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """P-7, STREAM-3: junk after the frames, too; swapped data is never fulfilled."""
    world = make_world()
    raw = make_raw(world)
    text = encode_packet(StreamPacket(PREPARE, 1, 0, [StreamMoney(1, 1)])) + bytes(40)
    prepare = raw.prepare(plaintext=text, amount=5)
    reply = raw.give(prepare)
    assert isinstance(reply, Fulfill)
    assert sha256(reply.fulfillment).digest() == prepare.condition
    other = raw.prepare(StreamMoney(1, 1), amount=5, sequence=2)
    swapped = Prepare(5, other.expires_at, prepare.condition, BOB, other.data)
    assert isinstance(raw.give(swapped), Reject)
    assert world.bob.connection.received == 5


@given(data=st.binary(max_size=200))
def test_any_authenticated_bytes_get_an_answer(make_world: "MakeWorld", make_raw: "type[Raw]", data: bytes) -> None:
    """P-9."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.give(raw.prepare(plaintext=b"\x01\x0c" + data, amount=3))
    assert isinstance(reply, Fulfill | Reject)
