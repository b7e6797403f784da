"""What ledgers moved between neighbours, and what engines keep of it: evidence for the auditor.

What was moved is the ledger's own record. Of a channel it is what the payee could have paid out: claims that the payer
has signed, as this module verifies, and that the channel holds.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from isthmus.connector.books import settled_name
from isthmus.connector.events import AccountId
from isthmus.connector.settling import BEGUN, FAILED, Settling
from isthmus.ledgers.evm.claims import signer
from isthmus.settlement.bank import records
from isthmus.settlement.bank.records import Payment
from isthmus.settlement.claiming import OUT
from isthmus.settlement.conversion import carried_of
from isthmus.settlement.evm.arrivals import OWED_BACK
from isthmus.settlement.evm.channels import IN
from isthmus.settlement.evm.incoming import Incoming
from isthmus.settlement.evm.outgoing import Outgoing
from isthmus.settlement.evm.pending import PREFIX, Pending
from isthmus.sim import plan as p
from isthmus.sim.bank import SimBank
from isthmus.sim.chain import SimChain
from isthmus.sim.evidence import End, Flow
from isthmus.sim.plan import ASSETS, LedgerPlan
from isthmus.sim.till import key_of

if TYPE_CHECKING:
    from isthmus.sim.node import Node
    from isthmus.sim.wire import Line
    from isthmus.sim.world import World

_NONE: Final = Settling()


def flows(world: "World") -> Iterator[Flow]:
    """Both ways of each link that is settled, as it stands now."""
    for line in world.lines.values():
        if line.plan.ledger:
            a, b = world.nodes[line.plan.a], world.nodes[line.plan.b]
            if a.process is not None and b.process is not None:
                yield _flow(world, line, a, b)
                yield _flow(world, line, b, a)


def unsettled(world: "World") -> Iterator[tuple[str, str]]:
    """Node and text of what must come to its end, and hasn't: settlements between honest neighbours, their credits."""
    found = list(flows(world))
    back = {flow.payee: flow for flow in found}
    for flow in found:
        payer, payee = world.nodes[flow.payer.node], world.nodes[flow.payee.node]
        if not payer.plan.is_honest:
            continue
        if flow.waits:
            yield payer.name, f"{flow.waits} units of the ledger are on their way to {payee.name}"
        net = _net(payer, flow.payer.account)
        if net != settled_between(flow, back[flow.payer]):
            yield payer.name, f"its books and the ledger don't agree yet about {payee.name}"
        if payee.plan.is_honest and _settling(payer, flow.payer.account).open:
            numbers = ", ".join(str(number) for number in _settling(payer, flow.payer.account).open)
            yield payer.name, f"settlements with {payee.name} have not ended: {numbers}"
    for ledger in world.ledgers.values():
        if isinstance(ledger, SimChain):
            for node in world.nodes.values():
                if node.plan.is_honest and ledger.waits(key_of(node).address):
                    yield node.name, "a transaction of it waits for a block"


def settled_between(out: Flow, back: Flow) -> Fraction:
    """What both ways come to by the ledger, in whole units of the asset: above zero for what the first has paid."""
    left_over, scale = back.leftover
    left = Fraction(out.moved + out.waits, 10**out.scale) + Fraction(out.untaken + out.carried, 10**out.asset_scale)
    came = Fraction(back.moved + back.owed_back, 10**back.scale) - Fraction(left_over, 10**scale)
    return left - came


def _net(node: "Node", account: str) -> Fraction:
    """The same by the books."""
    assert node.process is not None
    books = node.process.kernel.books
    settled = books.internal.get(settled_name(account))
    scale = books.peers[AccountId(account)].asset_scale
    return Fraction(0 if settled is None else -settled.balance, 10**scale)


def _settling(node: "Node", account: str) -> Settling:
    assert node.process is not None
    found = node.process.kernel.books.peers[AccountId(account)].settling
    return _NONE if found is None else found


def _flow(world: "World", line: "Line", payer: "Node", payee: "Node") -> Flow:
    plan = world.plan.ledger(line.plan.ledger)
    ledger = world.ledgers[plan.name]
    ends = End(payer.name, payer.account_of(line)), End(payee.name, payee.account_of(line))
    paying, paid = _settling(payer, ends[0].account), _settling(payee, ends[1].account)
    flow = Flow(
        *ends,
        ASSETS[line.plan.asset][0].scale,
        plan.decimals,
        0,
        untaken=sum(one.amount for one in paying.open.values() if one.state in (BEGUN, FAILED)),
        leftover=(paid.leftover, paid.leftover_scale),
    )
    if isinstance(ledger, SimBank):
        return _at_bank(flow, ledger, payer.name, payee.name, paying, paid.engine)
    assert isinstance(ledger, SimChain)
    return (_by_transfers if plan.kind == p.TRANSFERS else _by_channels)(flow, ledger, payer, payee, plan)


def _at_bank(flow: Flow, bank: SimBank, payer: str, payee: str, paying: Settling, paid: Mapping[bytes, bytes]) -> Flow:
    kept = paying.engine
    waiting = [Payment.decode(kept[records.place(records.OUT, each)]) for each in records.numbers(kept, records.OUT)]
    orders = [one.order(payer) for one in waiting]
    return flow._replace(
        moved=bank.moved(payer, payee, paid.get(records.REFERENCE, b"").decode()),
        waits=sum(one.amount for one in orders if (payer, one.key) not in bank.transfers),
        carried=carried_of(kept),
    )


def _by_transfers(flow: Flow, chain: SimChain, payer: "Node", payee: "Node", plan: LedgerPlan) -> Flow:
    kept = _settling(payer, flow.payer.account).engine
    pending = [Pending.decode(value) for key, value in kept.items() if key.startswith(PREFIX)]
    return flow._replace(
        moved=chain.moved(key_of(payer).address, key_of(payee).address),
        waits=sum(one.call.value for one in pending if not any(chain.has(name) for name in one.hashes)),
        carried=carried_of(kept),
        owed_back=int(_settling(payee, flow.payee.account).engine.get(OWED_BACK, b"0")),
    )


def _by_channels(flow: Flow, chain: SimChain, payer: "Node", payee: "Node", plan: LedgerPlan) -> Flow:
    out = Outgoing.decode(_settling(payer, flow.payer.account).engine.get(OUT))
    parties = (key_of(payer).address, key_of(payee).address)
    ended = sum(
        channel.claimed
        for terms, channel in chain.known_channels()
        if channel.has_ended and (terms.sender, terms.receiver) == parties
    )
    if payee.plan.is_honest:
        kept = _settling(payee, flow.payee.account).engine
        open_now = sum(_worth(chain, Incoming.decode(value)) for key, value in kept.items() if key.startswith(IN))
    else:
        is_there = out.terms is not None and not chain.channel(out.terms.id).has_ended
        open_now = out.signed if is_there else 0
    return flow._replace(moved=ended + open_now, waits=out.needed, carried=out.carried)


def _worth(chain: SimChain, record: Incoming) -> int:
    """What this claim is worth on the chain, if its channel has not ended: that is counted by the chain."""
    digest = chain.domain.claim_digest(record.terms.id, record.claim)
    channel = chain.channel(record.terms.id)
    if channel.has_ended or signer(digest, record.signature) != record.terms.sender:
        return 0
    return min(record.claim, channel.deposited)
