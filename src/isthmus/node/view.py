"""What a running node shows of itself: health, accounts, balances, routes, metrics; and corrections of its books."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from isthmus.connector.books import TAKES_REPORTS, Account
from isthmus.connector.events import Correction
from isthmus.connector.lane import Lane
from isthmus.connector.switch import LATENCY_BOUNDS_MS
from isthmus.node.admin.operation import RefusedError
from isthmus.node.build import build_kind
from isthmus.node.corrections import kind_of
from isthmus.node.histograms import histogram
from isthmus.node.rates.metrics import RatesCollector
from isthmus.node.rates.provider import Provider
from isthmus.node.settlement_metrics import SettlementCollector
from isthmus.runtime.checkpoints import open_legs
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner

Json = dict[str, Any]

# A digest costs the loop 2 µs a leg: at the bound 100 ms, well under an expiry margin, and at an operator's word only.
DIGEST_LEGS_MAX: Final = 50_000


class NodeView:
    """Implements `admin.books.View` for one running node."""

    def __init__(
        self, driver: Driver, sources: Callable[[], dict[str, str]], rates: Provider, engines: EngineRunner
    ) -> None:
        self._driver: Final = driver
        self._sources: Final = sources
        self._registry: Final = CollectorRegistry()
        self._registry.register(NodeCollector(driver))
        self._registry.register(RatesCollector(rates))
        self._registry.register(SettlementCollector(driver, engines))

    def health(self) -> Json:
        """`ok` unless the journal is behind or gone, or a link that should be up is down."""
        kernel = self._driver.kernel
        down = [lane.id for lane in self._lanes() if not (lane.up or lane.disabled or lane.closed)]
        status = "halted" if kernel.halted else "journal slow" if kernel.slow else "ok"
        return {
            "status": status,
            "address": kernel.tables.address,
            "links_down": down,
            "sequence": kernel.sequence,
            "build": build_kind(),
        }

    def accounts(self) -> list[Json]:
        sources = self._sources()
        return [{**_account(lane), "source": sources.get(lane.id, "removed")} for lane in self._lanes()]

    def balances(self) -> list[Json]:
        """Peers first, then our own accounts: what each holds, in base units; beside a peer's what it didn't pay."""
        peers = self._driver.kernel.books.peers
        return [
            {
                "account": account.name,
                "kind": "peer" if account.name in peers else "own",
                "asset_code": account.asset_code,
                "asset_scale": account.asset_scale,
                "balance": str(account.balance),
                **({"loss": str(account.loss.balance)} if account.name in peers else {}),
            }
            for account in self._driver.kernel.books.accounts
        ]

    async def digest(self) -> Json:
        """Of the books right after a durable batch: `isthmus books verify --at SEQUENCE` must give the same."""
        books = self._driver.kernel.books
        legs = open_legs(self._driver.kernel) + sum(len(account.fulfilled) for account in books.peers.values())
        if legs > DIGEST_LEGS_MAX:
            raise RefusedError(503, f"{legs} legs are open, more than {DIGEST_LEGS_MAX}; ask again later.")
        found = await self._driver.digest()
        return {"sequence": found.sequence, "digest": found.digest.hex()}

    async def correct(self, correction: Correction) -> Json:
        """Book a correction, once for its key: who asks again gets the same answer."""
        if correction.account not in self._driver.kernel.switch.lanes:
            raise RefusedError(404, "There is no such account.")
        booked = await self._driver.correct(correction)
        if booked.problem:
            raise RefusedError(409, f"It is not booked: {booked.problem}.")
        return {
            "account": correction.account,
            "kind": kind_of(correction),
            "amount": str(booked.amount),
            "key": correction.key,
        }

    def metrics(self) -> bytes:
        return generate_latest(self._registry)

    def _lanes(self) -> list[Lane]:
        return list(self._driver.kernel.switch.lanes.values())


def _account(lane: Lane) -> Json:
    account = lane.account
    terms = lane.terms
    return {
        "id": lane.id,
        "asset_code": terms.asset.code,
        "asset_scale": terms.asset.scale,
        "relation": terms.relation,
        "enabled": not (lane.disabled or lane.closed),
        "link": "closed" if lane.closed else "blocked" if lane.blocked else "up" if lane.up else "down",
        "balance": str(account.balance),
        "loss": str(account.loss.balance),
        "reserved_incoming": str(account.reserved_incoming),
        "reserved_outgoing": str(account.reserved_outgoing),
        "at_risk": str(account.at_risk),
        "fulfilled_unacknowledged": str(account.fulfilled_amount),
        "unsaid": str(sum(account.unsaid.values())),
        "takes_reports": TAKES_REPORTS[account.hearing],
        "receivable_max": None if terms.receivable_max is None else str(terms.receivable_max),
        "payable_max": None if terms.payable_max is None else str(terms.payable_max),
        "packets_in_flight": len(account.received) + len(account.sent),
        "fulfilled": lane.fulfilled,
        "rejected": dict(sorted(lane.rejected.items())),
    }


class NodeCollector(Collector):
    """Reads the kernel's counters when Prometheus asks; a packet costs nothing more for it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def collect(self) -> Iterable[Metric]:
        lanes = list(self._driver.kernel.switch.lanes.values())
        yield from _packets(lanes)
        yield from _values(lanes)
        yield from self._kernel()
        yield from self._routes()
        yield self._latency()
        yield self._commits()

    def _kernel(self) -> Iterable[Metric]:
        kernel = self._driver.kernel
        switch = kernel.switch
        ignored = CounterMetricFamily("isthmus_ignored_packets", "Packets that changed nothing.", labels=["why"])
        for why, count in (
            ("duplicate", switch.duplicates),
            ("foreign", switch.foreign),
            ("malformed", switch.malformed),
            ("late", switch.late),
        ):
            ignored.add_metric([why], count)
        yield ignored
        yield GaugeMetricFamily("isthmus_journal_sequence", "The last batch appended.", value=kernel.sequence)
        own = GaugeMetricFamily(
            "isthmus_own_balance", "Clearing and revenue accounts, in base units.", labels=["account"]
        )
        for account in kernel.books.internal.values():
            own.add_metric([account.name], account.balance)
        yield own

    def _routes(self) -> Iterable[Metric]:
        router = self._driver.kernel.switch.router
        told = GaugeMetricFamily("isthmus_routes", "Routes that an account's peer tells us now.", labels=["account"])
        for name, neighbour in router.neighbours.items():
            told.add_metric([name], len(neighbour.listener.source.candidates))
        yield told
        words = "Learned prefixes that packets are routed by."
        yield GaugeMetricFamily("isthmus_learned_prefixes", words, value=len(router.forwarding.live))
        words = "Prefixes that go back and forth between hops, so that relations don't count for them."
        yield GaugeMetricFamily("isthmus_unsteady_prefixes", words, value=len(router.rib.unsteady))

    def _latency(self) -> Metric:
        switch = self._driver.kernel.switch
        words = "From a Prepare's arrival to its Fulfill."
        return histogram("isthmus_fulfill_seconds", words, LATENCY_BOUNDS_MS, switch.latency, switch.latency_sum_ms)

    def _commits(self) -> Metric:
        commits = self._driver.commits
        words = "From a batch's append until it was durable."
        return histogram("isthmus_journal_commit_seconds", words, commits.BOUNDS_MS, commits.counts, commits.sum_ms)


def _packets(lanes: list[Lane]) -> Iterable[Metric]:
    packets = CounterMetricFamily(
        "isthmus_packets", "Prepares of an account by their outcome.", labels=["account", "result"]
    )
    relayed = CounterMetricFamily(
        "isthmus_relayed_rejects", "Rejects that an account's peer answered with.", labels=["account", "code"]
    )
    for lane in lanes:
        packets.add_metric([lane.id, "fulfilled"], lane.fulfilled)
        for code, count in sorted(lane.rejected.items()):
            packets.add_metric([lane.id, code], count)
        for code, count in sorted(lane.relayed.items()):
            relayed.add_metric([lane.id, code], count)
    yield packets
    yield relayed


def _value(account: Account, name: str) -> int:
    if name == "loss":
        return account.loss.balance
    if name == "fulfilled_unacknowledged":
        return account.fulfilled_amount
    if name == "unsaid":
        return sum(account.unsaid.values())
    return int(getattr(account, name))


def _values(lanes: list[Lane]) -> Iterable[Metric]:
    families = {
        name: GaugeMetricFamily(f"isthmus_{name}", text, labels=["account", "asset", "scale"])
        for name, text in (
            ("balance", "In base units; positive: the peer owes us."),
            ("reserved_incoming", "Value in flight from the peer, in base units."),
            ("reserved_outgoing", "Value in flight to the peer, in base units."),
            ("loss", "Fulfilled by us and void at the peer, until it is written off; counts against its limit."),
            ("fulfilled_unacknowledged", "Fulfilled by us, and not yet known to be posted by the peer."),
            ("unsaid", "Voided by us, and the peer has not confirmed that it knows."),
        )
    }
    up = GaugeMetricFamily("isthmus_link_up", "1 while the account's link is up.", labels=["account"])
    for lane in lanes:
        labels = [lane.id, lane.terms.asset.code, str(lane.terms.asset.scale)]
        for name, family in families.items():
            family.add_metric(labels, _value(lane.account, name))
        up.add_metric([lane.id], int(lane.up))
    yield from families.values()
    yield up
