"""Entries of the journal: round trips, damage, and the bytes of a forwarded packet."""

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector import record as r
from isthmus.connector.books import Books
from isthmus.connector.octets import TRANSFER_AMOUNT_BYTES_MAX, Reader, encode_integer
from isthmus.connector.replay import Replay
from isthmus.errors import CodecError
from isthmus.ilp.packet import AMOUNT_MAX

if TYPE_CHECKING:
    from tests.connector.conftest import Node


def test_a_forwarded_packet_costs_less_than_250_bytes(node: "Node") -> None:
    before = sum(len(record) - 1 for record in node.records)
    node.prepare("alice", "test.node.bob.x")
    node.fulfil("bob", 1)
    assert sum(len(record) - 1 for record in node.records) - before == 213


def test_the_entries_of_a_forwarded_packet(node: "Node") -> None:
    """CONN-3: each leg is a transfer of its own, with its wire identity (BTP-18)."""
    node.prepare("alice", "test.node.bob.x", 7, request_id=3, left_ms=9_000)
    session = node.taken("bob").session
    incoming, outgoing = r.decode_record(node.records[-1])
    expected = r.ReserveIncoming(6, 7, node.wall + 9_000, incoming.condition, b"session of peers", 3)  # type: ignore[union-attr]
    assert incoming == expected
    assert outgoing == r.ReserveOutgoing(8, 7, node.wall + 8_000, expected.condition, session, 1, 0, 0, 1)
    node.fulfil("bob", 1)
    assert r.decode_record(node.records[-1]) == [r.Post(2), r.Fulfilled(1, bytes(range(32)))]


TRANSFERS = st.builds(
    r.Transfer,
    kind=st.integers(0, 255),
    debit=st.integers(0, 2**32 - 1),
    credit=st.integers(0, 2**32 - 1),
    amount=st.integers(0, 2**200),
    key=st.binary(max_size=255),
    text=st.text(max_size=200),
)


@given(TRANSFERS, st.binary(max_size=300), st.text(max_size=40), st.text(max_size=40), st.integers(0, 255))
def test_rare_entries_round_trip(transfer: r.Transfer, data: bytes, name: str, code: str, scale: int) -> None:
    """P-1: amounts beyond 64 bits too."""
    record = b"".join(
        (
            r.RECORD_START,
            r.encode_transfer(transfer),
            r.encode_note(data),
            r.encode_terms(data),
            r.encode_rates(data),
            r.encode_opened(0, name, code, scale),
            r.encode_setting(b"key", data),
        )
    )
    decoded = r.decode_record(record)
    assert decoded == [
        replace(transfer, text=transfer.text[:1000]) if len(transfer.text.encode()) <= 1000 else decoded[0],
        r.NoteEntry(data),
        r.TermsChanged(data),
        r.RatesEntry(data),
        r.AccountOpened(0, name, code, scale),
        r.SettingChanged(b"key", data),
    ]


@given(st.binary(max_size=300))
def test_any_bytes_are_entries_or_a_codec_error(data: bytes) -> None:
    """P-9: and replay of them too is an error of the codec, never another."""
    with suppress(CodecError):
        r.decode_record(r.RECORD_START + data)
        Replay(Books()).apply(r.RECORD_START + data)


@given(st.data())
def test_damaged_records_are_entries_or_a_codec_error(data: st.DataObject) -> None:
    """P-9: one byte changed, or the end cut off, of a record with everything in it."""
    record = bytearray(_whole_record())
    at = data.draw(st.integers(0, len(record) - 1))
    record[at] = data.draw(st.integers(0, 255))
    del record[data.draw(st.integers(0, len(record))) :]
    with suppress(CodecError):
        Replay(_books()).apply(bytes(record))


def _books() -> Books:
    from isthmus.connector.events import AccountId

    books = Books()
    books.open_peer(AccountId("alice"), "USD", 9)
    books.open_peer(AccountId("bob"), "USD", 9)
    books.take_record()
    books.changed.clear()
    return books


def _whole_record() -> bytes:
    session, condition = b"s" * 16, b"c" * 32
    return b"".join(
        (
            r.RECORD_START,
            r.PACK_INCOMING.pack(r.INCOMING, 6, 10, 5, condition, session, 1),
            r.PACK_OUTGOING.pack(r.OUTGOING, 8, 10, 5, condition, session, 1, 0, 0, 1),
            r.PACK_INCOMING.pack(r.INCOMING, 6, 10, 5, condition, session, 2),
            r.PACK_OUTGOING.pack(r.OUTGOING, 8, 9, 5, condition, session, 2, 1, 0, 3),
            r.PACK_POSTS.pack(r.POST, 2, r.POST, 1),
            r.PACK_VOID.pack(r.VOID, 4, 2),
            r.PACK_VOID.pack(r.VOID, 3, 2),
            r.PACK_LATE.pack(r.LATE, 8, session, 2, 9, 77),
            r.PACK_AT_RISK.pack(r.AT_RISK, 6, 1, 10, 5),
            r.encode_transfer(r.Transfer(1, 6, 0, 2**70, b"key", "text")),
            r.encode_terms(b'{"a":0,"rates":{},"routes":[]}'),
            r.encode_rates(b'{"spread":"0"}'),
            r.encode_note(b"note"),
            r.encode_setting(b"account:bob", b"{}"),
        )
    )


def test_a_whole_record_replays() -> None:
    """CONN-3."""
    books = _books()
    Replay(books).apply(_whole_record())
    books.check()
    assert books.peers["alice"].balance == 10 + 2**70  # type: ignore[index]
    assert books.peers["bob"].late_amount == 9  # type: ignore[index]


@pytest.mark.parametrize(
    "entries",
    [
        r.PACK_POST.pack(r.POST, 1),
        r.PACK_VOID.pack(r.VOID, 1, 2),
        r.PACK_INCOMING.pack(r.INCOMING, 99, 10, 5, bytes(32), bytes(16), 1),
        r.PACK_INCOMING.pack(r.INCOMING, 0, 10, 5, bytes(32), bytes(16), 1),
        r.PACK_INCOMING.pack(r.INCOMING, 6, 10, 5, bytes(32), bytes(16), 1) * 2,
        r.PACK_OUTGOING.pack(r.OUTGOING, 8, 10, 5, bytes(32), bytes(16), 1, 0, 0, 1),
        r.PACK_INCOMING.pack(r.INCOMING, 6, 10, 5, bytes(32), bytes(16), 1)
        + r.PACK_OUTGOING.pack(r.OUTGOING, 8, 10, 5, bytes(32), bytes(16), 1, 0, 0, 1) * 2,
        r.PACK_INCOMING.pack(r.INCOMING, 6, 10, 5, bytes(32), bytes(16), 1) + r.PACK_VOID.pack(r.VOID, 1, 99),
        r.encode_opened(0, "alice", "USD", 9),
        r.encode_opened(0, "carol", "XAM", 9),
        r.encode_opened(1, "clearing:USD:9", "USD", 9),
        r.encode_opened(77, "odd", "USD", 9),
        r.encode_transfer(r.Transfer(1, 6, 1, 5, b"k", "")) * 2,
        r.encode_transfer(r.Transfer(1, 6, 500, 5, b"", "")),
        b"\x00",
        b"\xff",
    ],
)
def test_what_can_not_follow_is_refused(entries: bytes) -> None:
    """CONN-3: replay never guesses."""
    with pytest.raises(CodecError):
        Replay(_books()).apply(r.RECORD_START + entries)


@pytest.mark.parametrize("record", [b"", b"\x00", b"\x02", b"\x02" + _whole_record()[1:]])
def test_other_versions_are_refused(record: bytes) -> None:
    with pytest.raises(CodecError, match="version"):
        r.decode_record(record)


@pytest.mark.parametrize("value", [0, 1, -1, 127, 128, -128, -129, 2**64, -(2**64), 2**300])
def test_integers_of_any_size_round_trip(value: int) -> None:
    """P-1."""
    encoded = encode_integer(value)
    assert Reader(encoded).integer("x") == value
    assert encoded[0] == len(encoded) - 1


def test_a_transfer_has_a_largest_amount() -> None:
    """P-9: a balance that needs more than 255 bytes could be replayed, but no checkpoint could hold it."""
    entry = r.encode_transfer(r.Transfer(1, 6, 0, 2 ** (8 * TRANSFER_AMOUNT_BYTES_MAX) - 1, b"", ""))
    amount = b"\xff" * TRANSFER_AMOUNT_BYTES_MAX
    assert entry.count(b"\x80" + amount) == 1
    r.decode_record(r.RECORD_START + entry)
    with pytest.raises(CodecError, match="129 bytes, more than 128"):
        r.decode_record(r.RECORD_START + entry.replace(b"\x80" + amount, b"\x81\x01" + amount))


def test_a_text_is_cut_on_a_character() -> None:
    entry = r.encode_transfer(r.Transfer(1, 0, 0, 0, b"", "é" * 501))
    (decoded,) = r.decode_record(r.RECORD_START + entry)
    assert decoded == r.Transfer(1, 0, 0, 0, b"", "é" * 500)


def test_amounts_of_64_bits_have_room_in_every_entry(node: "Node") -> None:
    """P-1."""
    node.prepare("alice", "test.node.bob.x", AMOUNT_MAX, left_ms=2_000)
    node.wait(1_010)
    node.fulfil("bob", 1)
    assert node.kernel.books.peers["bob"].late_amount == AMOUNT_MAX  # type: ignore[index]
