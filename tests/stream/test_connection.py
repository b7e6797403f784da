"""Packets, closing, addresses: what the two ends of a connection owe each other beyond payments."""

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import FULFILL, REJECT, Fulfill, Prepare, Reject
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import (
    ConnectionClosed,
    PeerAddress,
    PeerAsset,
    PeerEnded,
    SendFailed,
    StreamClosed,
)
from isthmus.stream.packet import (
    APPLICATION_ERROR,
    FRAME_FORMAT_ERROR,
    NO_ERROR,
    PROTOCOL_VIOLATION,
    STREAM_STATE_ERROR,
    ConnectionAssetDetails,
    ConnectionClose,
    ConnectionMaxData,
    ConnectionMaxStreamId,
    ConnectionNewAddress,
    ConnectionStreamIdBlocked,
    Frame,
    StreamClose,
    StreamData,
    StreamMoney,
    StreamPacket,
    encode_packet,
)
from isthmus.stream.session import CLOSED_IDS_MAX
from isthmus.stream.settings import Settings

if TYPE_CHECKING:
    from tests.stream.conftest import End, Hop, MakeWorld, Raw, World

SECRET = bytes(range(32))
KEYS = Keys(SECRET)
BOB = "test.bob.token"


def closes(frames: list[Frame]) -> list[int]:
    return [frame.code for frame in frames if isinstance(frame, ConnectionClose)]


def open_stream(end: "End") -> int:
    stream_id = end.connection.open_stream()
    assert stream_id is not None
    return stream_id


# --- packets ----------------------------------------------------------------------------------------------------------


def test_a_packet_that_can_not_be_decrypted_gets_f06_without_data(
    make_world: "MakeWorld", make_raw: "type[Raw]"
) -> None:
    """STREAM-9, X-7, P-9: also data shorter than an envelope, and none at all."""
    world = make_world()
    raw = make_raw(world)
    for data in (b"", b"x" * 27, bytes(60), Keys(b"another secret").encrypt(b"\x01\x0c", bytes(12))):
        reply = raw.give(Prepare(5, 1_700_000_030_000, bytes(32), BOB, data))
        assert isinstance(reply, Reject)
        assert (reply.code, reply.data, reply.message) == ("F06", b"", "")


def test_an_empty_plaintext_does_no_harm(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """P-9."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.give(Prepare(5, 1_700_000_030_000, bytes(32), BOB, KEYS.encrypt(b"", bytes(12))))
    assert isinstance(reply, Reject)
    assert reply.code == "F06"


@pytest.mark.parametrize("ilp_type", [FULFILL, REJECT, 0])
def test_a_packet_made_for_another_ilp_type_is_discarded(
    make_world: "MakeWorld", make_raw: "type[Raw]", ilp_type: int
) -> None:
    """STREAM-6, X-7: an intermediary swapped the data of two packets."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.give(raw.prepare(StreamMoney(1, 1), amount=5, ilp_type=ilp_type))
    assert isinstance(reply, Reject)
    assert reply.code == "F06"
    assert world.bob.connection.received == 0


def test_a_reply_repeats_the_sequence_and_says_what_arrived(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-7, STREAM-8."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.give(raw.prepare(StreamMoney(1, 7), amount=70, minimum=69, sequence=4711))
    assert isinstance(reply, Fulfill)
    assert (raw.read(reply).sequence, raw.read(reply).prepare_amount) == (4711, 70)
    reply = raw.give(raw.prepare(StreamMoney(1, 7), amount=68, minimum=69, sequence=4712))
    assert isinstance(reply, Reject)
    assert (raw.read(reply).sequence, raw.read(reply).prepare_amount) == (4712, 68)


def test_replies_with_a_foreign_sequence_are_discarded(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-7: the money counts as sent, and only the minimum as arrived."""
    world = make_world(hops=[make_hop(maximum=1_000)])

    def swap(reply: Fulfill | Reject) -> Fulfill | Reject:
        if isinstance(reply, Fulfill):
            text = encode_packet(StreamPacket(FULFILL, 9_999, 10**9, []))
            return Fulfill(reply.fulfillment, KEYS.encrypt(text, world.rng.randbytes(12)))
        return reply

    world.garble = swap
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 5_000)
    world.run(10_000)
    assert world.alice.connection.stream_sent(stream_id) == (5_000, 4_950, 0)


def test_sequences_start_at_one_on_each_side(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-7: each endpoint has its own counter."""
    world = make_world(back=[make_hop()])
    world.alice.connection.send_total(open_stream(world.alice), 1_000)
    world.run(1_000)
    world.bob.connection.set_minimum_rate(Fraction(99, 100))
    world.bob.connection.send_total(open_stream(world.bob), 500)
    world.run(1_000)
    assert [order.number for order in world.alice.prepares[:2]] == [1, 2]
    assert [order.number for order in world.bob.prepares[:2]] == [1, 2]


def test_less_than_the_minimum_is_refused_with_f99_and_the_amount(
    make_world: "MakeWorld", make_raw: "type[Raw]"
) -> None:
    """STREAM-10, STREAM-9: F99 and not F04, with an encrypted reply."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.send(StreamMoney(1, 100), amount=98, minimum=99)
    assert isinstance(reply, Reject)
    assert reply.code == "F99"
    assert raw.read(reply).prepare_amount == 98
    assert isinstance(raw.send(StreamMoney(1, 100), amount=99, minimum=99), Fulfill)


def test_an_unfulfillable_condition_is_refused_with_the_amount(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-10, STREAM-11: how senders probe."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.send(amount=12_345, fulfillable=False)
    assert isinstance(reply, Reject)
    assert (reply.code, raw.read(reply).prepare_amount) == ("F99", 12_345)
    assert world.bob.connection.received == 0


def test_a_malformed_packet_of_the_peer_closes_the_connection(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-14: FrameFormatError."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.give(raw.prepare(plaintext=b"\x01\x0c\x01\x05\x01\x00\x01\x01\x11\x02\x01"))
    assert isinstance(reply, Reject)
    assert closes(raw.frames(reply)) == [FRAME_FORMAT_ERROR]
    assert world.bob.first(ConnectionClosed).code == FRAME_FORMAT_ERROR


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_the_connection_closes_after_2_31_packets(make_world: "MakeWorld", make_hop: "type[Hop]", side: str) -> None:
    """STREAM-12: here with a smaller bound; the last number carries the ConnectionClose."""
    if side == "ours":
        world = make_world(hops=[make_hop(maximum=10)], alice=Settings(packets_max=50))
    else:
        world = make_world(hops=[make_hop(maximum=10)], bob=Settings(packets_max=50))
    world.alice.connection.send_total(open_stream(world.alice), 10_000)
    world.run(20_000)
    assert world.alice.told(ConnectionClosed)
    assert world.bob.told(ConnectionClosed)
    assert max(order.number for order in world.alice.prepares) <= 50 + 256
    assert world.sent == world.arrived < 500
    if side == "ours":
        assert max(order.number for order in world.alice.prepares) == 49
        assert world.alice.told(SendFailed)


def test_the_default_bound_is_2_31() -> None:
    """STREAM-12."""
    assert Settings().packets_max == 2**31


# --- closing ----------------------------------------------------------------------------------------------------------


def test_a_stream_ends_half_after_its_data_and_money(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-23: we support half-open streams; both ends forget the stream when both have ended it."""
    world = make_world(hops=[make_hop(maximum=1_000)])
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 20_000)
    world.alice.connection.write(stream_id, b"question")
    world.alice.connection.end_stream(stream_id)
    world.run(5_000)
    assert world.bob.first(PeerEnded).code == NO_ERROR
    assert world.arrived == 20_000
    assert world.bob.connection.read(stream_id) == b"question"
    world.bob.connection.write(stream_id, b"answer")
    world.bob.connection.end_stream(stream_id)
    world.run(5_000)
    assert world.alice.connection.read(stream_id) == b"answer" or world.alice.told(StreamClosed)
    assert world.alice.first(StreamClosed).stream_id == world.bob.first(StreamClosed).stream_id == stream_id


def test_money_and_data_for_a_closed_stream_are_refused(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-23, STREAM-14: StreamStateError."""
    world = make_world()
    raw = make_raw(world)
    raw.send(StreamMoney(1, 1), amount=1)
    world.bob.connection.close_stream(1)
    frames: tuple[Frame, ...] = (StreamMoney(1, 1), StreamData(1, 0, b"x"))
    for frame in frames:
        reply = raw.send(frame, amount=1 if isinstance(frame, StreamMoney) else 0)
        assert isinstance(reply, Reject)
        codes = [frame.code for frame in raw.frames(reply) if isinstance(frame, StreamClose)]
        assert STREAM_STATE_ERROR in codes
    assert not world.bob.connection.closed
    assert world.bob.connection.received == 1


def test_closed_streams_need_no_memory_for_ever(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-18, P-9: an id that was left out long ago counts as closed; those that are open stay so."""
    world = make_world()
    raw = make_raw(world)
    assert isinstance(raw.send(StreamData(5, 0, b"open")), Fulfill)
    for number in range(CLOSED_IDS_MAX + 1):
        stream_id = 7 + 2 * number
        assert isinstance(raw.send(StreamData(stream_id, 0, b"x")), Fulfill)
        raw.send(StreamClose(stream_id, APPLICATION_ERROR, ""))
    assert isinstance(raw.send(StreamData(5, 4, b"still")), Fulfill)
    reply = raw.send(StreamData(3, 0, b"x"))
    assert isinstance(reply, Reject)
    assert STREAM_STATE_ERROR in [frame.code for frame in raw.frames(reply) if isinstance(frame, StreamClose)]
    assert not world.bob.connection.closed


def test_a_stream_broken_off_by_the_peer_sends_nothing_more(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-23: closed at once."""
    world = make_world(hops=[make_hop(maximum=100)])
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 1_000_000)
    world.run(100)
    world.bob.connection.close_stream(stream_id, APPLICATION_ERROR, "enough")
    world.run(10_000)
    ended = world.alice.first(PeerEnded)
    assert ended.code in (APPLICATION_ERROR, STREAM_STATE_ERROR)
    assert world.alice.told(StreamClosed)
    assert world.sent == world.arrived < 1_000_000


def test_closing_waits_for_what_is_in_flight(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """STREAM-23: ConnectionClose is the last packet, and the peer learns it."""
    world = make_world(hops=[make_hop(maximum=100)])
    world.alice.connection.send_total(open_stream(world.alice), 100_000)
    world.run(60)
    world.alice.connection.close(NO_ERROR, "bye")
    world.run(5_000)
    assert world.alice.first(ConnectionClosed).by_peer is False
    closed = world.bob.first(ConnectionClosed)
    assert (closed.code, closed.message, closed.by_peer) == (NO_ERROR, "bye", True)
    assert world.sent == world.arrived == world.posted > 0
    assert world.alice.connection.totals.in_flight == 0


def test_after_a_close_everything_is_refused(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-23: the connection closes at once; unfulfillable closes (JS) count, too."""
    world = make_world()
    raw = make_raw(world)
    raw.send(StreamMoney(1, 1), amount=1)
    reply = raw.send(ConnectionClose(APPLICATION_ERROR, "oops"), fulfillable=False)
    assert isinstance(reply, Reject)
    closed = world.bob.first(ConnectionClosed)
    assert (closed.code, closed.message, closed.by_peer) == (APPLICATION_ERROR, "oops", True)
    reply = raw.send(StreamMoney(1, 1), amount=1)
    assert isinstance(reply, Reject)
    assert closes(raw.frames(reply)) == [NO_ERROR]
    assert world.bob.connection.received == 1


def test_unknown_error_codes_are_tolerated(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-14."""
    world = make_world()
    raw = make_raw(world)
    raw.send(StreamMoney(1, 1), amount=1)
    raw.send(StreamClose(1, 200, "?"))
    raw.send(ConnectionClose(255, "?"))
    assert world.bob.first(PeerEnded).code == 200
    assert world.bob.first(ConnectionClosed).code == 255


def test_a_server_that_can_not_send_says_that_it_closed_in_replies(make_world: "MakeWorld") -> None:
    world = make_world(alice=Settings())  # without an address
    world.alice.connection.send_total(open_stream(world.alice), 1_000)
    world.run(1_000)
    world.bob.connection.close(APPLICATION_ERROR, "closing time")
    world.run(100)
    assert world.bob.told(ConnectionClosed)
    world.alice.connection.send_total(1, 2_000)
    world.run(5_000)
    assert world.alice.first(ConnectionClosed).message == "closing time"
    assert world.alice.first(SendFailed).failure.name == "CLOSED"


# --- addresses and assets ---------------------------------------------------------------------------------------------


def test_both_ends_learn_address_and_asset(make_world: "MakeWorld") -> None:
    """STREAM-24: told as soon as possible."""
    world = make_world()
    world.alice.connection.send_total(open_stream(world.alice), 10_000)
    world.run(1_000)
    assert world.bob.first(PeerAddress).address == "test.alice"
    assert world.bob.first(PeerAsset).asset == Asset("BTC", 8)
    assert world.alice.first(PeerAsset).asset == Asset("ETH", 9)


def test_an_asset_code_is_fit_to_be_shown(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-24: terminals would obey what it says."""
    world = make_world()
    make_raw(world).send(ConnectionAssetDetails("\x1b[2J" + "X" * 1_000, 9))
    asset = world.bob.connection.peer_asset
    assert asset is not None
    assert asset.code.isprintable()
    assert len(asset.code) == 64


def test_codes_that_a_connector_invents_stay_a_short_list(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    """ILP-18: they are counted, whatever they are."""
    world = make_world(hops=[make_hop(maximum=100)])
    numbers = iter(range(100))

    def garble(reply: Fulfill | Reject) -> Fulfill | Reject:
        return reply if isinstance(reply, Fulfill) else Reject(f"T{chr(next(numbers, 7))}x", "test.hop", "")

    world.garble = garble
    world.alice.connection.send_total(open_stream(world.alice), 10_000)
    world.run(600_000)
    assert all(code.isprintable() for code in world.alice.connection.totals.rejected)


def test_asset_details_never_change(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-24: a contradiction closes the connection."""
    world = make_world()
    raw = make_raw(world)
    raw.send(ConnectionAssetDetails("BTC", 8))
    raw.send(ConnectionAssetDetails("BTC", 8))
    assert len(world.bob.told(PeerAsset)) == 1
    reply = raw.send(ConnectionAssetDetails("BTC", 9))
    assert closes(raw.frames(reply)) == [PROTOCOL_VIOLATION]


def test_a_new_address_is_validated_before_much_is_sent_to_it(
    make_world: "MakeWorld", make_raw: "type[Raw]", make_hop: "type[Hop]"
) -> None:
    """STREAM-25: one small packet, until an authenticated answer comes from there."""
    world = make_world()
    raw = make_raw(world)
    raw.send(ConnectionNewAddress("test.victim"), StreamMoney(1, 1), amount=1)
    world.lose = lambda prepare: prepare.destination == "test.victim"  # it knows nothing of us
    world.bob.connection.set_minimum_rate(Fraction(1, 2))
    world.bob.connection.write(1, bytes(100_000))
    world.bob.connection.send_total(1, 10**9)
    world.run(20_000)
    sent = [order for order in world.bob.prepares if order.destination == "test.victim"]
    assert len(sent) == 1
    assert sent[0].amount == 0
    assert len(sent[0].data) < 200


def test_a_client_that_moves_is_followed(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-25."""
    world = make_world()
    world.alice.connection.send_total(open_stream(world.alice), 1_000)
    world.run(1_000)
    raw = make_raw(world)
    raw.sequence = 10_000
    raw.send(ConnectionNewAddress("test.alice.moved"))
    world.bob.connection.write(1, b"hello")
    world.run(1_000)
    assert {order.destination for order in world.bob.prepares} == {"test.alice.moved", "test.alice"} or {
        order.destination for order in world.bob.prepares
    } == {"test.alice.moved"}
    assert world.alice.connection.read(1) == b"hello"


def test_an_invalid_address_in_a_frame_is_a_format_error(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-14, P-2."""
    world = make_world()
    raw = make_raw(world)
    text = b"\x01\x0c\x01\x05\x01\x00\x01\x01\x02\x05\x04g.a\n"
    reply = raw.give(raw.prepare(plaintext=text))
    assert closes(raw.frames(reply)) == [FRAME_FORMAT_ERROR]


def test_stream_limits_are_told_at_first_contact(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-18, STREAM-24: in the first reply."""
    world = make_world()
    raw = make_raw(world)
    frames = raw.frames(raw.send(fulfillable=False))
    assert ConnectionAssetDetails("ETH", 9) in frames
    assert ConnectionMaxStreamId(20) in frames
    assert ConnectionMaxData(262_144) in frames
    assert raw.frames(raw.send(fulfillable=False)) == []
    assert ConnectionMaxStreamId(20) in raw.frames(raw.send(ConnectionStreamIdBlocked(30)))


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_question_on_its_way_is_not_due_again(make_world: "MakeWorld") -> None:
    """Found by the fuzzer: the next question's time came while one was unanswered, and woke the sender without end."""
    world = make_world(bob=Settings(address=BOB, receive_max=0))
    world.alice.connection.send_total(open_stream(world.alice), 50_000)
    world.run(400)
    world.lose = lambda order: True
    world.expired_reject = False
    world.run(8_000, until=lambda: _is_overdue(world))
    assert not _is_overdue(world)


def test_a_closed_connection_rests(make_world: "MakeWorld") -> None:
    """Found by the fuzzer: a payment that was wanted when it closed went on to be waited for."""
    world = make_world()
    world.alice.connection.send_total(open_stream(world.alice), 50_000)
    world.run(until=lambda: len(world.alice.prepares) == 2)  # after what the first one learnt
    world.alice.connection.close()
    world.run(120_000)
    assert world.alice.connection.closed
    assert world.alice.connection.wakes_at(world.now) is None


def test_data_that_the_peer_breaks_off_is_dropped_though_money_was_stopped_before(make_world: "MakeWorld") -> None:
    """Found by the fuzzer: the StreamClose was ignored, and the same data sent again as fast as the path allowed."""
    world = make_world()
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 50_000)
    world.alice.connection.write(stream_id, bytes(20_000))
    world.alice.connection.stop_sending(stream_id)
    world.run(until=lambda: bool(world.bob.connection.stream_ids()))
    world.bob.connection.close_stream(stream_id, STREAM_STATE_ERROR, "enough")
    world.run(60_000)
    assert len(world.alice.prepares) < 20
    assert world.alice.first(PeerEnded).code == STREAM_STATE_ERROR


def test_a_question_may_be_lost_after_its_stream_is_gone(make_world: "MakeWorld") -> None:
    """Found by the fuzzer: its expiry looked for the stream, which the peer had closed meanwhile, and raised."""
    world = make_world(bob=Settings(address=BOB, receive_max=0))
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 50_000)
    world.run(until=lambda: bool(world.bob.connection.stream_ids()))
    world.lose = lambda order: any(order is each for each in world.alice.prepares)
    world.expired_reject = False
    world.run(1_000)
    world.bob.connection.close_stream(stream_id, STREAM_STATE_ERROR, "enough")
    world.run(120_000)
    assert world.alice.first(StreamClosed).stream_id == stream_id


def _is_overdue(world: "World") -> bool:
    """Polled twice, and still due."""
    world.poll(world.alice)
    due = world.alice.connection.wakes_at(world.now)
    return due is not None and due <= world.now
