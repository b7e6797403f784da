"""A STREAM connection whose path is the fuzzer: packets are lost, repeated, reordered, cut, changed, held and answered
by strangers, and a peer with the right key sends whatever it likes.

The input is a program, as in `node.py`. Whatever happens: nothing is raised; each Prepare is answered once, and
fulfilled only with its own preimage and no less than its minimum; no packet is credited twice; and what a sender has
sent, has under way, and doesn't know of, is never more than it was allowed. In the end both come to rest.
"""

from collections.abc import Iterator
from fractions import Fraction
from hashlib import sha256
from typing import Final, final

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import FULFILL, PREPARE, REJECT, Fulfill, Prepare, Reject, encode_amount_too_large
from isthmus.stream import packet as frames
from isthmus.stream.connection import Connection
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import DecisionWanted, GrantWanted, SendFulfill, SendPrepare, SendReject
from isthmus.stream.settings import Settings
from tests.fuzz.registry import Target
from tests.fuzz.targets.program import Input

WALL: Final = 1_700_000_000_000
SECRET: Final = bytes(range(32))
KEYS: Final = Keys(SECRET)
ADDRESSES: Final = {"alice": "test.alice", "bob": "test.bob.token"}
TIMEOUT_MS: Final = 3_000
STALL_MS: Final = 8_000
STEPS_MAX: Final = 150
WIRE_MAX: Final = 64
ROUNDS_MAX: Final = 4_000
RATES: Final = (Fraction(1), Fraction(1, 2), Fraction(3), Fraction(0))
TOTALS: Final = (0, 1, 50, 1_000, 10**6, 10**12, 2**64 - 1, 2**70)
PAUSES_MS: Final = (0, 1, 10, 100, 1_000, 2_999, 3_001, 9_000)
CODES: Final = ("T00", "T04", "F08", "F99", "R00", "F02", "T05", "X42")
PLAIN_MAX: Final = 200
REST_MAX: Final = 1_000


@final
class OnTheWire:
    """One Prepare as it left, or as it arrived (then `origin` is the one that left).

    `answer` is what the other end said first.
    """

    __slots__ = ("answer", "done", "expires_at", "is_money", "origin", "prepare", "sender", "sent")

    def __init__(
        self,
        sender: str,
        sent: SendPrepare | None,
        prepare: Prepare,
        expires_at: int,
        origin: "OnTheWire | None" = None,
    ) -> None:
        self.sender: Final = sender
        self.sent: Final = sent  # None: injected, nobody waits for an answer
        self.prepare: Final = prepare
        self.expires_at: Final = expires_at
        self.origin: Final = origin or self
        self.is_money = False
        self.answer: Fulfill | Reject | None = None
        self.done = False


@final
class End:
    """One end, and the money that it is known to have moved."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name: Final = name
        self.connection: Final = connection
        self.allowed: dict[int, int] = {}  # by stream: the highest total asked for
        self.granted: int | None = None
        self.posted = 0  # what its account really paid
        self.credited = 0
        self.held: list[int] = []


@final
class Pair:
    """Alice, who pays, and Bob; both may send."""

    def __init__(self, flags: int) -> None:
        self.now = 1_000
        self.count = 0
        alice = Settings(address=ADDRESSES["alice"], asset=Asset("BTC", 8), timeout_ms=TIMEOUT_MS, stall_ms=STALL_MS)
        bob = Settings(
            address=ADDRESSES["bob"],
            asset=Asset("ETH", 9),
            timeout_ms=TIMEOUT_MS,
            stall_ms=STALL_MS,
            is_server=True,
            ask=bool(flags & 2),
            receive_max=2_000 if flags & 1 else None,
            receipt_nonce=bytes(16) if flags & 4 else b"",
            receipt_secret=bytes(32) if flags & 4 else b"",
        )
        peer = ADDRESSES["bob"]
        self.ends: Final = {
            "alice": End("alice", Connection(alice, SECRET, random_bytes=self.random, peer_address=peer)),
            "bob": End("bob", Connection(bob, SECRET, random_bytes=self.random)),
        }
        self.minimum: Final = Fraction(9, 10)
        self.ends["alice"].connection.set_minimum_rate(self.minimum)
        self.ends["bob"].connection.set_minimum_rate(self.minimum)
        self.wire: list[OnTheWire] = []
        self.requests: dict[int, tuple[OnTheWire, End]] = {}
        self.fulfilled: set[bytes] = set()  # Prepares that brought money, by their data: credited once
        self.grants = bool(flags & 8)
        if self.grants:
            self.grant(self.ends["alice"], 0, 2)
        self.poll()

    def random(self, size: int) -> bytes:
        self.count += 1
        return sha256(b"%d" % self.count).digest() * (size // 32) + sha256(b"-%d" % self.count).digest()[: size % 32]

    def grant(self, end: End, total: int, ceiling: int) -> None:
        end.granted = max(end.granted or 0, total)
        end.connection.grant(total, ceiling)

    # --- orders -----------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        for end in self.ends.values():
            for order in end.connection.poll(self.now):
                if isinstance(order, SendPrepare):
                    self._sends(end, order)
                elif isinstance(order, SendFulfill | SendReject):
                    self._answers(order)
                elif isinstance(order, DecisionWanted):
                    end.held.append(order.request)
                elif isinstance(order, GrantWanted) and self.grants:
                    self.grant(end, order.total, order.sequence_ceiling)
            self.check(end)

    def _sends(self, end: End, order: SendPrepare) -> None:
        prepare = order.prepare(WALL + self.now)
        is_money = order.amount > 0 and KEYS.condition(order.data) == order.condition
        if is_money:
            plain = frames.decode_packet(KEYS.decrypt(order.data))
            assert plain.prepare_amount + 1 >= int(order.amount * self.minimum), "never below the minimum rate"
        self.wire.append(OnTheWire(end.name, order, prepare, self.now + order.timeout_ms))
        self.wire[-1].is_money = is_money
        if len(self.wire) > WIRE_MAX:
            self.wire.pop(0)

    def _answers(self, order: SendFulfill | SendReject) -> None:
        """Once for each request, and with its own preimage."""
        asked, end = self.requests.pop(order.request)
        origin = asked.origin
        if isinstance(order, SendReject):
            origin.answer = origin.answer or order.reject
            return
        fulfillment = order.fulfill.fulfillment
        assert sha256(fulfillment).digest() == asked.prepare.condition
        origin.answer = origin.answer or order.fulfill
        credit = order.credit
        if credit is None:
            return
        key = asked.prepare.data
        assert key not in self.fulfilled, "no packet is credited twice"
        self.fulfilled.add(key)
        assert credit.amount == asked.prepare.amount == sum(part.amount for part in credit.money)
        plain = frames.decode_packet(KEYS.decrypt(key))
        assert credit.amount >= plain.prepare_amount, "no less than the sender wanted"
        end.credited += credit.amount

    def check(self, end: End) -> None:
        totals = end.connection.totals
        assert totals.sent <= end.posted <= totals.sent + totals.in_flight + totals.unknown, (totals, end.posted)
        # Of what is in flight, only what can be fulfilled is money.
        money = sum(
            asked.prepare.amount
            for asked in self.wire
            if asked.is_money and asked.sender == end.name and not asked.done and self.now < asked.expires_at
        )
        used = totals.sent + totals.unknown + money
        assert used <= sum(end.allowed.values()), (used, end.allowed)
        assert end.granted is None or used <= end.granted, (used, end.granted)
        assert totals.delivered <= totals.delivered_max
        assert end.connection.received == end.credited

    # --- the path ---------------------------------------------------------------------------------------------------

    def arrive(self, asked: OnTheWire, amount: int, prepare: Prepare) -> None:
        """A Prepare comes to the other end."""
        end = self.ends["bob" if asked.sender == "alice" else "alice"]
        if len(self.requests) >= WIRE_MAX:
            return
        arriving = Prepare(amount, prepare.expires_at, prepare.condition, prepare.destination, prepare.data)
        self.count += 1
        self.requests[self.count] = (OnTheWire(asked.sender, None, arriving, asked.expires_at, asked), end)
        end.connection.prepare_received(self.count, arriving, self.now, asked.expires_at)
        self.poll()

    def reply(self, asked: OnTheWire, answer: Fulfill | Reject) -> None:
        """An answer comes back; the sender's own connector pays for the right preimage before the expiry, once."""
        if asked.sent is None or asked.done:
            return
        end = self.ends[asked.sender]
        asked.done = True
        if self.now >= asked.expires_at:
            answer = Reject("R00", "test.connector", "")
        if isinstance(answer, Fulfill) and sha256(answer.fulfillment).digest() == asked.prepare.condition:
            end.posted += asked.sent.amount
        end.connection.reply_received(asked.sent.number, answer, self.now)
        self.poll()

    def wakes_at(self) -> int | None:
        """When somebody wants to be polled. Once more at the same time is in order, more often would never end."""
        due = self._due()
        if due is not None and due <= self.now:
            self.poll()
            due = self._due()
        assert due is None or due > self.now, "who was polled twice doesn't ask for it again at once"
        return due

    def _due(self) -> int | None:
        wakes = [end.connection.wakes_at(self.now) for end in self.ends.values()]
        return min((at for at in wakes if at is not None), default=None)

    def wait(self, ms: int) -> None:
        until = self.now + ms
        while self.now < until:
            due = self.wakes_at()
            self.now = until if due is None else min(until, due)
            self.poll()

    def end(self) -> None:
        """Faults end: what is on the wire expires, what is sent arrives, and everything comes to an end."""
        for end in self.ends.values():
            for request in end.held:
                end.connection.refuse(request)
            end.held.clear()
            for stream_id in end.connection.stream_ids():
                # In packets as small as the path may have asked for, more would take for ever.
                if end.allowed.get(stream_id, 0) > REST_MAX:
                    end.connection.stop_sending(stream_id)
        self.poll()
        for _ in range(ROUNDS_MAX):
            wire, self.wire = self.wire, []
            for asked in wire:
                if not asked.done and asked.answer is None:
                    self.arrive(asked, asked.prepare.amount, asked.prepare)
                if asked.answer is not None:
                    self.reply(asked, asked.answer)
            for end in self.ends.values():
                held, end.held = end.held, []
                for request in held:
                    end.connection.accept(request)
            self.poll()
            if not self.wire:
                due = self.wakes_at()
                if due is None:
                    break
                self.wait(due - self.now)
        else:
            raise AssertionError("they never come to rest")
        for end in self.ends.values():
            assert end.connection.totals.packets_in_flight == 0


# --- the program -----------------------------------------------------------------------------------------------------


def fuzz_stream_pair(data: bytes) -> None:
    choices = Input(data)
    pair = Pair(choices.byte())
    for _ in range(STEPS_MAX):
        if not choices.more:
            break
        step(pair, choices)
    pair.end()


def step(pair: Pair, choices: Input) -> None:
    first = choices.byte()
    end = pair.ends["bob" if first & 0x80 else "alice"]
    kind, more = first & 0x0F, first >> 4 & 7
    if kind < 4:
        travel(pair, kind, more, choices)
    elif kind < 6:
        answer(pair, more, choices)
    elif kind == 6:
        pair.wait(PAUSES_MS[more])
    elif kind < 10:
        apply(pair, end, kind, more, choices)
    elif kind < 12:
        inject(pair, end, more, choices)
    elif kind == 12:
        for request in end.held[:2]:
            end.held.remove(request)
            end.connection.accept(request) if more & 1 else end.connection.refuse(request)
        pair.poll()
    else:
        rarely(pair, end, kind, more, choices)


def travel(pair: Pair, kind: int, more: int, choices: Input) -> None:
    """A Prepare arrives: whole (0, 1), at another rate (2), or changed (3)."""
    if not pair.wire:
        return
    asked = pair.wire[-1 - more % len(pair.wire)]
    prepare = asked.prepare
    if kind == 2:
        rate = RATES[choices.byte() & 3]
        amount = min(2**64 - 1, prepare.amount * rate.numerator // rate.denominator)
        pair.arrive(asked, amount, prepare)
        return
    if kind == 3:
        octets = bytearray(prepare.data)
        if octets:
            octets[choices.byte() % len(octets)] ^= 1 + (choices.byte() & 0x7F)
        prepare = Prepare(prepare.amount, prepare.expires_at, prepare.condition, prepare.destination, bytes(octets))
    pair.arrive(asked, prepare.amount, prepare)


def answer(pair: Pair, more: int, choices: Input) -> None:
    """An answer comes back as it was given, changed, or made up on the way."""
    if not pair.wire:
        return
    asked = pair.wire[-1 - more % len(pair.wire)]
    how = choices.byte()
    reply = asked.answer
    if how & 1 and reply is not None:
        pair.reply(asked, reply)
    elif isinstance(reply, Fulfill) and how & 2:
        data = reply.data[:-1] if how & 4 else choices.bytes(how >> 4)
        pair.reply(asked, Fulfill(bytes(32) if how & 8 else reply.fulfillment, data))
    elif not isinstance(reply, Fulfill) or how & 4:
        code = CODES[how >> 4 & 7]
        data = encode_amount_too_large(asked.prepare.amount, how) if code == "F08" and how & 8 else b""
        if isinstance(reply, Reject) and how & 2:
            data = reply.data
        pair.reply(asked, Reject(code, "test.connector", "", data))


def apply(pair: Pair, end: End, kind: int, more: int, choices: Input) -> None:
    """What the applications do with money and streams."""
    connection = end.connection
    ids = connection.stream_ids()
    detail = choices.byte()
    if kind == 6 or not ids:
        stream_id = connection.open_stream()
        ids = [stream_id] if stream_id is not None else []
    if not ids:
        return
    stream_id = ids[detail >> 3 & 7] if (detail >> 3 & 7) < len(ids) else ids[-1]
    total = TOTALS[detail & 7]
    if kind == 7:
        end.allowed[stream_id] = max(end.allowed.get(stream_id, 0), total)
        connection.send_total(stream_id, total)
    elif kind == 8:
        source_max = TOTALS[more]
        end.allowed[stream_id] = max(end.allowed.get(stream_id, 0), source_max)
        connection.deliver_total(stream_id, max(1, total), source_max=source_max)
    elif more & 1:
        connection.write(stream_id, bytes(detail * 40))
    else:
        connection.set_receive_max(stream_id, total)
    pair.poll()


def rarely(pair: Pair, end: End, kind: int, more: int, choices: Input) -> None:
    connection = end.connection
    ids = connection.stream_ids()
    stream_id = ids[choices.byte() % len(ids)] if ids else 0
    if kind == 13 and ids:
        connection.read(stream_id)
        if more & 1:
            connection.end_stream(stream_id)
        if more & 2:
            connection.close_stream(stream_id, 9 if more & 4 else 1, "enough")
    elif kind == 14 and ids:
        connection.stop_sending(stream_id) if more & 1 else connection.ask_total(stream_id)
    elif kind == 15 and more == 7:
        connection.close()
    elif kind == 15:
        connection.start_quote(source=TOTALS[more]) if more else connection.open_stream()
    pair.poll()


def inject(pair: Pair, end: End, more: int, choices: Input) -> None:
    """A peer with the key: a Prepare with any plaintext, or an answer with any."""
    plain = choices.bytes(choices.byte() % PLAIN_MAX)
    if more & 1:
        head = bytes((1, PREPARE if more & 4 else (FULFILL, REJECT)[more >> 1 & 1], 1, choices.byte()))
        plain = head + plain
    data = KEYS.encrypt(plain, pair.random(12))
    if more & 4 or not pair.wire:
        amount = TOTALS[choices.byte() & 7] & (2**64 - 1)
        condition = KEYS.condition(data) if more & 2 else bytes(32)
        prepare = Prepare(amount, WALL + pair.now + TIMEOUT_MS, condition, ADDRESSES[end.name], data)
        sender = "alice" if end.name == "bob" else "bob"
        pair.arrive(OnTheWire(sender, None, prepare, pair.now + TIMEOUT_MS), amount, prepare)
        return
    asked = pair.wire[-1]
    if isinstance(asked.answer, Fulfill):
        pair.reply(asked, Fulfill(asked.answer.fulfillment, data))
    else:
        pair.reply(asked, Reject(CODES[choices.byte() & 7], "test.bob", "", data))


def seeds_stream_pair() -> Iterator[bytes]:
    send = bytes((0x07, 0x03))  # alice: 1,000 on a new stream
    hop = bytes((0x00, 0x04, 0x01))
    for flags in (0, 1, 2, 4, 8):
        yield bytes((flags,)) + send + hop * 6
    yield b"\0" + send + bytes((0x00, 0x00, 0x04, 0x01)) + bytes((0x02, 0x01, 0x04, 0x01)) + bytes((0x66,)) + hop * 3
    yield b"\2" + send + hop * 2 + bytes((0x9C, 0x04, 0x01)) + bytes((0x76,)) + hop
    yield b"\0" + bytes((0x19, 0x08)) + hop * 5 + bytes((0x99, 0x10)) + hop * 6 + bytes((0x2D, 0x00)) + hop * 3
    yield b"\0" + bytes((0x48, 0x03)) + hop * 4 + bytes((0x04, 0xA8)) + hop * 4
    yield b"\0" + send + hop + bytes((0xFA, 12)) + b"\x01\x00\x01\x01\x11\x04\x01\x01\x01\x01\0\0" + bytes((1, 3)) + hop
    yield b"\0" + send + hop + bytes((0x7F, 0x00)) + hop * 3
    yield b"\0" + send + bytes((0x3B, 8)) + b"\x01\x05\x01\x01\x01\x02\x01\x00" + bytes((1, 3)) + hop


TARGETS: Final[dict[str, Target]] = {
    "stream-pair": Target(
        fuzz_stream_pair,
        seeds_stream_pair,
        (
            b"\x00\x04\x01",
            b"\x07\x03",
            b"\x01\x01\x11\x04\x01\x01\x01\x01",
            b"\x76",
            b"\x01\x01\x12\x06\x01\x01\x01\xff\x01\x01",
        ),
        size_max=500,
        stateful=True,
    )
}
