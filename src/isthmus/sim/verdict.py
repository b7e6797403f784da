"""After a run: the evidence for the auditor, taken from disks, wallets and the network, and what it says of it."""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from hashlib import sha256
from math import ceil
from typing import TYPE_CHECKING, Final

from isthmus.connector.books import DEAF
from isthmus.connector.events import AccountId
from isthmus.sim import plan as p
from isthmus.sim.agenda import WALL_START_MS
from isthmus.sim.auditor import Report, examine
from isthmus.sim.claims import assets_of, balances_of
from isthmus.sim.evidence import Cut, Down, End, Evidence, Flow, Journal, Mark, Paid, Received, Skew, Terms, Wire
from isthmus.sim.plan import unit_value
from isthmus.sim.rows import rows_of
from isthmus.sim.wallet import Wallet

if TYPE_CHECKING:
    from isthmus.sim.node import Node
    from isthmus.sim.world import World

# What a link may take to come up again after a fault: two pings to notice, and the longest pause between two calls.
RECONNECT_MS_MAX: Final = 60_000
# One payment hardly has more packets.
PACKETS_MAX: Final = 200


def judge(world: "World") -> Report:
    """Replay everything, and let the auditor look at it."""
    for node in world.nodes.values():
        if node.process is not None:
            world.check_replay(node)
            _check_hearing(world, node)
        if isinstance(node, Wallet):
            _check_promises(world, node)
    return examine(evidence_of(world))


def _check_hearing(world: "World", node: "Node") -> None:
    """No fault makes an honest neighbour one that takes no reports: what it must hear would be forgotten."""
    assert node.process is not None
    for line in node.lines:
        peer = world.plan.node(line.other(node.name))
        account = node.process.kernel.books.peers[AccountId(node.account_of(line))]
        if node.plan.is_honest and peer.is_honest and account.hearing == DEAF:
            world.found("deaf", node.name, f"it takes {peer.name} for another implementation, and tells it no outcomes")


def _check_promises(world: "World", wallet: Wallet) -> None:
    """What a user was told came in is still there, whatever crashed since."""
    for connection, seen in wallet.seen.items():
        known = wallet.ledger.receipts.get(connection)
        total = 0 if known is None else known.total
        if total < seen:
            world.found("promise", wallet.name, f"its user was told of {seen}, and {total} are in its ledger")
    for wish in world.plan.payments:
        if wish.key and wish.payer == wallet.name:
            paid = [one for one in wallet.ledger.payments.values() if one.terms == str(wish) and one.sent + one.unknown]
            if len(paid) > 1:
                world.found("promise", wallet.name, f"{wish} has one key, and was begun {len(paid)} times")


def flows_of(world: "World") -> list[Flow]:
    """What was settled where, as the ledgers have it; nothing in networks without any."""
    if not world.ledgers:
        return []
    from isthmus.sim.flows import flows

    return list(flows(world))


def evidence_of(world: "World") -> Evidence:
    """The network as it stands, in the auditor's terms."""
    nodes = [node for node in world.nodes.values() if node.disk.journal is not None]
    wallets = [node for node in nodes if isinstance(node, Wallet)]
    return Evidence(
        journals=[_journal(world, node) for node in nodes],
        wires=[_wire(world, link) for link in world.plan.links],
        paid=[one for wallet in wallets for one in _paid(world, wallet)],
        received=[
            Received(node=wallet.name, connection=connection.hex(), amount=receipts.total)
            for wallet in wallets
            for connection, receipts in wallet.ledger.receipts.items()
        ],
        downs=_downs(world),
        cuts=_cuts(world),
        skews=_skews(world),
        # A change that ends is one back; several on a path add up.
        rates_rose=2 * sum(abs(fault.value) for fault in world.plan.faults if fault.kind == p.RATE),
        told=world.told,
        terms={end: terms for node in nodes for end, terms in _terms(node)},
        rates={key: rate for node in nodes for key, rate in _rates(world, node)},
        flows=flows_of(world),
        dishonest=frozenset(node.name for node in world.plan.nodes if not node.is_honest),
        forgers=frozenset(node.name for node in world.plan.nodes if node.vice == p.FORGE),
    )


def _journal(world: "World", node: "Node") -> Journal:
    journal = node.disk.journal
    assert journal is not None
    rows = list(rows_of(journal.read_from(1)))
    for entry, times in Counter(row["entry"] for row in rows).items():
        world.coverage.enter("entry", entry, times)
    for reason, times in Counter(row["reason"] for row in rows if row["entry"] == "void").items():
        world.coverage.enter("void", reason, times)
    books = None if node.process is None else node.process.kernel.books
    return Journal(
        node=node.name,
        rows=rows,
        # What it says of itself, once all is on the disk that it speaks of.
        balances=[] if books is None or node.disk.waiting or books.has_entries() else balances_of(books),
        assets=[] if books is None or node.disk.waiting or books.has_entries() else assets_of(books),
        marks=[Mark(at, sequence) for at, sequence in node.marks],
    )


def _terms(node: "Node") -> Iterator[tuple[End, Terms]]:
    """As they are now, without any fault that takes liquidity away."""
    for agreed in node.tables().accounts.values():
        yield (
            End(node.name, agreed.id),
            Terms(
                agreed.receivable_max,
                agreed.payable_max,
                agreed.expiry_margin_ms,
                agreed.hold_ms_max,
                agreed.settle.ahead_max,
            ),
        )


def _rates(world: "World", node: "Node") -> Iterator[tuple[tuple[str, str, str], Fraction]]:
    """The plan's prices less its spread; nothing for a node whose rates change in the middle."""
    plan = world.plan
    if any(fault.kind == p.RATE and fault.target == node.name for fault in plan.faults):
        return
    for one in p.ASSETS:
        for other in p.ASSETS:
            rate = unit_value(one) / unit_value(other) * (1 - node.plan.spread)
            yield (node.name, f"{one}:{p.ASSETS[one][0].scale}", f"{other}:{p.ASSETS[other][0].scale}"), rate


def _wire(world: "World", link: p.LinkPlan) -> Wire:
    line = world.lines[link.name]
    a, b = world.nodes[link.a], world.nodes[link.b]
    return Wire(End(a.name, a.account_of(line)), End(b.name, b.account_of(line)))


def _paid(world: "World", wallet: Wallet) -> list[Paid]:
    return [
        Paid(
            node=wallet.name,
            payee=payment.target,
            id=payment.id,
            sent=payment.sent,
            unknown=payment.unknown,
            delivered=payment.delivered,
            delivered_max=payment.delivered_max,
            at_price=ceil((payment.sent + payment.unknown) * world.path_rate(wallet.name, payment.target)),
            slack=PACKETS_MAX * max(1, int(_coarsest_unit() / unit_value(payment.asset_code))),
            connection=sha256(payment.destination.rpartition(".")[2].encode()).digest()[:16].hex(),
        )
        for payment in wallet.ledger.payments.values()
    ]


def _coarsest_unit() -> Fraction:
    """Each packet is rounded down to a unit of each asset on its way: this much at most, in dollars."""
    return max(unit_value(code) for code in p.ASSETS)


# --- what was broken, by whoever broke it ----------------------------------------------------------------------------


def _downs(world: "World") -> list[Down]:
    downs = [
        Down(node.name, _wall(start), _wall(world.agenda.now if end < 0 else end))
        for node in world.nodes.values()
        for start, end in node.downs
    ]
    return downs + [Down(node, _wall(start), _wall(end)) for node, start, end in world.stalls]


def _cuts(world: "World") -> list[Cut]:
    """From a fault until the link was up again, but no longer than that may take."""
    last = world.plan.quiet_at + RECONNECT_MS_MAX
    return [
        Cut(line.plan.a, line.plan.b, _wall(start), _wall(min(last, world.agenda.now if end < 0 else end)))
        for line in world.lines.values()
        for start, end in line.gaps
        if start < last
    ]


def _skews(world: "World") -> list[Skew]:
    """Until the clocks are set right, each is off by what the plan says at most, and so is what was written by it."""
    skews = []
    longest_ms = max(node.timeout_ms for node in world.plan.nodes)
    for node in world.plan.nodes:
        jumps = [fault.value for fault in world.plan.faults if fault.kind == p.CLOCK_JUMP and fault.target == node.name]
        most = abs(node.skew_ms) + sum(abs(jump) for jump in jumps)
        if most > 100:
            skews.append(Skew(node.name, _wall(0), _wall(world.plan.quiet_at + longest_ms + most), most))
    return skews


def _wall(at: int) -> int:
    return WALL_START_MS + at
