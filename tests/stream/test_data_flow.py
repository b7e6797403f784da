"""Data from end to end, and its limits."""

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from isthmus.ilp.packet import Fulfill, Reject
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import (
    ConnectionClosed,
    DataArrived,
)
from isthmus.stream.packet import (
    FLOW_CONTROL_ERROR,
    PROTOCOL_VIOLATION,
    ConnectionClose,
    Frame,
    StreamData,
    StreamDataBlocked,
    StreamMaxData,
    StreamMoney,
)
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


def read_all(world: "World", end: "End", stream_id: int, out: bytearray) -> Callable[[], bool]:
    def step() -> bool:
        out.extend(end.connection.read(stream_id))
        return False

    return step


@pytest.mark.parametrize("size", [0, 1, 20_000, 300_000])
def test_data_arrives_in_order_and_whole(make_world: "MakeWorld", size: int) -> None:
    """STREAM-21, STREAM-22."""
    world = make_world()
    world.delay_ms = (1, 60)
    stream_id = open_stream(world.alice)
    data = world.rng.randbytes(size)
    assert world.alice.connection.write(stream_id, data) == size
    out = bytearray()
    world.run(60_000, until=read_all(world, world.bob, stream_id, out))
    assert bytes(out) == data
    assert world.alice.connection.all_acknowledged(stream_id)


def test_data_survives_lost_packets_and_lost_replies(make_world: "MakeWorld") -> None:
    """STREAM-22: identical frames are sent again, and taken once."""
    world = make_world(alice=Settings(timeout_ms=500), bob=Settings(timeout_ms=500))
    world.lose = lambda prepare: world.rng.random() < 0.2
    world.lose_reply = lambda prepare, reply: world.rng.random() < 0.2
    stream_id = open_stream(world.alice)
    data = world.rng.randbytes(200_000)
    world.alice.connection.write(stream_id, data)
    out = bytearray()
    world.run(300_000, until=read_all(world, world.bob, stream_id, out))
    assert bytes(out) == data


def test_data_flows_both_ways_beside_money(make_world: "MakeWorld", make_hop: "type[Hop]") -> None:
    world = make_world(hops=[make_hop(maximum=1_000)], back=[make_hop(maximum=500)])
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 100_000)
    world.alice.connection.write(stream_id, b"order")
    world.run(100)
    world.bob.connection.set_minimum_rate(Fraction(9, 10))
    world.bob.connection.write(stream_id, b"thanks")
    world.bob.connection.send_total(stream_id, 20_000)
    world.run(10_000)
    assert world.alice.connection.read(stream_id) == b"thanks"
    assert world.bob.connection.read(stream_id) == b"order"
    assert world.arrived == 100_000
    assert world.alice.connection.received == 20_000


def test_a_reader_that_stops_stops_the_writer(make_world: "MakeWorld") -> None:
    """STREAM-21: at most the advertised window is held, at both levels."""
    world = make_world()
    stream_id = open_stream(world.alice)
    world.alice.connection.write(stream_id, bytes(500_000))
    world.run(20_000)
    assert world.bob.connection.readable(stream_id) == 32_000
    assert len(world.bob.connection.read(stream_id)) == 32_000
    world.run(20_000)
    assert world.bob.connection.readable(stream_id) == 32_000


def test_writes_are_bounded(make_world: "MakeWorld") -> None:
    world = make_world()
    stream_id = open_stream(world.alice)
    assert world.alice.connection.write(stream_id, bytes(2**20)) == 2**20
    assert world.alice.connection.write(stream_id, b"x") == 0
    assert world.alice.connection.unsent_bytes(stream_id) == 2**20


@pytest.mark.parametrize(
    "first, second, code",
    [
        (StreamData(1, 0, b"x"), StreamData(1, 32_000, b"y"), FLOW_CONTROL_ERROR),
        (StreamData(1, 0, b"0123456789"), StreamData(1, 5, b"5678901234"), PROTOCOL_VIOLATION),
        (StreamData(1, 10, b"1234567890"), StreamData(1, 15, b"67890"), PROTOCOL_VIOLATION),
        (StreamData(1, 10, b"1234567890"), StreamData(1, 5, b"67890123"), PROTOCOL_VIOLATION),
    ],
    ids=["beyond the limit", "overlap with taken", "overlap behind a gap", "overlap before a gap"],
)
def test_data_beyond_the_limits_or_overlapping_closes_the_connection(
    make_world: "MakeWorld", make_raw: "type[Raw]", first: Frame, second: Frame, code: int
) -> None:
    """STREAM-21, STREAM-22."""
    world = make_world()
    raw = make_raw(world)
    assert isinstance(raw.send(first), Fulfill)
    reply = raw.send(second)
    assert isinstance(reply, Reject)
    assert closes(raw.frames(reply)) == [code]
    assert world.bob.first(ConnectionClosed).code == code


def test_overlapping_data_within_one_packet_closes_the_connection(
    make_world: "MakeWorld", make_raw: "type[Raw]"
) -> None:
    """STREAM-22."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.send(StreamData(1, 0, b"0123456789"), StreamData(1, 5, b"567890"))
    assert isinstance(reply, Reject)
    assert closes(raw.frames(reply)) == [PROTOCOL_VIOLATION]


def test_a_flood_of_crumbs_is_refused_and_closes_nothing(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-21, P-9: memory per connection is bounded, whatever a hostile sender cuts its data into."""
    world = make_world()
    raw = make_raw(world)
    crumbs = [StreamData(1, 2 + 2 * number, b"x") for number in range(1_500)]
    reply = raw.send(*crumbs)
    assert isinstance(reply, Reject)
    assert closes(raw.frames(reply)) == []
    assert isinstance(raw.send(StreamData(1, 0, b"whole")), Fulfill)


def test_the_last_allowed_byte_is_taken(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-21: the bound itself."""
    world = make_world()
    raw = make_raw(world)
    assert isinstance(raw.send(StreamData(1, 31_999, b"y")), Fulfill)
    assert not world.bob.connection.closed


def test_too_much_data_over_all_streams_closes_the_connection(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-21: connection level."""
    world = make_world(bob=Settings(connection_bytes_max=70_000))
    raw = make_raw(world)
    for stream_id in (1, 3):
        assert isinstance(raw.send(StreamData(stream_id, 0, bytes(30_000))), Fulfill)
    assert isinstance(raw.send(StreamData(5, 0, bytes(10_000))), Fulfill)
    assert closes(raw.frames(raw.send(StreamData(7, 0, b"x")))) == [FLOW_CONTROL_ERROR]


def test_fragments_sent_again_are_taken_once(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-22."""
    world = make_world()
    raw = make_raw(world)
    for frame in (
        StreamData(1, 3, b"def"),
        StreamData(1, 3, b"def"),
        StreamData(1, 0, b"abc"),
        StreamData(1, 0, b"abc"),
    ):
        assert isinstance(raw.send(frame), Fulfill)
    assert world.bob.connection.read(1) == b"abcdef"
    assert len(world.bob.told(DataArrived)) == 1


def test_data_of_a_refused_packet_is_not_taken(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """A Reject means that the frames were not taken (RFC 0029 §3.6); the sender will send them again."""
    world = make_world()
    raw = make_raw(world)
    assert isinstance(raw.send(StreamData(1, 0, b"abc"), StreamMoney(1, 1), amount=1, minimum=2), Reject)
    assert world.bob.connection.readable(1) == 0
    assert isinstance(raw.send(StreamData(1, 0, b"abc"), StreamMoney(1, 1), amount=2, minimum=2), Fulfill)
    assert world.bob.connection.read(1) == b"abc"
    assert world.bob.connection.received == 2


def test_the_first_fragment_starts_at_zero(make_world: "MakeWorld") -> None:
    """STREAM-22."""
    world = make_world()
    stream_id = open_stream(world.alice)
    world.alice.connection.write(stream_id, b"hello")
    world.alice.connection.poll(world.now)
    world = make_world()
    stream_id = open_stream(world.alice)
    world.alice.connection.write(stream_id, b"hello")
    world.run(10)
    assert world.bob.connection.read(stream_id) == b"hello"
    assert world.bob.connection.stream_ids() == [1]


def test_a_blocked_writer_asks(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """RFC 0029 §4.4.4: StreamDataBlocked; the reply tells the present limit."""
    world = make_world()
    raw = make_raw(world)
    raw.send(StreamData(1, 0, bytes(30_000)))
    world.bob.connection.read(1)
    frames = raw.frames(raw.send(StreamDataBlocked(1, 100_000)))
    assert StreamMaxData(1, 62_000) in frames


def test_a_window_is_smaller_than_a_packet(make_world: "MakeWorld") -> None:
    """ilp-protocol-stream, given room, sends 32768 bytes of ILP data: one more than there may be (ILP-13)."""
    assert Settings().stream_bytes_max < 32_739 - 100
    with pytest.raises(ValueError, match="buffers"):
        Settings(stream_bytes_max=16_383)  # it sends so much before it is told a limit
