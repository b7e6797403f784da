"""From a seed to a plan. Everything is drawn here, in one order, so that a plan doesn't depend on what a run does."""

from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Final

from isthmus.sim import plan as p
from isthmus.sim.plan import FaultPlan, LinkPlan, NodePlan, PaymentPlan, Plan

PACKETS_MIN: Final = 305
FAULTS_MIN: Final = 9
FAULTS_MAX: Final = 15
_CONNECTORS: Final = (2, 2, 2, 3, 3, 3, 4, 4, 5, 6)
_WALLETS: Final = (2, 3, 3, 4)
_HOP_MS: Final = 1_000  # the margin that each connector takes from an expiry
# In so many networks out of a hundred, one clock is wrong by more than any margin and any wait for an answer.
_FAR_CLOCKS: Final = 10


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = Random(seed)
    nodes, links = _network(rng)
    nodes = _far_clock(seed, _vices(rng, nodes))
    payments = draw_payments(rng, nodes)
    faults = draw_faults(rng, nodes, links, payments)
    return Plan(
        seed=seed,
        nodes=tuple(nodes),
        links=tuple(links),
        payments=tuple(payments),
        faults=tuple(faults),
        packets_min=PACKETS_MIN,
    )


def _network(rng: Random) -> tuple[list[NodePlan], list[LinkPlan]]:
    """Connectors as a random tree, sometimes with one link more; wallets at random connectors."""
    connectors = [f"c{number}" for number in range(1, rng.choice(_CONNECTORS) + 1)]
    wallets = [f"w{number}" for number in range(1, rng.choice(_WALLETS) + 1)]
    codes = list(p.ASSETS)
    spreads = {name: Fraction(rng.choice((0, 0, 1, 2, 5, 10)), 1_000) for name in connectors}
    links: list[LinkPlan] = []
    for number, name in enumerate(connectors[1:], 1):
        links.append(draw_peering(rng, name, connectors[rng.randrange(number)], rng.choice(codes)))
    if len(connectors) > 2 and rng.random() < 0.3:
        a, b = rng.sample(connectors, 2)
        if not any({link.a, link.b} == {a, b} for link in links):
            links.append(draw_peering(rng, a, b, rng.choice(codes)))
    nodes = [draw_node(rng, name, p.CONNECTOR, spread=spreads[name]) for name in connectors]
    # The first two wallets are at both ends of the network, so that most packets have a way to go.
    homes = [connectors[0], connectors[-1], *(rng.choice(connectors) for _ in wallets[2:])]
    timeout_ms = _HOP_MS * len(connectors) + rng.choice((2_500, 4_000, 6_000, 12_000))
    for name, home in zip(wallets, homes, strict=True):
        code = rng.choice(codes)
        nodes.append(draw_node(rng, name, p.WALLET, home=home, asset=code, timeout_ms=timeout_ms))
        links.append(draw_uplink(rng, name, home, code))
    return nodes, links


def _far_clock(seed: int, nodes: list[NodePlan]) -> list[NodePlan]:
    """Drawn beside the rest, which stays as it is. Packets get the time to pass such a node all the same."""
    rng = Random(f"a far clock for {seed}")
    if rng.randrange(100) >= _FAR_CLOCKS:
        return nodes
    far = rng.choice([node for node in nodes if node.is_honest])
    skew_ms = rng.choice((-1, 1)) * rng.randint(5_500, 9_000)
    nodes = [replace(node, timeout_ms=node.timeout_ms + 8_000) if node.timeout_ms else node for node in nodes]
    return [replace(node, skew_ms=skew_ms) if node.name == far.name else node for node in nodes]


# What follows is also what networks by CCP are drawn from (`draw_routes`).


def draw_node(
    rng: Random,
    name: str,
    kind: str,
    *,
    home: str = "",
    asset: str = "",
    spread: Fraction = Fraction(0),
    timeout_ms: int = 0,
) -> NodePlan:
    skewed = rng.random() < 0.25
    return NodePlan(
        name=name,
        kind=kind,
        home=home,
        asset=asset,
        skew_ms=rng.randint(-1_500, 1_500) if skewed else rng.randint(-20, 20),
        sync_ms=rng.choice((1, 2, 3, 5, 9)),
        spread=spread,
        timeout_ms=timeout_ms,
        seed=rng.getrandbits(62),
    )


def draw_peering(rng: Random, a: str, b: str, asset: str) -> LinkPlan:
    return LinkPlan(
        a=a,
        b=b,
        asset=asset,
        carrier=rng.choice((p.BTP, p.BTP, p.HTTP)),
        delay_ms=rng.randint(2, 40),
        jitter_ms=rng.choice((0, 2, 5, 20)),
        credit=rng.choice((None, 1_000_000, 20_000, 4_000)),
        packet_max=rng.choice((None, None, 900, 250)),
        packets_per_minute=rng.choice((None, None, None, 6_000)),
        value_per_second=rng.choice((None, None, None, 30_000)),
        asynchronous=rng.random() < 0.5,
        seed=rng.getrandbits(62),
    )


def draw_uplink(rng: Random, wallet: str, home: str, asset: str) -> LinkPlan:
    return LinkPlan(
        a=wallet,
        b=home,
        asset=asset,
        delay_ms=rng.randint(1, 30),
        jitter_ms=rng.choice((0, 1, 5)),
        credit=rng.choice((None, None, 1_000_000, 30_000)),
        packet_max=rng.choice((100, 150, 200)),
        packets_per_minute=rng.choice((None, None, None, 12_000)),
        seed=rng.getrandbits(62),
    )


def _vices(rng: Random, nodes: list[NodePlan]) -> list[NodePlan]:
    """In most networks somebody is bad; never more than one of a few, so that honest neighbours are left to compare."""
    if rng.random() < 0.35:
        return nodes
    connectors = [node for node in nodes if node.kind == p.CONNECTOR]
    wallets = [node for node in nodes if node.kind == p.WALLET]
    # Two connectors: if one of them is bad, hardly a pair of honest neighbours is left.
    of_wallet = len(connectors) == 2 or rng.random() < 0.45
    if of_wallet and len(wallets) < 3:
        return nodes
    bad = rng.choice(wallets[2:] if of_wallet else connectors)
    vice = rng.choice(p.WALLET_VICES if of_wallet else p.CONNECTOR_VICES)
    rate = rng.choice((8, 20, 50))
    return [replace(node, vice=vice, vice_rate=rate) if node is bad else node for node in nodes]


def draw_payments(rng: Random, nodes: list[NodePlan]) -> list[PaymentPlan]:
    wallets = [node for node in nodes if node.kind == p.WALLET]
    payments: list[PaymentPlan] = []
    for number in range(1, rng.randint(6, 8) + 1):
        if number <= 2:
            payer, payee = wallets[:2] if number == 1 else wallets[1::-1]
        else:
            payer, payee = rng.sample(wallets, 2)
        payments.append(
            PaymentPlan(
                number=number,
                payer=payer.name,
                payee=payee.name,
                at_ms=rng.randint(300, 9_000),
                value=rng.randint(1_800, 4_800),
                deliver=rng.random() < 0.5,
                slack=rng.choice((3, 10, 25)),
                key=f"key {number}" if rng.random() < 0.8 else "",
            )
        )
    return payments


def draw_faults(
    rng: Random, nodes: list[NodePlan], links: list[LinkPlan], payments: list[PaymentPlan]
) -> list[FaultPlan]:
    honest = [node.name for node in nodes if node.is_honest]
    faults = [_node_fault(rng, 1, p.CRASH, rng.choice(honest), payments)]
    has_http = any(link.carrier == p.HTTP for link in links)
    for number in range(2, rng.randint(FAULTS_MIN, FAULTS_MAX) + 1):
        kinds = [*p.LINK_FAULTS, *p.NODE_FAULTS, p.CRASH, *p.CONNECTOR_FAULTS, *(p.HTTP_FAULTS if has_http else ())]
        kind = rng.choice(kinds)
        if kind in p.LINK_FAULTS:
            faults.append(_link_fault(rng, number, kind, list(links), payments))
        elif kind in p.HTTP_FAULTS:
            faults.append(_link_fault(rng, number, kind, [one for one in links if one.carrier == p.HTTP], payments))
        elif kind in p.NODE_FAULTS:
            faults.append(_node_fault(rng, number, kind, rng.choice(nodes).name, payments))
        else:
            connectors = [node.name for node in nodes if node.kind == p.CONNECTOR]
            faults.append(_node_fault(rng, number, kind, rng.choice(connectors), payments))
    return faults


def _moment(rng: Random, payments: list[PaymentPlan]) -> int:
    """Most things go wrong while a payment is on its way."""
    return rng.choice(payments).at_ms + rng.randint(50, 900)


def _link_fault(rng: Random, number: int, kind: str, links: list[LinkPlan], payments: list[PaymentPlan]) -> FaultPlan:
    lasts_ms = {
        p.CUT: rng.choice((0, 0, 300, 4_000, 20_000)),  # no dialling meanwhile
        p.REPLACE: 0,
        p.PARTITION: rng.choice((200, 2_000, 9_000, 30_000)),
        p.HALF_OPEN: rng.choice((500, 3_000, 12_000)),
        p.SLOW_PEER: rng.choice((300, 2_000, 15_000)),
    }.get(kind, rng.randint(300, 4_000))
    return FaultPlan(
        number=number,
        kind=kind,
        at_ms=_moment(rng, payments),
        lasts_ms=lasts_ms,
        target=rng.choice(links).name,
        value=rng.choice((5, 20, 60)) if kind in p.HTTP_FAULTS else rng.randint(50, 1_500),
    )


def _node_fault(rng: Random, number: int, kind: str, node: str, payments: list[PaymentPlan]) -> FaultPlan:
    if kind == p.CLOCK_JUMP:
        value = rng.choice((-1, 1)) * rng.choice((50, 900, 5_000, 3_600_000))
    elif kind == p.SLOW_DISK:
        value = rng.choice((60, 300, 900, 2_500))  # ms a sync
    elif kind == p.RATE:
        value = rng.choice((-20, -4, -1, 1, 4, 20))  # percent
    else:
        value = rng.randrange(100)
    lasts_ms = {
        p.CRASH: rng.choice((1, 50, 700, 3_000, 9_000, 25_000)),
        p.SLOW_DISK: rng.choice((500, 3_000)),
        p.CLOCK_JUMP: rng.choice((0, 0, 2_000)),  # back again after this, if it isn't 0
        p.RATE: rng.choice((400, 5_000)),
        p.DRY: rng.choice((400, 3_000)),
    }.get(kind, rng.choice((1, 200, 3_000)))
    return FaultPlan(
        number=number, kind=kind, at_ms=_moment(rng, payments), lasts_ms=lasts_ms, target=node, value=value
    )
