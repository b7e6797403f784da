"""STREAM receipts: proof for a third party of what a stream has received (RFC 0039, deprecated but in use).

The verifier shares a nonce and a secret with the receiver. The receiver puts a receipt into each Fulfill, the sender
hands them on, and the verifier credits what the newest total adds to the one before.
"""

from dataclasses import dataclass
from hmac import compare_digest
from hmac import digest as hmac_digest
from struct import Struct
from typing import Final, final

from isthmus.errors import CodecError
from isthmus.oer import U8_MAX, U64_MAX

RECEIPT_VERSION: Final = 1
NONCE_BYTES: Final = 16
RECEIPT_SECRET_BYTES: Final = 32
MESSAGE_BYTES: Final = 26
RECEIPT_BYTES: Final = 58
STREAM_ID_MAX: Final = U8_MAX

_MESSAGE: Final = Struct(">B16sBQ")
assert _MESSAGE.size == MESSAGE_BYTES


@final
@dataclass(slots=True, frozen=True)
class Receipt:
    """What a receipt says. Believe it only if `verify` made it."""

    nonce: bytes  # 16 bytes, unique for each connection
    stream_id: int
    total_received: int


def can_be_receipted(stream_id: int) -> bool:
    """Streams above 255 can't: the receipt has one byte for the id, which is never cut down (RCPT-9)."""
    return 0 <= stream_id <= STREAM_ID_MAX


def encode_receipt(receipt: Receipt, secret: bytes) -> bytes:
    """Give the 58 bytes: version, nonce, stream, total, and the MAC of these (RCPT-1, RCPT-2).

    A total above 2^64-1 saturates, as all totals on the wire.
    """
    if len(receipt.nonce) != NONCE_BYTES:
        raise ValueError(f"a receipt nonce has {NONCE_BYTES} bytes, not {len(receipt.nonce)}")
    if len(secret) != RECEIPT_SECRET_BYTES:
        raise ValueError(f"a receipt secret has {RECEIPT_SECRET_BYTES} bytes, not {len(secret)}")
    if not can_be_receipted(receipt.stream_id):
        raise ValueError(f"stream {receipt.stream_id} can't have a receipt: the highest is {STREAM_ID_MAX}")
    if receipt.total_received < 0:
        raise ValueError(f"a total can't be negative: {receipt.total_received}")
    total = min(receipt.total_received, U64_MAX)
    message = _MESSAGE.pack(RECEIPT_VERSION, receipt.nonce, receipt.stream_id, total)
    return message + hmac_digest(secret, message, "sha256")


def decode_receipt(data: bytes) -> Receipt:
    """Read a receipt without believing it: the MAC is not checked. The nonce says which secret verifies it."""
    if len(data) != RECEIPT_BYTES:
        raise CodecError("receipt", 0, f"{len(data)} bytes, not {RECEIPT_BYTES}")
    version, nonce, stream_id, total_received = _MESSAGE.unpack_from(data)
    if version != RECEIPT_VERSION:
        raise CodecError("receipt.version", 0, f"version {version}, not {RECEIPT_VERSION}")
    return Receipt(nonce, stream_id, total_received)


def verify_receipt(data: bytes, secret: bytes) -> Receipt:
    """Read a receipt whose MAC is right, compared in constant time (P-16); CodecError otherwise (RCPT-5)."""
    if len(data) != RECEIPT_BYTES:
        raise CodecError("receipt", 0, f"{len(data)} bytes, not {RECEIPT_BYTES}")
    if not compare_digest(hmac_digest(secret, data[:MESSAGE_BYTES], "sha256"), data[MESSAGE_BYTES:]):
        raise CodecError("receipt.hmac", MESSAGE_BYTES, "not made with this secret, or changed")
    return decode_receipt(data)
