"""ILPv4 packets: Prepare, Fulfill, Reject (RFC 0027), and the cheap view of a Prepare that a forwarder needs.

Packets are encoded canonically (ILP-5). Decoders refuse lengths that are not in their shortest form (OER-4), ignore
bytes after the last field (OER-9) and enforce the RFC's size limits (ILP-13). A forwarder never encodes a packet
anew: it replaces bytes 0 to 24 of the body with `patch_prepare` and relays replies as they are (ILP-6, P-4).
"""

from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from struct import error as StructError
from typing import Final, TypeAlias, final

from isthmus.errors import CodecError
from isthmus.ilp.address import ADDRESS_BYTES_MAX, is_valid, parse_address
from isthmus.ilp.timestamp import TimestampCache, decode_timestamp, encode_timestamp
from isthmus.oer import encode_length, encode_var_octets, read_length, read_octets, read_var_octets_max

PREPARE: Final = 12
FULFILL: Final = 13
REJECT: Final = 14

AMOUNT_MAX: Final = 2**64 - 1
CONDITION_BYTES: Final = 32
FULFILLMENT_BYTES: Final = 32
CODE_BYTES: Final = 3
DATA_BYTES_MAX: Final = 32_767
MESSAGE_BYTES_MAX: Final = 8_191

# The largest canonical packets, and also the largest that we read: what a peer appends beyond the last field counts.
PREPARE_BYTES_MAX: Final = 33_857  # BTP-17: destination 1023, data 32767, fixed fields
FULFILL_BYTES_MAX: Final = 32_806
REJECT_BYTES_MAX: Final = 41_997
PACKET_BYTES_MAX: Final = REJECT_BYTES_MAX

# F08 data: received amount, maximum amount, in the units of the account that the Prepare came in on (ILP-15).
AMOUNT_TOO_LARGE_BYTES: Final = 16

_FIXED: Final = Struct(">Q17s32s")
_FIXED_AND_LENGTH: Final = Struct(">Q17s32sB")
_PATCH: Final = Struct(">Q17s")
_PATCH_BYTES: Final = 25
_DESTINATION_AT: Final = 57
_TWO_U64: Final = Struct(">QQ")


@final
@dataclass(slots=True)
class Prepare:
    """A conditional promise of money."""

    amount: int  # base units of the account that carries it
    expires_at: int  # wall ms
    condition: bytes  # 32 bytes
    destination: str
    data: bytes = b""


@final
@dataclass(slots=True)
class Fulfill:
    """The proof that the receiver got the Prepare."""

    fulfillment: bytes  # 32 bytes
    data: bytes = b""


@final
@dataclass(slots=True)
class Reject:
    """Why a Prepare failed. `triggered_by` is who says so: normally an address, but some peers send "" or "unknown"."""

    code: str  # three ASCII characters, known or not (ILP-18)
    triggered_by: str
    message: str  # for people who debug
    data: bytes = b""


Packet: TypeAlias = Prepare | Fulfill | Reject


# --- encoding --------------------------------------------------------------------------------------------------------


def encode_prepare(prepare: Prepare) -> bytes:
    """Encode a Prepare; ValueError if a field is out of its range."""
    if not 0 <= prepare.amount <= AMOUNT_MAX:
        raise ValueError(f"an amount is 0 to 2^64-1, not {prepare.amount}")
    if len(prepare.condition) != CONDITION_BYTES:
        raise ValueError(f"a condition has {CONDITION_BYTES} bytes, not {len(prepare.condition)}")
    if not is_valid(prepare.destination):
        raise ValueError(f"not an ILP address: {prepare.destination[:80]!r}")
    fixed = _FIXED.pack(prepare.amount, encode_timestamp(prepare.expires_at), prepare.condition)
    destination = prepare.destination.encode("ascii")
    return _envelope(PREPARE, fixed + encode_var_octets(destination) + _encode_data(prepare.data))


def encode_fulfill(fulfill: Fulfill) -> bytes:
    """Encode a Fulfill; ValueError if a field is out of its range."""
    if len(fulfill.fulfillment) != FULFILLMENT_BYTES:
        raise ValueError(f"a fulfillment has {FULFILLMENT_BYTES} bytes, not {len(fulfill.fulfillment)}")
    return _envelope(FULFILL, fulfill.fulfillment + _encode_data(fulfill.data))


def encode_reject(reject: Reject) -> bytes:
    """Encode a Reject; a message that is too long is cut on a character boundary (ILP-21)."""
    code = reject.code.encode("ascii", "replace")
    if len(code) != CODE_BYTES or not reject.code.isascii():
        raise ValueError(f"an error code has {CODE_BYTES} ASCII characters: {reject.code!r}")
    if not reject.triggered_by.isascii() or len(reject.triggered_by) > ADDRESS_BYTES_MAX:
        raise ValueError(f"triggered_by is an address or empty, not {reject.triggered_by[:80]!r}")
    triggered_by = encode_var_octets(reject.triggered_by.encode("ascii"))
    message = encode_var_octets(truncate_utf8(reject.message, MESSAGE_BYTES_MAX))
    return _envelope(REJECT, code + triggered_by + message + _encode_data(reject.data))


def encode(packet: Packet) -> bytes:
    """Encode any packet."""
    if isinstance(packet, Prepare):
        return encode_prepare(packet)
    if isinstance(packet, Fulfill):
        return encode_fulfill(packet)
    return encode_reject(packet)


def truncate_utf8(text: str, size_max: int) -> bytes:
    """Encode as UTF-8 and cut to `size_max` bytes without cutting a character; lone surrogates become "?"."""
    # Four bytes a character at most: a huge text is not encoded whole.
    octets = text[:size_max].encode("utf-8", "replace")
    if len(octets) <= size_max:
        return octets
    end = size_max
    while octets[end] & 0xC0 == 0x80:
        end -= 1
    return octets[:end]


def _encode_data(data: bytes) -> bytes:
    if len(data) > DATA_BYTES_MAX:
        raise ValueError(f"a packet's data has at most {DATA_BYTES_MAX} bytes, not {len(data)}")
    return encode_var_octets(data)


def _envelope(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + encode_length(len(body)) + body


# --- decoding --------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> Packet:
    """Decode a packet of any type, all fields checked."""
    kind = data[0] if data else -1
    if kind == PREPARE:
        return decode_prepare(data)
    if kind == FULFILL:
        return _decode_fulfill(data)
    if kind == REJECT:
        return _decode_reject(data)
    raise CodecError("type", 0, "the packet is empty" if kind < 0 else f"{kind} is no ILP packet type")


def decode_reply(data: bytes) -> Fulfill | Reject:
    """Decode a Fulfill or a Reject."""
    if data and data[0] == FULFILL:
        return _decode_fulfill(data)
    if data and data[0] == REJECT:
        return _decode_reject(data)
    raise CodecError("type", 0, "not a Fulfill or Reject")


def decode_prepare(data: bytes) -> Prepare:
    """Decode a Prepare, the characters of its destination included."""
    body, end = _read_envelope(data, PREPARE, PREPARE_BYTES_MAX)
    if end - body < _DESTINATION_AT:
        raise CodecError("body", body, f"{end - body} bytes, less than a Prepare's fixed fields")
    amount, _, condition = _FIXED.unpack_from(data, body)
    expires_at = decode_timestamp(data, body + 8, "expiresAt")
    at = body + _DESTINATION_AT
    content = data[:end]  # so that no field reaches beyond the body
    destination, after = read_var_octets_max(content, at, "destination", ADDRESS_BYTES_MAX)
    address = parse_address(destination, "destination", at)
    payload, _ = read_var_octets_max(content, after, "data", DATA_BYTES_MAX)
    return Prepare(amount, expires_at, condition, address, payload)


def _decode_fulfill(data: bytes) -> Fulfill:
    body, end = _read_envelope(data, FULFILL, FULFILL_BYTES_MAX)
    content = data[:end]
    fulfillment, at = read_octets(content, body, FULFILLMENT_BYTES, "fulfillment")
    payload, _ = read_var_octets_max(content, at, "data", DATA_BYTES_MAX)
    return Fulfill(fulfillment, payload)


def _decode_reject(data: bytes) -> Reject:
    body, end = _read_envelope(data, REJECT, REJECT_BYTES_MAX)
    content = data[:end]
    code, at = read_octets(content, body, CODE_BYTES, "code")
    triggered_by, after = read_var_octets_max(content, at, "triggeredBy", ADDRESS_BYTES_MAX)
    message, last = read_var_octets_max(content, after, "message", MESSAGE_BYTES_MAX)
    payload, _ = read_var_octets_max(content, last, "data", DATA_BYTES_MAX)
    if not code.isascii():
        raise CodecError("code", body, "not ASCII")
    # ASCII and no more: ilp-connector says "unknown" before it has an address, and the code must not be lost for that.
    if not triggered_by.isascii():
        raise CodecError("triggeredBy", at, "not ASCII")
    # Messages may hold anything (P-14).
    return Reject(code.decode("ascii"), triggered_by.decode("ascii"), message.decode("utf-8", "replace"), payload)


def _read_envelope(data: bytes, kind: int, size_max: int) -> tuple[int, int]:
    """Check type and size; give the offsets of the body and of its end."""
    if not data or data[0] != kind:
        raise CodecError("type", 0, "the packet is empty" if not data else f"{data[0]}, not {kind}")
    if len(data) > size_max:
        raise CodecError("packet", 0, f"{len(data)} bytes, more than {size_max}")
    length, body = read_length(data, 1, "body")
    return body, body + length


# --- what a forwarder needs ------------------------------------------------------------------------------------------


@final
@dataclass(slots=True, init=False)
class PrepareView:
    """The fields of a Prepare that decide where it goes; the packet stays as it came.

    One is made for every Prepare: mypyc compiles an `__init__` of our own, but not a dataclass's.
    """

    packet: bytes
    body: int  # offset of the body
    amount: int
    expires_at: int  # wall ms
    condition: bytes
    destination: bytes  # 1 to 1023 bytes; its characters are not checked: what no route matches goes nowhere

    def __init__(
        self, packet: bytes, body: int, amount: int, expires_at: int, condition: bytes, destination: bytes
    ) -> None:
        self.packet = packet
        self.body = body
        self.amount = amount
        self.expires_at = expires_at
        self.condition = condition
        self.destination = destination


def view_prepare(packet: bytes, cache: TimestampCache | None = None) -> PrepareView:
    """Check a Prepare's structure, sizes and timestamp, and give its fields; CodecError otherwise."""
    size = len(packet)
    body = 2
    try:
        first = packet[1]
        if first < 0x80:
            end = 2 + first
        elif first == 0x81:
            end = 3 + packet[2]
            body = 3
        else:
            end = 0  # read with all checks below
        if packet[0] != PREPARE or size > PREPARE_BYTES_MAX or end > size or end < body + 0x80 * (body - 2):
            body, end = _read_envelope(packet, PREPARE, PREPARE_BYTES_MAX)
        amount, stamp, condition, length = _FIXED_AND_LENGTH.unpack_from(packet, body)
    except (IndexError, StructError):
        raise CodecError("packet", 0, f"{size} bytes, less than a Prepare's fixed fields") from None
    if cache is None:
        expires_at = decode_timestamp(packet, body + 8, "expiresAt")
    else:
        expires_at = cache.read(stamp, body + 8, "expiresAt")
    start = body + 58
    if length >= 0x80:
        length, start = read_length(packet, body + _DESTINATION_AT, "destination")
    after = start + length
    if length == 0 or length > ADDRESS_BYTES_MAX:
        raise CodecError("destination", body + _DESTINATION_AT, f"{length} bytes, not 1 to {ADDRESS_BYTES_MAX}")
    if after >= end:
        raise CodecError("data", after, "the body ends before it")
    data_length = packet[after]
    if data_length >= 0x80:
        data_length, last = read_length(packet, after, "data")
        last += data_length
    else:
        last = after + 1 + data_length
    if last > end or data_length > DATA_BYTES_MAX:
        raise CodecError("data", after, f"{data_length} bytes, beyond the body or more than {DATA_BYTES_MAX}")
    return PrepareView(packet, body, amount, expires_at, condition, packet[start:after])


def patch_prepare(view: PrepareView, amount: int, expires_at: int, cache: TimestampCache | None = None) -> bytes:
    """Give the packet with another amount and expiry; every other byte stays (ILP-6, P-4). Zero is a value (P-5)."""
    assert 0 <= amount <= AMOUNT_MAX
    packet = view.packet
    body = view.body
    timestamp = encode_timestamp(expires_at) if cache is None else cache.encode(expires_at)
    return packet[:body] + _PATCH.pack(amount, timestamp) + packet[body + _PATCH_BYTES :]


def fulfillment_of(packet: bytes) -> bytes:
    """The fulfillment of a Fulfill whose structure and sizes are right; CodecError otherwise."""
    size = len(packet)
    # The usual forms first: a body of 33 to 127 bytes, or up to 255, that holds 32 bytes and short data.
    if 35 <= size <= FULFILL_BYTES_MAX and packet[0] == FULFILL:
        first = packet[1]
        if first < 0x80:
            if 33 <= first <= size - 2 and packet[34] <= first - 33:
                return packet[2:34]
        elif first == 0x81 and 0x80 <= packet[2] <= size - 3 and packet[35] < 0x80 and packet[35] <= packet[2] - 33:
            return packet[3:35]
    return _decode_fulfill(packet).fulfillment


def reject_code_of(packet: bytes) -> str:
    """The code of a Reject whose structure and sizes are right; CodecError otherwise."""
    return _decode_reject(packet).code


def is_fulfilled_by(condition: bytes, fulfillment: bytes) -> bool:
    """Whether the fulfillment is the preimage of the condition (ILP-9). Expiry is for the caller to judge."""
    return sha256(fulfillment).digest() == condition


# --- F08 data --------------------------------------------------------------------------------------------------------


def encode_amount_too_large(received: int, maximum: int) -> bytes:
    """The data of an F08: both amounts in the units of the rejecting connector's incoming account (ILP-15)."""
    if not (0 <= received <= AMOUNT_MAX and 0 <= maximum <= AMOUNT_MAX):
        raise ValueError(f"amounts are 0 to 2^64-1, not {received} and {maximum}")
    return _TWO_U64.pack(received, maximum)


def decode_amount_too_large(data: bytes) -> tuple[int, int] | None:
    """(received, maximum) of an F08; None if the data is missing or short (X-16), then guess (ILP-17)."""
    if len(data) < AMOUNT_TOO_LARGE_BYTES:
        return None
    received, maximum = _TWO_U64.unpack_from(data)
    return received, maximum
