"""The wallet's memory of payments and credits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.client import ledger
from isthmus.client.ledger import PAYMENTS_MAX, SEQUENCES_MAX, WINDOWS_MAX, Payment, WalletLedger
from isthmus.errors import CodecError

CONNECTION = b"c" * 16


def a_payment(number: int = 1, key: str = "") -> Payment:
    return Payment(
        id=f"{number:032x}",
        key=key,
        terms="pay 5 to bob",
        target="$bob.example",
        destination="test.bob.token",
        secret="00",
        source_max=2**64 + 5,
        minimum="3/7",
        deliver=0,
        asset_code="ETH",
        asset_scale=9,
        started_at=1_000,
    )


def a_credit(sequence: int, amount: int = 1, total: int = 1) -> bytes:
    return ledger.credit(CONNECTION, at=1_000, sequence=sequence, amount=amount, totals=[(1, total)])


def test_a_payment_lives_from_start_to_end() -> None:
    wallet = WalletLedger()
    payment = a_payment(key="rent")
    wallet.apply(ledger.started(payment))
    wallet.apply(ledger.grant(payment.id, total=2**64, sequence_ceiling=50))
    assert [p.id for p in wallet.running()] == [payment.id]
    assert (wallet.payments[payment.id].granted, wallet.payments[payment.id].sequence_ceiling) == (2**64, 50)
    outcome = replace(payment, sent=7, delivered=3, delivered_max=4, unknown=1)
    wallet.apply(ledger.progress(outcome))
    assert wallet.payments[payment.id].sent == 7
    wallet.apply(ledger.ended(replace(outcome, status="completed", detail="done", ended_at=9)))
    assert wallet.running() == []
    found = wallet.with_key("rent")
    assert found is not None
    assert (found.status, found.detail, found.delivered, found.delivered_max, found.unknown, found.ended_at) == (
        "completed", "done", 3, 4, 1, 9)  # fmt: skip


def test_a_sequence_is_known_once_credited() -> None:
    """P-1: totals beyond 2^64."""
    wallet = WalletLedger()
    wallet.apply(a_credit(5, amount=2**64 - 1, total=2**64 - 1))
    wallet.apply(a_credit(6, amount=2**64 - 1, total=2**65 - 2))
    receipts = wallet.receipts[CONNECTION]
    assert (receipts.total, receipts.streams, receipts.packets) == (2**65 - 2, {1: 2**65 - 2}, 2)
    assert receipts.knows(5)
    assert receipts.knows(6)
    assert not receipts.knows(7)


def test_sequences_below_the_window_count_as_known() -> None:
    wallet = WalletLedger()
    for sequence in range(1, 3 * SEQUENCES_MAX + 2):
        wallet.apply(a_credit(sequence))
    receipts = wallet.receipts[CONNECTION]
    assert receipts.knows(1)
    assert len(receipts.sequences) <= 2 * SEQUENCES_MAX
    assert all(receipts.knows(s) for s in range(1, 3 * SEQUENCES_MAX + 2))


def test_the_oldest_ended_payment_is_forgotten_at_the_bound_and_a_running_one_never() -> None:
    wallet = WalletLedger()
    for number in range(PAYMENTS_MAX + 1):
        payment = a_payment(number, key=f"key {number}")
        wallet.apply(ledger.started(payment))
        if number != 0:
            wallet.apply(ledger.ended(replace(payment, status="completed")))
    assert len(wallet.payments) == PAYMENTS_MAX
    assert wallet.with_key("key 0") is not None
    assert wallet.with_key("key 1") is None


def test_the_state_survives_a_checkpoint_byte_for_byte() -> None:
    wallet = WalletLedger()
    wallet.apply(ledger.started(a_payment(key="k")))
    wallet.apply(a_credit(3))
    loaded = WalletLedger()
    loaded.load_state(wallet.encode_state())
    assert loaded.encode_state() == wallet.encode_state()
    assert loaded.with_key("k") == wallet.with_key("k")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_note_or_a_codec_error(note: bytes) -> None:
    wallet = WalletLedger()
    try:
        wallet.apply(note)
    except CodecError:
        return
    assert note[0] in (ledger.CREDIT, ledger.CREDIT_ONE, ledger.STREAMS)


def test_a_credit_of_several_streams_is_kept_by_stream() -> None:
    wallet = WalletLedger()
    wallet.apply(ledger.credit(CONNECTION, at=1_000, sequence=1, amount=5, totals=[(1, 2), (3, 3)]))
    wallet.apply(ledger.credit(CONNECTION, at=1_001, sequence=2, amount=1, totals=[(3, 4)]))
    receipts = wallet.receipts[CONNECTION]
    assert (receipts.streams, receipts.total, receipts.packets) == ({1: 2, 3: 4}, 6, 2)


def test_single_sequences_are_kept_of_the_last_credited_connections() -> None:
    """Of the others nothing at or below the highest is credited again."""
    wallet = WalletLedger()
    for number in range(WINDOWS_MAX + 1):
        wallet.apply(ledger.credit(number.to_bytes(16, "big"), at=number, sequence=7, amount=1, totals=[(1, 1)]))
    oldest, newest = wallet.receipts[bytes(16)], wallet.receipts[WINDOWS_MAX.to_bytes(16, "big")]
    assert (oldest.sequences, oldest.sequence_floor) == (set(), 7)
    assert (newest.sequences, newest.sequence_floor) == ({7}, 0)
    assert oldest.knows(5)
    assert not newest.knows(5)
    loaded = WalletLedger()
    loaded.load_state(wallet.encode_state())
    for one in (wallet, loaded):
        one.apply(ledger.credit(b"x" * 16, at=9, sequence=1, amount=1, totals=[(1, 1)]))
    assert loaded.encode_state() == wallet.encode_state()


def test_what_forgotten_payments_sent_still_counts() -> None:
    wallet = WalletLedger()
    for number in range(PAYMENTS_MAX + 2):
        payment = replace(a_payment(number), sent=3, status="completed")
        wallet.apply(ledger.started(a_payment(number)))
        wallet.apply(ledger.ended(payment))
    assert len(wallet.payments) == PAYMENTS_MAX
    assert wallet.total_sent() == 3 * (PAYMENTS_MAX + 2)


@pytest.mark.parametrize(
    "note", [b"", b"\x09", b"\x01[]", b"\x01{}", ledger.grant("00" * 16, total=1, sequence_ceiling=1)]
)
def test_bad_notes_say_what_is_wrong(note: bytes) -> None:
    with pytest.raises(CodecError):
        WalletLedger().apply(note)


def test_the_totals_of_the_oldest_streams_are_forgotten_at_the_bound() -> None:
    wallet = WalletLedger()
    for number in range(ledger.STREAMS_MAX + 1):
        wallet.apply(ledger.credit(CONNECTION, at=1, sequence=number + 1, amount=1, totals=[(2 * number + 1, 1)]))
    receipts = wallet.receipts[CONNECTION]
    assert len(receipts.streams) == ledger.STREAMS_MAX
    assert 1 not in receipts.streams
    assert receipts.total == ledger.STREAMS_MAX + 1
