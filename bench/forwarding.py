"""Forwarding between two BTP accounts: packets/s and latencies, targets interleaved in one run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import isthmus_node, targets
from bench.estimate import Estimate, estimate
from bench.fire import fire
from bench.load import Measured

TARGETS = {**targets.TARGETS, **isthmus_node.TARGETS}


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


async def one(name: str, *, packets: int, window: int) -> Measured:
    """A fresh target, one run."""
    async with TARGETS[name]() as target:
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
