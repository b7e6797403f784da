"""What settling by claims costs: forwarding with a claim every hundred packets and with every packet, and without.

    python -m bench.claims [--ledger evm|xrp] [--rounds 10] [--packets 40000] [--window 100] [--only isthmus]

Two of our nodes between the load generator's ends; the first owes the second, and settles by a payment channel on a
development ledger: `evm` is anvil (needs `make ledgers`), `xrp` is `isthmus ledger xrp-dev`. On the latter two
`ilp-connector` do the same with `ilp-plugin-xrp-paychan` on both sides (needs Node). All are interleaved, so that what
disturbs the machine disturbs all alike; ratios are taken round by round.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench import claim_costs
from bench.claim_pairs import (
    AMOUNT,
    PairMaker,
    evm_chain,
    ours_on_evm,
    ours_on_xrp,
    theirs_on_xrp,
    until_settled,
    xrp_ledger,
)
from bench.estimate import Estimate, estimate, verdict
from bench.fire import fire, generate
from bench.plan import Plan, Tell
from bench.sections import number, spread, table
from tests.ledgers.evm import anvil

OURS, THEIRS = "isthmus", "ilp-connector"
HUNDREDTH, EVERY_PACKET = 100, 1  # packets to a claim, at the least
BAR_HUNDREDTH: Final = 0.9  # of forwarding without settlement
BAR_EVERY_PACKET: Final = 3.0  # times ilp-connector with its plugin
OPENING: Final = 200  # packets one by one before anything is timed: by the first ones channels are opened and learned
# A claim costs ilp-connector milliseconds (`claim_costs`); its code is compiled after some hundred.
WARM_UP: Final = {OURS: 5_000, THEIRS: 500}
SHARE_OF_THEIRS: Final = (
    20  # it gets so much less to do where every packet makes a claim, and a quarter where none does
)
WORDS: Final = {None: "never", HUNDREDTH: "every 100 packets", EVERY_PACKET: "every packet"}


@dataclass(slots=True, frozen=True)
class Case:
    """Whose pair, and how often it settles: a threshold in packets."""

    who: str
    every: int | None

    def packets(self, packets: int) -> int:
        if self.who == OURS:
            return packets
        return max(200, packets // (SHARE_OF_THEIRS if self.every else 4))

    def __str__(self) -> str:
        return f"{self.who}, {WORDS[self.every]}"


@dataclass(slots=True)
class Runs:
    """All runs of one case."""

    rates: list[float] = field(default_factory=list)  # packets/s
    cpu_us: list[float] = field(default_factory=list)  # of both connectors together, a packet
    begun: list[float] = field(default_factory=list)  # settlements a packet
    taken: list[float] = field(default_factory=list)  # claims credited, a packet
    batches: list[float] = field(default_factory=list)  # of both journals, a packet


CASES: Final = {
    "evm": [Case(OURS, every) for every in WORDS],
    "xrp": [*(Case(OURS, every) for every in WORDS), Case(THEIRS, None), Case(THEIRS, EVERY_PACKET)],
}


async def one(case: Case, maker: PairMaker, *, packets: int, window: int, runs: Runs) -> None:
    """A fresh pair, one run. All that was owed must have been settled by its end."""
    warm_up = min(WARM_UP[case.who], packets)
    async with maker(case.every) as pair:
        opening = await generate(pair.target, "--packets", str(OPENING), "--warm-up", "0", "--window", "1")
        fulfilled = OPENING - sum(opening.rejects.values())
        before = None if case.every is None else await until_settled(pair, fulfilled * AMOUNT, case.every)
        written = None if pair.batches is None else await pair.batches()
        measured = await fire(pair.target, packets=packets, window=window, warm_up=warm_up)
        if pair.batches is not None and written is not None:
            runs.batches.append((await pair.batches() - written) / (packets + warm_up))
        runs.rates.append(measured.packets_per_second)
        runs.cpu_us.append(measured.processor_seconds / packets * 1e6)
        if before is not None and case.every is not None:
            since = packets + warm_up
            after = await until_settled(pair, (fulfilled + since) * AMOUNT, case.every)
            runs.begun.append((after.begun - before.begun) / since)
            runs.taken.append((after.taken - before.taken) / since)


async def compare(
    ledger: str, *, rounds: int, packets: int, window: int, tell: Tell, cases: Sequence[Case] = ()
) -> dict[Case, Runs]:
    """All cases of a ledger, interleaved."""
    cases = cases or CASES[ledger]
    found = {case: Runs() for case in cases}
    if ledger == "evm":
        async with evm_chain() as chain:
            makers = {OURS: ours_on_evm(chain)}
            await interleave(found, makers, rounds=rounds, packets=packets, window=window, tell=tell)
    else:
        async with xrp_ledger() as xrp:
            makers = {OURS: ours_on_xrp(xrp), THEIRS: theirs_on_xrp(xrp)}
            await interleave(found, makers, rounds=rounds, packets=packets, window=window, tell=tell)
    return found


async def interleave(
    found: dict[Case, Runs], makers: dict[str, PairMaker], *, rounds: int, packets: int, window: int, tell: Tell
) -> None:
    cases = list(found)
    for round_number in range(rounds):
        turn = round_number % len(cases)  # so that no case always follows the same other one
        for case in [*cases[turn:], *cases[:turn]]:
            runs = found[case]
            await one(case, makers[case.who], packets=case.packets(packets), window=window, runs=runs)
            tell(f"round {round_number + 1}: {case}: {runs.rates[-1]:,.0f} packets/s, {runs.cpu_us[-1]:,.0f} µs each")


# --- what is told ----------------------------------------------------------------------------------------------------


def ratio(of: Sequence[float], to: Sequence[float]) -> Estimate:
    return estimate([a / b for a, b in zip(of, to, strict=True)])


def text_of(ledger: str, found: dict[Case, Runs], *, packets: int, window: int) -> str:
    rows = []
    for case, runs in found.items():
        counts = (runs.begun, runs.taken, runs.batches)
        settled = [f"{estimate(each).median:.3g}" if each else "-" for each in counts]
        cells = [spread(estimate(runs.rates)), spread(estimate(runs.cpu_us)), *settled]
        rows.append([case.who, WORDS[case.every], f"{case.packets(packets):,}", *cells])
    head = ["", "claims are due", "packets a run", "packets/s", "µs of processor a packet"]
    head += ["settlements", "claims", "batches"]
    rounds = len(next(iter(found.values())).rates)
    text = f"### {'EVM (anvil)' if ledger == 'evm' else 'XRP (isthmus ledger xrp-dev)'}, window {window}\n\n"
    text += f"{rounds} interleaved rounds. Settlements begun, claims credited, batches journaled by both: a packet.\n\n"
    return text + table(head, rows) + "\n" + ratios(found)


def ratios(found: dict[Case, Runs]) -> str:
    """Against forwarding without settlement, and against the other implementation."""
    never, every, theirs = Case(OURS, None), Case(OURS, EVERY_PACKET), Case(THEIRS, EVERY_PACKET)
    pairs: list[tuple[Case, Case, float | None]] = [
        (Case(OURS, HUNDREDTH), never, BAR_HUNDREDTH),
        (every, never, None),
        (every, theirs, BAR_EVERY_PACKET),
        (theirs, Case(THEIRS, None), None),
    ]
    rows = []
    for of, to, bar in pairs:
        if of in found and to in found:
            rates = ratio(found[of].rates, found[to].rates)
            cpu = ratio(found[to].cpu_us, found[of].cpu_us)
            judged = "-" if bar is None else f"at least {number(bar)}: {verdict(rates, bar)}"
            rows.append([str(of), str(to), spread(rates), spread(cpu), judged])
    return table(["", "by", "packets/s", "packets by processor time", "bar (packets/s)"], rows)


SAID: Final = (
    "Two connectors, one process each, the load generator's sender at the first and its receiver at the second; "
    "packets of 1,000 units, a drop at scale 9. `isthmus` commits to SQLite (synchronous=FULL): each settlement "
    "before its claim is signed, each claim in the step that credits it. A commit that leaves as much owed as the "
    "threshold begins a settlement of all that is owed, and the newest claim stands for all settlements that came "
    "while one was on its way: packets that arrive together share a claim, and at window 1 each has its own if the "
    "one before has arrived. `ilp-connector` 23.0.2 with an unmodified `ilp-plugin-xrp-paychan` 2.4.1 on both sides "
    "keeps everything in memory. It has `settleThreshold` 0 and `settleTo` 0: each Fulfill calls `sendMoney` with "
    "its packet's amount, which signs a claim and sends it in a Transfer of its own, waiting for none before. "
    "Claims that overtake each other on the way are refused as lower before they are verified, and the highest "
    "covers them: with many packets in flight few are verified. `claimInterval`, how often the plugin redeems on "
    "the ledger, is an hour: no redemption comes into a run.\n\n"
)


async def section(plan: Plan, tell: Tell) -> str:
    """For RESULTS.md."""
    text = "## Claims\n\n" + await claim_costs.costs(plan.claims) + "\n" + SAID
    for ledger, window in plan.claim_windows:
        if ledger == "evm" and anvil.missing() is not None:
            text += f"No EVM chain: {anvil.missing()}.\n\n"
            continue
        packets = plan.claim_packets if window > 1 else plan.claim_packets // 20
        found = await compare(ledger, rounds=plan.claim_rounds, packets=packets, window=window, tell=tell)
        text += text_of(ledger, found, packets=packets, window=window) + "\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", choices=CASES, default="evm")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--packets", type=int, default=40_000)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--only", choices=(OURS, THEIRS), help="the pairs of one implementation")
    options = parser.parse_args()
    cases = [case for case in CASES[options.ledger] if options.only in (None, case.who)]
    sizes = {"packets": options.packets, "window": options.window}

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found = asyncio.run(compare(options.ledger, rounds=options.rounds, tell=tell, cases=cases, **sizes))
    print(text_of(options.ledger, found, **sizes))


if __name__ == "__main__":
    main()
