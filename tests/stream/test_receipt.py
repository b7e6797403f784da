"""STREAM receipts (RFC 0039)."""

import hmac
import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.stream.receipt import (
    RECEIPT_BYTES,
    Receipt,
    can_be_receipted,
    decode_receipt,
    encode_receipt,
    verify_receipt,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/stream-packets.json").read_text())
FIXTURE = b64decode(next(v for v in VECTORS if v["name"] == "frame:stream_receipt")["packet"]["frames"][0]["receipt"])
NONCE = bytes(15) + b"\x01"
SECRET = bytes(range(32))

receipts = st.builds(Receipt, st.binary(min_size=16, max_size=16), st.integers(0, 255), st.integers(0, 2**64 - 1))


def test_the_fixture_verifies_with_the_zero_secret() -> None:
    """RCPT-1, RCPT-2, RCPT-3."""
    receipt = Receipt(bytes(16), 1, 500)
    assert verify_receipt(FIXTURE, bytes(32)) == receipt == decode_receipt(FIXTURE)
    assert encode_receipt(receipt, bytes(32)) == FIXTURE


@given(receipts, st.binary(min_size=32, max_size=32))
def test_receipts_round_trip(receipt: Receipt, secret: bytes) -> None:
    """RCPT-1, RCPT-2, P-1."""
    data = encode_receipt(receipt, secret)
    assert len(data) == RECEIPT_BYTES == 58
    assert data[:26] == b"\x01" + receipt.nonce + bytes((receipt.stream_id,)) + receipt.total_received.to_bytes(
        8, "big"
    )
    assert data[26:] == hmac.new(secret, data[:26], "sha256").digest()
    assert verify_receipt(data, secret) == receipt


@given(st.integers(0, 57), st.integers(1, 255))
def test_a_changed_byte_is_noticed_before_anything_is_believed(place: int, change: int) -> None:
    """RCPT-5, P-16."""
    data = bytearray(encode_receipt(Receipt(NONCE, 1, 500), SECRET))
    data[place] ^= change
    with pytest.raises(CodecError) as error:
        verify_receipt(bytes(data), SECRET)
    assert error.value.field == "receipt.hmac"
    with pytest.raises(CodecError):
        verify_receipt(FIXTURE, SECRET)


@given(st.binary(max_size=70) | st.binary(min_size=58, max_size=58))
def test_any_bytes_give_a_receipt_or_a_codec_error(data: bytes) -> None:
    """RCPT-1, P-9."""
    with pytest.raises(CodecError):
        verify_receipt(data, SECRET)
    try:
        decode_receipt(data)
    except CodecError as error:
        assert len(data) != 58 or data[0] != 1
        assert error.field.startswith("receipt")


def test_other_versions_are_refused_even_with_a_right_mac() -> None:
    """RCPT-1."""
    message = b"\x02" + FIXTURE[1:26]
    data = message + hmac.new(SECRET, message, "sha256").digest()
    with pytest.raises(CodecError, match="version 2"):
        verify_receipt(data, SECRET)


def test_streams_above_255_have_no_receipts() -> None:
    """RCPT-9."""
    assert can_be_receipted(255)
    assert not can_be_receipted(256)
    assert encode_receipt(Receipt(NONCE, 255, 1), SECRET)
    with pytest.raises(ValueError, match="the highest is 255"):
        encode_receipt(Receipt(NONCE, 256, 1), SECRET)


def test_totals_saturate_and_sizes_are_checked() -> None:
    """RCPT-1."""
    assert verify_receipt(encode_receipt(Receipt(NONCE, 1, 2**70), SECRET), SECRET).total_received == 2**64 - 1
    for receipt, secret in (
        (Receipt(NONCE[:15], 1, 1), SECRET),
        (Receipt(NONCE, 1, 1), SECRET[:31]),
        (Receipt(NONCE, 1, -1), SECRET),
    ):
        with pytest.raises(ValueError, match="bytes|negative"):
            encode_receipt(receipt, secret)
