"""Rates for Prometheus: how old each is, which pairs are stopped, how often sources failed.

The only place where a rate becomes a float, for graphs.
"""

from collections.abc import Iterable
from typing import Final, final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from isthmus.node.rates.exact import pair_text
from isthmus.node.rates.provider import Provider


@final
class RatesCollector(Collector):
    """Asks the provider when Prometheus asks."""

    def __init__(self, rates: Provider) -> None:
        self._rates: Final = rates

    def collect(self) -> Iterable[Metric]:
        labels = ["pair", "source"]
        rate = GaugeMetricFamily("isthmus_rate", "Units of the second asset for one of the first.", labels=labels)
        age = GaugeMetricFamily("isthmus_rate_age_seconds", "Since the rate was right, at its source.", labels=labels)
        stopped = GaugeMetricFamily("isthmus_pair_stopped", "1 while packets of the pair are refused.", labels=labels)
        for state in self._rates.states():
            names = [pair_text(state.codes), state.source]
            stopped.add_metric(names, int(state.stopped is not None))
            if state.rate is not None:
                rate.add_metric(names, float(state.rate))
            if state.age_ms is not None:
                age.add_metric(names, state.age_ms / 1000)
        failures = CounterMetricFamily(
            "isthmus_rate_failures", "Answers that a source failed to give.", labels=["source"]
        )
        for name, count in self._rates.board.failures.items():
            failures.add_metric([name], count)
        yield from (rate, age, stopped, failures)
