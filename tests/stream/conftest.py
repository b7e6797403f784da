"""Two ends of a connection and the path between them, on virtual time: hops with rates, limits, delays and vices."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from hashlib import sha256
from typing import TypeVar

import pytest

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import AMOUNT_MAX, FULFILL, PREPARE, REJECT, Fulfill, Prepare, Reject, encode_amount_too_large
from isthmus.stream.connection import Connection
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import DecisionWanted, GrantWanted, Order, SendFulfill, SendPrepare, SendReject
from isthmus.stream.packet import Frame, StreamPacket, decode_packet, encode_packet
from isthmus.stream.settings import Settings

WALL_MS = 1_700_000_000_000
SECRET = bytes(range(32))
KEYS = Keys(SECRET)
ALICE = "test.alice"
BOB = "test.bob.token"

T = TypeVar("T")


@dataclass
class Hop:
    """One connector. Amounts are in its incoming units until it applies its rate."""

    rate: Fraction = Fraction(1)
    maximum: int | None = None  # F08 above it
    f08_data: bool = True
    liquidity: int | None = None  # T04 if more is in flight
    refuse: str = ""  # answers everything with this code
    steal: Callable[[int], int] | None = None  # what it really passes on of the outgoing amount
    in_flight: int = 0

    def judge(self, amount: int) -> tuple[int, Reject | None]:
        if self.refuse:
            return 0, Reject(self.refuse, "test.hop", "")
        if self.maximum is not None and amount > self.maximum:
            data = encode_amount_too_large(amount, self.maximum) if self.f08_data else b""
            return 0, Reject("F08", "test.hop", "", data)
        if self.liquidity is not None and self.in_flight + amount > self.liquidity:
            return 0, Reject("T04", "test.hop", "")
        outgoing = amount * self.rate.numerator // self.rate.denominator
        if amount > 0 and outgoing == 0:
            return 0, Reject("R01", "test.hop", "")
        if outgoing > AMOUNT_MAX:
            maximum = AMOUNT_MAX * self.rate.denominator // self.rate.numerator
            return 0, Reject("F08", "test.hop", "", encode_amount_too_large(amount, maximum))
        if self.steal is not None:
            outgoing = self.steal(outgoing)
        return outgoing, None


@dataclass
class End:
    """A connection, and what it told its application."""

    name: str
    connection: Connection
    news: list[Order] = field(default_factory=list)
    credits: list[SendFulfill] = field(default_factory=list)
    prepares: list[SendPrepare] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    grants: int = 0
    decide: Callable[[DecisionWanted], bool] | None = None

    def told(self, kind: type[T]) -> list[T]:
        return [order for order in self.news if isinstance(order, kind)]

    def first(self, kind: type[T]) -> T:
        found = self.told(kind)
        assert found, f"no {kind.__name__} among {self.news}"
        return found[0]


@dataclass
class World:
    """Both ends. `hops` carry Prepares from alice to bob, `back` from bob to alice."""

    alice: End
    bob: End
    hops: list[Hop]
    back: list[Hop]
    rng: random.Random
    delay_ms: tuple[int, int] = (5, 5)  # from one end to the other; a range reorders
    lose: Callable[[SendPrepare], bool] | None = None  # the Prepare vanishes
    lose_reply: Callable[[SendPrepare, Fulfill | Reject], bool] | None = None
    garble: Callable[[Fulfill | Reject], Fulfill | Reject] | None = None
    expired_reject: bool = True  # at the expiry the sender's own connector says R00
    auto_grant: bool = True
    now: int = 1_000
    posted: int = 0  # what alice's account really paid
    arrived: int = 0  # what bob's account really got
    _events: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _requests: int = 0
    _waiting: dict[int, Callable[[Fulfill | Reject], None]] = field(default_factory=dict)

    def at(self, time: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, action))

    def _delay(self) -> int:
        return self.rng.randint(*self.delay_ms)

    def poll(self, end: End) -> None:
        for order in end.connection.poll(self.now):
            if isinstance(order, SendPrepare):
                end.prepares.append(order)
                self._carry(end, order)
            elif isinstance(order, SendFulfill | SendReject):
                if isinstance(order, SendFulfill):
                    end.credits.append(order)
                else:
                    end.rejects.append(order.reject)
                answer = order.fulfill if isinstance(order, SendFulfill) else order.reject
                self._waiting.pop(order.request)(answer)
            else:
                end.news.append(order)
                if isinstance(order, GrantWanted) and self.auto_grant:
                    end.grants += 1
                    end.connection.grant(order.total, order.sequence_ceiling)
                    self.at(self.now, lambda: None)
                if isinstance(order, DecisionWanted) and end.decide is not None:
                    if end.decide(order):
                        end.connection.accept(order.request)
                    else:
                        end.connection.refuse(order.request)
                    self.at(self.now, lambda: None)

    def _carry(self, source: End, order: SendPrepare) -> None:
        """Take one Prepare along the path, and its reply back."""
        target, hops = (self.bob, self.hops) if source is self.alice else (self.alice, self.back)
        expires_at = self.now + order.timeout_ms
        done: list[bool] = []
        reserved: list[tuple[Hop, int]] = []

        def reply(answer: Fulfill | Reject) -> None:
            for hop, amount in reserved:
                hop.in_flight -= amount
            reserved.clear()
            if done or self.now >= expires_at:
                return
            if self.lose_reply is not None and self.lose_reply(order, answer):
                return
            done.append(True)
            if self.garble is not None:
                answer = self.garble(answer)
            # With a wrong fulfillment no connector pays.
            pays = isinstance(answer, Fulfill) and sha256(answer.fulfillment).digest() == order.condition
            if pays and source is self.alice:
                self.posted += order.amount
            source.connection.reply_received(order.number, answer, self.now)

        if self.expired_reject:
            self.at(expires_at, lambda: self._time_out(source, order, done))
        if self.lose is not None and self.lose(order):
            return
        amount, refusal = self._walk(order.amount, hops, reserved)
        if refusal is not None:
            self.at(self.now + self._delay(), partial(reply, refusal))
            return
        prepare = order.prepare(WALL_MS)
        arriving = Prepare(amount, prepare.expires_at, prepare.condition, prepare.destination, prepare.data)

        def arrive() -> None:
            self._requests += 1

            def answered(answer: Fulfill | Reject) -> None:
                if isinstance(answer, Fulfill) and source is self.alice:
                    self.arrived += amount
                self.at(self.now + self._delay(), lambda: reply(answer))

            self._waiting[self._requests] = answered
            target.connection.prepare_received(self._requests, arriving, self.now, expires_at)

        self.at(self.now + self._delay(), arrive)

    def _walk(self, amount: int, hops: list[Hop], reserved: list[tuple[Hop, int]]) -> tuple[int, Reject | None]:
        """Through all connectors, up to the first that refuses."""
        for hop in hops:
            outgoing, refusal = hop.judge(amount)
            if refusal is not None:
                return 0, refusal
            hop.in_flight += amount
            reserved.append((hop, amount))
            amount = outgoing
        return amount, None

    def _time_out(self, source: End, order: SendPrepare, done: list[bool]) -> None:
        if not done:
            done.append(True)
            source.connection.reply_received(order.number, Reject("R00", ALICE, ""), self.now)

    def run(self, ms: int = 60_000, until: Callable[[], bool] | None = None) -> None:
        """Let time pass: up to `ms`, or until the condition holds."""
        end = self.now + ms
        for _ in range(400_000):
            self.poll(self.alice)
            self.poll(self.bob)
            if until is not None and until():
                return
            times = [self._events[0][0]] if self._events else []
            for party in (self.alice, self.bob):
                wakes_at = party.connection.wakes_at(self.now)
                if wakes_at is not None:
                    times.append(max(wakes_at, self.now + 1))
            if not times or min(times) > end:
                self.now = end
                return
            self.now = max(self.now, min(times))
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
        raise AssertionError("the machines never come to rest")

    def inject(self, target: End, prepare: Prepare, *, deadline: int | None = None) -> list[Fulfill | Reject]:
        """Give an end a Prepare out of nowhere; the answer is in the list once it is polled."""
        answers: list[Fulfill | Reject] = []
        self._requests += 1
        self._waiting[self._requests] = answers.append
        until = self.now + 10_000 if deadline is None else deadline
        target.connection.prepare_received(self._requests, prepare, self.now, until)
        self.poll(target)
        return answers

    @property
    def sent(self) -> int:
        return self.alice.connection.totals.sent


class Raw:
    """A peer that sends whatever frames it likes to bob, as a client would."""

    def __init__(self, world: World, target: End | None = None) -> None:
        self.world = world
        self.target = target or world.bob
        self.sequence = 0

    def prepare(
        self,
        *frames: Frame,
        amount: int = 0,
        minimum: int = 0,
        sequence: int = 0,
        ilp_type: int = PREPARE,
        fulfillable: bool = True,
        plaintext: bytes = b"",
    ) -> Prepare:
        self.sequence = sequence or self.sequence + 1
        text = plaintext or encode_packet(StreamPacket(ilp_type, self.sequence, minimum, list(frames)))
        data = KEYS.encrypt(text, self.world.rng.randbytes(12))
        condition = KEYS.condition(data) if fulfillable else bytes(32)
        return Prepare(amount, 1_700_000_030_000, condition, BOB, data)

    def send(self, *frames: Frame, amount: int = 0, minimum: int = 0, fulfillable: bool = True) -> Fulfill | Reject:
        return self.give(self.prepare(*frames, amount=amount, minimum=minimum, fulfillable=fulfillable))

    def give(self, prepare: Prepare) -> Fulfill | Reject:
        return self.world.inject(self.target, prepare)[0]

    def read(self, reply: Fulfill | Reject) -> StreamPacket:
        packet = decode_packet(KEYS.decrypt(reply.data))
        assert packet.ilp_type == (FULFILL if isinstance(reply, Fulfill) else REJECT)
        return packet

    def frames(self, reply: Fulfill | Reject) -> list[Frame]:
        return self.read(reply).frames


MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def make_world() -> MakeWorld:
    """`make_world(hops=[...], alice=Settings(...), bob=Settings(...), minimum=Fraction(...))`."""

    def make(
        *,
        hops: list[Hop] | None = None,
        back: list[Hop] | None = None,
        alice: Settings | None = None,
        bob: Settings | None = None,
        minimum: Fraction | None = Fraction(99, 100),
        seed: int = 1,
    ) -> World:
        rng = random.Random(seed)
        ours = alice or Settings(address=ALICE, asset=Asset("BTC", 8))
        theirs = replace(bob or Settings(address=BOB, asset=Asset("ETH", 9)), is_server=True)
        client = Connection(ours, SECRET, random_bytes=rng.randbytes, peer_address=BOB)
        server = Connection(theirs, SECRET, random_bytes=rng.randbytes)
        if minimum is not None:
            client.set_minimum_rate(minimum)
        return World(End("alice", client), End("bob", server), [Hop()] if hops is None else hops, back or [Hop()], rng)

    return make


@pytest.fixture(scope="session")
def make_hop() -> type[Hop]:
    return Hop


@pytest.fixture(scope="session")
def make_raw() -> type[Raw]:
    return Raw
