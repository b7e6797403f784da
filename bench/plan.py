"""How much is measured: all of it, or as little as shows that it runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

Tell: TypeAlias = Callable[[str], None]


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """Sizes of one run of the benchmarks."""

    rounds: int = 10  # interleaved runs of each target: what a bar within 20 % needs
    windows: tuple[int, ...] = (1, 100, 1000)
    # ilp-connector gets the fewest that the comparison asks for; what is faster gets more, so that a run lasts long
    # enough to be timed. At window 1 all get less: the rate is low, and latencies need no more.
    packets: dict[str, int] = field(default_factory=lambda: {"relay": 400_000, "ilp-connector": 50_000, "": 150_000})
    packets_one_by_one: int = 5_000
    http_packets: int = 8_000
    http_rounds: int = 2
    connections: tuple[int, ...] = (1, 16, 100)
    stream_packets: int = 10_000
    stream_rounds: int = 3
    memory_packets: tuple[int, int] = (200_000, 1_000_000)
    flood_seconds: float = 40.0
    profile_seconds: int = 10
    floods: int = 4  # how many kinds of flood
    fairness_rounds: int = 5
    fairness_seconds: float = 4.0
    prefixes: int = 100_000
    route_rounds: int = 12
    route_packets: int = 60_000
    claims: int = 2_000  # signed, verified and stored by themselves
    claim_rounds: int = 10
    claim_packets: int = 40_000
    claim_windows: tuple[tuple[str, int], ...] = (("evm", 100), ("xrp", 100), ("xrp", 1))

    def count(self, target: str, window: int) -> int:
        if window == 1:
            return self.packets_one_by_one
        return self.packets.get(target, self.packets[""])


FULL = Plan()
SMOKE = Plan(
    rounds=1,
    windows=(1, 100),
    packets={"": 2_000},
    packets_one_by_one=200,
    http_packets=300,
    http_rounds=1,
    connections=(1, 16),
    stream_packets=100,
    stream_rounds=1,
    memory_packets=(1_000, 3_000),
    flood_seconds=2.0,
    profile_seconds=2,
    floods=1,
    fairness_rounds=1,
    fairness_seconds=1.0,
    prefixes=2_000,
    route_rounds=1,
    route_packets=3_000,
    claims=100,
    claim_rounds=1,
    claim_packets=2_000,
    claim_windows=(("xrp", 100),),
)
