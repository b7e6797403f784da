"""Frames of a batch, read back by the WebSocket library's own parser."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from isthmus.links.btp import framing

SIZES = [0, 1, 125, 126, 127, 1023, 1024, 65_535, 65_536]


def parsed(data: bytes, *, by_server: bool) -> list[Frame]:
    protocol = Protocol(SERVER if by_server else CLIENT)
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [event for event in protocol.events_received() if isinstance(event, Frame)]


@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(SIZES).map(bytes)), max_size=6))
def test_batches_read_back_as_their_messages(messages: list[bytes]) -> None:
    """BTP-1: one packet is one binary message, however they are written."""
    for data, by_server in (
        (framing.join_plain(messages), False),
        (framing.join_masked(messages, os.urandom), True),
    ):
        frames = parsed(data, by_server=by_server)
        assert [bytes(frame.data) for frame in frames] == messages
        assert all(frame.opcode is Opcode.BINARY and frame.fin for frame in frames)


def test_each_frame_of_a_client_has_its_own_mask() -> None:
    data = framing.join_masked([b"same", b"same"], lambda size: bytes(range(size)))
    assert data[2:6] != data[12:16] and data[6:10] != data[16:20]


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_the_masks_agree(data: bytes, mask: bytes) -> None:
    assert framing.xor_mask(data, mask) == bytes(framing.apply_mask(data, mask))
    assert framing.xor_mask(framing.xor_mask(data, mask), mask) == data


@pytest.mark.parametrize("mask", [None, b"abcd"])
def test_control_frames(mask: bytes | None) -> None:
    payload = framing.close_payload(1000, "é" * 100)
    assert len(payload) <= framing.CONTROL_BYTES_MAX
    frames = parsed(framing.control(framing.PING, b"p", mask), by_server=mask is not None)
    assert [(frame.opcode, bytes(frame.data)) for frame in frames] == [(Opcode.PING, b"p")]
    frames = parsed(framing.control(framing.CLOSE, payload, mask), by_server=mask is not None)
    assert frames[0].opcode is Opcode.CLOSE and payload[2:].decode() == "é" * 61
