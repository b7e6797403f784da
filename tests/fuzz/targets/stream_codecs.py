"""STREAM's decoders: packets with their frames, and what the addresses and receipts say.

Allowed is a value or `CodecError`; for a token also None: it is none of ours.
"""

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from hmac import digest as hmac_digest
from pathlib import Path
from typing import Any, Final

from isthmus.errors import CodecError
from isthmus.stream import packet, receipt, tokens, wire
from isthmus.stream.crypto import Keys
from tests.fuzz.registry import Target

VECTORS: Final[list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "vectors/stream-packets.json").read_text()
)
SECRET: Final = bytes(range(32))
KEYS: Final = Keys(SECRET)
# As `Tokens` derives it.
TOKEN_KEYS: Final = Keys(hmac_digest(SECRET, b"isthmus_stream_token", "sha256"))
BASE: Final = "test.bob"
TOKENS: Final = tokens.Tokens(SECRET, bytes)


def fuzz_stream(data: bytes) -> None:
    """Replaced UTF-8 may make a packet larger than what may be written; all others are stable from then on."""
    sequence, amount, at = wire.read_head(data) if data[:1] == b"\x01" else (0, 0, 0)
    try:
        decoded = packet.decode_packet(data)
    except CodecError:
        return
    if at:
        assert (sequence, amount) == (decoded.sequence, decoded.prepare_amount)
    try:
        again = packet.encode_packet(decoded)
    except ValueError:
        assert b"\xef\xbf\xbd" in repr(decoded).encode(), "only a replaced message can have become too long"
        return
    assert packet.decode_packet(again) == decoded
    assert packet.encode_packet(decoded, pad_to=len(data)) == again.ljust(len(data), b"\0")


def seeds_stream() -> Iterator[bytes]:
    for vector in VECTORS:
        yield b64decode(vector["buffer"])


def fuzz_stream_address(data: bytes) -> None:
    """The first byte says what the rest is: a token, what a token of ours says, a receipt, or an envelope."""
    kind, rest = (data[0] & 3, data[1:]) if data else (0, b"")
    if kind == 0:
        _check_token(TOKENS.read(rest.decode("latin-1")))
    elif kind == 1:
        # Only we can make such a token; what an older version of us put into it must not surprise the newer one.
        sealed = TOKEN_KEYS.encrypt(rest[:200], bytes(12))
        _check_token(TOKENS.read(urlsafe_b64encode(sealed).rstrip(b"=").decode()))
    elif kind == 2:
        try:
            found = receipt.decode_receipt(rest)
        except CodecError:
            return
        again = receipt.encode_receipt(found, SECRET)
        assert again[: receipt.MESSAGE_BYTES] == rest[: receipt.MESSAGE_BYTES]
        assert receipt.verify_receipt(again, SECRET) == found
    else:
        try:
            opened = KEYS.decrypt(rest)
        except CodecError:
            return
        assert KEYS.encrypt(opened, rest[:12]) == rest


def _check_token(token: tokens.Token | None) -> None:
    if token is None:
        return
    assert len(token.connection_id) == tokens.CONNECTION_ID_BYTES
    assert len(token.shared_secret) == 32
    assert len(token.tag) <= tokens.TAG_BYTES_MAX
    assert len(token.receipt_nonce) in (0, receipt.NONCE_BYTES)
    assert len(token.receipt_secret) in (0, receipt.RECEIPT_SECRET_BYTES)
    assert bool(token.receipt_nonce) == bool(token.receipt_secret)


def seeds_stream_address() -> Iterator[bytes]:
    nonce, secret = bytes(16), bytes(range(32))
    for invitation in (
        TOKENS.invite(BASE),
        TOKENS.invite(BASE, tag=b"invoice"),
        TOKENS.invite(BASE, tag=b"x", receipt_nonce=nonce, receipt_secret=secret),
    ):
        yield b"\0" + invitation.address[len(BASE) + 1 :].encode()
    yield b"\1\1\x01x"
    yield b"\1\1\x00" + nonce + secret
    yield b"\2" + receipt.encode_receipt(receipt.Receipt(nonce, 1, 1_000), SECRET)
    yield b"\3" + KEYS.encrypt(b"hello", bytes(12))


TARGETS: Final[dict[str, Target]] = {
    "stream": Target(
        fuzz_stream, seeds_stream, (b"\x01\x0c\x01\x01\x01\x01\x01", b"\x11\x04\x01\x01\x01\x01", b"test.a", b"\x14")
    ),
    "stream-address": Target(fuzz_stream_address, seeds_stream_address, (b"\x01\x00", b"=" * 3), size_max=512),
}
