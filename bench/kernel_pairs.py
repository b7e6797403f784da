"""The kernel alone, in process: Prepare and Fulfill pairs a second, every packet different, no journal and no sockets.

    python bench/kernel_pairs.py [--pairs 200000] [--window 1000] [--profile] [--rate] [--limits]

A peer account sends Prepares with 32 bytes of data to another, which fulfils them (both are other implementations);
appends are durable at once. The figure is the processor time inside `Kernel.handle` alone: Inbounds are built before,
frames are only counted.
"""

import argparse
import cProfile
import gc
import pstats
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256

from isthmus.connector.events import AccountId, Append, Durable, Effect, Event, Inbound, LinkUp, Now, Release
from isthmus.connector.kernel import Kernel
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import Fulfill, Prepare, encode_fulfill, encode_prepare

WALL = 1_800_000_000_000
ALICE = AccountId("alice")
BOB = AccountId("bob")


def make_kernel(*, rate: bool, limits: bool) -> Kernel:
    usd = Asset("USD", 9)
    terms = [_terms(ALICE, usd), _terms(BOB, Asset("EUR", 6) if rate else usd)]
    if limits:
        terms = [
            replace(one, packets_per_minute=10**9, amount_per_second=10**15, in_flight_max=10**15) for one in terms
        ]
    rates = RateTable({("USD", "EUR"): Fraction("0.9237")}, spread=Fraction("0.002")) if rate else RateTable({})
    tables = Tables(
        "test.node", {one.id: one for one in terms}, RouteTable({"test.alice": ALICE, "test.bob": BOB}), rates
    )
    kernel = Kernel(bytes(32))
    kernel.opened(Now(WALL, 0))
    commit(
        kernel,
        kernel.handle([TablesChanged(tables), LinkUp(ALICE, is_other=True), LinkUp(BOB, is_other=True)], Now(WALL, 0)),
        0,
    )
    return kernel


def _terms(account: AccountId, asset: Asset) -> AccountTerms:
    return AccountTerms(id=account, asset=asset, relation="peer", receivable_max=10**18, payable_max=10**18)


def commit(kernel: Kernel, effects: Sequence[Effect], mono: int) -> tuple[list[Release], int, float]:
    """Play the journal: durable at once. Returns what was released, the bytes appended, and the time it took."""
    releases: list[Release] = []
    journaled = 0
    spent = 0.0
    while effects:
        durable: list[Event] = []
        for effect in effects:
            if isinstance(effect, Append):
                journaled += len(effect.record)
                durable = [Durable(effect.sequence)]
            elif isinstance(effect, Release):
                releases.append(effect)
        if not durable:
            break
        start = time.thread_time()
        effects = kernel.handle(durable, Now(WALL + mono, mono))
        spent += time.thread_time() - start
    return releases, journaled, spent


def run(
    pairs: int, window: int, kernel: Kernel, *, mono: int = 0, to: Sequence[str] = ("test.bob.x7Rk",)
) -> tuple[float, float]:
    """Microseconds and bytes of journal a pair. The Prepares go `to` these addresses in turn, all of them Bob's."""
    session = bytes(16)
    spent = 0.0
    journaled = fulfilled = 0
    gc.freeze()  # as a node does once it runs: else what was imported is looked through again and again
    for first in range(0, pairs, window):
        mono += 5
        ids = range(first + 1, first + window + 1)
        secrets = {number: sha256(b"%d" % number).digest() for number in ids}
        prepares: list[Event] = [
            Inbound(ALICE, session, number, _prepare(number, secrets[number], mono, to[number % len(to)]), mono)
            for number in ids
        ]
        start = time.thread_time()
        effects = kernel.handle(prepares, Now(WALL + mono, mono))
        spent += time.thread_time() - start
        releases, size, more = commit(kernel, effects, mono)
        journaled += size
        spent += more
        sent = [frame for release in releases if release.account == BOB for frame in release.frames]
        replies: list[Event] = [
            Inbound(BOB, b"", frame.request_id, encode_fulfill(Fulfill(secrets[first + at + 1])), mono + 1)
            for at, frame in enumerate(sent)
        ]
        start = time.thread_time()
        effects = kernel.handle(replies, Now(WALL + mono + 1, mono + 1))
        spent += time.thread_time() - start
        releases, size, more = commit(kernel, effects, mono + 1)
        journaled += size
        spent += more
        fulfilled += sum(len(release.frames) for release in releases if release.account == ALICE)
    assert fulfilled == pairs // window * window, fulfilled
    return spent / fulfilled * 1e6, journaled / fulfilled


def _prepare(number: int, secret: bytes, mono: int, to: str) -> bytes:
    condition = sha256(secret).digest()
    data = number.to_bytes(32, "big")
    return encode_prepare(Prepare(1_000_000 + number % 1000, WALL + mono + 30_000, condition, to, data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--window", type=int, default=1_000)
    parser.add_argument("--rate", action="store_true", help="two assets and a spread")
    parser.add_argument("--limits", action="store_true", help="packet rate, value in flight and value per second")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    kernel = make_kernel(rate=arguments.rate, limits=arguments.limits)
    if arguments.profile:
        profile = cProfile.Profile()
        profile.runcall(run, arguments.pairs, arguments.window, kernel)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    microseconds, size = run(arguments.pairs, arguments.window, kernel)
    print(f"{microseconds:.2f} µs a pair in the kernel, {size:.0f} bytes of journal a pair")


if __name__ == "__main__":
    main()
