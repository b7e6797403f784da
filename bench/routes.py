"""Big tables of learned routes: what a look-up, a prefix and a thousand changes cost. `python -m bench.routes`.

One kernel, without links or disk; CPU time, so that other work on the machine counts less. A call of the kernel is one
turn of a node's loop: the longest one is the longest gap between batches that the kernel makes.
"""

import argparse
import gc
import json
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

from bench.estimate import estimate
from isthmus.connector.events import AccountId, Append, Durable, Event, Inbound, LinkUp, Now
from isthmus.connector.kernel import Kernel
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.ccp import Route, RouteUpdate, encode_update
from isthmus.ilp.packet import Prepare, encode_prepare
from isthmus.node.build import build_kind
from isthmus.node.runtime import GC_THRESHOLDS

WALL = 1_800_000_000_000
SESSION = b"session of peers"
TABLE = b"bob's routing id"
PREFIXES = 100_000
CHANGES = 1_000
TURNS = 1_000
ROUNDS = 12  # interleaved pairs, so that other work on the machine meets both sides
PACKETS_PER_TURN = 20


class Node:
    """A kernel between Bob, who tells routes, Carl, who tells nothing, and Sam, who pays."""

    def __init__(self) -> None:
        self.kernel = Kernel(bytes(32))
        self.mono = 1_000
        self.ids = 0
        self.epoch = 0
        self.longest = 0.0
        self._pending: list[Event | TablesChanged] = []
        self.kernel.opened(self.now())
        routed = RouteTerms(send=True, receive=True, received_max=1_000_000)
        accounts = [self._terms("bob", routed), self._terms("carl", routed), self._terms("sam", RouteTerms())]
        tables = Tables("test.me", {one.id: one for one in accounts}, RouteTable({}), RateTable({}))
        self.turn([TablesChanged(tables), *[LinkUp(one.id) for one in accounts]])

    def _terms(self, name: str, routes: RouteTerms) -> AccountTerms:
        return AccountTerms(
            id=AccountId(name), asset=Asset("USD", 9), relation="peer", receivable_max=10**30, payable_max=10**30,
            routes=routes,
        )  # fmt: skip

    def now(self) -> Now:
        return Now(WALL + self.mono, self.mono)

    def turn(self, events: Sequence[Event | TablesChanged] = ()) -> None:
        """One call of the kernel; what it appended is durable with the next one."""
        self.mono += 1
        waiting, self._pending = self._pending, []
        start = time.process_time()
        effects = self.kernel.handle([*waiting, *events], self.now())
        self.longest = max(self.longest, time.process_time() - start)
        for effect in effects:
            if isinstance(effect, Append):
                self._pending.append(Durable(effect.sequence))

    def settle(self) -> None:
        """Until all tables are right."""
        while (at := self.kernel.wakes_at()) is not None and at <= self.mono + 150:
            self.turn()
        self.mono += 150

    def inbound(self, account: str, packet: bytes) -> Inbound:
        self.ids += 1
        return Inbound(AccountId(account), SESSION, self.ids, packet, self.mono)

    def update(self, first: int, end: int, hop: str) -> Inbound:
        """Bob tells routes to these prefixes."""
        routes = tuple(Route(prefix(number), ("test.bob", hop), bytes(32), ()) for number in range(first, end))
        self.epoch += 1
        update = RouteUpdate(TABLE, self.epoch, self.epoch - 1, self.epoch, 45_000, "test.bob", routes, ())
        return self.inbound("bob", encode_update(update, WALL * 2))

    def learn(self, count: int) -> None:
        for first in range(0, count, 100):
            self.mono += 100
            self.turn([self.update(first, min(count, first + 100), "test.far")])
            self.settle()

    def prepares(self) -> list[Event | TablesChanged]:
        found: list[Event | TablesChanged] = []
        for _ in range(PACKETS_PER_TURN):
            self.ids += 1
            to = f"{prefix(self.ids * 7_919 % PREFIXES)}.x"
            packet = encode_prepare(Prepare(5, WALL + self.mono + 20_000, bytes(32), to, bytes(32)))
            found.append(Inbound(AccountId("sam"), SESSION, self.ids, packet, self.mono))
        return found


def prefix(number: int) -> str:
    return f"test.n{number}.host"


def lookup_us(node: Node, count: int) -> float:
    """Microseconds for one look-up, the best of several rounds."""
    router, switch = node.kernel.switch.router, node.kernel.switch
    wanted = [f"{prefix(number * 7_919 % count)}.account.more".encode() for number in range(10_000)]
    best = 1e9
    for _ in range(7):
        start = time.process_time()
        for destination in wanted:
            router.find(switch, destination)
        best = min(best, time.process_time() - start)
    return best / len(wanted) * 1e6


def longest_turn_ms(node: Node, *, changes: bool) -> float:
    """The longest call while packets pass, with a thousand changed routes among them or without."""
    node.settle()
    node.longest = 0.0
    for turn in range(TURNS):
        events = node.prepares()
        if changes and turn % 100 == 50:
            part = CHANGES // (TURNS // 100)
            first = turn // 100 * part
            events.append(node.update(first, first + part, "test.elsewhere"))
        node.turn(events)
    return node.longest * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefixes", type=int, default=PREFIXES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    prefixes = options.prefixes
    gc.collect()
    gc.freeze()  # what a node does once it runs, with its thresholds: collections are among its gaps
    gc.set_threshold(*GC_THRESHOLDS)
    small, big = Node(), Node()
    small.learn(100)
    tracemalloc.start()
    big.learn(prefixes)
    each = tracemalloc.get_traced_memory()[0] / prefixes
    tracemalloc.stop()
    pairs = [(lookup_us(small, 100), lookup_us(big, prefixes)) for _ in range(options.rounds)]
    rounds = [(longest_turn_ms(big, changes=False), longest_turn_ms(big, changes=True)) for _ in range(options.rounds)]
    result: dict[str, Any] = {
        "build": build_kind(),
        "prefixes": prefixes,
        "rounds": options.rounds,
        "bytes_per_prefix": round(each),
        "lookup_us": {
            "of 100": str(estimate([few for few, _ in pairs])),
            "of all": str(estimate([all_of_them for _, all_of_them in pairs])),
            "ratio": str(estimate([all_of_them / few for few, all_of_them in pairs])),
        },
        "longest_turn_ms": {
            "quiet": str(estimate([quiet for quiet, _ in rounds])),
            "changing": str(estimate([changing for _, changing in rounds])),
            "growth": str(estimate([changing - quiet for quiet, changing in rounds])),
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
