"""From a seed to a network that settles: at banks, by transfers on chains, by payment channels.

Credit is small, so that nothing moves for long without settlement, and ledgers fail in the middle of it.
"""

from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Final

from isthmus.sim import draw
from isthmus.sim import plan as p
from isthmus.sim.plan import ASSETS, FaultPlan, LedgerPlan, LinkPlan, NodePlan, PaymentPlan, Plan, SettlePlan

PAYMENTS: Final = 4
PACKETS_MIN: Final = 100
START_MS: Final = 4_000  # by then engines have told each other where they are to be paid
_CONNECTORS: Final = (2, 2, 3, 3, 4)
_WALLETS: Final = (2, 2, 3)
_KINDS: Final = (p.BANK, p.TRANSFERS, p.CHANNELS)
_LEDGER_FAULTS: Final = (3, 6)
_CLAIMANTS: Final = 0.3


def draw_settle(seed: int) -> Plan:
    """The plan of a seed; its stream of random numbers is its own."""
    rng = Random(f"settle {seed}")
    nodes, links = _network(rng)
    links, ledgers = _ledgers(rng, nodes, links)
    nodes = _vices(rng, nodes, links)
    payments = [
        replace(one, at_ms=one.at_ms + START_MS, value=one.value // 2)
        for one in draw.draw_payments(rng, nodes)[:PAYMENTS]
    ]
    faults = draw.draw_faults(rng, nodes, links, payments)
    faults += _faults(rng, len(faults) + 1, nodes, ledgers, payments)
    return Plan(
        seed=seed,
        nodes=tuple(nodes),
        links=tuple(links),
        payments=tuple(payments),
        faults=tuple(faults),
        packets_min=PACKETS_MIN,
        ledgers=tuple(ledgers),
    )


def _network(rng: Random) -> tuple[list[NodePlan], list[LinkPlan]]:
    """A chain or tree of connectors, wallets at both ends of it."""
    connectors = [f"c{number}" for number in range(1, rng.choice(_CONNECTORS) + 1)]
    wallets = [f"w{number}" for number in range(1, rng.choice(_WALLETS) + 1)]
    codes = list(ASSETS)
    links = [
        replace(
            draw.draw_peering(rng, name, connectors[rng.randrange(number)], rng.choice(codes)),
            packets_per_minute=None,
            value_per_second=None,
            packet_max=rng.choice((None, 250)),
        )
        for number, name in enumerate(connectors[1:], 1)
    ]
    nodes = [
        draw.draw_node(rng, name, p.CONNECTOR, spread=Fraction(rng.choice((0, 1, 5)), 1_000)) for name in connectors
    ]
    homes = [connectors[0], connectors[-1], *(rng.choice(connectors) for _ in wallets[2:])]
    timeout_ms = 1_000 * len(connectors) + rng.choice((4_000, 6_000, 12_000))
    for name, home in zip(wallets, homes, strict=True):
        code = rng.choice(codes)
        nodes.append(draw.draw_node(rng, name, p.WALLET, home=home, asset=code, timeout_ms=timeout_ms))
        links.append(replace(draw.draw_uplink(rng, name, home, code), packets_per_minute=None))
    return nodes, links


def _ledgers(rng: Random, nodes: list[NodePlan], links: list[LinkPlan]) -> tuple[list[LinkPlan], list[LedgerPlan]]:
    """Where links settle: most of those between connectors, half of the wallets'. One ledger of a kind and asset."""
    ledgers: dict[str, LedgerPlan] = {}
    wallets = {node.name for node in nodes if node.kind == p.WALLET}
    found: list[LinkPlan] = []
    for number, link in enumerate(links):
        is_uplink = link.a in wallets
        if number and rng.random() >= (0.5 if is_uplink else 0.85):
            found.append(replace(link, credit=rng.choice((None, 30_000))))
            continue
        kind = rng.choice(_KINDS)
        name = f"{kind} {link.asset}"
        if name not in ledgers:
            ledgers[name] = _ledger(rng, name, kind, link.asset)
        ends = _prepaid(rng) if is_uplink else _postpaid(rng)
        found.append(replace(link, ledger=name, settle_a=ends[0], settle_b=ends[1]))
    return found, list(ledgers.values())


def _ledger(rng: Random, name: str, kind: str, asset: str) -> LedgerPlan:
    scale = ASSETS[asset][0].scale
    return LedgerPlan(
        name=name,
        kind=kind,
        asset=asset,
        decimals=scale + rng.choice((-2, 0, 0, 3)),
        deposit=rng.choice((500, 2_000, 6_000)),
        claim_above=rng.choice((0, 0, 700)),
        seed=rng.getrandbits(62),
    )


def _postpaid(rng: Random) -> tuple[SettlePlan, SettlePlan]:
    """Two connectors: each trusts the other with so much, and settles before it must be stopped. One may pay ahead."""
    ahead = rng.choice((0, 0, 0, rng.randint(100, 800)))
    first, second = rng.randint(200, 600), ahead + rng.randint(200, 600)
    ends = (
        _end(rng, threshold=first, target=-ahead or rng.choice((0, first // 3)), trusted=second),
        _end(rng, threshold=second, target=rng.choice((ahead, (ahead + second) // 2)), trusted=first),
    )
    return ends if rng.random() < 0.5 else ends[::-1]


def _prepaid(rng: Random) -> tuple[SettlePlan, SettlePlan]:
    """A wallet, which pays ahead for what it sends, and its connector, which pays out what comes in besides."""
    ahead = rng.randint(600, 2_500)
    threshold = ahead + rng.randint(200, 600)
    wallet = _end(rng, threshold=-ahead // 3, target=-ahead, trusted=threshold)
    connector = _end(rng, threshold=threshold, target=ahead, trusted=0)
    return wallet, replace(connector, receivable=rng.choice((0, 0, 300)))


def _end(rng: Random, *, threshold: int, target: int, trusted: int) -> SettlePlan:
    """`trusted`: from what the other owes on, it settles. It must be trusted with more."""
    return SettlePlan(
        threshold=threshold,
        target=target,
        receivable=trusted + rng.choice((400, 1_500, 6_000)),
        minimum=rng.choice((0, 0, 50)),
        amount_max=rng.choice((None, None, 400)),
        knows_scale=rng.random() < 0.6,
    )


def _vices(rng: Random, nodes: list[NodePlan], links: list[LinkPlan]) -> list[NodePlan]:
    """In half of the networks one who settles does it badly, and in some somebody is bad otherwise."""
    if rng.random() < 0.4:
        return nodes
    connectors = [node for node in nodes if node.kind == p.CONNECTOR]
    wallets = [node for node in nodes if node.kind == p.WALLET]
    settling = {name for link in links if link.ledger for name in (link.a, link.b)}
    candidates = [node for node in [*connectors, *wallets[2:]] if node.name in settling]
    if len(connectors) == 2:
        candidates = [node for node in candidates if node in wallets] or candidates
    if not candidates:
        return nodes
    bad = rng.choice(candidates)
    kinds = {link.ledger.partition(" ")[0] for link in links if bad.name in (link.a, link.b) and link.ledger}
    vice = rng.choice([one for one in p.SETTLE_VICES if _is_possible(one, kinds)])
    if p.CHANNELS in kinds and rng.random() < _CLAIMANTS:
        vice = p.BAD_CLAIMS  # there are many kinds of these
    return [replace(node, vice=vice, vice_rate=50) if node is bad else node for node in nodes]


def _is_possible(vice: str, kinds: set[str]) -> bool:
    if vice == p.BAD_CLAIMS:
        return p.CHANNELS in kinds
    if vice == p.DOUBLE_SPENDS:
        return bool(kinds & {p.TRANSFERS, p.CHANNELS})
    return True


def _faults(
    rng: Random, first: int, nodes: list[NodePlan], ledgers: list[LedgerPlan], payments: list[PaymentPlan]
) -> list[FaultPlan]:
    """Ledgers fail while somebody pays, and somebody dies in the middle of a settlement."""
    faults: list[FaultPlan] = []
    honest = [node.name for node in nodes if node.is_honest]
    for number in range(first, first + rng.randint(*_LEDGER_FAULTS)):
        ledger = rng.choice(ledgers)
        kinds = p.BANK_FAULTS if ledger.kind == p.BANK else p.CHAIN_FAULTS
        kind = rng.choice((*kinds, *((p.CHANNEL_CLOSED,) if ledger.kind == p.CHANNELS else ()), p.CRASH))
        is_at_node = kind in (p.CHANNEL_CLOSED, p.CRASH)
        faults.append(
            FaultPlan(
                number=number,
                kind=kind,
                at_ms=rng.choice(payments).at_ms + rng.randint(500, 12_000),
                lasts_ms=_lasts_ms(rng, kind),
                target=rng.choice(honest) if is_at_node else ledger.name,
                value=rng.randint(1, 8) if kind in (p.REORGANISED, p.FORGOTTEN) else rng.randrange(30, 100),
            )
        )
    return faults


def _lasts_ms(rng: Random, kind: str) -> int:
    return {
        p.AWAY: rng.choice((900, 6_000, 30_000)),
        p.LATE: rng.choice((5_000, 20_000)),
        p.CRASH: rng.choice((1, 700, 9_000)),
    }.get(kind, 0)
