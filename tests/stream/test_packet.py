"""STREAM packets and frames (RFC 0029 §5), against the RFC's vectors."""

import json
import tracemalloc
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.oer import U64_MAX, encode_var_octets, encode_var_uint
from isthmus.stream.packet import (
    ERROR_NAMES,
    PLAINTEXT_BYTES_MAX,
    ConnectionAssetDetails,
    ConnectionClose,
    ConnectionDataBlocked,
    ConnectionMaxData,
    ConnectionMaxStreamId,
    ConnectionNewAddress,
    ConnectionStreamIdBlocked,
    Frame,
    StreamClose,
    StreamData,
    StreamDataBlocked,
    StreamMaxData,
    StreamMaxMoney,
    StreamMoney,
    StreamMoneyBlocked,
    StreamPacket,
    StreamReceipt,
    decode_packet,
    encode_packet,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/stream-packets.json").read_text())
HEAD = bytes.fromhex("010c01000100")  # version 1, Prepare, sequence 0, amount 0

FRAME_OF_VECTOR: dict[str, Any] = {
    "ConnectionClose": lambda f: ConnectionClose(f["errorCode"], f["errorMessage"]),
    "ConnectionNewAddress": lambda f: ConnectionNewAddress(f["sourceAccount"]),
    "ConnectionAssetDetails": lambda f: ConnectionAssetDetails(f["sourceAssetCode"], f["sourceAssetScale"]),
    "ConnectionMaxData": lambda f: ConnectionMaxData(int(f["maxOffset"])),
    "ConnectionDataBlocked": lambda f: ConnectionDataBlocked(int(f["maxOffset"])),
    "ConnectionMaxStreamId": lambda f: ConnectionMaxStreamId(int(f["maxStreamId"])),
    "ConnectionStreamIdBlocked": lambda f: ConnectionStreamIdBlocked(int(f["maxStreamId"])),
    "StreamClose": lambda f: StreamClose(int(f["streamId"]), f["errorCode"], f["errorMessage"]),
    "StreamMoney": lambda f: StreamMoney(int(f["streamId"]), int(f["shares"])),
    "StreamMaxMoney": lambda f: StreamMaxMoney(int(f["streamId"]), int(f["receiveMax"]), int(f["totalReceived"])),
    "StreamMoneyBlocked": lambda f: StreamMoneyBlocked(int(f["streamId"]), int(f["sendMax"]), int(f["totalSent"])),
    "StreamData": lambda f: StreamData(int(f["streamId"]), int(f["offset"]), b64decode(f["data"])),
    "StreamMaxData": lambda f: StreamMaxData(int(f["streamId"]), int(f["maxOffset"])),
    "StreamDataBlocked": lambda f: StreamDataBlocked(int(f["streamId"]), int(f["maxOffset"])),
    "StreamReceipt": lambda f: StreamReceipt(int(f["streamId"]), b64decode(f["receipt"])),
}
# The vectors call the data of one frame "foobar" in base64 and the frames by these names.
u64 = st.integers(0, 300) | st.integers(0, U64_MAX)
u8 = st.integers(0, 255)
text = st.text(max_size=20)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(ConnectionClose, u8, text),
    st.builds(ConnectionNewAddress, st.from_regex(r"(g|test1|peer)(\.[a-zA-Z0-9_~-]{1,9}){1,4}", fullmatch=True)),
    st.builds(ConnectionMaxData, u64),
    st.builds(ConnectionDataBlocked, u64),
    st.builds(ConnectionMaxStreamId, u64),
    st.builds(ConnectionStreamIdBlocked, u64),
    st.builds(ConnectionAssetDetails, text, u8),
    st.builds(StreamClose, u64, u8, text),
    st.builds(StreamMoney, u64, u64),
    st.builds(StreamMaxMoney, u64, u64, u64),
    st.builds(StreamMoneyBlocked, u64, u64, u64),
    st.builds(StreamData, u64, u64, st.binary(max_size=200)),
    st.builds(StreamMaxData, u64, u64),
    st.builds(StreamDataBlocked, u64, u64),
    st.builds(StreamReceipt, u64, st.binary(max_size=60)),
)
packets = st.builds(StreamPacket, st.sampled_from([12, 13, 14]), u64, u64, st.lists(frames, max_size=6))


def packet_with(*contents: tuple[int, bytes]) -> bytes:
    """A packet with frames of these types and contents, sound or not."""
    count = encode_var_uint(len(contents))
    return HEAD + count + b"".join(bytes((kind,)) + encode_var_octets(octets) for kind, octets in contents)


def test_the_vectors_are_complete() -> None:
    """STREAM-16, X-6."""
    assert len(VECTORS) == 53
    assert [v["name"] for v in VECTORS if v.get("decode_only")] == [
        "frame:stream_max_money:receive_max:too_big",
        "frame:stream_money_blocked:send_max:too_big",
    ]
    assert {f["name"] for v in VECTORS for f in v["packet"]["frames"]} == set(FRAME_OF_VECTOR)


@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_vectors(vector: dict[str, Any]) -> None:
    """STREAM-4, STREAM-13, STREAM-15, STREAM-16, X-6: the prefix before a receipt included."""
    fields = vector["packet"]
    packet = StreamPacket(
        fields["packetType"],
        int(fields["sequence"]),
        int(fields["amount"]),
        [FRAME_OF_VECTOR[frame["name"]](frame) for frame in fields["frames"]],
    )
    octets = b64decode(vector["buffer"])
    assert decode_packet(octets) == packet
    if not vector.get("decode_only"):
        assert encode_packet(packet) == octets


@given(packets)
def test_packets_round_trip(packet: StreamPacket) -> None:
    """STREAM-4, STREAM-13."""
    octets = encode_packet(packet)
    assert decode_packet(octets) == packet
    assert encode_packet(decode_packet(octets)) == octets


def test_a_packet_says_what_carries_it_and_which_request_it_belongs_to() -> None:
    """STREAM-6, STREAM-7, STREAM-8: for the endpoints to compare."""
    packet = StreamPacket(13, 2**31, 2**63, [])
    octets = encode_packet(packet)
    assert octets.hex() == "010d04800000000880000000000000000100"
    assert decode_packet(octets) == packet


@given(packets, st.binary(max_size=40), st.integers(0, 900))
def test_what_follows_the_last_frame_is_ignored(packet: StreamPacket, junk: bytes, pad_to: int) -> None:
    """STREAM-4, OER-9: padding is zero bytes."""
    octets = encode_packet(packet)
    assert decode_packet(octets + junk) == packet
    padded = encode_packet(packet, pad_to)
    assert len(padded) == max(len(octets), pad_to)
    assert padded == octets + bytes(len(padded) - len(octets))
    assert decode_packet(padded) == packet


def test_unknown_frames_are_skipped() -> None:
    """STREAM-5."""
    money = (0x11, b"\x01\x01\x01\x05")
    for unknown in (0x00, 0x08, 0x0F, 0x18, 0xFF):
        octets = packet_with((unknown, b"\xff whatever"), money, (unknown, b""))
        assert decode_packet(octets).frames == [StreamMoney(1, 5)]


def test_bytes_after_the_last_field_of_a_frame_are_ignored() -> None:
    """OER-9, STREAM-5."""
    octets = packet_with((0x11, b"\x01\x01\x01\x05later"), (0x03, b"\x01\x07later"), (0x10, b"\x01\x01\x09\x00later"))
    assert decode_packet(octets).frames == [StreamMoney(1, 5), ConnectionMaxData(7), StreamClose(1, 9, "")]


@given(packets)
def test_no_field_reaches_beyond_its_frame(packet: StreamPacket) -> None:
    """STREAM-5, P-9: one byte less in any frame, and its last field is cut off, whatever follows."""
    for frame in packet.frames:
        octets = encode_packet(StreamPacket(12, 0, 0, [frame]))
        contents = octets[len(HEAD) + 2 :]
        if len(contents) < 2 or contents[1] >= 0x80:
            continue
        shorter = contents[:1] + bytes((contents[1] - 1,)) + contents[2:]
        with pytest.raises(CodecError):
            decode_packet(HEAD + b"\x01\x01" + shorter + bytes(300))


def test_error_codes_have_names_and_unknown_ones_decode() -> None:
    """STREAM-14."""
    assert list(ERROR_NAMES) == list(range(1, 10))
    assert ERROR_NAMES[8] == "ProtocolViolation"
    for code in (0, 10, 255):
        packet = StreamPacket(12, 1, 0, [ConnectionClose(code, "x"), StreamClose(1, code, "x")])
        assert decode_packet(encode_packet(packet)) == packet


def test_totals_beyond_64_bits_saturate() -> None:
    """STREAM-15: when we write them; and maxima also when we read them."""
    packet = StreamPacket(12, 1, 0, [StreamMaxMoney(1, 2**70, 2**64), StreamMoneyBlocked(1, 2**64, 2**99)])
    top = [StreamMaxMoney(1, U64_MAX, U64_MAX), StreamMoneyBlocked(1, U64_MAX, U64_MAX)]
    assert decode_packet(encode_packet(packet)).frames == top
    huge = b"\x01\x01" + encode_var_uint(2**2000) + b"\x01\x00"
    assert decode_packet(packet_with((0x12, huge), (0x13, huge))).frames == [
        StreamMaxMoney(1, U64_MAX, 0),
        StreamMoneyBlocked(1, U64_MAX, 0),
    ]


@pytest.mark.parametrize(
    "kind, before, after",
    [
        (0x03, b"", b""), (0x04, b"", b""), (0x05, b"", b""), (0x06, b"", b""),
        (0x10, b"", b"\x01\x00"),
        (0x11, b"", b"\x01\x01"), (0x11, b"\x01\x01", b""),
        (0x12, b"", b"\x01\x01\x01\x01"), (0x12, b"\x01\x01\x01\x01", b""),
        (0x13, b"", b"\x01\x01\x01\x01"), (0x13, b"\x01\x01\x01\x01", b""),
        (0x14, b"", b"\x01\x01\x00"), (0x14, b"\x01\x01", b"\x00"),
        (0x15, b"\x01\x01", b""), (0x16, b"\x01\x01", b""), (0x17, b"", b"\x00"),
    ],
)  # fmt: skip
def test_other_oversized_numbers_are_errors(kind: int, before: bytes, after: bytes) -> None:
    """STREAM-15."""
    assert decode_packet(packet_with((kind, before + encode_var_uint(U64_MAX) + after))).frames
    with pytest.raises(CodecError, match="more than 2"):
        decode_packet(packet_with((kind, before + encode_var_uint(2**64) + after)))


def test_oversized_sequences_and_amounts_are_errors() -> None:
    """STREAM-15."""
    for octets in (
        b"\x01\x0c" + encode_var_uint(2**64) + b"\x01\x00\x01\x00",
        b"\x01\x0c\x01\x00" + encode_var_uint(2**64) + b"\x01\x00",
    ):
        with pytest.raises(CodecError, match="more than 2"):
            decode_packet(octets)


@pytest.mark.parametrize(
    "octets, field",
    [
        (b"", "version"),
        (b"\x01", "version"),
        (b"\x02\x0c\x01\x00\x01\x00\x01\x00", "version"),
        (b"\x00\x0c\x01\x00\x01\x00\x01\x00", "version"),
        (b"\x01\x0c", "sequence"),
        (b"\x01\x0c\x00", "sequence"),
        (b"\x01\x0c\x02\x00\x01\x01\x00\x01\x00", "sequence"),
        (b"\x01\x0c\x01\x00", "prepareAmount"),
        (HEAD, "frames"),
        (HEAD + b"\x01\x01", "frames"),
        (HEAD + b"\x01\x02\x99\x01\x00", "frames"),
        (HEAD + b"\x01\x02\x99\x02\x00\x00", "frame"),
        (HEAD + b"\x01\x01\x99\x81\x00", "frame"),
        (packet_with((0x01, b"")), "connectionClose.errorCode"),
        (packet_with((0x02, b"\x01g")), "connectionNewAddress.sourceAddress"),
        (packet_with((0x07, b"\x02\xc3\x28\x09")), "connectionAssetDetails.sourceAssetCode"),
        (packet_with((0x07, b"\x03ABC")), "connectionAssetDetails.sourceAssetScale"),
        (packet_with((0x17, b"\x01\x01\x3a")), "streamReceipt.receipt"),
    ],
)
def test_bad_packets_name_the_field(octets: bytes, field: str) -> None:
    """STREAM-4, STREAM-5, STREAM-13, OER-6."""
    with pytest.raises(CodecError) as error:
        decode_packet(octets)
    assert error.value.field == field
    assert 0 <= error.value.offset <= len(octets)


def test_a_count_of_frames_is_not_believed() -> None:
    """OER-6, P-9."""
    for count in (2**31, 2**63, 2**4000):
        octets = HEAD + encode_var_uint(count) + bytes(100)
        tracemalloc.start()
        try:
            with pytest.raises(CodecError, match="more frames announced"):
                decode_packet(octets)
            assert tracemalloc.get_traced_memory()[1] < 10_000
        finally:
            tracemalloc.stop()
    # As many as fit are read: 16,000 empty frames of an unknown type.
    count = (PLAINTEXT_BYTES_MAX - 10) // 2
    assert decode_packet(HEAD + encode_var_uint(count) + b"\x99\x00" * count).frames == []


def test_messages_may_hold_anything() -> None:
    """P-14."""
    octets = packet_with((0x01, b"\x01\x02\xff\xfe"), (0x10, b"\x01\x01\x01\x02\xff\xfe"))
    assert decode_packet(octets).frames == [ConnectionClose(1, "��"), StreamClose(1, 1, "��")]


def test_a_packet_fills_the_data_of_an_ilp_packet_at_most() -> None:
    """STREAM-1."""
    packet = StreamPacket(12, 1, 0, [StreamData(1, 0, b"")])
    overhead = len(encode_packet(packet)) + 2 + 2  # the longer lengths of the frame and its data
    largest = replace(packet, frames=[StreamData(1, 0, bytes(PLAINTEXT_BYTES_MAX - overhead))])
    octets = encode_packet(largest, pad_to=2**20)
    assert len(octets) == PLAINTEXT_BYTES_MAX
    assert decode_packet(octets) == largest
    with pytest.raises(ValueError, match="at most"):
        encode_packet(replace(packet, frames=[StreamData(1, 0, bytes(PLAINTEXT_BYTES_MAX - overhead + 1))]))
    with pytest.raises(CodecError, match="more than"):
        decode_packet(octets + b"\0")


@pytest.mark.parametrize(
    "packet",
    [
        StreamPacket(256, 1, 0),
        StreamPacket(12, -1, 0),
        StreamPacket(12, 2**64, 0),
        StreamPacket(12, 1, 2**64),
        StreamPacket(12, 1, 0, [StreamMoney(1, 2**64)]),
        StreamPacket(12, 1, 0, [StreamMaxMoney(1, -1, 0)]),
        StreamPacket(12, 1, 0, [ConnectionClose(256)]),
        StreamPacket(12, 1, 0, [ConnectionNewAddress("g")]),
    ],
)
def test_what_can_not_be_written_is_our_own_mistake(packet: StreamPacket) -> None:
    """STREAM-13."""
    with pytest.raises(ValueError, match=r"."):
        encode_packet(packet)


@given(
    st.binary(max_size=80), st.lists(st.tuples(st.integers(0, 0x19), st.binary(max_size=20)), max_size=4), st.booleans()
)
def test_any_bytes_give_a_packet_or_a_codec_error(octets: bytes, contents: list[tuple[int, bytes]], raw: bool) -> None:
    """STREAM-4, P-9."""
    data = octets if raw else packet_with(*contents) + octets
    try:
        packet = decode_packet(data)
    except CodecError as error:
        assert 0 <= error.offset <= len(data)
        return
    assert decode_packet(encode_packet(packet)) == packet
