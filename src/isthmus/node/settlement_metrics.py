"""Metrics of settlements and engines, read when Prometheus asks."""

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from isthmus.connector.books import settled_name
from isthmus.connector.settling import OPEN_STATES, SETTLEMENT_BOUNDS_MS, STATES
from isthmus.node.histograms import histogram
from isthmus.runtime import clock
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner
from isthmus.settlement.channels import Channel, ChannelKeeper


class SettlementCollector(Collector):
    """Of one node."""

    def __init__(self, driver: Driver, engines: EngineRunner) -> None:
        self._driver: Final = driver
        self._engines: Final = engines

    def collect(self) -> Iterable[Metric]:
        tally = self._driver.kernel.switch.settlement_tally
        events = CounterMetricFamily(
            "isthmus_settlements",
            "Settlements of an account: begun, taken, confirmed, ended, failed, reversed; credited, undone.",
            labels=["account", "event"],
        )
        for (account, what), count in sorted(tally.counts.items()):
            events.add_metric([account, what], count)
        yield events
        yield from self._open()
        yield self._latency()
        yield from self._of_engines()
        yield from self._channels()

    def _open(self) -> Iterable[Metric]:
        """What is under way, and how old it is: one that gets old is worth an alarm."""
        books = self._driver.kernel.books
        wall = clock.system_now().wall_ms
        under_way = GaugeMetricFamily(
            "isthmus_settlements_open", "Settlements of ours that are not at their end.", labels=["account", "state"]
        )
        oldest = GaugeMetricFamily(
            "isthmus_settlement_oldest_seconds", "The age of the oldest that is not at its end.", labels=["account"]
        )
        settled = GaugeMetricFamily(
            "isthmus_settled",
            "What the peer paid us by settlements, less what we paid it, in base units.",
            labels=["account", "asset", "scale"],
        )
        for account in books.peers.values():
            if account.settling is None:
                continue
            found = list(account.settling.open.values())
            for state in OPEN_STATES:
                count = sum(1 for one in found if one.state == state)
                under_way.add_metric([account.name, STATES[state]], count)
            age_ms = max((wall - one.begun_at for one in found), default=0)
            oldest.add_metric([account.name], max(0, age_ms) / 1000)
            against = books.internal.get(settled_name(account.name))
            labels = [account.name, account.asset_code, str(account.asset_scale)]
            settled.add_metric(labels, 0 if against is None else against.balance)
        yield from (under_way, oldest, settled)

    def _latency(self) -> Metric:
        tally = self._driver.kernel.switch.settlement_tally
        words = "From a settlement's begin to its end."
        return histogram("isthmus_settlement_seconds", words, SETTLEMENT_BOUNDS_MS, tally.latency, tally.latency_sum_ms)

    def _of_engines(self) -> Iterable[Metric]:
        works = GaugeMetricFamily("isthmus_engine_works", "1 once the engine has started.", labels=["engine"])
        alarms = CounterMetricFamily("isthmus_engine_alarms", "Warnings and errors of an engine.", labels=["engine"])
        words = "Alarms of an engine that are not over."
        standing = GaugeMetricFamily("isthmus_engine_alarms_standing", words, labels=["engine"])
        for one in self._engines.engines():
            works.add_metric([one.name], int(one.works))
            alarms.add_metric([one.name], one.alarm_count)
            standing.add_metric([one.name], sum(alarm.over_at is None for alarm in one.alarms.values()))
        yield from (works, alarms, standing)

    def _channels(self) -> Iterable[Metric]:
        """What would be lost if a channel ended unredeemed, and how long there is until then."""
        labels = ["account", "engine", "direction", "unit", "scale"]
        words = "What channels hold, in the ledger's units."
        capacity = GaugeMetricFamily("isthmus_channels_capacity", words, labels=labels)
        unredeemed = GaugeMetricFamily(
            "isthmus_channels_unredeemed", "Signed, and not redeemed on the ledger, in its units.", labels=labels
        )
        ends = GaugeMetricFamily(
            "isthmus_channel_ends_seconds",
            "Until the first of the channels that close has ended; none close without a value.",
            labels=["account", "engine", "direction"],
        )
        wall = clock.system_now().wall_ms
        for one in self._engines.engines():
            keeper = one.engine
            if not one.works or not isinstance(keeper, ChannelKeeper):
                continue
            for account in one.accounts:
                by_way: dict[str, list[Channel]] = {}
                for each in keeper.channels(account):
                    by_way.setdefault(each.direction, []).append(each)
                for way, found in by_way.items():
                    values = [account, one.name, way, found[0].unit.code, str(found[0].unit.scale)]
                    capacity.add_metric(values, sum(each.capacity for each in found))
                    unredeemed.add_metric(values, sum(each.unredeemed for each in found))
                    closing = [each.ends_at for each in found if each.ends_at is not None]
                    if closing:
                        ends.add_metric(values[:3], max(0, min(closing) - wall) / 1000)
        yield from (capacity, unredeemed, ends)
