"""Small networks that are written by hand: two wallets, two or three connectors, one thing that goes wrong."""

from fractions import Fraction

from isthmus.sim import plan as p
from isthmus.sim.plan import FaultPlan, LinkPlan, NodePlan, PaymentPlan, Plan
from isthmus.sim.world import Result, World


def fault(
    kind: str, target: str, *, at_ms: int = 700, lasts_ms: int = 1_500, value: int = 0, number: int = 1
) -> FaultPlan:
    return FaultPlan(number=number, kind=kind, at_ms=at_ms, lasts_ms=lasts_ms, target=target, value=value)


def network(
    *,
    faults: tuple[FaultPlan, ...] = (),
    vice: str = "",
    at: str = "c2",
    carrier: str = p.BTP,
    asynchronous: bool = False,
    skew_ms: int = 0,
    value: int = 3_000,
    seed: int = 1,
) -> Plan:
    """w1 - c1 - c2 - c3 - w2, with `vice` at one of them, and a payment each way."""
    nodes = [
        NodePlan(name="c1", kind=p.CONNECTOR, spread=Fraction(1, 500), seed=seed),
        NodePlan(name="c2", kind=p.CONNECTOR, seed=seed + 1),
        NodePlan(name="c3", kind=p.CONNECTOR, spread=Fraction(1, 100), skew_ms=skew_ms, seed=seed + 2),
        NodePlan(name="w1", kind=p.WALLET, home="c1", asset="USD", timeout_ms=8_000, seed=seed + 3),
        NodePlan(name="w2", kind=p.WALLET, home="c3", asset="EUR", timeout_ms=8_000, seed=seed + 4),
    ]
    nodes = [
        NodePlan(
            name=one.name, kind=one.kind, home=one.home, asset=one.asset, skew_ms=one.skew_ms, spread=one.spread,
            timeout_ms=one.timeout_ms, seed=one.seed, vice=vice if one.name == at else "", vice_rate=40,
        )
        for one in nodes
    ]  # fmt: skip
    links = (
        LinkPlan(a="c2", b="c1", asset="BTC", carrier=carrier, asynchronous=asynchronous, delay_ms=12, jitter_ms=3),
        LinkPlan(a="c3", b="c2", asset="XRP", delay_ms=7, jitter_ms=0, seed=2),
        LinkPlan(a="w1", b="c1", asset="USD", delay_ms=3, jitter_ms=1, packet_max=100, seed=3),
        LinkPlan(a="w2", b="c3", asset="EUR", delay_ms=5, jitter_ms=1, packet_max=100, seed=4),
    )
    payments = (
        payment(1, "w1", "w2", value=value),
        payment(2, "w2", "w1", value=value, deliver=True, at_ms=520),
    )
    return Plan(seed=seed, nodes=tuple(nodes), links=links, payments=payments, faults=faults)


def payment(
    number: int, payer: str, payee: str, *, value: int, deliver: bool = False, at_ms: int = 500, key: str | None = None
) -> PaymentPlan:
    return PaymentPlan(
        number=number, payer=payer, payee=payee, at_ms=at_ms, value=value, deliver=deliver, slack=10,
        key=f"key {number}" if key is None else key,
    )  # fmt: skip


def run(plan: Plan) -> tuple[World, Result]:
    world = World(plan)
    return world, world.run()
