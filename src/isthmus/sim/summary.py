"""What is kept of a run in a sweep, as plain JSON values; many of them added up; and what a sweep must reach."""

import gc
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, final

from isthmus.sim import plan as p
from isthmus.sim.coverage import Coverage
from isthmus.sim.kinds import PLAIN, SETTLE, plan_of
from isthmus.sim.world import Result, World

Json: TypeAlias = dict[str, Any]

NODES_MIN: Final = 4
PACKETS_MIN: Final = 300
FAULTS_MIN: Final = 8
CRASHES_MIN: Final = 1
# From so many seeds on every kind of fault must have been met.
SEEDS_FOR_ALL_KINDS: Final = 200
FINDINGS_KEPT: Final = 10  # of one seed: the first ones tell most
_FAILURE: Final = ("seed", "findings", "findings_count", "shortfalls", "command")
_TOTALS: Final = ("nodes", "packets", "hops", "faults", "crashes", "losses", "virtual_ms")


def run_seed(seed: int, *, kind: str = PLAIN) -> Json:
    """Run one seed of a kind and sum it up.

    For worker processes: everything in and out can be pickled.
    """
    # A run makes many objects that live to its end: to look through them again and again is a tenth of its time.
    gc.disable()
    try:
        return _run(plan_of(kind, seed))
    finally:
        gc.enable()
        gc.collect(0)  # all that is garbage is young
        if kind == SETTLE:
            gc.collect(1)  # but for what coroutines held while they were closed by that


def _run(plan: p.Plan) -> Json:
    world = World(plan)
    result = world.run()
    world.close()
    return summary_of(result)


def summary_of(result: Result) -> Json:
    """A run as JSON."""
    findings = [
        {"kind": one.kind, "node": one.node, "text": one.text, "amount": str(one.amount)}
        for one in result.findings[:FINDINGS_KEPT]
    ]
    return {
        "seed": result.plan.seed,
        **{name: getattr(result, name) for name in _TOTALS},
        "payments": result.payments,
        "findings": findings,
        "findings_count": len(result.findings),
        "shortfalls": _shortfalls(result),
        "coverage": result.coverage.groups,
        "command": result.plan.command,
    }


def _shortfalls(result: Result) -> list[str]:
    """Where a seed is smaller than a seed must be; a plan that was shrunk may be as small as it likes."""
    if result.plan.left_out:
        return []
    packets = result.plan.packets_min if result.plan.ledgers else PACKETS_MIN
    least = {"nodes": NODES_MIN, "packets": packets, "faults": FAULTS_MIN, "crashes": CRASHES_MIN}
    return [
        f"{getattr(result, name)} {name}, not {minimum}"
        for name, minimum in least.items()
        if getattr(result, name) < minimum
    ]


@final
class Tally:
    """Summaries added up."""

    def __init__(self, *, kind: str = PLAIN) -> None:
        self._kind: Final = kind
        self.seeds = 0
        self.totals: Final[dict[str, int]] = dict.fromkeys(_TOTALS, 0)
        self.payments: Final[dict[str, int]] = {}
        self.coverage: Final = Coverage()
        self.failures: Final[list[Json]] = []  # seeds with findings, or too small, by number

    def add(self, one: Mapping[str, Any]) -> None:
        self.seeds += 1
        for name in _TOTALS:
            self.totals[name] += one[name]
        for how, times in one["payments"].items():
            self.payments[how] = self.payments.get(how, 0) + times
        self.coverage.add(one["coverage"])
        if one["findings"] or one["shortfalls"]:
            self.failures.append(
                {key: one[key] for key in ("seed", "findings", "findings_count", "shortfalls", "command")}
            )
            self.failures.sort(key=lambda failure: int(failure["seed"]))

    @property
    def never_hit(self) -> list[str]:
        """Kinds of faults and vices that a sweep of this size must have met, and didn't."""
        if self.seeds < SEEDS_FOR_ALL_KINDS:
            return []
        if self._kind == SETTLE:
            return [*self.coverage.missing("fault", p.LEDGER_FAULTS), *self.coverage.missing("vice", p.SETTLE_VICES)]
        # Networks by CCP have other vices, and needn't meet each kind of fault.
        return [*self.coverage.missing("fault"), *self.coverage.missing("vice")] if self._kind == PLAIN else []

    @property
    def is_good(self) -> bool:
        return not self.failures and not self.never_hit

    def to_json(self) -> Json:
        return {
            "seeds": self.seeds,
            **self.totals,
            "payments": dict(sorted(self.payments.items())),
            "failures": self.failures,
            "never_hit": self.never_hit,
            "coverage": {group: dict(sorted(counts.items())) for group, counts in self.coverage.groups.items()},
        }
