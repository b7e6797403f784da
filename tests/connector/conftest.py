"""What the connector's tests share: a node whose links and journal are lists, and whose clock is set by hand.

After every step its books are checked, and a second kernel replays what was appended and must have the same books.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from typing import Any, TypeAlias

import pytest

from isthmus.connector import state
from isthmus.connector.events import (
    AccountId,
    Append,
    Durable,
    Effect,
    Event,
    Inbound,
    LinkUp,
    Now,
    Outbound,
    Release,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.replay import Application
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, TableEvent, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.outcomes import OUTCOMES_DESTINATION
from isthmus.ilp.packet import Fulfill, Packet, Prepare, Reject, decode, encode_fulfill, encode_prepare, encode_reject

WALL = 1_800_000_000_000
FULFILLMENT = bytes(range(32))
CONDITION = sha256(FULFILLMENT).digest()
THEIR_SESSION = b"session of peers"
USD = Asset("USD", 9)

Frames: TypeAlias = "dict[AccountId, list[Outbound]]"


def terms(name: str, **changes: Any) -> AccountTerms:
    """Generous terms of a peer in USD, scale 9, with what a test wants otherwise."""
    base = AccountTerms(id=AccountId(name), asset=USD, relation="peer", receivable_max=10**30, payable_max=10**30)
    return replace(base, **changes)


class Node:
    """A kernel with accounts, each reached at `test.node.NAME` unless other routes are given."""

    def __init__(
        self,
        *accounts: AccountTerms,
        address: str = "test.node",
        routes: dict[str, str] | None = None,
        rates: RateTable | None = None,
        application: Application | None = None,
        up: bool = True,
    ) -> None:
        if routes is None:
            routes = {f"test.node.{one.id}": one.id for one in accounts}
        self.entropy = bytes(32)  # another one for each process
        self.kernel = Kernel(self.entropy, application)
        self.shadow = Kernel(bytes(32))
        self.mono = 1_000
        self.wall = WALL
        self.durable = True  # whether appends become durable at once
        self.checks = True  # whether the books, and what replay gives, are compared at each step: work by their size
        self.records: list[bytes] = []
        self.undurable: list[Append] = []
        self.effects: list[Effect] = []  # all, in order
        self.frames: Frames = {}
        self.reports: list[Outbound] = []
        self.next_id = 1
        self.tables = Tables(
            address,
            {one.id: one for one in accounts},
            RouteTable({prefix: AccountId(name) for prefix, name in routes.items()}),
            rates or RateTable({}),
        )
        self.kernel.opened(self.now())
        self.tell(TablesChanged(self.tables))
        if up:
            self.tell(*[LinkUp(one.id) for one in accounts])

    def now(self) -> Now:
        return Now(self.wall, self.mono)

    def tell(self, *events: Event | TableEvent) -> list[Effect]:
        """Hand events over, play links and journal, and give the effects of this step."""
        first = len(self.effects)
        self._take(self.kernel.handle(list(events), self.now()))
        while self.durable and self.undurable:
            self.commit()
        if self.checks:
            self.kernel.books.check()
        return self.effects[first:]

    def commit(self) -> list[Effect]:
        """The oldest append becomes durable."""
        first = len(self.effects)
        append = self.undurable.pop(0)
        self.shadow.replay(append.sequence, append.record)
        self._take(self.kernel.handle([Durable(append.sequence)], self.now()))
        if self.checks and self.kernel.at_boundary() and not self.undurable:
            assert self.shadow.digest() == self.kernel.digest()
        return self.effects[first:]

    def _take(self, effects: list[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Append):
                assert len(self.records) + 1 == effect.sequence
                self.records.append(effect.record)
                self.undurable.append(effect)
            elif isinstance(effect, Release):
                self.frames.setdefault(effect.account, []).extend(effect.frames)

    def wait(self, ms: int) -> list[Effect]:
        """Let time pass, waking the kernel only when it wants to be."""
        first = len(self.effects)
        until = self.mono + ms
        while True:
            at = self.kernel.wakes_at()
            if at is None or at > until:
                break
            self._go(max(at, self.mono))
            self.tell()
        self._go(until)
        return self.effects[first:]

    def _go(self, mono: int) -> None:
        self.wall += mono - self.mono
        self.mono = mono

    # --- packets ------------------------------------------------------------------------------------------------

    def inbound(
        self,
        account: str,
        to: str,
        amount: int = 100,
        *,
        left_ms: int = 30_000,
        condition: bytes = CONDITION,
        data: bytes = b"",
        request_id: int | None = None,
        session: bytes = THEIR_SESSION,
        note: bytes = b"",
    ) -> Inbound:
        """A Prepare as a link would hand it over."""
        if request_id is None:
            request_id = self.next_id
            self.next_id += 1
        packet = encode_prepare(Prepare(amount, self.wall + left_ms, condition, to, data))
        return Inbound(AccountId(account), session, request_id, packet, self.mono, note)

    def prepare(self, account: str, to: str, amount: int = 100, **fields: Any) -> int:
        """A peer sends a Prepare; gives the id of its request."""
        event = self.inbound(account, to, amount, **fields)
        self.tell(event)
        return event.request_id

    def take(self, account: str) -> list[Outbound]:
        """The frames that left to this account since it was asked last; reports of outcomes are in `reports`."""
        frames = self.frames.pop(AccountId(account), [])
        self.reports += [frame for frame in frames if _is_report(frame)]
        return [frame for frame in frames if not _is_report(frame)]

    def taken(self, account: str) -> Outbound:
        """The one frame that left to this account."""
        frames = self.take(account)
        assert len(frames) == 1, frames
        return frames[0]

    def packet(self, account: str) -> Packet:
        return decode(self.taken(account).packet)

    def forwarded(self, account: str) -> Prepare:
        packet = self.packet(account)
        assert isinstance(packet, Prepare), packet
        return packet

    def rejected(self, account: str) -> Reject:
        packet = self.packet(account)
        assert isinstance(packet, Reject), packet
        return packet

    def fulfilled(self, account: str) -> Fulfill:
        packet = self.packet(account)
        assert isinstance(packet, Fulfill), packet
        return packet

    def reply(
        self,
        account: str,
        request_id: int,
        packet: bytes,
        *,
        session: bytes = b"",
        note: bytes = b"",
        read_at: int = -1,
    ) -> list[Effect]:
        """A peer answers one of our Prepares."""
        at = self.mono if read_at < 0 else read_at
        return self.tell(Inbound(AccountId(account), session, request_id, packet, at, note))

    def fulfil(self, account: str, request_id: int, fulfillment: bytes = FULFILLMENT, **more: Any) -> list[Effect]:
        return self.reply(account, request_id, encode_fulfill(Fulfill(fulfillment)), **more)

    def reject(self, account: str, request_id: int, code: str = "F99", **more: Any) -> list[Effect]:
        return self.reply(account, request_id, encode_reject(Reject(code, "test.far", "no")), **more)

    def balance(self, account: str) -> int:
        return self.kernel.books.peers[AccountId(account)].balance

    def internal(self, name: str) -> int:
        return self.kernel.books.internal[name].balance

    def in_flight(self) -> int:
        """The open legs of all accounts."""
        return sum(len(one.received) + len(one.sent) for one in self.kernel.books.peers.values())

    def restarted(self) -> "Node":
        """The same node after a crash: what was durable is replayed, links are down, the clock goes on."""
        node = Node.__new__(Node)
        node.__dict__.update(self.__dict__)
        node.entropy = sha256(self.entropy).digest()
        node.kernel = Kernel(node.entropy)
        durable = len(self.records) - len(self.undurable)
        node.records = self.records[:durable]
        for sequence, record in enumerate(node.records, 1):
            node.kernel.replay(sequence, record)
        node.shadow = Kernel(bytes(32))
        for sequence, record in enumerate(node.records, 1):
            node.shadow.replay(sequence, record)
        node.undurable = []
        node.effects = []
        node.frames = {}
        node.reports = []
        node.durable = True
        node.kernel.opened(node.now())
        node.tell(TablesChanged(node.tables))
        return node


def _is_report(frame: Outbound) -> bool:
    packet = decode(frame.packet)
    return isinstance(packet, Prepare) and packet.destination == OUTCOMES_DESTINATION


MakeNode: TypeAlias = Callable[..., Node]
MakeTerms: TypeAlias = Callable[..., AccountTerms]


@pytest.fixture
def make_terms() -> MakeTerms:
    return terms


@pytest.fixture
def make_node() -> MakeNode:
    return Node


@pytest.fixture
def node() -> Node:
    """Alice and Bob, peers in USD."""
    return Node(terms("alice"), terms("bob"))


@pytest.fixture
def trader() -> Node:
    """Alice pays in USD (scale 9), Bob in EUR (scale 6): 0.9 EUR a USD, and a spread of 1 %."""
    rates = RateTable({("USD", "EUR"): Fraction("0.9")}, spread=Fraction("0.01"))
    return Node(terms("alice"), terms("bob", asset=Asset("EUR", 6)), rates=rates)


@pytest.fixture
def digest() -> Callable[[Kernel], bytes]:
    return lambda kernel: state.digest(kernel.books)
