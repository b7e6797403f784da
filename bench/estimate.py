"""Medians and their uncertainty, without assumptions about the distribution (order statistics)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Estimate:
    """A median and its 95 % interval. Fewer than six values have none: low and high are then the extremes."""

    median: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def rank_for_95(count: int) -> int:
    """The greatest r such that [x(r), x(n+1-r)] covers the median with at least 95 % (binomial, 1-based); 1 if none."""
    tail = 0.0
    rank = 0
    for k in range(count):
        tail += math.comb(count, k) / 2**count  # P(fewer than k+1 values lie below the median)
        if tail > 0.025:
            break
        rank = k + 1
    return max(rank, 1)


def estimate(values: Sequence[float]) -> Estimate:
    """Median with its 95 % interval. Ten values give the second smallest and the second greatest (97.9 %)."""
    ordered = sorted(values)
    rank = rank_for_95(len(ordered))
    return Estimate(median(ordered), ordered[rank - 1], ordered[-rank], len(ordered))


def verdict(ratio: Estimate, bar: float) -> str:
    """Whether a bar is met, judged on the interval."""
    if ratio.low >= bar:
        return "met"
    if ratio.high < bar:
        return "missed"
    return "not decided"
