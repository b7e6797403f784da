"""The auditor: reads the exported books of a whole network, and says what is wrong with them.

It shares no code with the books that it judges, and believes no node about itself. It adds up every journal anew from
its rows, lays the journals of neighbours beside each other leg by leg, follows each packet from the wallet that paid
to the wallet that was paid, and compares both with what the wallets tell their users. What a node wrote off as lost
is held against the log of faults: `permits.py` has the rule.

    findings = audit(Evidence(journals=…, wires=…, paid=…, received=…, downs=…))

No finding means, when the network is quiet: each journal sums to zero in every asset; each pair of neighbours has the
same balance with opposite signs; each packet moved money once on both sides of every link that it crossed, or
nowhere; nobody was debited for what nobody got; nobody was credited twice; nothing is left reserved; and every unit
that somebody lost, the faults permit.

Long runs are audited in parts, since journals are pruned: `examine` also returns an `Opening`, which goes into the
next part's evidence. A part must end quiet, and export before the rows after its opening are pruned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple, final

from isthmus.sim.agreed import breaches, told_early
from isthmus.sim.evidence import End, Evidence, Journal, Leg, Opening, Paid, State
from isthmus.sim.permits import why_not
from isthmus.sim.settled import exposed, unexplained
from isthmus.sim.tally import Tally

# A packet that passes more nodes than this goes in circles.
HOPS_MAX: Final = 32


class Finding(NamedTuple):
    """One thing that is wrong. `kind` is one of a few words to count by; `amount` what is at stake, in base units."""

    kind: str
    node: str
    text: str
    amount: int = 0

    def __str__(self) -> str:
        return f"{self.node}: {self.kind}: {self.text}"


class Loss(NamedTuple):
    """What a node wrote off, and the faults permit."""

    node: str
    peer: str
    amount: int
    asset: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What an audit came to."""

    findings: list[Finding]
    losses: list[Loss] = field(default_factory=list)
    packets: int = 0  # legs between neighbours that were laid beside each other
    fulfilled: int = 0  # those that both sides posted
    closing: Opening = field(default_factory=Opening)


def audit(evidence: Evidence) -> list[Finding]:
    """All that is wrong with these books; nothing, one hopes."""
    return examine(evidence).findings


def examine(evidence: Evidence) -> Report:
    """The same, with figures, and the opening for the next part of a long run."""
    return _Audit(evidence).report()


@final
class _Audit:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence: Final = evidence
        self.opening: Final = evidence.opening or Opening()
        self.journals: Final = {one.node: one for one in evidence.journals}
        self.tallies: Final[dict[str, Tally]] = {}
        self.found: Final[list[Finding]] = []
        self.losses: Final[list[Loss]] = []
        self.packets = 0
        self.fulfilled = 0
        self._faces: Final[dict[End, End]] = {}
        for left, right in evidence.wires:
            self._faces[left], self._faces[right] = right, left
        self._got: Final[dict[str, Leg]] = {}  # condition → the first leg with it that a wallet fulfilled
        self._across: Final[dict[Leg, Leg]] = {}  # outgoing leg → the neighbour's incoming one
        self._left = dict(self.opening.left)
        self._credited = dict(self.opening.credited)
        self._arrived = dict(self.opening.arrived)
        self._unpaid = dict(self.opening.unpaid)

    def report(self) -> Report:
        for journal in self.evidence.journals:
            self._add_up(journal)
        for left, right in self.evidence.wires:
            self._lay_beside(left, right)
            self._lay_beside(right, left)
            self._weigh(left, right)
        self._check_settlements()
        for tally in self.tallies.values():
            self._check_node(tally)
        for leg in self._received_here():
            # A liar may pay the same packet again and again: its money, and no second credit.
            first = self._got.setdefault(leg.condition, leg)
            if first is leg or not self.evidence.dishonest:
                self._credited[leg.node] = self._credited.get(leg.node, 0) + leg.amount
        for leg in self._paid_here():
            self._follow(leg)
        self._check_wallets()
        return Report(
            findings=self.found,
            losses=self.losses,
            packets=self.packets,
            fulfilled=self.fulfilled,
            closing=self._closing(),
        )

    def _find(self, kind: str, node: str, text: str, amount: int = 0) -> None:
        self.found.append(Finding(kind, node, text, amount))

    # --- each journal by itself ---------------------------------------------------------------------------------

    def _add_up(self, journal: Journal) -> None:
        opening, node = self.opening, journal.node
        tally = Tally(
            node,
            sequence=opening.sequences.get(node, 0),
            balances=opening.balances.get(node, {}),
            terms={end.account: terms for end, terms in self.evidence.terms.items() if end.node == node},
        )
        for leg in opening.legs:
            if leg.node == node:
                tally.legs[leg.id] = leg
        tally.take(journal)
        tally.compare(journal)
        self.tallies[node] = tally
        if node not in self.evidence.dishonest:
            for kind, text in tally.problems:
                self._find(kind, node, text)

    def _check_node(self, tally: Tally) -> None:
        """Each packet moves money on both of its legs or on none; nothing stays reserved."""
        node = tally.node
        if node in self.evidence.dishonest:
            return
        for leg, text in told_early(self.evidence, self.journals[node], tally.legs.values()):
            self._find("early", node, text, leg.amount)
        for leg in tally.legs.values():
            if leg.is_incoming and leg.partner is not None and leg.state is not leg.partner.state:
                text = f"{leg} is {leg.state.value}, and {leg.partner} {leg.partner.state.value}"
                self._find("forward", node, text, leg.amount)
            if leg.is_incoming and leg.partner is not None:
                for kind, text in breaches(self.evidence, self.journals[node], leg, leg.partner):
                    self._find(kind, node, text, leg.amount)
            if leg.state is State.OPEN and self.evidence.is_quiet:
                self._find("open", node, f"{leg} is still reserved", leg.amount)
            if leg.lost:
                self._judge(tally, leg)

    def _judge(self, tally: Tally, leg: Leg) -> None:
        """A loss: of the side that fulfilled, not more than the leg, and permitted by the faults."""
        node = tally.node
        peer = self._faces.get(End(node, leg.account))
        if not leg.is_incoming or leg.state is not State.POSTED or peer is None:
            self._find("loss", node, f"{leg} is written off, and was never owed to us", leg.lost)
        elif leg.lost > leg.amount:
            self._find("loss", node, f"{leg.lost} is written off of {leg}, which was for {leg.amount}", leg.lost)
        elif self._is_judged(peer.node):
            why = why_not(self.evidence, self.journals[node], leg, peer.node)
            if why:
                self._find("loss", node, f"{leg} is written off: {why}", leg.lost)
            else:
                self.losses.append(Loss(node, peer.node, leg.lost, leg.asset))
        else:
            self.losses.append(Loss(node, peer.node, leg.lost, leg.asset))

    def _is_judged(self, node: str) -> bool:
        return node in self.tallies and node not in self.evidence.dishonest

    # --- neighbours ---------------------------------------------------------------------------------------------

    def _lay_beside(self, sender: End, receiver: End) -> None:
        """Every Prepare that went this way: the sender's outgoing legs and the receiver's incoming ones."""
        if sender.node not in self.tallies or receiver.node not in self.tallies:
            return
        sent: dict[tuple[str, int], Leg] = {}
        for leg in self.tallies[sender.node].legs.values():
            if leg.account == sender.account and not leg.is_incoming:
                if (leg.session, leg.request_id) in sent and self._is_judged(sender.node):
                    self._find("identity", sender.node, f"{leg} has the request id of another one", leg.amount)
                sent[leg.session, leg.request_id] = leg
        names: dict[str, Leg] = {}  # as HTTP calls them, made when one is first asked for
        taken: dict[Leg, list[Leg]] = {}
        for leg in self.tallies[receiver.node].legs.values():
            if leg.account == receiver.account and leg.is_incoming:
                origin = sent.get((leg.session, leg.request_id))
                if origin is None:
                    names = names or {_http_name(*name): one for name, one in sent.items()}
                    origin = names.get(leg.session)
                if origin is not None:
                    taken.setdefault(origin, []).append(leg)
                elif self._is_judged(sender.node) and self._is_judged(receiver.node):
                    text = f"{leg} came from {sender.node}, whose books don't have it: it was sent before it was kept"
                    self._find("unsent", receiver.node, text, leg.amount)
        for origin in sent.values():
            found = taken.get(origin, [])
            self.packets += 1
            if found:
                self._across[origin] = next((leg for leg in found if leg.state is State.POSTED), found[-1])
            if self._is_judged(sender.node) and self._is_judged(receiver.node):
                self._compare(origin, found)

    def _compare(self, sent: Leg, taken: list[Leg]) -> None:
        """One Prepare on both sides of a link."""
        for leg in taken:
            same = (leg.amount, leg.asset, leg.condition, leg.expires_at)
            if same != (sent.amount, sent.asset, sent.condition, sent.expires_at):
                self._find("leg", leg.node, f"{leg} has other terms than {sent}", leg.amount)
        posted = [leg for leg in taken if leg.state is State.POSTED]
        if len(posted) > 1:
            self._find("twice", posted[1].node, f"{posted[1]} was posted before, as {posted[0]}", posted[1].amount)
        if sent.state is State.POSTED:
            self.fulfilled += 1
            if not posted:
                state = taken[-1].state.value if taken else "unknown"
                if self.evidence.is_quiet or state != "open":
                    text = f"{sent} is posted, and {state} in the books of {self._peer(sent)}"
                    self._find("disagreement", sent.node, text, sent.amount)
            elif posted[0].lost:
                self._find("loss", posted[0].node, f"{posted[0]} is written off, and was paid", posted[0].lost)
        elif posted and sent.state is State.VOID:
            self._compare_refused(sent, posted[0])

    def _compare_refused(self, sent: Leg, posted: Leg) -> None:
        """The receiver fulfilled, the sender voided: the receiver knows that it lost, or the books disagree."""
        if posted.lost != posted.amount and self.evidence.is_quiet:
            text = f"{posted} is posted, and void ({sent.reason}) in the books of {sent.node}"
            self._find("disagreement", posted.node, text, posted.amount)
        if sent.reason != "expired":
            # The side that fulfilled bears the loss of a late word, and of nothing else.
            text = f"{sent} is void ({sent.reason}), and {posted.node} fulfilled it"
            self._find("refused", sent.node, text, sent.amount)

    def _peer(self, leg: Leg) -> str:
        peer = self._faces.get(End(leg.node, leg.account))
        return "nobody" if peer is None else peer.node

    def _weigh(self, left: End, right: End) -> None:
        """The same balance with opposite signs, once nothing is on its way."""
        if not (self.evidence.is_quiet and self._is_judged(left.node) and self._is_judged(right.node)):
            return
        ours = self._owed_for_packets(left)
        theirs = self._owed_for_packets(right)
        if ours != -theirs:
            text = f"{ours} with {right.node}, which has {theirs} with {left.node}: they differ by {ours + theirs}"
            self._find("balance", left.node, text, abs(ours + theirs))

    def _owed_for_packets(self, end: End) -> int:
        """The balance as it would be if nothing had been settled: that is compared with the ledger."""
        tally, account = self.tallies[end.node], end.account
        settled = tally.paid.get(account, 0) - tally.credited.get(account, 0)
        return tally.balances.get(account, 0) - settled

    def _check_settlements(self) -> None:
        """What left and came into the books for settlement is what ledgers moved; and nobody trusted too much."""
        for flow in self.evidence.flows:
            paid = self.tallies[flow.payer.node].paid if self._is_judged(flow.payer.node) else None
            credited = self.tallies[flow.payee.node].credited if self._is_judged(flow.payee.node) else None
            for node, text in unexplained(
                flow,
                paid=None if paid is None else paid.get(flow.payer.account, 0),
                credited=None if credited is None else credited.get(flow.payee.account, 0),
            ):
                if self.evidence.is_quiet:
                    self._find("settlement", node, text)
            tally = self.tallies.get(flow.payee.node)
            terms = self.evidence.terms.get(flow.payee)
            if tally is not None and credited is not None and terms is not None:
                account = flow.payee.account
                text = exposed(tally.balances.get(account, 0), tally.undone.get(account, 0), terms)
                if text:
                    self._find("exposed", flow.payee.node, f"{flow.payer.node} {text}")

    # --- packets from end to end --------------------------------------------------------------------------------

    def _paid_here(self) -> Iterator[Leg]:
        return self._at_ends(is_incoming=True)

    def _received_here(self) -> Iterator[Leg]:
        """What wallets fulfilled, as receivers."""
        return (leg for leg in self._at_ends(is_incoming=False) if leg.state is State.POSTED)

    def _at_ends(self, *, is_incoming: bool) -> Iterator[Leg]:
        for tally in self.tallies.values():
            for leg in tally.legs.values():
                if leg.is_incoming is is_incoming and End(tally.node, leg.account) not in self._faces:
                    yield leg

    def _follow(self, origin: Leg) -> None:
        """A wallet's own packet, to its other end."""
        last = self._last_of(origin)
        is_known = last.is_incoming or End(last.node, last.account) not in self._faces
        arrived = not last.is_incoming and is_known and last.state is State.POSTED
        if not arrived and self.evidence.dishonest:
            # A liar may have carried it on under another name, or again after it had failed.
            found = self._got.get(origin.condition)
            if found is not None:
                last, arrived = found, True
        pair = (origin.node, last.node)
        if origin.state is State.POSTED:
            self._left[origin.node] = self._left.get(origin.node, 0) + origin.amount
            if arrived:
                self._arrived[pair] = self._arrived.get(pair, 0) + last.amount
            elif self._is_judged(last.node) and (is_known or self._is_judged(self._peer(last))):
                text = f"{origin} was debited, and nobody got it: its way ends with {last}, {last.state.value}"
                if self.evidence.is_quiet or last.state is State.VOID:
                    self._find("debited", origin.node, text, origin.amount)
        elif arrived:
            self._unpaid[pair] = self._unpaid.get(pair, 0) + last.amount

    def _last_of(self, leg: Leg) -> Leg:
        """The last leg that this packet has in anybody's books."""
        for _ in range(HOPS_MAX):
            onward = leg.partner if leg.is_incoming else self._across.get(leg)
            if onward is None:
                return leg
            leg = onward
        self._find("forward", leg.node, f"{leg} goes in circles", leg.amount)
        return leg

    # --- what wallets say ---------------------------------------------------------------------------------------

    def _check_wallets(self) -> None:
        if not self.evidence.is_quiet:
            return
        evidence = self.evidence
        for node in dict.fromkeys(one.node for one in evidence.paid):
            if self._is_judged(node):
                self._check_sender(node)
        received: dict[str, int] = {}
        connections: dict[tuple[str, str], int] = {}
        for one in evidence.received:
            received[one.node] = received.get(one.node, 0) + one.amount
            connections[one.node, one.connection] = one.amount
        for node, amount in received.items():
            booked = self._credited.get(node, 0)
            if self._is_judged(node) and amount != booked:
                text = f"its wallet says that {amount} came in, and its books have {booked}"
                self._find("credited", node, text, abs(amount - booked))
        for payment in evidence.paid:
            if payment.connection and self._is_judged(payment.node) and self._is_judged(payment.payee):
                amount = connections.get((payment.payee, payment.connection), 0)
                unpaid = self._unpaid.get((payment.node, payment.payee), 0)
                most = self._most([payment])
                if amount < payment.delivered or (most is not None and amount > most + unpaid):
                    text = (
                        f"payment {payment.id} delivered {payment.delivered} to {payment.delivered_max} by its"
                        f" sender's word, and {payment.payee} has {amount} of it"
                    )
                    self._find("delivered", payment.node, text, abs(amount - payment.delivered))

    def _check_sender(self, node: str) -> None:
        """Its wallet against its own books, then against what arrived, receiver by receiver."""
        payments = [one for one in self.evidence.paid if one.node == node]
        least = sum(one.sent for one in payments)
        most = least + sum(one.unknown for one in payments)
        left = self._left.get(node, 0)
        if not least <= left <= most:
            text = f"{left} left by its books, {least} to {most} by its wallet's word"
            self._find("sent", node, text, min(abs(left - least), abs(left - most)))
        for payee in dict.fromkeys(one.payee for one in payments):
            least = sum(one.delivered for one in payments if one.payee == payee)
            most = sum(one.delivered_max for one in payments if one.payee == payee)
            bound = self._most([one for one in payments if one.payee == payee])
            arrived = self._arrived.get((node, payee), 0)
            # The receiver's word counts what it fulfilled and was not paid for, too.
            unpaid = self._unpaid.get((node, payee), 0)
            is_too_much = bound is not None and arrived > bound
            if self._is_judged(payee) and (arrived < least - unpaid or is_too_much):
                text = f"{arrived} of its money is in the books of {payee}, {least} to {most} by its wallet's word"
                self._find("delivered", node, text, min(abs(arrived - least), abs(arrived - most)))

    def _most(self, payments: Sequence[Paid]) -> int | None:
        """No more than this arrived of these payments; None if a forger may have added to it.

        Of packets whose receiver is silent a sender knows a quote: it is of small amounts that each hop rounded down,
        so what left may have brought more, up to the price; and the rate may have become better meanwhile.
        """
        if self.evidence.forgers:
            return None
        most = sum(max(one.delivered_max, one.at_price) for one in payments)
        return most * (100 + self.evidence.rates_rose) // 100 + sum(one.slack for one in payments)

    # --- the next part ------------------------------------------------------------------------------------------

    def _closing(self) -> Opening:
        tallies = self.tallies
        return Opening(
            sequences={node: tally.sequence for node, tally in tallies.items()},
            balances={node: dict(tally.balances) for node, tally in tallies.items()},
            legs=[leg for tally in tallies.values() for leg in tally.open_legs()],
            left=self._left,
            credited=self._credited,
            arrived=self._arrived,
            unpaid=self._unpaid,
        )


def _http_name(session: str, request_id: int) -> str:
    """The Request-Id of a Prepare that went by HTTP (RFC 9562 version 4, cut out of a hash of session and id)."""
    digest = bytearray(sha256(bytes.fromhex(session) + request_id.to_bytes(4, "big")).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()
