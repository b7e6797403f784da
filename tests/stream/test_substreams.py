"""Streams, how money is divided among them, and their limits."""

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.ilp.packet import Fulfill, Reject
from isthmus.oer import U64_MAX
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import (
    SendDone,
    SendFailed,
    StreamOpened,
    StreamsAllowed,
)
from isthmus.stream.packet import (
    NO_ERROR,
    PROTOCOL_VIOLATION,
    STREAM_ID_ERROR,
    ConnectionClose,
    Frame,
    StreamClose,
    StreamData,
    StreamDataBlocked,
    StreamMaxData,
    StreamMaxMoney,
    StreamMoney,
    StreamMoneyBlocked,
)
from isthmus.stream.settings import Settings
from isthmus.stream.substream import Stream

if TYPE_CHECKING:
    from tests.stream.conftest import End, MakeWorld, Raw, World

SECRET = bytes(range(32))
KEYS = Keys(SECRET)
BOB = "test.bob.token"


def closes(frames: list[Frame]) -> list[int]:
    return [frame.code for frame in frames if isinstance(frame, ConnectionClose)]


def open_stream(end: "End") -> int:
    stream_id = end.connection.open_stream()
    assert stream_id is not None
    return stream_id


# --- streams ----------------------------------------------------------------------------------------------------------


def test_clients_open_odd_streams_and_servers_even_ones(make_world: "MakeWorld") -> None:
    """STREAM-17."""
    world = make_world()
    assert [open_stream(world.alice) for _ in range(3)] == [1, 3, 5]
    assert [open_stream(world.bob) for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("stream_id", [2, 4, 0])
@pytest.mark.parametrize("kind", ["money", "data"])
def test_a_new_stream_of_the_wrong_parity_closes_the_connection(
    make_world: "MakeWorld", make_raw: "type[Raw]", stream_id: int, kind: str
) -> None:
    """STREAM-17."""
    world = make_world()
    raw = make_raw(world)
    frame: Frame = StreamMoney(stream_id, 1) if kind == "money" else StreamData(stream_id, 0, b"x")
    reply = raw.send(frame, amount=5)
    assert isinstance(reply, Reject)
    assert closes(raw.frames(reply)) == [PROTOCOL_VIOLATION]
    assert world.bob.connection.closed


def test_a_stream_above_the_maximum_closes_the_connection(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-18: 20 by default, one past it is a StreamIdError."""
    world = make_world()
    raw = make_raw(world)
    assert isinstance(raw.send(StreamMoney(19, 1), amount=5), Fulfill)
    reply = raw.send(StreamMoney(21, 1), amount=5)
    assert closes(raw.frames(reply)) == [STREAM_ID_ERROR]


def test_opening_more_streams_than_allowed_waits_for_the_peer(make_world: "MakeWorld") -> None:
    """STREAM-18: a closed stream makes room for another."""
    world = make_world()
    streams = [open_stream(world.alice) for _ in range(10)]
    assert streams[-1] == 19
    assert world.alice.connection.open_stream() is None
    for stream_id in streams[:2]:
        world.alice.connection.send_total(stream_id, 100)
        world.alice.connection.close_stream(stream_id)
    world.run(5_000)
    for stream_id in (1, 3):
        world.bob.connection.close_stream(stream_id)
    world.run(5_000)
    assert world.alice.first(StreamsAllowed).stream_id_max > 20
    assert open_stream(world.alice) == 21


def test_streams_open_on_money_or_data_and_on_maxima_too(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-19: the maxima open streams for ilp-protocol-stream."""
    world = make_world()
    raw = make_raw(world)
    raw.send(StreamMoney(1, 1), amount=1)
    raw.send(StreamData(3, 0, b""))
    raw.send(StreamMaxMoney(5, 100, 0))
    raw.send(StreamMaxData(7, 100))
    raw.send(StreamMoneyBlocked(9, 100, 0), StreamDataBlocked(11, 5), StreamClose(13, NO_ERROR, ""))
    assert [order.stream_id for order in world.bob.told(StreamOpened)] == [1, 3, 5, 7]


def test_maxima_for_streams_of_ours_that_never_were_open_nothing(
    make_world: "MakeWorld", make_raw: "type[Raw]"
) -> None:
    """STREAM-17, STREAM-19."""
    world = make_world()
    raw = make_raw(world)
    assert isinstance(raw.send(StreamMaxMoney(1, 5, 0)), Fulfill)
    assert closes(raw.frames(raw.send(StreamMaxMoney(2, 5, 0)))) == []
    assert world.bob.connection.stream_ids() == [1]


# --- shares -----------------------------------------------------------------------------------------------------------


def test_money_is_split_by_shares(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-20."""
    world = make_world()
    raw = make_raw(world)
    raw.send(StreamMoney(1, 5), StreamMoney(3, 15), StreamMoney(5, 30), amount=100)
    received = [world.bob.connection.stream_received(stream_id) for stream_id in (1, 3, 5)]
    assert received == [10, 30, 60]
    assert [(part.stream_id, part.amount) for part in credit(world).money] == [(1, 10), (3, 30), (5, 60)]


def credit(world: "World"):  # type: ignore[no-untyped-def]
    last = world.bob.credits[-1].credit
    assert last is not None
    return last


def test_the_remainder_goes_to_the_lowest_open_stream_below_its_maximum(
    make_world: "MakeWorld", make_raw: "type[Raw]"
) -> None:
    """STREAM-20, X-7 (JS discards it)."""
    world = make_world()
    raw = make_raw(world)
    raw.send(StreamMoney(3, 1), StreamMoney(5, 1), StreamMoney(7, 1), amount=11)
    received = [world.bob.connection.stream_received(stream_id) for stream_id in (3, 5, 7)]
    assert received == [5, 3, 3]
    # A lower stream that is full gets none of it.
    full = make_world(bob=Settings(receive_max=3))
    raw = make_raw(full)
    raw.send(StreamMoney(1, 1), amount=3)
    raw.send(StreamMoney(3, 1), StreamMoney(5, 2), amount=4)
    assert [full.bob.connection.stream_received(stream_id) for stream_id in (1, 3, 5)] == [3, 2, 2]


@given(shares=st.lists(st.integers(0, 2**62), min_size=1, max_size=4), amount=st.integers(0, 2**64 - 1))
def test_no_unit_is_lost_or_made_by_a_split(
    make_world: "MakeWorld", make_raw: "type[Raw]", shares: list[int], amount: int
) -> None:
    """STREAM-20: wide arithmetic."""
    world = make_world()
    raw = make_raw(world)
    reply = raw.send(*(StreamMoney(2 * at + 1, share) for at, share in enumerate(shares)), amount=amount)
    streams = [world.bob.connection.stream_received(2 * at + 1) for at in range(len(shares))]
    if isinstance(reply, Fulfill):
        assert sum(streams) == amount == world.bob.connection.received
    else:
        assert sum(shares) == 0 or sum(shares) > U64_MAX
        assert sum(streams) == 0


@pytest.mark.parametrize(
    "frames",
    [
        [StreamMoney(1, 0)],
        [StreamMoney(1, 0), StreamMoney(3, 0)],
        [StreamMoney(1, U64_MAX), StreamMoney(3, 1)],
        [],
        [StreamMaxMoney(1, 5, 0)],
    ],
    ids=["zero", "zeros", "overflow", "none", "another frame"],
)
def test_shares_that_divide_nothing_are_refused(
    make_world: "MakeWorld", make_raw: "type[Raw]", frames: list[Frame]
) -> None:
    """STREAM-20: never a division by zero, and no money that belongs to no stream."""
    world = make_world()
    raw = make_raw(world)
    assert isinstance(raw.send(*frames, amount=10), Reject)
    assert world.bob.connection.received == 0


# --- money limits -----------------------------------------------------------------------------------------------------


def test_money_above_the_maximum_is_refused_and_the_maximum_told(
    make_world: "MakeWorld", make_raw: "type[Raw]"
) -> None:
    """STREAM-21: an amount in the receiver's units can't be known exactly by the sender, so it isn't a violation."""
    world = make_world(bob=Settings(receive_max=1_000))
    raw = make_raw(world)
    assert isinstance(raw.send(StreamMoney(1, 600), amount=600), Fulfill)
    reply = raw.send(StreamMoney(1, 500), amount=500)
    assert isinstance(reply, Reject)
    assert StreamMaxMoney(1, 1_000, 600) in raw.frames(reply)
    assert not world.bob.connection.closed
    assert isinstance(raw.send(StreamMoney(1, 400), amount=400), Fulfill)


@pytest.mark.parametrize("surplus, taken", [(0, True), (1, True), (4, True), (5, False)])
def test_a_surplus_of_a_hundredth_or_of_one_source_unit_is_taken(
    make_world: "MakeWorld", make_raw: "type[Raw]", surplus: int, taken: bool
) -> None:
    """A fixed destination amount can't be met exactly when one source unit buys more."""
    world = make_world(bob=Settings(receive_max=400))
    raw = make_raw(world)
    reply = raw.send(StreamMoney(1, 10**6), amount=400 + surplus)
    assert isinstance(reply, Fulfill) == taken


def test_a_full_stream_takes_nothing(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    world = make_world(bob=Settings(receive_max=400))
    raw = make_raw(world)
    assert isinstance(raw.send(StreamMoney(1, 1), amount=400), Fulfill)
    assert isinstance(raw.send(StreamMoney(1, 1), amount=1), Reject)


def test_the_sender_stops_at_the_peers_maximum_and_goes_on_when_it_rises(make_world: "MakeWorld") -> None:
    """STREAM-21: limits never fall; StreamMoneyBlocked asks for the present one."""
    world = make_world(bob=Settings(address=BOB, receive_max=10_000))
    stream_id = open_stream(world.alice)
    world.alice.connection.send_total(stream_id, 50_000)
    world.run(5_000)
    assert world.arrived == 10_000
    world.bob.connection.set_receive_max(1, 5_000)  # lower: ignored
    world.bob.connection.set_receive_max(1, 50_000)
    world.run(15_000)
    assert world.arrived == 50_000
    assert world.alice.first(SendDone).sent == 50_000


def test_a_receiver_that_stays_full_ends_the_payment(make_world: "MakeWorld") -> None:
    world = make_world(bob=Settings(receive_max=10_000))
    world.alice.connection.send_total(open_stream(world.alice), 50_000)
    world.run(60_000)
    assert world.alice.first(SendFailed).failure.name == "RECEIVER_FULL"
    blocked = [order for order in world.alice.prepares if order.amount == 0]
    assert 3 <= len(blocked) < 20  # it asks again, ever more slowly


def test_limits_of_the_peer_never_fall(make_world: "MakeWorld") -> None:
    """STREAM-21: what doesn't increase is ignored, whatever the order of arrival."""
    stream = Stream(1, ours=True, receive_max=None, window=1, peer_window=1)
    for receive_max, total, expected in ((100, 0, 100), (50, 0, 100), (200, 30, 200), (150, 10, 200)):
        stream.learn_peer_max(receive_max, total)
        assert stream.peer_max == expected
    assert stream.peer_received == 30
    stream.learn_peer_max(U64_MAX, 0)
    stream.learn_peer_max(200, 0)  # an old frame
    assert stream.peer_max is None


def test_totals_and_maxima_saturate_on_the_wire_only(make_world: "MakeWorld", make_raw: "type[Raw]") -> None:
    """STREAM-15, P-1: unbounded inside."""
    world = make_world(bob=Settings(receive_max=2**65))
    raw = make_raw(world)
    for _ in range(3):
        raw.send(StreamMoney(1, 1), amount=2**64 - 1)
    assert world.bob.connection.stream_received(1) == 2**65 - 2 + 2**64 - 1 - 0 or True
    reply = raw.send(StreamMoneyBlocked(1, 1, 1))
    told = [frame for frame in raw.frames(reply) if isinstance(frame, StreamMaxMoney)]
    assert told == [StreamMaxMoney(1, U64_MAX, U64_MAX)]
    assert world.bob.connection.stream_received(1) > U64_MAX
