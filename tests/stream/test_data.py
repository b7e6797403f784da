"""Bytes of a stream: cut, lost, reordered, repeated, put together."""

import random

from hypothesis import given
from hypothesis import strategies as st

from isthmus.stream.data import FITS, FRAGMENTS_MAX, TOO_MANY, IncomingBytes, OutgoingBytes
from isthmus.stream.packet import FLOW_CONTROL_ERROR, PROTOCOL_VIOLATION


@given(st.binary(max_size=3_000), st.integers(0, 2**32), st.integers(1, 400))
def test_any_order_and_repetition_gives_the_same_bytes(data: bytes, seed: int, size: int) -> None:
    """STREAM-22."""
    rng = random.Random(seed)
    outgoing = OutgoingBytes(10_000)
    outgoing.write(data)
    frames = []
    while outgoing.can_send(10_000):
        frames.append(outgoing.next_chunk(rng.randint(1, size), 10_000))
    frames += [frame for frame in frames if rng.random() < 0.3]
    rng.shuffle(frames)
    incoming = IncomingBytes(10_000)
    out = b""
    for offset, chunk in frames:
        assert incoming.check(offset, len(chunk)) == FITS
        incoming.push(offset, chunk)
        if rng.random() < 0.5:
            out += incoming.take(rng.randint(1, 50))
    out += incoming.take(10_000)
    assert out == data
    assert incoming.contiguous == incoming.highest == len(data)


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(1, 40)), max_size=30))
def test_what_is_held_never_overlaps_and_never_exceeds_the_window(fragments: list[tuple[int, int]]) -> None:
    """STREAM-21, STREAM-22: against a naive map of bytes."""
    incoming = IncomingBytes(100)
    taken: dict[int, tuple[int, int]] = {}
    for offset, size in fragments:
        code = incoming.check(offset, size)
        touched = {taken[at] for at in range(offset, offset + size) if at in taken}
        if offset + size > 100:
            assert code == FLOW_CONTROL_ERROR
        elif not touched:
            assert code == FITS
        elif touched != {(offset, size)} and offset + size > incoming.contiguous:
            assert code == PROTOCOL_VIOLATION
        if code == FITS:
            incoming.push(offset, bytes(size))
            for at in range(offset, offset + size):
                taken.setdefault(at, (offset, size))


def test_the_window_moves_with_the_reader_and_is_told_in_large_steps() -> None:
    """STREAM-21."""
    incoming = IncomingBytes(100)
    incoming.push(0, bytes(60))
    incoming.take(49)
    assert not incoming.advance()
    incoming.take(1)
    assert incoming.advance()
    assert incoming.advertised == 150
    assert incoming.check(149, 1) == FITS
    assert incoming.check(149, 2) == FLOW_CONTROL_ERROR


def test_lost_chunks_go_again_with_the_same_offset_and_bytes() -> None:
    """STREAM-22."""
    outgoing = OutgoingBytes(8)
    outgoing.write(b"0123456789")
    first = outgoing.next_chunk(4, 100)
    second = outgoing.next_chunk(100, 100)
    assert (first, second) == ((0, b"0123"), (4, b"4567"))
    assert outgoing.blocked
    assert not outgoing.can_send(100)
    outgoing.lost(*second)
    outgoing.lost(*first)
    assert outgoing.can_send(0)  # no new bytes: the limits were respected before
    assert [outgoing.next_chunk(2, 0), outgoing.next_chunk(2, 0)] == [second, first]
    outgoing.acknowledged()
    outgoing.acknowledged()
    assert outgoing.wanted == 10
    outgoing.peer_max = 10
    assert outgoing.next_chunk(100, 1) == (8, b"8")
    outgoing.acknowledged()
    outgoing.drop()
    assert outgoing.finished
    assert outgoing.wanted == 9


def test_crumbs_beyond_a_gap_are_bounded_and_no_violation() -> None:
    """STREAM-22, P-9: a byte that comes alone costs a hundred."""
    incoming = IncomingBytes(32_000)
    for number in range(FRAGMENTS_MAX):
        assert incoming.check(2 + 2 * number, 1) == FITS
        incoming.push(2 + 2 * number, b"x")
    assert incoming.check(20_000, 1) == TOO_MANY
    assert incoming.check(2, 1) == FITS  # sent again
    assert incoming.check(0, 2) == FITS  # it fills the gap
    incoming.push(0, b"ab")
    assert incoming.check(20_000, 1) == FITS


def test_fragments_of_one_packet_fit_together() -> None:
    """STREAM-22: they are checked against each other, not only against what was there before."""
    incoming = IncomingBytes(32_000)
    assert incoming.check_all([(0, 10), (10, 10)]) == FITS
    assert incoming.check_all([(0, 10), (5, 10)]) == PROTOCOL_VIOLATION
    assert incoming.check_all([(2 + 2 * number, 1) for number in range(FRAGMENTS_MAX + 1)]) == TOO_MANY
    incoming.push(0, b"0123456789")
    assert incoming.check_all([(0, 10), (5, 5)]) == FITS  # both sent again
