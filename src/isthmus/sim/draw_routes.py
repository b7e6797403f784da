"""From a seed to a network that finds its routes by CCP: rings with short cuts, so that what falls has a way around."""

from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Final

from isthmus.sim import draw
from isthmus.sim import plan as p
from isthmus.sim.plan import FaultPlan, LinkPlan, NodePlan, PaymentPlan, Plan

_CONNECTORS: Final = (3, 4, 4, 5, 5, 6, 7)
_WALLETS: Final = (2, 3, 3, 4)
# Tables are right within a second of the start; nobody pays before.
START_MS: Final = 3_000
# What lies dark so long is noticed by silence too, not only by a closed connection.
_LONG_MS: Final = (20_000, 50_000, 80_000)


def draw_routes(seed: int) -> Plan:
    """The plan of a seed; its stream of random numbers is its own."""
    rng = Random(f"routes {seed}")
    nodes, links = _network(rng)
    nodes = _vices(rng, nodes)
    payments = [replace(one, at_ms=one.at_ms + START_MS) for one in draw.draw_payments(rng, nodes)]
    faults = _faults(rng, nodes, links, payments)
    links = _parents(rng, nodes, links)
    return Plan(
        seed=seed,
        nodes=tuple(nodes),
        links=tuple(links),
        payments=tuple(payments),
        faults=tuple(faults),
        packets_min=draw.PACKETS_MIN,
        by_ccp=True,
    )


def _network(rng: Random) -> tuple[list[NodePlan], list[LinkPlan]]:
    connectors = [f"c{number}" for number in range(1, rng.choice(_CONNECTORS) + 1)]
    wallets = [f"w{number}" for number in range(1, rng.choice(_WALLETS) + 1)]
    code = rng.choice(list(p.ASSETS))
    pairs = [(name, connectors[number - 1]) for number, name in enumerate(connectors)]
    if len(connectors) == 3:
        pairs = pairs[1:] + pairs[:1]
    for _ in range(rng.choice((0, 0, 1, 2))):
        a, b = rng.sample(connectors, 2)
        if all({a, b} != set(pair) for pair in pairs):
            pairs.append((a, b))
    links = [_peering(rng, a, b, rng.choice((code, code, rng.choice(list(p.ASSETS))))) for a, b in pairs]
    nodes = [
        draw.draw_node(rng, name, p.CONNECTOR, spread=Fraction(rng.choice((0, 0, 1, 2)), 1_000)) for name in connectors
    ]
    homes = [connectors[0], connectors[len(connectors) // 2], *(rng.choice(connectors) for _ in wallets[2:])]
    timeout_ms = 1_000 * len(connectors) + rng.choice((4_000, 6_000, 12_000))
    for name, home in zip(wallets, homes, strict=True):
        asset = rng.choice(list(p.ASSETS))
        nodes.append(draw.draw_node(rng, name, p.WALLET, home=home, asset=asset, timeout_ms=timeout_ms))
        links.append(draw.draw_uplink(rng, name, home, asset))
    return nodes, links


def _peering(rng: Random, a: str, b: str, asset: str) -> LinkPlan:
    """Without tight limits: whatever falls, all may have to pass here."""
    link = draw.draw_peering(rng, a, b, asset)
    credit = rng.choice((None, None, 1_000_000))
    return replace(link, credit=credit, packets_per_minute=None, value_per_second=None)


def _vices(rng: Random, nodes: list[NodePlan]) -> list[NodePlan]:
    """In half of the networks one connector tells bad routes."""
    connectors = [node for node in nodes if node.kind == p.CONNECTOR]
    homes = {node.home for node in nodes}
    free = [node for node in connectors if node.name not in homes]
    if rng.random() < 0.5 or not free or len(connectors) < 4:
        return nodes
    bad = rng.choice(free)
    vice = rng.choice(p.ROUTE_VICES)
    rate = rng.choice((20, 50, 90))
    return [replace(node, vice=vice, vice_rate=rate) if node is bad else node for node in nodes]


def _parents(rng: Random, nodes: list[NodePlan], links: list[LinkPlan]) -> list[LinkPlan]:
    """In half of the networks the one that tells bad routes is the child of its neighbours, and leaks."""
    liars = {node.name for node in nodes if node.vice.startswith(p.TELLS_LIES)}
    if rng.random() < 0.5:
        return links
    return [
        replace(link, parent=link.b if link.a in liars else link.a) if liars & {link.a, link.b} else link
        for link in links
    ]


def _faults(rng: Random, nodes: list[NodePlan], links: list[LinkPlan], payments: list[PaymentPlan]) -> list[FaultPlan]:
    """As elsewhere, and one link and one connector of the ring that are gone for long."""
    faults = draw.draw_faults(rng, nodes, links, payments)
    first = len(faults) + 1
    connectors = [node.name for node in nodes if node.kind == p.CONNECTOR and node.is_honest]
    ring = [link.name for link in links if link.a in connectors and link.b in connectors]
    at_ms = START_MS + rng.randint(200, 9_000)
    if ring:
        kind = rng.choice((p.CUT, p.PARTITION, p.HALF_OPEN))
        target = rng.choice(ring)
        faults.append(
            FaultPlan(number=first, kind=kind, at_ms=at_ms, lasts_ms=rng.choice(_LONG_MS), target=target, value=500)
        )
    crash = FaultPlan(
        number=first + 1,
        kind=p.CRASH,
        at_ms=at_ms + rng.randint(0, 30_000),
        lasts_ms=rng.choice(_LONG_MS),
        target=rng.choice(connectors),
        value=rng.randrange(100),
    )
    return [*faults, crash]
