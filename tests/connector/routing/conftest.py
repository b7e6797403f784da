"""A small network: kernels joined by links with a delay, on a clock of its own. No journals fail, no links lose."""

from collections.abc import Callable
from fractions import Fraction
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeAlias

import pytest

from isthmus.connector.events import (
    AccountId,
    Append,
    Durable,
    Effect,
    Event,
    Inbound,
    LinkDown,
    LinkUp,
    Log,
    Now,
    Outbound,
    Release,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, TableEvent, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.ccp import (
    CONTROL_DESTINATION,
    UPDATE_DESTINATION,
    Route,
    RouteControl,
    RouteUpdate,
    decode_control,
    decode_update,
    encode_response,
    encode_update,
)
from isthmus.ilp.packet import Fulfill, Prepare, decode, decode_prepare

WALL = 1_800_000_000_000
USD = Asset("USD", 9)
BOTH = RouteTerms(send=True, receive=True)
DELAY_MS = 5


def spoken(name: str, relation: str = "peer", routes: RouteTerms = BOTH, **more: Any) -> AccountTerms:
    """Terms of a neighbour that routes are exchanged with."""
    return AccountTerms(
        id=AccountId(name),
        asset=USD,
        relation=relation,
        receivable_max=10**30,
        payable_max=10**30,
        routes=routes,
        **more,
    )


class Net:
    """Nodes by name; an account of a node has the name of its neighbour. Names without a node are played by a test."""

    def __init__(self) -> None:
        self.mono = 1_000
        self.kernels: dict[str, Kernel] = {}
        self.tables: dict[str, Tables] = {}
        self.frames: dict[tuple[str, str], list[Outbound]] = {}  # to names without a node
        self.logs: dict[str, list[Log]] = {}
        self.updates: list[tuple[int, str, str, RouteUpdate]] = []
        self.controls: list[tuple[int, str, str, RouteControl]] = []
        self.lost: Callable[[str, str, Outbound], bool] = lambda _from, _to, _frame: False
        self._queue: list[tuple[int, int, str, Event]] = []
        self._numbers = count(1)
        self._entropies = count(1)
        self._up: set[tuple[str, str]] = set()
        self._ids = count(1)

    def now(self) -> Now:
        return Now(WALL + self.mono, self.mono)

    def add(
        self,
        name: str,
        *accounts: AccountTerms,
        address: str = "",
        routes: dict[str, str] | None = None,
        spread: Fraction = Fraction(0),
    ) -> None:
        """A node `test.NAME`, its links down."""
        table = RouteTable({prefix: AccountId(to) for prefix, to in (routes or {}).items()})
        address = address or f"test.{name}"
        self.tables[name] = Tables(address, {one.id: one for one in accounts}, table, RateTable({}, spread=spread))
        self.logs[name] = []
        self.start(name)

    def start(self, name: str) -> None:
        """A new process; what the one before had learned is gone."""
        kernel = Kernel(next(self._entropies).to_bytes(32, "big"))
        self.kernels[name] = kernel
        kernel.opened(self.now())
        self.tell(name, TablesChanged(self.tables[name]))

    def change(self, name: str, tables: Tables) -> None:
        self.tables[name] = tables
        self.tell(name, TablesChanged(tables))

    def link(self, a: str, b: str) -> None:
        """The two are connected (anew)."""
        for name, other in ((a, b), (b, a)):
            self._up.add((name, other))
            if name in self.kernels:
                self.tell(name, LinkUp(AccountId(other)))

    def cut(self, a: str, b: str) -> None:
        """Both see that their link is gone, and what was under way is lost."""
        self._queue = [one for one in self._queue if not self._is_between(one, a, b)]
        for name, other in ((a, b), (b, a)):
            self._up.discard((name, other))
            if name in self.kernels:
                self.tell(name, LinkDown(AccountId(other), "cut"))

    def _is_between(self, queued: tuple[int, int, str, Event], a: str, b: str) -> bool:
        event = queued[3]
        return isinstance(event, Inbound) and {queued[2], event.account} == {a, b}

    def tell(self, name: str, *events: Event | TableEvent) -> None:
        self._carry_out(name, self.kernels[name].handle(list(events), self.now()))

    def _carry_out(self, name: str, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Append):
                self.tell(name, Durable(effect.sequence))
            elif isinstance(effect, Log):
                self.logs[name].append(effect)
            elif isinstance(effect, Release):
                for frame in effect.frames:
                    self._send(name, effect.account, frame)

    def _send(self, name: str, other: str, frame: Outbound) -> None:
        if frame.packet[0] == 12:
            self._note(name, other, decode_prepare(frame.packet))
        if (name, other) not in self._up or self.lost(name, other, frame):
            return
        if other not in self.kernels:
            self.frames.setdefault((name, other), []).append(frame)
            return
        arrival = self.mono + DELAY_MS
        event = Inbound(AccountId(name), frame.session, frame.request_id, frame.packet, arrival)
        heappush(self._queue, (arrival, next(self._numbers), other, event))

    def _note(self, name: str, other: str, prepare: Prepare) -> None:
        if prepare.destination == UPDATE_DESTINATION:
            self.updates.append((self.mono, name, other, decode_update(prepare.data)))
        elif prepare.destination == CONTROL_DESTINATION:
            self.controls.append((self.mono, name, other, decode_control(prepare.data)))

    def run(self, ms: int) -> None:
        """Let time pass."""
        until = self.mono + ms
        while True:
            wakes = [(at, name) for name, kernel in self.kernels.items() if (at := kernel.wakes_at()) is not None]
            at = min([one[0] for one in wakes] + [one[0] for one in self._queue[:1]], default=until + 1)
            if at > until:
                break
            self.mono = max(self.mono, at)
            if self._queue and self._queue[0][0] <= self.mono:
                _, _, name, event = heappop(self._queue)
                self.tell(name, event)
            else:
                # A kernel with work left wants to be called again at once; a millisecond passes meanwhile.
                name = min(wakes)[1]
                if at <= self.mono and at == self.kernels[name].switch.mono:
                    self.mono += 1
                self.tell(name)
        self.mono = max(self.mono, until)

    def play(self, name: str, other: str, packet: bytes) -> int:
        """A name without a node sends a request to a node; gives its id."""
        request_id = next(self._ids)
        self.tell(other, Inbound(AccountId(name), b"session of peers", request_id, packet, self.mono))
        return request_id

    def answer(self, name: str, other: str, frame: Outbound, packet: bytes) -> None:
        """A name without a node answers a node's request."""
        self.tell(other, Inbound(AccountId(name), frame.session, frame.request_id, packet, self.mono))

    def taken(self, name: str, other: str) -> list[Outbound]:
        """What a node has sent to a name without one, since it was asked last."""
        return self.frames.pop((name, other), [])

    def hop(self, name: str, destination: str) -> str | None:
        """Where a node sends packets for the destination."""
        kernel = self.kernels[name]
        found = kernel.switch.router.find(kernel.switch, destination.encode())
        return None if found is None else found[1]

    def table(self, name: str) -> dict[str, str]:
        """What a node has learned, as packets are routed by it."""
        live = self.kernels[name].switch.router.forwarding.live
        return {prefix.decode(): account for prefix, account in live.items()}

    def events(self, name: str, event: str) -> list[Log]:
        return [log for log in self.logs[name] if log.event == event]


class Teller:
    """A neighbour of `me` that is played: it answers questions, and each of its updates must be taken."""

    def __init__(self, net: Net, name: str) -> None:
        self.net = net
        self.name = name
        self.epoch = 0

    def tells(self, *routes: Route, withdrawn: tuple[str, ...] = ()) -> None:
        """An update, and a tenth of a second, which is as fast as updates may come."""
        start, self.epoch = self.epoch, self.epoch + 1
        number = self.name.encode().ljust(16)
        told = RouteUpdate(
            number, self.epoch, start, self.epoch, 600_000, f"test.{self.name}", tuple(routes), withdrawn
        )
        request_id = self.net.play(self.name, "me", encode_update(told, WALL + 10**9))
        self.net.run(100)
        replies = []
        for frame in self.net.taken("me", self.name):
            if frame.packet[0] == 12:
                self.net.answer(self.name, "me", frame, encode_response())
            elif frame.request_id == request_id:
                replies.append(decode(frame.packet))
        assert len(replies) == 1 and isinstance(replies[0], Fulfill)


MakeTeller: TypeAlias = Callable[[str], Teller]
MakeNet: TypeAlias = Callable[[], Net]
Spoken: TypeAlias = Callable[..., AccountTerms]


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def make_net() -> MakeNet:
    return Net


@pytest.fixture
def make_spoken() -> Spoken:
    return spoken


@pytest.fixture
def make_teller(net: Net) -> MakeTeller:
    return lambda name: Teller(net, name)


@pytest.fixture
def chain(net: Net) -> Net:
    """Alice, Bob and Carol, peers in a row, connected."""
    net.add("alice", spoken("bob"))
    net.add("bob", spoken("alice"), spoken("carol"))
    net.add("carol", spoken("bob"))
    net.link("alice", "bob")
    net.link("bob", "carol")
    return net
