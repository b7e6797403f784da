"""What a wallet remembers of its payments and of what came in: the kernel's application state, event-sourced.

Pure: notes go in (each was journaled in the batch that moves the money it speaks of), state comes out. A payment is
*started* before its first packet; a *grant* raises the total that may be on its way before packets leave; *progress*
and the *end* record outcomes. A credit is in the batch that posts the Fulfill it belongs to, so a receiver's total
and its books can't disagree. Frames, encryption and time belong to others.
"""

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from isthmus import oer
from isthmus.errors import CodecError

PAYMENTS_MAX: Final = 10_000  # ended ones beyond it are forgotten, oldest first, and their keys with them
CONNECTIONS_MAX: Final = 10_000  # receiving connections; the one without a credit for the longest goes first
STREAMS_MAX: Final = 1_024  # per connection: totals of its latest streams; the connection's own total has all
SEQUENCES_MAX: Final = 1_024  # per connection: how far below its highest sequence a repeat is known as one
# Connections whose single sequences are remembered; of others only the highest, and what is not above it counts as
# known. Packets live for half a minute: it matters where more are paid on at one time than this, just after a restart.
WINDOWS_MAX: Final = 256

STARTED: Final = 1
GRANT: Final = 2
PROGRESS: Final = 3
ENDED: Final = 4
CREDIT: Final = 5
STREAMS: Final = 6
CREDIT_ONE: Final = 7  # the common credit: one stream, numbers below 2^64

ID_BYTES: Final = 16
_HEAD = struct.Struct(">B16s")
_CREDIT_HEAD = struct.Struct(">B16sQ")
_CREDIT_ONE = struct.Struct(">B16sQQQQQ")  # kind, connection, at, sequence, amount, stream id, total
_U64_MAX: Final = 2**64 - 1

RUNNING: Final = "running"


@dataclass(slots=True, kw_only=True)
class Payment:
    """One outgoing payment. Amounts are base units: `sent` of our asset, `delivered` of the receiver's.

    `sent` is certain, `unknown` may have left besides; `granted` bounds their sum. `delivered_max` is what the receiver
    holds if everything unknown arrived.
    """

    id: str  # 32 hex digits
    key: str  # the user's idempotency key; empty without one
    terms: str  # what the user asked for, in one canonical line: the same key with other terms is an error
    target: str  # as the user typed it
    destination: str  # ILP address of the STREAM connection
    secret: str  # its shared secret, encrypted by the wallet's own key, in hex
    source_max: int  # never more than this leaves
    minimum: str  # destination units per source unit, "n/d"
    rate: str = "0"  # the same, as the path offered it
    deliver: int  # destination units wanted; 0 for a fixed source amount
    asset_code: str  # of the destination; empty while unknown
    asset_scale: int
    started_at: int  # wall ms
    granted: int = 0
    sequence_ceiling: int = 0  # no packet has left with this sequence number or a higher one
    sent: int = 0
    delivered: int = 0
    delivered_max: int = 0
    unknown: int = 0
    status: str = RUNNING  # running | completed | stopped | failed
    detail: str = ""
    ended_at: int = 0


@dataclass(slots=True, kw_only=True)
class Receipts:
    """What came in on one STREAM connection."""

    first_at: int
    last_at: int
    packets: int = 0
    total: int = 0
    streams: dict[int, int] = field(default_factory=dict)  # stream id -> total received
    sequence_floor: int = 0  # at or below it nobody knows any more what was credited
    sequence_max: int = 0
    sequences: set[int] = field(default_factory=set)  # credited ones above the floor

    def knows(self, sequence: int) -> bool:
        """Whether a packet with this sequence was credited, or is too old to tell (and so must not be credited)."""
        return sequence <= self.sequence_floor or sequence in self.sequences

    def forget_streams(self) -> None:
        """A payer opens as many streams as it likes, one after the other: keep the totals of the latest."""
        while len(self.streams) > STREAMS_MAX:
            del self.streams[min(self.streams)]

    def remember(self, sequence: int) -> None:
        sequences = self.sequences
        sequences.add(sequence)
        if sequence > self.sequence_max:
            self.sequence_max = sequence
        if len(sequences) > 2 * SEQUENCES_MAX:
            self.sequence_floor = max(self.sequence_floor, self.sequence_max - SEQUENCES_MAX)
            self.sequences = {known for known in sequences if known > self.sequence_floor}

    def forget_sequences(self) -> None:
        self.sequence_floor = max(self.sequence_floor, self.sequence_max)
        self.sequences = set()


class WalletLedger:
    """The kernel's `Application` in a wallet: applies notes, live and on replay alike."""

    def __init__(self) -> None:
        self.payments: dict[str, Payment] = {}  # by id, in the order of their start
        self.keys: dict[str, str] = {}  # idempotency key -> payment id
        self.receipts: dict[bytes, Receipts] = {}  # by connection id (16 bytes), least recently credited first
        self.forgotten_sent = 0  # by payments that are not remembered any more
        # Money may also leave on streams that no payment tells of: then our books can't tell what a payment sent.
        self.has_streams = False
        self._last_credited = b""
        self._windows: dict[bytes, Receipts] = {}  # those with single sequences, in the order of `receipts`
        # Told of each credit (connection id, sequence) as it is applied; its batch is not durable yet.
        self.on_credit: Callable[[bytes, int], None] | None = None

    def apply(self, note: bytes) -> None:
        """Apply one journaled note. Raises CodecError for bytes that no wallet wrote."""
        if not note:
            raise CodecError("note", 0, "empty")
        kind = note[0]
        if kind == CREDIT_ONE:
            self._credit_one(note)
        elif kind == CREDIT:
            self._credit(note)
        elif kind == GRANT:
            payment, offset = self._payment(note)
            payment.granted, offset = oer.read_var_uint(note, offset, "granted")
            payment.sequence_ceiling, offset = oer.read_var_uint(note, offset, "sequence ceiling")
        elif kind in (PROGRESS, ENDED):
            self._outcome(note, ended=kind == ENDED)
        elif kind == STARTED:
            self._start(note)
        elif kind == STREAMS:
            self.has_streams = True
        else:
            raise CodecError("note", 0, f"unknown kind {kind}")

    def running(self) -> list[Payment]:
        """Payments that a killed wallet left behind, or that are on their way."""
        return [payment for payment in self.payments.values() if payment.status == RUNNING]

    def total_sent(self) -> int:
        """What is known to have left by all payments."""
        return self.forgotten_sent + sum(payment.sent for payment in self.payments.values())

    def with_key(self, key: str) -> Payment | None:
        found = self.keys.get(key)
        return None if found is None else self.payments[found]

    # --- notes --------------------------------------------------------------------------------------------------

    def _start(self, note: bytes) -> None:
        payment = _payment_from(_json(note[1:], "payment"))
        if payment.id in self.payments:
            raise CodecError("note", 1, "a payment with this id was started before")
        self.payments[payment.id] = payment
        if payment.key:
            self.keys[payment.key] = payment.id
        if len(self.payments) > PAYMENTS_MAX:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        for payment in self.payments.values():
            if payment.status != RUNNING:
                del self.payments[payment.id]
                self.forgotten_sent += payment.sent
                if self.keys.get(payment.key) == payment.id:
                    del self.keys[payment.key]
                return

    def _payment(self, note: bytes) -> tuple[Payment, int]:
        if len(note) < _HEAD.size:
            raise CodecError("note", len(note), "ends inside the payment's id")
        payment = self.payments.get(note[1 : _HEAD.size].hex())
        if payment is None:
            raise CodecError("note", 1, "no payment with this id")
        return payment, _HEAD.size

    def _outcome(self, note: bytes, *, ended: bool) -> None:
        payment, offset = self._payment(note)
        payment.sent, offset = oer.read_var_uint(note, offset, "sent")
        payment.delivered, offset = oer.read_var_uint(note, offset, "delivered")
        payment.delivered_max, offset = oer.read_var_uint(note, offset, "delivered at most")
        payment.unknown, offset = oer.read_var_uint(note, offset, "unknown")
        if ended:
            payment.ended_at, offset = oer.read_var_uint(note, offset, "ended at")
            status, offset = oer.read_var_octets(note, offset, "status")
            detail, offset = oer.read_var_octets(note, offset, "detail")
            payment.status, payment.detail = status.decode(errors="replace"), detail.decode(errors="replace")

    def _credit_one(self, note: bytes) -> None:
        if len(note) != _CREDIT_ONE.size:
            raise CodecError("note", len(note), "not the length of a credit")
        _, connection, at, sequence, amount, stream, total = _CREDIT_ONE.unpack(note)
        receipts = self._receipts(connection, at, amount)
        receipts.streams[stream] = total
        receipts.forget_streams()
        receipts.remember(sequence)
        if self.on_credit is not None:
            self.on_credit(connection, sequence)

    def _credit(self, note: bytes) -> None:
        if len(note) < _CREDIT_HEAD.size:
            raise CodecError("note", len(note), "ends inside a credit")
        _, connection, at = _CREDIT_HEAD.unpack_from(note)
        sequence, offset = oer.read_var_uint(note, _CREDIT_HEAD.size, "sequence")
        amount, offset = oer.read_var_uint(note, offset, "amount")
        totals: dict[int, int] = {}
        while offset < len(note):
            stream, offset = oer.read_var_uint(note, offset, "stream id")
            totals[stream], offset = oer.read_var_uint(note, offset, "stream total")
        receipts = self._receipts(connection, at, amount)
        receipts.streams.update(totals)
        receipts.forget_streams()
        receipts.remember(sequence)
        if self.on_credit is not None:
            self.on_credit(connection, sequence)

    def _receipts(self, connection: bytes, at: int, amount: int) -> Receipts:
        receipts = self.receipts[connection] if connection == self._last_credited else self._turn_to(connection, at)
        receipts.last_at = at
        receipts.packets += 1
        receipts.total += amount
        return receipts

    def _turn_to(self, connection: bytes, at: int) -> Receipts:
        """Another connection than the last is credited: it goes to the end of the order."""
        receipts = self.receipts.pop(connection, None) or Receipts(first_at=at, last_at=at)
        self.receipts[connection] = receipts
        self._last_credited = connection
        self._windows.pop(connection, None)
        self._windows[connection] = receipts
        if len(self._windows) > WINDOWS_MAX:
            self._windows.pop(next(iter(self._windows))).forget_sequences()
        if len(self.receipts) > CONNECTIONS_MAX:
            del self.receipts[next(iter(self.receipts))]
        return receipts

    # --- checkpoints --------------------------------------------------------------------------------------------

    def encode_state(self) -> bytes:
        """The whole state, canonical: equal states give equal bytes."""
        state = {
            "payments": [_to_json(payment) for payment in self.payments.values()],
            "forgotten_sent": str(self.forgotten_sent),
            "has_streams": self.has_streams,
            "receipts": [[key.hex(), _receipts_to_json(value)] for key, value in self.receipts.items()],
        }
        return json.dumps(state, separators=(",", ":")).encode()

    def load_state(self, state: bytes) -> None:
        loaded = _json(state, "wallet state")
        self.payments = {payment["id"]: _payment_from(payment) for payment in loaded["payments"]}
        self.keys = {payment.key: payment.id for payment in self.payments.values() if payment.key}
        self.forgotten_sent = int(loaded["forgotten_sent"])
        self.has_streams = loaded["has_streams"]
        self.receipts = {bytes.fromhex(key): _receipts_from(value) for key, value in loaded["receipts"]}
        self._windows = {key: value for key, value in self.receipts.items() if value.sequences}
        self._last_credited = b""


# --- writing notes ------------------------------------------------------------------------------------------------


def started(payment: Payment) -> bytes:
    return bytes([STARTED]) + json.dumps(_to_json(payment), separators=(",", ":")).encode()


def grant(payment_id: str, *, total: int, sequence_ceiling: int) -> bytes:
    """Up to `total` source units, in packets numbered below `sequence_ceiling`, may now be on their way."""
    return _HEAD.pack(GRANT, bytes.fromhex(payment_id)) + _numbers((total, sequence_ceiling))


def progress(payment: Payment) -> bytes:
    return _HEAD.pack(PROGRESS, bytes.fromhex(payment.id)) + _outcome_numbers(payment)


def ended(payment: Payment) -> bytes:
    tail = _numbers((payment.ended_at,)) + b"".join(
        oer.encode_var_octets(text.encode()) for text in (payment.status, payment.detail)
    )
    return _HEAD.pack(ENDED, bytes.fromhex(payment.id)) + _outcome_numbers(payment) + tail


def streams() -> bytes:
    """From now on money may leave without a payment that tells of it."""
    return bytes([STREAMS])


def credit(connection: bytes, *, at: int, sequence: int, amount: int, totals: Iterable[tuple[int, int]]) -> bytes:
    """What one Fulfill credits: `totals` are (stream id, total received afterwards) of the streams it touched."""
    assert len(connection) == ID_BYTES
    pairs = list(totals)
    if len(pairs) == 1:
        stream, total = pairs[0]
        if total <= _U64_MAX:  # and so is the amount, a part of it
            return _CREDIT_ONE.pack(CREDIT_ONE, connection, at, sequence, amount, stream, total)
    numbers = [sequence, amount]
    for pair in pairs:
        numbers += pair
    return _CREDIT_HEAD.pack(CREDIT, connection, at) + _numbers(numbers)


def _outcome_numbers(payment: Payment) -> bytes:
    return _numbers((payment.sent, payment.delivered, payment.delivered_max, payment.unknown))


def _numbers(numbers: Iterable[int]) -> bytes:
    return b"".join([oer.encode_var_uint(number) for number in numbers])


# --- JSON of the rare entries: amounts are strings, as everywhere ------------------------------------------------

_AMOUNTS: Final = ("source_max", "deliver", "granted", "sent", "delivered", "delivered_max", "unknown")


def _to_json(payment: Payment) -> dict[str, str | int]:
    return {name: str(value) if name in _AMOUNTS else value for name, value in asdict(payment).items()}


def _payment_from(loaded: dict[str, Any]) -> Payment:
    try:
        fields: dict[str, Any] = {name: int(value) if name in _AMOUNTS else value for name, value in loaded.items()}
        return Payment(**fields)
    except (TypeError, ValueError, AttributeError) as error:
        raise CodecError("payment", 0, "not as a wallet writes it") from error


def _receipts_to_json(receipts: Receipts) -> list[object]:
    streams = [[stream, str(total)] for stream, total in receipts.streams.items()]
    numbers = [receipts.first_at, receipts.last_at, receipts.packets, str(receipts.total)]
    return [*numbers, receipts.sequence_floor, receipts.sequence_max, streams, sorted(receipts.sequences)]


def _receipts_from(loaded: list[Any]) -> Receipts:
    first_at, last_at, packets, total, sequence_floor, sequence_max, streams, sequences = loaded
    return Receipts(
        first_at=first_at,
        last_at=last_at,
        packets=packets,
        total=int(total),
        streams={stream: int(amount) for stream, amount in streams},
        sequence_floor=sequence_floor,
        sequence_max=sequence_max,
        sequences=set(sequences),
    )


def _json(data: bytes, what: str) -> dict[str, Any]:
    try:
        loaded = json.loads(data)
    except ValueError as error:
        raise CodecError(what, 0, "not JSON") from error
    if not isinstance(loaded, dict):
        raise CodecError(what, 0, "not an object")
    return loaded
