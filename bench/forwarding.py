"""Forwarding between two BTP accounts: packets/s and latencies, targets interleaved in one run."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from bench.estimate import Estimate, estimate
from bench.load import Measured
from bench.targets import ROOT, TARGETS, Target

RUN_SECONDS_MAX = 300.0


@dataclass(slots=True)
class Series:
    """All runs of one target at one window."""

    target: str
    window: int
    runs: list[Measured] = field(default_factory=list)

    def rate(self) -> Estimate:
        return estimate([run.packets_per_second for run in self.runs])

    def p50_ms(self) -> Estimate:
        return estimate([run.p50_ms for run in self.runs])

    def p99_ms(self) -> Estimate:
        return estimate([run.p99_ms for run in self.runs])


async def fire(target: Target, *, packets: int, window: int, warm_up: int = 2_000) -> Measured:
    """One run of the load generator, in a process of its own. All packets must have been delivered and fulfilled."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load"),
        *("--sender", target.sender_url, "--receiver", target.receiver_url),
        *("--destination", target.destination, "--packets", str(packets)),
        *("--window", str(window), "--warm-up", str(warm_up)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), RUN_SECONDS_MAX)
    if process.returncode:
        raise RuntimeError(f"the load generator failed on {target.name} at window {window}")
    measured = Measured(**json.loads(out))
    if measured.received != packets or measured.rejects:
        raise RuntimeError(f"{target.name} at window {window}: {measured}")
    return measured


async def one(name: str, *, packets: int, window: int) -> Measured:
    """A fresh target, one run."""
    start: Callable[[], AbstractAsyncContextManager[Target]] = TARGETS[name]
    async with start() as target:
        return await fire(target, packets=packets, window=window)


async def compare(
    names: Sequence[str],
    *,
    windows: Sequence[int],
    packets: Callable[[str, int], int],
    rounds: int,
    tell: Callable[[str], None],
) -> dict[tuple[str, int], Series]:
    """`rounds` runs of each target at each window, interleaved: what disturbs the machine disturbs all alike."""
    series = {(name, window): Series(name, window) for window in windows for name in names}
    for window in windows:
        for number in range(rounds):
            # Turned by one each round, so that no target always follows the same other one.
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                measured = await one(name, packets=packets(name, window), window=window)
                series[name, window].runs.append(measured)
                tell(
                    f"window {window}, round {number + 1}: {name} {measured.packets_per_second:,.0f} packets/s, "
                    f"p50 {measured.p50_ms:.2f} ms, p99 {measured.p99_ms:.2f} ms"
                )
    return series


def ratio(of: Series, to: Series) -> Estimate:
    """Packets/s of one target by those of the other, pair by pair in the order of the rounds."""
    pairs = zip(of.runs, to.runs, strict=True)
    return estimate([a.packets_per_second / b.packets_per_second for a, b in pairs])
