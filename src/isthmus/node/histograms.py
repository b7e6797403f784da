"""Counts of what took how long, as Prometheus has them."""

from collections.abc import Sequence

from prometheus_client.core import HistogramMetricFamily


def histogram(
    name: str, documentation: str, bounds_ms: Sequence[int], counts: Sequence[int], sum_ms: int
) -> HistogramMetricFamily:
    """A histogram in seconds, cumulative. `counts` has one more than there are bounds: what is above all of them."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip([*bounds_ms, None], counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound is None else str(bound / 1000), total))
    family = HistogramMetricFamily(name, documentation)
    family.add_metric([], buckets, sum_value=sum_ms / 1000)
    return family
