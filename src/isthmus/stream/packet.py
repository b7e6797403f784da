"""STREAM packets and frames: what lies inside the encrypted data of an ILP packet (RFC 0029 §5).

This module knows the bytes; whose turn it is, which stream ids are legal and what limits hold is for sender and
receiver. Quantities beyond 2^64-1 do not exist on the wire: the totals and maxima of `StreamMaxMoney` and
`StreamMoneyBlocked` saturate, when written and when read (STREAM-15); all other oversized numbers are errors.
"""

from dataclasses import dataclass, field
from typing import Final, TypeAlias, final

from isthmus.errors import CodecError
from isthmus.ilp.address import is_valid, parse_address
from isthmus.oer import (
    U64_MAX,
    encode_var_octets,
    read_length,
    read_uint,
    read_var_octets,
    read_var_uint,
)

VERSION: Final = 1

# The plaintext of the largest data field: 32767 less IV and tag (STREAM-1).
PLAINTEXT_BYTES_MAX: Final = 32_739

# Error codes of ConnectionClose and StreamClose (STREAM-14); others decode too.
NO_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
ENDPOINT_BUSY: Final = 3
FLOW_CONTROL_ERROR: Final = 4
STREAM_ID_ERROR: Final = 5
STREAM_STATE_ERROR: Final = 6
FRAME_FORMAT_ERROR: Final = 7
PROTOCOL_VIOLATION: Final = 8
APPLICATION_ERROR: Final = 9

ERROR_NAMES: Final[dict[int, str]] = {
    NO_ERROR: "NoError",
    INTERNAL_ERROR: "InternalError",
    ENDPOINT_BUSY: "EndpointBusy",
    FLOW_CONTROL_ERROR: "FlowControlError",
    STREAM_ID_ERROR: "StreamIdError",
    STREAM_STATE_ERROR: "StreamStateError",
    FRAME_FORMAT_ERROR: "FrameFormatError",
    PROTOCOL_VIOLATION: "ProtocolViolation",
    APPLICATION_ERROR: "ApplicationError",
}

# Frame types (STREAM-13).
CONNECTION_CLOSE: Final = 0x01
CONNECTION_NEW_ADDRESS: Final = 0x02
CONNECTION_MAX_DATA: Final = 0x03
CONNECTION_DATA_BLOCKED: Final = 0x04
CONNECTION_MAX_STREAM_ID: Final = 0x05
CONNECTION_STREAM_ID_BLOCKED: Final = 0x06
CONNECTION_ASSET_DETAILS: Final = 0x07
STREAM_CLOSE: Final = 0x10
STREAM_MONEY: Final = 0x11
STREAM_MAX_MONEY: Final = 0x12
STREAM_MONEY_BLOCKED: Final = 0x13
STREAM_DATA: Final = 0x14
STREAM_MAX_DATA: Final = 0x15
STREAM_DATA_BLOCKED: Final = 0x16
STREAM_RECEIPT: Final = 0x17

# The encoded numbers of one byte.
_SMALL: Final[tuple[bytes, ...]] = tuple(bytes((1, n)) for n in range(0x100))


@final
@dataclass(slots=True)
class ConnectionClose:
    """The connection is over."""

    code: int
    message: str = ""


@final
@dataclass(slots=True)
class ConnectionNewAddress:
    """Send to this address from now on; validate the path first (STREAM-25)."""

    address: str


@final
@dataclass(slots=True)
class ConnectionMaxData:
    """How many bytes, over all streams, the other side may send."""

    max_offset: int


@final
@dataclass(slots=True)
class ConnectionDataBlocked:
    """How many bytes, over all streams, we would like to send."""

    max_offset: int


@final
@dataclass(slots=True)
class ConnectionMaxStreamId:
    """The highest stream id that the other side may open."""

    max_stream_id: int


@final
@dataclass(slots=True)
class ConnectionStreamIdBlocked:
    """The stream id that we would like to open."""

    max_stream_id: int


@final
@dataclass(slots=True)
class ConnectionAssetDetails:
    """What the endpoint's account counts in. Code before scale here, unlike ILDCP."""

    code: str
    scale: int


@final
@dataclass(slots=True)
class StreamClose:
    """The stream is over."""

    stream_id: int
    code: int
    message: str = ""


@final
@dataclass(slots=True)
class StreamMoney:
    """The stream's share of the packet's money: shares of the sum of all shares (STREAM-20)."""

    stream_id: int
    shares: int


@final
@dataclass(slots=True)
class StreamMaxMoney:
    """How much the stream may receive in all, and how much it has."""

    stream_id: int
    receive_max: int
    total_received: int


@final
@dataclass(slots=True)
class StreamMoneyBlocked:
    """How much the stream would like to send in all, and how much it has."""

    stream_id: int
    send_max: int
    total_sent: int


@final
@dataclass(slots=True)
class StreamData:
    """Bytes of the stream from this offset on."""

    stream_id: int
    offset: int
    data: bytes


@final
@dataclass(slots=True)
class StreamMaxData:
    """Up to which offset the other side may send on the stream."""

    stream_id: int
    max_offset: int


@final
@dataclass(slots=True)
class StreamDataBlocked:
    """Up to which offset we would like to send on the stream."""

    stream_id: int
    max_offset: int


@final
@dataclass(slots=True)
class StreamReceipt:
    """A proof for third parties of what the stream received (RFC 0039); its bytes are stream/receipt.py's."""

    stream_id: int
    receipt: bytes


Frame: TypeAlias = (
    ConnectionClose
    | ConnectionNewAddress
    | ConnectionMaxData
    | ConnectionDataBlocked
    | ConnectionMaxStreamId
    | ConnectionStreamIdBlocked
    | ConnectionAssetDetails
    | StreamClose
    | StreamMoney
    | StreamMaxMoney
    | StreamMoneyBlocked
    | StreamData
    | StreamMaxData
    | StreamDataBlocked
    | StreamReceipt
)


@final
@dataclass(slots=True)
class StreamPacket:
    """One STREAM packet, decrypted."""

    ilp_type: int  # must equal the type of the ILP packet around it (STREAM-6)
    sequence: int  # a reply repeats its request's (STREAM-7)
    prepare_amount: int  # in a Prepare the receiver's minimum, in a reply what arrived (STREAM-8)
    frames: list[Frame] = field(default_factory=list)


# --- encoding --------------------------------------------------------------------------------------------------------


def encode_packet(packet: StreamPacket, pad_to: int = 0) -> bytes:
    """Encode a packet, with zero bytes after it up to `pad_to` bytes; ValueError if a field is out of its range."""
    frames = packet.frames
    count = len(frames)
    octets = bytes((VERSION, packet.ilp_type)) + _u64(packet.sequence) + _u64(packet.prepare_amount) + _u64(count)
    if count == 1:
        octets += _encode_frame(frames[0])
    elif count:
        octets += b"".join([_encode_frame(frame) for frame in frames])
    if len(octets) > PLAINTEXT_BYTES_MAX:
        raise ValueError(f"a STREAM packet has at most {PLAINTEXT_BYTES_MAX} bytes, not {len(octets)}")
    if pad_to > len(octets):
        return octets.ljust(min(pad_to, PLAINTEXT_BYTES_MAX), b"\0")
    return octets


def _encode_frame(frame: Frame) -> bytes:
    if isinstance(frame, StreamMoney):  # the most frequent one first; two numbers have at most 18 bytes
        contents = _u64(frame.stream_id) + _u64(frame.shares)
        return bytes((STREAM_MONEY, len(contents))) + contents
    kind, contents = _encode_contents(frame)
    return bytes((kind,)) + encode_var_octets(contents)


def _encode_contents(frame: Frame) -> tuple[int, bytes]:
    if isinstance(frame, StreamMoney):
        return STREAM_MONEY, _u64(frame.stream_id) + _u64(frame.shares)
    if isinstance(frame, StreamMaxMoney):
        totals = _saturated(frame.receive_max) + _saturated(frame.total_received)
        return STREAM_MAX_MONEY, _u64(frame.stream_id) + totals
    if isinstance(frame, StreamMoneyBlocked):
        totals = _saturated(frame.send_max) + _saturated(frame.total_sent)
        return STREAM_MONEY_BLOCKED, _u64(frame.stream_id) + totals
    if isinstance(frame, StreamData):
        return STREAM_DATA, _u64(frame.stream_id) + _u64(frame.offset) + encode_var_octets(frame.data)
    if isinstance(frame, StreamMaxData):
        return STREAM_MAX_DATA, _u64(frame.stream_id) + _u64(frame.max_offset)
    if isinstance(frame, StreamDataBlocked):
        return STREAM_DATA_BLOCKED, _u64(frame.stream_id) + _u64(frame.max_offset)
    if isinstance(frame, StreamReceipt):
        return STREAM_RECEIPT, _u64(frame.stream_id) + encode_var_octets(frame.receipt)
    if isinstance(frame, StreamClose):
        return STREAM_CLOSE, _u64(frame.stream_id) + bytes((frame.code,)) + _text(frame.message)
    return _encode_connection_frame(frame)


def _encode_connection_frame(
    frame: ConnectionClose
    | ConnectionNewAddress
    | ConnectionMaxData
    | ConnectionDataBlocked
    | ConnectionMaxStreamId
    | ConnectionStreamIdBlocked
    | ConnectionAssetDetails,
) -> tuple[int, bytes]:
    if isinstance(frame, ConnectionClose):
        return CONNECTION_CLOSE, bytes((frame.code,)) + _text(frame.message)
    if isinstance(frame, ConnectionNewAddress):
        if not is_valid(frame.address):
            raise ValueError(f"not an ILP address: {frame.address[:80]!r}")
        return CONNECTION_NEW_ADDRESS, encode_var_octets(frame.address.encode("ascii"))
    if isinstance(frame, ConnectionMaxData):
        return CONNECTION_MAX_DATA, _u64(frame.max_offset)
    if isinstance(frame, ConnectionDataBlocked):
        return CONNECTION_DATA_BLOCKED, _u64(frame.max_offset)
    if isinstance(frame, ConnectionMaxStreamId):
        return CONNECTION_MAX_STREAM_ID, _u64(frame.max_stream_id)
    if isinstance(frame, ConnectionStreamIdBlocked):
        return CONNECTION_STREAM_ID_BLOCKED, _u64(frame.max_stream_id)
    return CONNECTION_ASSET_DETAILS, _text(frame.code) + bytes((frame.scale,))


def _u64(n: int) -> bytes:
    if 0 <= n < 0x100:
        return _SMALL[n]
    if not 0 <= n <= U64_MAX:
        raise ValueError(f"a number is 0 to 2^64-1, not {n}")
    count = (n.bit_length() + 7) >> 3
    return bytes((count,)) + n.to_bytes(count, "big")


def _saturated(n: int) -> bytes:
    return _u64(min(n, U64_MAX))


def _text(text: str) -> bytes:
    return encode_var_octets(text.encode("utf-8", "replace"))


# --- decoding --------------------------------------------------------------------------------------------------------


def decode_packet(data: bytes) -> StreamPacket:
    """Decode a packet: unknown frames are skipped (STREAM-5), what follows the last one is ignored (STREAM-4)."""
    if len(data) > PLAINTEXT_BYTES_MAX:
        raise CodecError("packet", 0, f"{len(data)} bytes, more than {PLAINTEXT_BYTES_MAX}")
    if len(data) < 2:
        raise CodecError("version", 0, "the packet is cut off")
    if data[0] != VERSION:
        raise CodecError("version", 0, f"version {data[0]}, not {VERSION}")
    sequence, at = _read_u64(data, 2, "sequence")
    prepare_amount, at = _read_u64(data, at, "prepareAmount")
    count, start = read_var_uint(data, at, "frames")
    # A frame has two bytes at least: no count is believed that the bytes can't hold (OER-6, P-9).
    if count > (len(data) - start) // 2:
        raise CodecError("frames", at, "more frames announced than bytes are left for")
    frames: list[Frame] = []
    at = start
    for _ in range(count):
        contents = at + 2
        if contents > len(data):
            raise CodecError("frame", at, "the frame is missing")
        end = contents + data[at + 1]
        if end > len(data) or data[at + 1] >= 0x80:
            length, contents = read_length(data, at + 1, "frame")
            end = contents + length
        frame, after = _read_frame(data[at], data, contents)
        # Fields may have been read beyond the frame: cheaper than a copy of each frame, and refused here.
        if after > end:
            raise CodecError("frame", at, f"its contents reach {after - end} bytes beyond it")
        if frame is not None:
            frames.append(frame)
        at = end
    return StreamPacket(data[1], sequence, prepare_amount, frames)


def _read_frame(kind: int, data: bytes, at: int) -> tuple[Frame | None, int]:
    """Read the contents of one frame; give it, or None if its type is unknown, and the offset after its fields."""
    if kind == STREAM_MONEY:
        stream_id, at = _read_u64(data, at, "streamMoney.streamId")
        shares, at = _read_u64(data, at, "streamMoney.shares")
        return StreamMoney(stream_id, shares), at
    if kind < STREAM_CLOSE:
        return _read_connection_frame(kind, data, at)
    if kind == STREAM_CLOSE:
        stream_id, at = _read_u64(data, at, "streamClose.streamId")
        code, at = read_uint(data, at, 1, "streamClose.errorCode")
        message, at = read_var_octets(data, at, "streamClose.errorMessage")
        return StreamClose(stream_id, code, message.decode("utf-8", "replace")), at
    if kind == STREAM_MAX_MONEY:
        stream_id, at = _read_u64(data, at, "streamMaxMoney.streamId")
        maximum, at = read_var_uint(data, at, "streamMaxMoney.receiveMax")
        total, at = _read_u64(data, at, "streamMaxMoney.totalReceived")
        return StreamMaxMoney(stream_id, min(maximum, U64_MAX), total), at
    if kind == STREAM_MONEY_BLOCKED:
        stream_id, at = _read_u64(data, at, "streamMoneyBlocked.streamId")
        maximum, at = read_var_uint(data, at, "streamMoneyBlocked.sendMax")
        total, at = _read_u64(data, at, "streamMoneyBlocked.totalSent")
        return StreamMoneyBlocked(stream_id, min(maximum, U64_MAX), total), at
    if kind == STREAM_DATA:
        stream_id, at = _read_u64(data, at, "streamData.streamId")
        offset, at = _read_u64(data, at, "streamData.offset")
        octets, at = read_var_octets(data, at, "streamData.data")
        return StreamData(stream_id, offset, octets), at
    if kind == STREAM_MAX_DATA:
        stream_id, at = _read_u64(data, at, "streamMaxData.streamId")
        offset, at = _read_u64(data, at, "streamMaxData.maxOffset")
        return StreamMaxData(stream_id, offset), at
    if kind == STREAM_DATA_BLOCKED:
        stream_id, at = _read_u64(data, at, "streamDataBlocked.streamId")
        offset, at = _read_u64(data, at, "streamDataBlocked.maxOffset")
        return StreamDataBlocked(stream_id, offset), at
    if kind == STREAM_RECEIPT:
        stream_id, at = _read_u64(data, at, "streamReceipt.streamId")
        octets, at = read_var_octets(data, at, "streamReceipt.receipt")
        return StreamReceipt(stream_id, octets), at
    return None, at


def _read_connection_frame(kind: int, data: bytes, at: int) -> tuple[Frame | None, int]:
    if kind == CONNECTION_CLOSE:
        code, at = read_uint(data, at, 1, "connectionClose.errorCode")
        message, at = read_var_octets(data, at, "connectionClose.errorMessage")
        return ConnectionClose(code, message.decode("utf-8", "replace")), at
    if kind == CONNECTION_NEW_ADDRESS:
        octets, end = read_var_octets(data, at, "connectionNewAddress.sourceAddress")
        return ConnectionNewAddress(parse_address(octets, "connectionNewAddress.sourceAddress", at)), end
    if kind == CONNECTION_MAX_DATA:
        number, at = _read_u64(data, at, "connectionMaxData.maxOffset")
        return ConnectionMaxData(number), at
    if kind == CONNECTION_DATA_BLOCKED:
        number, at = _read_u64(data, at, "connectionDataBlocked.maxOffset")
        return ConnectionDataBlocked(number), at
    if kind == CONNECTION_MAX_STREAM_ID:
        number, at = _read_u64(data, at, "connectionMaxStreamId.maxStreamId")
        return ConnectionMaxStreamId(number), at
    if kind == CONNECTION_STREAM_ID_BLOCKED:
        number, at = _read_u64(data, at, "connectionStreamIdBlocked.maxStreamId")
        return ConnectionStreamIdBlocked(number), at
    if kind == CONNECTION_ASSET_DETAILS:
        octets, scale_at = read_var_octets(data, at, "connectionAssetDetails.sourceAssetCode")
        scale, end = read_uint(data, scale_at, 1, "connectionAssetDetails.sourceAssetScale")
        try:
            return ConnectionAssetDetails(octets.decode("utf-8"), scale), end
        except UnicodeDecodeError:
            raise CodecError("connectionAssetDetails.sourceAssetCode", at, "not UTF-8") from None
    return None, at


def _read_u64(data: bytes, offset: int, name: str) -> tuple[int, int]:
    start = offset + 1
    if start < len(data):
        count = data[offset]
        if count == 1:
            return data[start], start + 1
        end = start + count
        if 1 < count <= 8 and end <= len(data) and data[start]:
            return int.from_bytes(data[start:end], "big"), end
    # Everything that is wrong, in the words of the general reader.
    value, end = read_var_uint(data, offset, name)
    if value > U64_MAX:
        raise CodecError(name, offset, "more than 2^64-1")
    return value, end
