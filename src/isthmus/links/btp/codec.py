"""BTP 2.0 frames: Message, Response, Error, Transfer with their protocol data (RFC 0023).

One frame is one binary WebSocket message (BTP-1). Frames with nothing but an ILP packet, nearly all of them, go
through `encode_ilp` and `ilp_fast`; `encode` and `decode` know the rest. What a frame means is the session's affair:
which peer sends Prepares in Responses (X-2), which entry is allowed before auth (BTP-6).
"""

from dataclasses import dataclass, field
from struct import Struct
from typing import Final, TypeAlias, final

from isthmus.errors import CodecError
from isthmus.ilp.packet import PACKET_BYTES_MAX, truncate_utf8
from isthmus.links.btp.generalized_time import (
    GENERALIZED_TIME_BYTES_MAX,
    decode_generalized_time,
    encode_generalized_time,
)
from isthmus.oer import (
    U32_MAX,
    U64_MAX,
    encode_length,
    encode_uint,
    encode_var_octets,
    encode_var_uint,
    read_length,
    read_octets,
    read_uint,
    read_var_octets,
    read_var_octets_max,
    read_var_uint,
)

RESPONSE: Final = 1
ERROR: Final = 2
MESSAGE: Final = 6
TRANSFER: Final = 7

# Content types of protocol data. The RFC names three; others decode and mean nothing to us.
OCTET_STREAM: Final = 0
TEXT_PLAIN: Final = 1
JSON: Final = 2

ILP_NAME: Final = "ilp"
REQUEST_ID_MAX: Final = U32_MAX

# Room for the largest ILP packet and some secondary entries; BTP-17 asks for 34 KiB at least.
FRAME_BYTES_MAX: Final = 65_536
assert FRAME_BYTES_MAX >= PACKET_BYTES_MAX + 1024
# A frame of the size above could carry 20,000 empty entries; real ones carry one to four.
ENTRIES_MAX: Final = 64
ERROR_DATA_BYTES_MAX: Final = 8_192
ERROR_NAME_BYTES_MAX: Final = 255  # no limit in the RFC; its own names have up to 24

# BTP-13. There is no F02.
ERROR_NAMES: Final[dict[str, str]] = {
    "T00": "UnreachableError",
    "F00": "NotAcceptedError",
    "F01": "InvalidFieldsError",
    "F03": "TransferNotFoundError",
    "F04": "InvalidFulfillmentError",
    "F05": "DuplicateIdError",
    "F06": "AlreadyRolledBackError",
    "F07": "AlreadyFulfilledError",
    "F08": "InsufficientBalanceError",
}

_HEAD: Final = Struct(">BI")
_HEAD_BYTES: Final = 5
# The protocol data of an ILP frame up to the packet's length: one entry, its name, its content type.
_ILP_ENTRY: Final = b"\x01\x01\x03ilp\x00"
_ILP_ENTRY_BYTES: Final = len(_ILP_ENTRY)
# By the sizes of the two lengths, of the body and of the packet: one byte, 0x81 and one, 0x82 and two.
_ILP_1_1: Final = Struct(">BIB7sB")
_ILP_2_1: Final = Struct(">BIBB7sB")
_ILP_2_2: Final = Struct(">BIBB7sBB")
_ILP_3_3: Final = Struct(">BIBH7sBH")


@final
@dataclass(slots=True)
class ProtocolData:
    """One named entry. The first of a frame selects the action, the others are its context (BTP-11)."""

    name: str
    content_type: int
    data: bytes


@final
@dataclass(slots=True)
class BtpMessage:
    """A request of the sender."""

    request_id: int
    protocol_data: list[ProtocolData]


@final
@dataclass(slots=True)
class BtpResponse:
    """The answer to a Message or Transfer: it was understood, not that money moved."""

    request_id: int
    protocol_data: list[ProtocolData]


@final
@dataclass(slots=True)
class BtpError:
    """The other answer. Never an ILP Reject, which travels in a Response (BTP-10)."""

    request_id: int
    code: str  # three ASCII characters, see ERROR_NAMES
    name: str
    triggered_at: int  # wall ms
    data: bytes = b""  # for people; may be anything (P-14)
    protocol_data: list[ProtocolData] = field(default_factory=list)


@final
@dataclass(slots=True)
class BtpTransfer:
    """Asks the receiver to book an increment in the unit both agreed on (BTP-12)."""

    request_id: int
    amount: int
    protocol_data: list[ProtocolData]


BtpPacket: TypeAlias = BtpMessage | BtpResponse | BtpError | BtpTransfer


# --- the hot path ----------------------------------------------------------------------------------------------------


def encode_ilp(kind: int, request_id: int, ilp: bytes) -> bytes:
    """Give the frame that carries just this ILP packet; `kind` is MESSAGE or RESPONSE (BTP-10)."""
    size = len(ilp)
    if size < 120:
        return _ILP_1_1.pack(kind, request_id, size + 8, _ILP_ENTRY, size) + ilp
    if size < 128:
        return _ILP_2_1.pack(kind, request_id, 0x81, size + 8, _ILP_ENTRY, size) + ilp
    if size < 247:
        return _ILP_2_2.pack(kind, request_id, 0x81, size + 9, _ILP_ENTRY, 0x81, size) + ilp
    if 256 <= size <= PACKET_BYTES_MAX:
        return _ILP_3_3.pack(kind, request_id, 0x82, size + 10, _ILP_ENTRY, 0x82, size) + ilp
    prefix = encode_length(size)
    head = _HEAD.pack(kind, request_id) + encode_length(_ILP_ENTRY_BYTES + len(prefix) + size)
    return head + _ILP_ENTRY + prefix + ilp


_KNOWN: Final = 1_024  # nearly every frame is smaller
# Above it both lengths have three bytes.
_ILP_LONG: Final = Struct(">BH7sBH")
# No frame matches it: it is longer than the frames that it is tried on.
_NO_PREFIX: Final = bytes(_KNOWN)


def _ilp_prefix(frame_bytes: int) -> bytes:
    """Give what stands between request id and packet in a frame of that size with nothing but an ILP packet.

    Lengths have one shortest form, so the size leaves one possibility, or none.
    """
    for width in (1, 2, 3):
        for body_width in (1, 2, 3):
            size = frame_bytes - _HEAD_BYTES - body_width - _ILP_ENTRY_BYTES - width
            body = encode_length(_ILP_ENTRY_BYTES + width + max(size, 0))
            prefix = encode_length(max(size, 0))
            if size >= 0 and len(prefix) == width and len(body) == body_width:
                return body + _ILP_ENTRY + prefix
    return _NO_PREFIX


_ILP_PREFIXES: Final = tuple(_ilp_prefix(size) for size in range(_KNOWN))


def ilp_fast(frame: bytes) -> tuple[int, int, bytes] | None:
    """Give (type, request id, ILP packet) of a sound frame whose only entry is `ilp`; None for any other bytes.

    None is no verdict: `decode` then gives the value or the error.
    """
    size = len(frame)
    if size < _KNOWN:
        prefix = _ILP_PREFIXES[size]
    elif size <= FRAME_BYTES_MAX:
        prefix = _ILP_LONG.pack(0x82, size - 8, _ILP_ENTRY, 0x82, size - 18)
    else:
        return None
    if not frame.startswith(prefix, _HEAD_BYTES):
        return None
    kind, request_id = _HEAD.unpack_from(frame)
    if kind != MESSAGE and kind != RESPONSE:
        return None
    return kind, request_id, frame[_HEAD_BYTES + len(prefix) :]


# --- any frame -------------------------------------------------------------------------------------------------------


def read_head(frame: bytes) -> tuple[int, int] | None:
    """(type, request id), whatever follows: to answer a frame that does not decode. None if it is too short."""
    if len(frame) < _HEAD_BYTES:
        return None
    kind, request_id = _HEAD.unpack_from(frame)
    return kind, request_id


def decode(frame: bytes) -> BtpPacket:
    """Decode a frame of any type; bytes after the last field are ignored (OER-9)."""
    if len(frame) > FRAME_BYTES_MAX:
        raise CodecError("frame", 0, f"{len(frame)} bytes, more than {FRAME_BYTES_MAX}")
    kind, _ = read_uint(frame, 0, 1, "type")
    if kind not in (RESPONSE, ERROR, MESSAGE, TRANSFER):
        raise CodecError("type", 0, f"{kind} is no BTP type")
    request_id, at = read_uint(frame, 1, 4, "requestId")
    length, at = read_length(frame, at, "body")
    content = frame[: at + length]  # so that no field reaches beyond the body
    if kind == MESSAGE:
        return BtpMessage(request_id, _read_protocol_data(content, at))
    if kind == RESPONSE:
        return BtpResponse(request_id, _read_protocol_data(content, at))
    if kind == TRANSFER:
        amount, at = read_uint(content, at, 8, "amount")
        return BtpTransfer(request_id, amount, _read_protocol_data(content, at))
    return _read_error(content, at, request_id)


def _read_error(content: bytes, at: int, request_id: int) -> BtpError:
    code, name_at = read_octets(content, at, 3, "code")
    if not code.isascii():
        raise CodecError("code", at, "not ASCII")
    name, time_at = read_var_octets_max(content, name_at, "name", ERROR_NAME_BYTES_MAX)
    time, data_at = read_var_octets_max(content, time_at, "triggeredAt", GENERALIZED_TIME_BYTES_MAX)
    triggered_at = decode_generalized_time(time, "triggeredAt", time_at)
    data, at = read_var_octets_max(content, data_at, "data", ERROR_DATA_BYTES_MAX)
    protocol_data = _read_protocol_data(content, at)
    return BtpError(
        request_id, code.decode("ascii"), name.decode("utf-8", "replace"), triggered_at, data, protocol_data
    )


def _read_protocol_data(content: bytes, at: int) -> list[ProtocolData]:
    count, entry_at = read_var_uint(content, at, "protocolData")
    if count > ENTRIES_MAX:
        # The number may have thousands of digits: it is not printed.
        raise CodecError("protocolData", at, f"more than {ENTRIES_MAX} entries")
    entries: list[ProtocolData] = []
    names: dict[str, bool] = {}
    for _ in range(count):
        octets, type_at = read_var_octets(content, entry_at, "protocolData.name")
        if not octets.isascii():
            raise CodecError("protocolData.name", entry_at, "not ASCII")
        name = octets.decode("ascii")
        if name in names:
            raise CodecError("protocolData.name", entry_at, "the name occurs twice")
        names[name] = True
        content_type, data_at = read_uint(content, type_at, 1, "protocolData.contentType")
        data, entry_at = read_var_octets(content, data_at, "protocolData.data")
        entries.append(ProtocolData(name, content_type, data))
    return entries


def encode(packet: BtpPacket) -> bytes:
    """Encode a frame; ValueError if a field is out of its range."""
    entries = _encode_protocol_data(packet.protocol_data)
    if isinstance(packet, BtpMessage):
        return _frame(MESSAGE, packet.request_id, entries)
    if isinstance(packet, BtpResponse):
        return _frame(RESPONSE, packet.request_id, entries)
    if isinstance(packet, BtpTransfer):
        if not 0 <= packet.amount <= U64_MAX:
            raise ValueError(f"an amount is 0 to 2^64-1, not {packet.amount}")
        return _frame(TRANSFER, packet.request_id, encode_uint(packet.amount, 8) + entries)
    code = packet.code.encode("ascii", "replace")
    if len(code) != 3 or not packet.code.isascii():
        raise ValueError(f"an error code has 3 ASCII characters: {packet.code!r}")
    if len(packet.data) > ERROR_DATA_BYTES_MAX:
        raise ValueError(f"an error's data has at most {ERROR_DATA_BYTES_MAX} bytes, not {len(packet.data)}")
    name = encode_var_octets(truncate_utf8(packet.name, ERROR_NAME_BYTES_MAX))
    time = encode_var_octets(encode_generalized_time(packet.triggered_at))
    return _frame(ERROR, packet.request_id, code + name + time + encode_var_octets(packet.data) + entries)


def _encode_protocol_data(entries: list[ProtocolData]) -> bytes:
    if len(entries) > ENTRIES_MAX:
        raise ValueError(f"a frame has at most {ENTRIES_MAX} entries, not {len(entries)}")
    names = [entry.name for entry in entries]
    parts = [encode_var_uint(len(entries))]
    for index, entry in enumerate(entries):
        if not entry.name.isascii() or entry.name in names[:index]:
            raise ValueError(f"names of protocol data are ASCII and unique: {entry.name!r}")
        parts.append(encode_var_octets(entry.name.encode("ascii")))
        parts.append(encode_uint(entry.content_type, 1))
        parts.append(encode_var_octets(entry.data))
    return b"".join(parts)


def _frame(kind: int, request_id: int, body: bytes) -> bytes:
    if not 0 <= request_id <= REQUEST_ID_MAX:
        raise ValueError(f"a request id is 0 to 2^32-1, not {request_id}")
    frame = _HEAD.pack(kind, request_id) + encode_length(len(body)) + body
    if len(frame) > FRAME_BYTES_MAX:
        raise ValueError(f"a frame has at most {FRAME_BYTES_MAX} bytes, not {len(frame)}")
    return frame
