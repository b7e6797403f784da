"""BTP 2.0 frames (RFC 0023)."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.packet import PACKET_BYTES_MAX, PREPARE_BYTES_MAX, Reject, encode_reject
from isthmus.ilp.timestamp import TIMESTAMP_MAX, TIMESTAMP_MIN
from isthmus.links.btp.codec import (
    ENTRIES_MAX,
    ERROR,
    ERROR_DATA_BYTES_MAX,
    ERROR_NAME_BYTES_MAX,
    ERROR_NAMES,
    FRAME_BYTES_MAX,
    JSON,
    MESSAGE,
    OCTET_STREAM,
    RESPONSE,
    TEXT_PLAIN,
    TRANSFER,
    BtpError,
    BtpMessage,
    BtpPacket,
    BtpResponse,
    BtpTransfer,
    ProtocolData,
    decode,
    encode,
    encode_ilp,
    ilp_fast,
    read_head,
)
from isthmus.oer import encode_length, encode_var_octets, encode_var_uint

VALUES = json.loads((Path(__file__).parents[2] / "vectors/codec-values.json").read_text())
ID = 0x01020304
# As the JavaScript plugin opens a connection: auth, an optional name, a token.
AUTH = BtpMessage(
    ID,
    [
        ProtocolData("auth", OCTET_STREAM, b""),
        ProtocolData("auth_username", TEXT_PLAIN, b""),
        ProtocolData("auth_token", TEXT_PLAIN, "tökén".encode()),
    ],
)

entries = st.lists(
    st.builds(
        ProtocolData,
        st.text(st.characters(max_codepoint=127), max_size=9),
        st.integers(0, 255),
        st.binary(max_size=200),
    ),
    max_size=5,
    unique_by=lambda entry: entry.name,
)
ids = st.integers(0, 2**32 - 1)
times = st.integers(TIMESTAMP_MIN, TIMESTAMP_MAX).map(lambda ms: ms if ms % 10 else ms + 1)
codes = st.text(st.characters(max_codepoint=127), min_size=3, max_size=3)
packets: st.SearchStrategy[BtpPacket] = st.one_of(
    st.builds(BtpMessage, ids, entries),
    st.builds(BtpResponse, ids, entries),
    st.builds(BtpTransfer, ids, st.integers(0, 2**64 - 1), entries),
    st.builds(BtpError, ids, codes, st.text(max_size=30), times, st.binary(max_size=300), entries),
)


def framed(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + ID.to_bytes(4, "big") + encode_length(len(body)) + body


def entry_octets(name: bytes, content_type: int, data: bytes) -> bytes:
    return encode_var_octets(name) + bytes((content_type,)) + encode_var_octets(data)


# --- layout ----------------------------------------------------------------------------------------------------------


def test_a_frame_is_type_id_body() -> None:
    """BTP-1, BTP-2, X-5: the length of the body takes as many bytes as it needs."""
    kinds: dict[int, BtpPacket] = {
        RESPONSE: BtpResponse(ID, []),
        MESSAGE: BtpMessage(ID, []),
        TRANSFER: BtpTransfer(ID, 2**64 - 1, []),
    }
    assert encode(kinds[RESPONSE]).hex() == "0101020304020100"
    assert encode(kinds[MESSAGE]).hex() == "0601020304020100"
    assert encode(kinds[TRANSFER]).hex() == "07010203040affffffffffffffff0100"
    for kind, packet in kinds.items():
        assert decode(encode(packet)) == packet
        assert read_head(encode(packet)) == (kind, ID)
    long = encode(BtpMessage(ID, [ProtocolData("x", OCTET_STREAM, bytes(300))]))
    assert long[5:8].hex() == "820134"


@pytest.mark.parametrize("kind", [0, 3, 4, 5, 8, 12, 255])
def test_other_types_are_refused(kind: int) -> None:
    """BTP-2, X-5."""
    frame = framed(kind, b"\x01\x00")
    with pytest.raises(CodecError) as error:
        decode(frame)
    assert error.value.field == "type"
    assert ilp_fast(frame) is None
    assert read_head(frame) == (kind, ID)


def test_an_error_has_code_name_time_data() -> None:
    """BTP-3, BTP-13, OER-15."""
    error = BtpError(ID, "F01", "InvalidFieldsError", 1514132072279, b"why", [ProtocolData("x", JSON, b"{}")])
    octets = encode(error)
    body = b"F01" + b"\x12InvalidFieldsError" + b"\x1320171224161432.279Z" + b"\x03why" + b"\x01\x01\x01x\x02\x02{}"
    assert octets == framed(ERROR, body)
    assert decode(octets) == error
    rounded = decode(encode(BtpError(ID, "F00", "NotAcceptedError", 1514132072000)))
    assert isinstance(rounded, BtpError)
    assert rounded.triggered_at == 1514132072001


def test_error_names_are_the_rfcs() -> None:
    """BTP-13."""
    assert ERROR_NAMES == VALUES["btp_error_names"]
    assert "F02" not in ERROR_NAMES


def test_a_transfer_carries_an_amount() -> None:
    """BTP-3, BTP-12, P-1."""
    for amount in (0, 2**53 + 1, 2**63, 2**64 - 1):
        assert decode(encode(BtpTransfer(1, amount, []))) == BtpTransfer(1, amount, [])
    for amount in (-1, 2**64):
        with pytest.raises(ValueError, match="amount"):
            encode(BtpTransfer(1, amount, []))


def test_the_first_entry_stays_the_first() -> None:
    """BTP-4, BTP-5, BTP-11: order decides which entry is the primary one."""
    octets = encode(AUTH)
    assert octets.startswith(b"\x06\x01\x02\x03\x04")
    assert octets[6:15] == b"\x01\x03\x04auth\x00\x00"
    assert decode(octets) == AUTH


@given(packets)
def test_frames_round_trip(packet: BtpPacket) -> None:
    """BTP-1, BTP-3, BTP-4."""
    octets = encode(packet)
    assert decode(octets) == packet
    assert encode(decode(octets)) == octets


@pytest.mark.parametrize("content_type", [0, 1, 2, 3, 255])
def test_content_types_are_one_byte_and_unknown_ones_pass(content_type: int) -> None:
    """BTP-4."""
    packet = BtpMessage(1, [ProtocolData("x", content_type, b"\xff")])
    assert decode(encode(packet)) == packet


# --- bad frames ------------------------------------------------------------------------------------------------------


def test_a_name_may_occur_once() -> None:
    """BTP-4, BTP-6."""
    twice = entry_octets(b"a", 0, b"") + entry_octets(b"b", 0, b"") + entry_octets(b"a", 0, b"")
    with pytest.raises(CodecError, match="occurs twice") as error:
        decode(framed(MESSAGE, b"\x01\x03" + twice))
    assert error.value.field == "protocolData.name"
    with pytest.raises(ValueError, match="unique"):
        encode(BtpMessage(1, [ProtocolData("a", 0, b""), ProtocolData("a", 1, b"x")]))


def test_a_name_is_ascii() -> None:
    """BTP-4."""
    with pytest.raises(CodecError) as error:
        decode(framed(MESSAGE, b"\x01\x01" + entry_octets("é".encode(), 0, b"")))
    assert error.value.field == "protocolData.name"
    with pytest.raises(ValueError, match="ASCII"):
        encode(BtpMessage(1, [ProtocolData("é", 0, b"")]))


@pytest.mark.parametrize(
    "frame, field",
    [
        (b"", "type"),
        (b"\x06", "requestId"),
        (b"\x06\0\0\0", "requestId"),
        (b"\x06\0\0\0\1", "body"),
        (b"\x06\0\0\0\1\x02\x01", "body"),
        (framed(MESSAGE, b""), "protocolData"),
        (framed(MESSAGE, b"\x01\x01"), "protocolData.name"),
        (framed(MESSAGE, b"\x01\x01\x01x"), "protocolData.contentType"),
        (framed(MESSAGE, b"\x01\x01\x01x\x00"), "protocolData.data"),
        (framed(MESSAGE, b"\x01\x01\x01x\x00\x05abcd"), "protocolData.data"),
        (framed(TRANSFER, bytes(7)), "amount"),
        (framed(ERROR, b"F0"), "code"),
        (framed(ERROR, b"F\xff0\0\0\0"), "code"),
        (framed(ERROR, b"F00\x01"), "name"),
        (framed(ERROR, b"F00\x00\x11" + b"20171224161432279"), "triggeredAt"),
        (framed(ERROR, b"F00\x00\x0f" + b"20171224161432Z"), "data"),
    ],
)
def test_half_frames_name_the_field_that_is_missing(frame: bytes, field: str) -> None:
    """BTP-1, BTP-3, P-13: ILP's timestamp is not BTP's."""
    with pytest.raises(CodecError) as error:
        decode(frame)
    assert error.value.field == field
    assert 0 <= error.value.offset <= len(frame)
    assert ilp_fast(frame) is None
    assert (read_head(frame) is None) == (len(frame) < 5)


def test_no_field_reaches_beyond_the_body() -> None:
    """BTP-1: bytes after the body are ignored, not read."""
    octets = encode(AUTH)
    assert decode(octets + b"after") == AUTH
    with pytest.raises(CodecError):
        decode(octets[:5] + bytes((octets[5] - 1,)) + octets[6:])


def test_bytes_after_the_last_entry_are_ignored() -> None:
    """OER-9."""
    assert decode(framed(MESSAGE, b"\x01\x01" + entry_octets(b"ilp", 0, b"x") + b"later")) == BtpMessage(
        ID, [ProtocolData("ilp", 0, b"x")]
    )


def test_the_number_of_entries_is_bounded() -> None:
    """OER-6, P-9."""
    names = [ProtocolData(str(number), 0, b"") for number in range(ENTRIES_MAX + 1)]
    assert decode(encode(BtpMessage(1, names[:ENTRIES_MAX]))) == BtpMessage(1, names[:ENTRIES_MAX])
    with pytest.raises(ValueError, match="at most 64"):
        encode(BtpMessage(1, names))
    body = encode_var_uint(ENTRIES_MAX + 1) + b"".join(entry_octets(entry.name.encode(), 0, b"") for entry in names)
    for bad in (body, encode_var_uint(2**64), encode_var_uint(2**4000) + bytes(100)):
        tracemalloc.start()
        try:
            with pytest.raises(CodecError, match="more than 64 entries"):
                decode(framed(MESSAGE, bad))
            assert tracemalloc.get_traced_memory()[1] < 20_000
        finally:
            tracemalloc.stop()


def test_a_frame_has_a_largest_size() -> None:
    """BTP-17: room for the largest Prepare and the largest Reject."""
    for size in (PREPARE_BYTES_MAX, PACKET_BYTES_MAX):
        frame = encode_ilp(MESSAGE, ID, bytes(size))
        assert len(frame) >= 33_857
        assert decode(frame) == BtpMessage(ID, [ProtocolData("ilp", 0, bytes(size))])
    rest = FRAME_BYTES_MAX - len(encode(BtpMessage(ID, [ProtocolData("ilp", 0, bytes(60_000))])))
    largest = encode(BtpMessage(ID, [ProtocolData("ilp", 0, bytes(60_000 + rest))]))
    assert len(largest) == FRAME_BYTES_MAX
    assert ilp_fast(largest) == (MESSAGE, ID, bytes(60_000 + rest))
    assert encode(decode(largest)) == largest
    with pytest.raises(ValueError, match="at most"):
        encode(BtpMessage(ID, [ProtocolData("ilp", 0, bytes(60_001 + rest))]))
    with pytest.raises(CodecError, match="more than"):
        decode(largest + b"\0")
    assert ilp_fast(largest + b"\0") is None


def test_error_data_and_name_are_bounded_and_may_hold_anything() -> None:
    """BTP-3, P-14."""
    data = b"\xff" * ERROR_DATA_BYTES_MAX
    assert decode(encode(BtpError(1, "T00", "x", 1, data))) == BtpError(1, "T00", "x", 1, data)
    with pytest.raises(ValueError, match="at most 8192"):
        encode(BtpError(1, "T00", "x", 1, data + b"x"))
    time = b"\x0f20171224161432Z"
    with pytest.raises(CodecError) as error:
        decode(framed(ERROR, b"T00\x00" + time + encode_var_octets(data + b"x") + b"\x01\x00"))
    assert error.value.field == "data"
    odd = decode(framed(ERROR, b"T00" + encode_var_octets(b"\xff" * ERROR_NAME_BYTES_MAX) + time + b"\x00\x01\x00"))
    assert isinstance(odd, BtpError)
    assert odd.name == "�" * ERROR_NAME_BYTES_MAX
    assert encode(odd)
    with pytest.raises(CodecError) as error:
        decode(framed(ERROR, b"T00" + encode_var_octets(b"x" * (ERROR_NAME_BYTES_MAX + 1)) + time + b"\x00\x01\x00"))
    assert error.value.field == "name"


@pytest.mark.parametrize(
    "packet",
    [
        BtpMessage(-1, []),
        BtpMessage(2**32, []),
        BtpError(1, "F0", "x", 1),
        BtpError(1, "F0é", "x", 1),
        BtpMessage(1, [ProtocolData("x", 256, b"")]),
    ],
)
def test_what_can_not_be_written_is_our_own_mistake(packet: BtpPacket) -> None:
    """BTP-1."""
    with pytest.raises(ValueError, match=r"."):
        encode(packet)


# --- ILP in BTP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MESSAGE, RESPONSE])
def test_ilp_travels_under_its_name_as_octets(kind: int) -> None:
    """BTP-10, X-2: both types may carry any ILP packet; the Rust implementation swaps them."""
    for size in [*range(600), 32_767, 33_857, PACKET_BYTES_MAX]:
        ilp = bytes(size)
        frame = encode_ilp(kind, ID, ilp)
        packet = decode(frame)
        assert isinstance(packet, BtpMessage if kind == MESSAGE else BtpResponse)
        assert packet.protocol_data == [ProtocolData("ilp", OCTET_STREAM, ilp)]
        assert encode(packet) == frame
        assert ilp_fast(frame) == (kind, ID, ilp)


def test_an_ilp_reject_is_a_response_and_no_btp_error() -> None:
    """BTP-10, P-13."""
    reject = encode_reject(Reject("F02", "g.a", "no route"))
    frame = encode_ilp(RESPONSE, ID, reject)
    assert isinstance(decode(frame), BtpResponse)
    assert ilp_fast(frame) == (RESPONSE, ID, reject)


@pytest.mark.parametrize(
    "packet",
    [
        AUTH,
        BtpResponse(ID, []),
        BtpTransfer(ID, 5, [ProtocolData("ilp", 0, b"x")]),
        BtpMessage(ID, [ProtocolData("ilp", 0, b"x"), ProtocolData("custom", JSON, b"{}")]),
        BtpMessage(ID, [ProtocolData("ilp", TEXT_PLAIN, b"x")]),
        BtpMessage(ID, [ProtocolData("ilq", 0, b"x" * 20)]),
        BtpError(ID, "F00", "NotAcceptedError", 1),
    ],
)
def test_the_short_way_leaves_everything_else_to_the_decoder(packet: BtpPacket) -> None:
    """BTP-11, BTP-16: as frames with secondary entries."""
    assert ilp_fast(encode(packet)) is None


@pytest.mark.parametrize(
    "body, data",
    [
        (b"\x81\x0c", b"\x04"),  # 12 has a short form
        (b"\x82\x00\x0c", b"\x04"),
        (b"\x82\x00\xff", b"\x81\xf6"),  # 255 takes one byte
        (b"\x83\x00\x01\x00", b"\x81\xf7"),
        (b"\x80", b"\x04"),
        (b"\x0d", b"\x81\x04"),
        (b"\x0e", b"\x82\x00\x04"),
        (b"\x82\x01\x00", b"\x82\x00\xf6"),
        (b"\x0c", b"\x83"),
        (b"\x07", b""),
    ],
)
def test_lengths_that_are_not_canonical_are_refused_both_ways(body: bytes, data: bytes) -> None:
    """OER-4, BTP-1."""
    frame = b"\x06" + bytes(4) + body + b"\x01\x01\x03ilp\x00" + data + bytes(data[-1] if data else 0)
    assert ilp_fast(frame) is None
    with pytest.raises(CodecError):
        decode(frame)


def test_the_short_way_finds_no_prefix_in_a_frame_too_short_for_one() -> None:
    """BTP-10, OER-4: sizes that no ILP frame has were compared with one byte of 0xff, which a frame may hold."""
    frame = bytes.fromhex("0100006f00ffffffffd3")
    assert ilp_fast(frame) is None
    with pytest.raises(CodecError):
        decode(frame)


@given(st.data())
def test_the_short_way_agrees_with_the_decoder_on_any_bytes(data: st.DataObject) -> None:
    """BTP-1, BTP-10, OER-4."""
    size = data.draw(st.sampled_from([0, 5, 119, 120, 127, 128, 246, 247, 255, 256, 300]))
    frame = bytearray(encode_ilp(data.draw(st.sampled_from([MESSAGE, RESPONSE])), ID, bytes(size)))
    for _ in range(data.draw(st.integers(0, 2))):
        frame[data.draw(st.integers(0, min(20, len(frame) - 1)))] = data.draw(st.integers(0, 255))
    octets = bytes(frame[: data.draw(st.integers(0, len(frame)) | st.just(len(frame)))])
    fast = ilp_fast(octets)
    try:
        packet = decode(octets)
    except CodecError as error:
        assert fast is None
        assert 0 <= error.offset <= len(octets)
        return
    if fast is not None:
        kind, request_id, ilp = fast
        assert isinstance(packet, BtpMessage if kind == MESSAGE else BtpResponse)
        assert packet.request_id == request_id
        assert packet.protocol_data == [ProtocolData("ilp", OCTET_STREAM, ilp)]


@given(st.binary(max_size=100) | st.builds(framed, st.sampled_from([1, 2, 6, 7]), st.binary(max_size=100)))
def test_any_bytes_give_a_frame_or_a_codec_error(octets: bytes) -> None:
    """BTP-1, P-9."""
    ilp_fast(octets)
    try:
        packet = decode(octets)
    except CodecError as error:
        assert 0 <= error.offset <= len(octets)
        return
    assert encode(packet)
