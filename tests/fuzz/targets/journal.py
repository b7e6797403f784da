"""What the node reads back from its own journal: envelopes, records, checkpoint states.

Allowed is a value or `CodecError`. The journal's checksums keep damage away from here; these decoders don't rely on
it. What decodes, encodes to the same bytes, and books that were replayed from any record are sound.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from isthmus.connector import record as r
from isthmus.connector import state
from isthmus.connector.books import (
    ASSET_KINDS,
    DEAF,
    HEARS,
    LOSS,
    PEER,
    SETTLE,
    SETTLED,
    SETTLED_BY_PEER,
    Books,
    internal_name,
    loss_name,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.replay import Replay
from isthmus.connector.settling import CONFIRMED, FAILED, TAKEN
from isthmus.errors import CodecError
from isthmus.journal import record as envelope
from tests.fuzz.registry import Target

WALL: Final = 1_800_000_000_000
JOURNAL: Final = bytes(range(16))
SECRET: Final = bytes(32)
CONDITION: Final = sha256(SECRET).digest()
SESSION: Final = b"session of peers"


def _accounts() -> bytes:
    """A record that opens two peers in one asset."""
    entries = [r.encode_opened(kind, internal_name(kind, "USD", 9), "USD", 9) for kind in ASSET_KINDS]
    for name in ("ann", "ben"):
        entries.append(r.encode_opened(LOSS, loss_name(name), "USD", 9))
        entries.append(r.encode_opened(PEER, name, "USD", 9))
    return r.RECORD_START + b"".join(entries)


ACCOUNTS: Final = _accounts()


def _peers() -> tuple[int, int]:
    books = Books()
    Replay(books).apply(ACCOUNTS)
    first, second = books.peers.values()
    return first.index, second.index


ANN, BEN = _peers()


def fuzz_record(data: bytes) -> None:
    """The first byte says what the rest is: an envelope, or entries; these are decoded, or also replayed."""
    kind, rest = (data[0] & 7, data[1:]) if data else (0, b"")
    if kind == 0:
        _envelope(rest)
    elif kind < 5:
        try:
            r.decode_record(rest)
        except CodecError:
            return
        assert rest[:1] == r.RECORD_START
    else:
        _replay(ACCOUNTS if kind > 5 else b"", r.RECORD_START + rest, with_state=kind == 7)


def _replay(before: bytes, record: bytes, *, with_state: bool) -> None:
    """Replay writes what it reads (that is checked within), and leaves sound books."""
    books = Books()
    replay = Replay(books)
    if before:
        replay.apply(before)
    try:
        replay.apply(record)
    except CodecError:
        return
    books.check()
    # No books of ours decide an incoming leg before its outgoing one; a record may say so, a state has no words for it.
    orphans = [
        leg
        for account in books.peers.values()
        for leg in account.sent.values()
        if leg.incoming.account.received.get((leg.incoming.session, leg.incoming.request_id)) is not leg.incoming
    ]
    if with_state and not orphans:
        encoded = state.encode_state(books)
        again = state.decode_state(encoded)
        assert state.encode_state(again) == encoded
        again.check()


def _envelope(data: bytes) -> None:
    try:
        found = envelope.decode_envelope(data)
    except CodecError:
        return
    assert envelope.encode_envelope(found.journal_id, found.shard_id, found.sequence, found.entries) == data


def _forward(request: int) -> bytes:
    incoming = r.PACK_INCOMING.pack(r.INCOMING, ANN, 100, WALL, CONDITION, SESSION, request)
    legs = 2 * request - 1
    return incoming + r.PACK_OUTGOING.pack(r.OUTGOING, BEN, 99, WALL - 1_000, CONDITION, SESSION, request, 1, 0, legs)


def _records() -> Iterator[bytes]:
    yield from _settlements()
    yield _forward(1)
    yield _forward(1) + r.PACK_POSTS.pack(r.POST, 2, r.POST, 1)
    yield _forward(1) + r.PACK_VOID.pack(r.VOID, 2, 1) + r.PACK_VOID.pack(r.VOID, 1, 1)
    yield _forward(1) + _forward(2) + r.PACK_POSTS.pack(r.POST, 4, r.POST, 3)
    yield r.PACK_LATE.pack(r.LATE, BEN, SESSION, 1, 99, 7) + r.PACK_AT_RISK.pack(r.AT_RISK, ANN, 1, 100, 9)
    yield r.encode_transfer(r.Transfer(1, ANN, BEN, 10**30, b"key", "adjusted by hand"))
    yield r.encode_terms(b'{"accounts":[]}') + r.encode_note(b"note")
    yield r.encode_terms(b'{"accounts":[],"rates":{},"routes":[]}') + r.encode_rates(b'{"spread":"0"}')
    yield r.encode_opened(PEER, "cat", "EUR", 2)
    fulfilled = _forward(1) + r.PACK_FULFILLED_BOTH.pack(r.POST, 2, r.FULFILLED, 1, SECRET)
    yield fulfilled + r.PACK_ACKNOWLEDGED.pack(r.ACKNOWLEDGED, ANN, SESSION, 1)
    yield fulfilled + r.PACK_LOST.pack(r.LOST, ANN, SESSION, 1) + r.PACK_HEARING.pack(r.HEARING, ANN, DEAF)
    yield fulfilled + _forward(2) + r.PACK_FORGOTTEN.pack(r.FORGOTTEN, ANN, 1, 1)
    dated = r.PACK_DATED.pack(r.DATED, WALL)
    unkept = _forward(1) + dated + r.PACK_POSTS.pack(r.POST, 2, r.UNKEPT, 1)
    yield unkept
    yield unkept + bytes((r.LISTED,)) + dated
    yield fulfilled + r.PACK_GIVEN_UP.pack(r.GIVEN_UP, ANN) + bytes((r.DRAINED,))
    yield fulfilled + r.PACK_PASSED.pack(r.PASSED, ANN, SESSION, 1) + r.PACK_RANGE.pack(1, 9)
    yield (
        fulfilled + r.PACK_HEARING.pack(r.HEARING, BEN, HEARS) + r.PACK_CONFIRMED.pack(r.CONFIRMED, BEN, SESSION, 1, 0)
    )


def _settlements() -> Iterator[bytes]:
    opened = r.encode_opened(SETTLED, "settled:ben", "USD", 9)
    settled = 9  # its index: after those that `ACCOUNTS` opens
    begun = r.encode_transfer(r.Transfer(SETTLE, BEN, settled, 500, b"", "weekly"))
    begun += r.encode_begun(r.SettlementBegun(BEN, 1, WALL, SESSION, 500, "weekly"))
    yield opened + begun
    yield opened + begun + r.encode_moved(r.SettlementMoved(BEN, 1, TAKEN, ""))
    yield opened + begun + r.encode_moved(r.SettlementMoved(BEN, 1, FAILED, "no funds"))
    yield opened + begun + r.encode_moved(r.SettlementMoved(BEN, 1, CONFIRMED, ""))
    credited = r.encode_transfer(r.Transfer(SETTLED_BY_PEER, settled, BEN, 7, b"", "wire"))
    credited += r.encode_credited(r.Credited(BEN, WALL, b"wire 1", 7, 5, 10))
    yield opened + credited + r.encode_used(r.KeyUsed(BEN, WALL + 1, b"wire 1"))
    yield r.encode_engine(r.EngineKept(BEN, b"channel", b"state"))


def seeds_record() -> Iterator[bytes]:
    for entries in _records():
        yield b"\1" + r.RECORD_START + entries
        yield b"\6" + entries
        yield b"\7" + entries
    yield b"\5" + ACCOUNTS[1:]
    yield b"\0" + envelope.encode_envelope(JOURNAL, 0, 1, ACCOUNTS)


def fuzz_state(data: bytes) -> None:
    """A checkpoint. What is loaded, is written as it was."""
    try:
        books = state.decode_state(data)
    except CodecError:
        return
    assert state.encode_state(books) == data
    books.check()
    kernel = Kernel(bytes(32))
    length = len(data).to_bytes(8, "big")
    kernel.load_state((7).to_bytes(8, "big") + length + data + bytes(8))
    assert kernel.sequence == 7
    assert kernel.digest() == state.digest(books)


def seeds_state() -> Iterator[bytes]:
    for entries in _records():
        books = Books()
        replay = Replay(books)
        replay.apply(ACCOUNTS)
        try:
            replay.apply(r.RECORD_START + entries)
        except CodecError:
            continue
        yield state.encode_state(books)


TARGETS: Final[dict[str, Target]] = {
    "record": Target(
        fuzz_record,
        seeds_record,
        (_forward(1), _forward(2)[:87], r.PACK_POST.pack(r.POST, 1), r.PACK_VOID.pack(r.VOID, 2, 1), SESSION),
        size_max=1_024,
    ),
    "state": Target(fuzz_state, seeds_state, (b"ann", b"clearing:USD:9", b"\x01\x00", SESSION), size_max=1_500),
}
