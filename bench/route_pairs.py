"""What learned routes cost each packet: the kernel alone, by interleaved pairs. `python -m bench.route_pairs`.

The same packets to 1,000 prefixes in turn, once by static routes and once by routes that two neighbours told (so that
there is a choice, and what packets show is noted). CPU time in `Kernel.handle`; the journal, the sockets and the loop,
which are the same for both, would make the difference smaller.
"""

import argparse
import gc
import json
from typing import Any

from bench.estimate import estimate
from bench.kernel_pairs import BOB, WALL, commit, run
from isthmus.connector.events import AccountId, Inbound, LinkUp, Now
from isthmus.connector.kernel import Kernel
from isthmus.connector.routing.price import write_price
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.ccp import Route, RouteUpdate, encode_update
from isthmus.node.build import build_kind

CARL = AccountId("carl")
SESSION = bytes(16)


def prefix(number: int) -> str:
    return f"test.n{number}.host"


def make_kernel(routes: int, *, learned: bool) -> tuple[Kernel, int]:
    """A kernel that reaches all prefixes over Bob; gives its time too."""
    exchanged = RouteTerms(send=True, receive=True) if learned else RouteTerms()
    accounts = [_terms("alice", RouteTerms()), _terms("bob", exchanged), _terms("carl", exchanged)]
    static = {} if learned else {prefix(number): BOB for number in range(routes)}
    tables = Tables("test.node", {one.id: one for one in accounts}, RouteTable(static), RateTable({}))
    kernel, mono = Kernel(bytes(32)), 1_000
    kernel.opened(Now(WALL, mono))
    links = [LinkUp(one.id, is_other=True) for one in accounts]
    commit(kernel, kernel.handle([TablesChanged(tables), *links], Now(WALL + mono, mono)), mono)
    if learned:
        for name, ppm in (("bob", 1_000), ("carl", 1_500)):
            for first in range(0, routes, 100):
                mono = _settle(kernel, mono + 150)
                update = _update(name, ppm, first, min(first + 100, routes))
                packet = Inbound(AccountId(name), SESSION, mono, update, mono)
                commit(kernel, kernel.handle([packet], Now(WALL + mono, mono)), mono)
        mono = _settle(kernel, mono)
        router = kernel.switch.router
        assert all(router.forwarding.live.get(prefix(number).encode()) == BOB for number in range(routes))
    return kernel, mono


def _terms(name: str, routes: RouteTerms) -> AccountTerms:
    return AccountTerms(
        id=AccountId(name), asset=Asset("USD", 9), relation="peer", receivable_max=10**18, payable_max=10**18,
        routes=routes,
    )  # fmt: skip


def _update(name: str, ppm: int, first: int, end: int) -> bytes:
    home = (f"test.{name}",)
    told = tuple(Route(prefix(number), home, bytes(32), (write_price(ppm),)) for number in range(first, end))
    epoch = first // 100
    table = name.encode().ljust(16)
    return encode_update(RouteUpdate(table, epoch + 1, epoch, epoch + 1, 600_000, home[0], told, ()), WALL * 2)


def _settle(kernel: Kernel, mono: int) -> int:
    """Until the tables are right; our own questions to neighbours go unanswered meanwhile."""
    end = mono + 2_000
    while mono < end:
        at = kernel.wakes_at()
        mono = end if at is None else min(end, max(at, mono + 1))
        commit(kernel, kernel.handle([], Now(WALL + mono, mono)), mono)
    return mono


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=30_000, help="Prepares with their Fulfills in each run")
    parser.add_argument("--window", type=int, default=1_000)
    parser.add_argument("--routes", type=int, default=1_000)
    arguments = parser.parse_args()
    to = [f"{prefix(number)}.x7Rk" for number in range(arguments.routes)]
    found: list[tuple[float, float]] = []
    for at in range(arguments.rounds):
        spent = {}
        for learned in (True, False) if at % 2 else (False, True):
            kernel, mono = make_kernel(arguments.routes, learned=learned)
            gc.collect()
            spent[learned] = run(arguments.pairs, arguments.window, kernel, mono=mono, to=to)[0]
        found.append((spent[False], spent[True]))
    ratio = estimate([static / learned for static, learned in found])
    result: dict[str, Any] = {
        "build": build_kind(),
        "routes": arguments.routes,
        "microseconds_a_pair": {
            "static": round(estimate([one for one, _ in found]).median, 2),
            "learned": round(estimate([one for _, one in found]).median, 2),
        },
        "speed_of_learned_by_static": str(ratio),
        "rounds": arguments.rounds,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
