"""A transaction from bytes: what is refused before any ledger is asked."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xrpl.core.binarycodec import encode, encode_for_signing

from isthmus.errors import CodecError
from isthmus.ledgers.xrp.dev.transactions import (
    MEMOS_BYTES_MAX,
    TRANSACTION_BYTES_MAX,
    LocalRefusal,
    check_locally,
    decode,
)
from tests.ledgers.xrp.conftest import ALICE, BOB, signed

PAYMENT: dict[str, Any] = {
    "TransactionType": "Payment",
    "Account": ALICE.address,
    "Destination": BOB.address,
    "Amount": "1000000",
    "Fee": "10",
    "Sequence": 7,
    "SigningPubKey": ALICE.public_key.hex().upper(),
}


def blob_of(fields: dict[str, Any]) -> bytes:
    return bytes.fromhex(encode(fields))


def test_what_was_signed_comes_back() -> None:
    fields = {**PAYMENT, "DestinationTag": 9, "LastLedgerSequence": 30, "Flags": 0x80000000}
    transaction = signed(ALICE, **fields)
    assert (transaction.type, transaction.account, transaction.fee, transaction.sequence) == (
        "Payment",
        ALICE.address,
        10,
        7,
    )
    assert (transaction.last_ledger, transaction.get("DestinationTag")) == (30, 9)
    assert transaction.blob == blob_of(dict(transaction.fields))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_transaction_or_a_codec_error(blob: bytes) -> None:
    try:
        decode(blob)
    except (CodecError, LocalRefusal):
        return


@given(place=st.integers(0, 240), change=st.integers(1, 255))
def test_any_changed_byte_is_a_refusal(place: int, change: int) -> None:
    blob = bytearray(signed(ALICE, **PAYMENT).blob)
    blob[place % len(blob)] ^= change
    with pytest.raises((CodecError, LocalRefusal)):
        check_locally(decode(bytes(blob)))


@pytest.mark.parametrize("size", [0, TRANSACTION_BYTES_MAX + 1])
def test_a_size_out_of_bounds_is_not_even_read(size: int) -> None:
    with pytest.raises(CodecError, match="bytes"):
        decode(bytes(size))


@pytest.mark.parametrize("levels", [6, 100, 450, 3_000])
def test_nesting_without_end_is_a_codec_error(levels: int) -> None:
    """And at once: the library would read what lies 450 levels deep for seconds."""
    opened, closed = "F9EA" * levels, "E1F1" * levels
    for nested in (opened, opened + closed):
        with pytest.raises(CodecError):
            decode(bytes.fromhex(nested))


def test_bytes_after_the_end_are_a_codec_error() -> None:
    blob = signed(ALICE, **PAYMENT).blob
    with pytest.raises(CodecError):
        decode(blob + b"\0")
    with pytest.raises(CodecError):
        decode(blob[:-1])


def test_a_transaction_is_written_in_one_way_only() -> None:
    """The array's end may not be left out, and no field may stand elsewhere: either would be another id."""
    blob = signed(ALICE, **PAYMENT, Memos=memo(MemoData="AB")).blob
    assert blob.endswith(b"\xe1\xf1")
    for other in (blob[:-1], blob[:-2], blob[3:8] + blob[:3] + blob[8:], blob[:3] + blob[:3] + blob[3:]):
        with pytest.raises(CodecError):
            decode(other)


@pytest.mark.parametrize("name", ["Account", "Fee", "Sequence", "SigningPubKey", "Destination", "Amount"])
def test_a_field_that_must_be_there(name: str) -> None:
    fields = {key: value for key, value in PAYMENT.items() if key != name}
    with pytest.raises(LocalRefusal, match=f"'{name}' is required"):
        decode(blob_of(fields))


def test_a_field_that_doesn_t_belong() -> None:
    with pytest.raises(LocalRefusal, match="'SettleDelay' found in disallowed"):
        decode(blob_of({**PAYMENT, "SettleDelay": 60}))


def test_a_signature_by_another_key_or_of_nothing_is_refused() -> None:
    message = bytes.fromhex(encode_for_signing(PAYMENT))
    for signature in (BOB.sign(message), ALICE.sign(b""), b""):
        transaction = decode(blob_of({**PAYMENT, "TxnSignature": signature.hex().upper()}))
        with pytest.raises(LocalRefusal, match="Invalid signature"):
            check_locally(transaction)


def test_no_key_is_no_signature() -> None:
    with pytest.raises(LocalRefusal, match="Empty SigningPubKey"):
        check_locally(decode(blob_of({**PAYMENT, "SigningPubKey": "", "TxnSignature": "00"})))


def memo(**fields: str) -> list[dict[str, Any]]:
    return [{"Memo": fields}]


def test_memos_up_to_their_bound() -> None:
    # 1 Memo object with one field of that length takes 5 bytes more.
    signed(ALICE, **PAYMENT, Memos=memo(MemoData="AB" * (MEMOS_BYTES_MAX - 5)))
    with pytest.raises(LocalRefusal, match="exceeds"):
        signed(ALICE, **PAYMENT, Memos=memo(MemoData="AB" * (MEMOS_BYTES_MAX - 4)))


def test_a_memo_s_type_is_of_a_url_s_characters() -> None:
    signed(ALICE, **PAYMENT, Memos=memo(MemoType=b"text/plain;x=1".hex(), MemoData="00FF"))
    with pytest.raises(LocalRefusal, match="RFC 3986"):
        signed(ALICE, **PAYMENT, Memos=memo(MemoType=b"a b".hex()))
