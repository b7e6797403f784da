"""The bytes of the load generator: WebSocket, BTP and ILP in as few operations as Python allows.

Written for measuring: it knows the one shape of packet that it sends, and leaves everything else to the slow path.
Nothing of the product is used here, so that a mistake there can't hide behind the same mistake here.
Client frames carry an all-zero mask, which RFC 6455 allows: masking would cost the generator more than all the rest.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

BTP_RESPONSE = 1
BTP_MESSAGE = 6
ZERO_MASK = bytes(4)
BINARY, CLOSE, PING, PONG = 0x82, 0x88, 0x89, 0x8A

DATA_BYTES = 32
EXPIRY_SECONDS = 600  # connectors cut it to their own maximum hold
FULFILL_MIDDLE = bytes.fromhex("2b 0101 03696c70 00 23 0d21")  # between request id and fulfillment
FULFILL_BYTES = 49  # one BTP Response that carries a Fulfill without data
SERVER_FULFILL = struct.Struct(">3sI11s32ss")  # as it comes from a server
CLIENT_FULFILL = struct.Struct(">7sI11s32ss")  # as a client sends it
SERVER_FULFILL_HEAD = bytes((BINARY, FULFILL_BYTES, BTP_RESPONSE))
CLIENT_FULFILL_HEAD = bytes((BINARY, 0x80 | FULFILL_BYTES)) + ZERO_MASK + bytes((BTP_RESPONSE,))


def server_header(size: int) -> bytes:
    return bytes((BINARY, size)) if size < 126 else struct.pack(">BBH", BINARY, 126, size)


def client_header(size: int, opcode: int = BINARY) -> bytes:
    if size < 126:
        return bytes((opcode, 0x80 | size)) + ZERO_MASK
    return struct.pack(">BBH", opcode, 0x80 | 126, size) + ZERO_MASK


def var_octets(content: bytes) -> bytes:
    """OER: content with its length in front (up to 64 KiB here)."""
    if len(content) < 128:
        return bytes((len(content),)) + content
    if len(content) < 256:
        return bytes((0x81, len(content))) + content
    return struct.pack(">BH", 0x82, len(content)) + content


def btp_entry(name: bytes, content_type: int, content: bytes) -> bytes:
    return var_octets(name) + bytes((content_type,)) + var_octets(content)


def btp(kind: int, request_id: int, *entries: bytes) -> bytes:
    body = bytes((1, len(entries))) + b"".join(entries)
    return struct.pack(">BI", kind, request_id) + var_octets(body)


def auth_frame(request_id: int, user: str, token: str) -> bytes:
    """The first packet of a BTP client, as a WebSocket frame."""
    entries = [btp_entry(b"auth", 0, b"")]
    if user:
        entries.append(btp_entry(b"auth_username", 1, user.encode()))
    entries.append(btp_entry(b"auth_token", 1, token.encode()))
    message = btp(BTP_MESSAGE, request_id, *entries)
    return client_header(len(message)) + message


def prepare(*, amount: int, destination: bytes, condition: bytes, data: bytes, expires_at: bytes) -> bytes:
    """One ILP Prepare; `expires_at` as 17 digits."""
    body = struct.pack(">Q", amount) + expires_at + condition + var_octets(destination) + var_octets(data)
    return b"\x0c" + var_octets(body)


def expiry(seconds: float) -> bytes:
    """The ILP timestamp that many seconds from now."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return at.strftime("%Y%m%d%H%M%S").encode() + b"%03d" % (at.microsecond // 1000)


@dataclass(slots=True)
class Shot:
    """Distinct Prepares, ready to send: frame `i` has the request id `first_id + i` and the preimage `preimages[i]`."""

    first_id: int
    frames: list[bytes]
    preimages: list[bytes]
    message_bytes: int  # of one BTP Message, all are of one size


def load(count: int, *, seed: bytes, destination: str, amount: int, first_id: int = 1, prefixes: int = 1) -> Shot:
    """Prebuild `count` Prepares. The 32 bytes of data are the preimage, so that the receiver can fulfil.

    A destination with a `{:04}` in it stands for `prefixes` addresses, which take turns.
    """
    expires_at = expiry(EXPIRY_SECONDS)
    addresses = [destination.format(number).encode() for number in range(prefixes)]
    frames: list[bytes] = []
    preimages: list[bytes] = []
    message = b""
    for index in range(count):
        address = addresses[index % prefixes]
        preimage = hashlib.sha256(seed + index.to_bytes(4, "big")).digest()
        condition = hashlib.sha256(preimage).digest()
        packet = prepare(amount=amount, destination=address, condition=condition, data=preimage, expires_at=expires_at)
        message = btp(BTP_MESSAGE, first_id + index, btp_entry(b"ilp", 0, packet))
        frames.append(client_header(len(message)) + message)
        preimages.append(preimage)
    return Shot(first_id, frames, preimages, len(message))


def split(buffer: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Whole frames at the start of the buffer: first byte, payload (unmasked), and the offset after the frame."""
    offset = 0
    while len(buffer) - offset >= 2:
        size = buffer[offset + 1] & 0x7F
        start = offset + 2
        if size == 126:
            if len(buffer) - offset < 4:
                return
            size = int.from_bytes(buffer[offset + 2 : offset + 4], "big")
            start = offset + 4
        elif size == 127:
            if len(buffer) - offset < 10:
                return
            size = int.from_bytes(buffer[offset + 2 : offset + 10], "big")
            start = offset + 10
        if buffer[offset + 1] & 0x80:
            assert buffer[start : start + 4] in (ZERO_MASK, ZERO_MASK[: len(buffer) - start])
            start += 4
        if len(buffer) < start + size:
            return
        first = buffer[offset]
        offset = start + size
        yield first, buffer[start:offset], offset
