"""One run: a plan becomes nodes, lines, payments and faults on one agenda; faults first, then quiet, then the audit."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from random import Random
from typing import Final, final

from isthmus.connector.events import Log
from isthmus.errors import CodecError
from isthmus.ilp.packet import Reject, decode_reply
from isthmus.sim import plan as p
from isthmus.sim.agenda import Agenda
from isthmus.sim.auditor import Finding
from isthmus.sim.coverage import Coverage
from isthmus.sim.evidence import Told
from isthmus.sim.faults import arrange
from isthmus.sim.ledgers import Ledger
from isthmus.sim.node import Node
from isthmus.sim.plan import PaymentPlan, Plan
from isthmus.sim.verdict import judge
from isthmus.sim.wallet import Wallet
from isthmus.sim.ways import lost_ways
from isthmus.sim.wire import Line
from isthmus.stream.tokens import Invitation

LOOK_MS: Final = 500  # how often it is looked whether all is over
REST_MS: Final = 8_000  # and how long it must stay so, for outcomes to be told
# From the end of the faults: payments that stall give up within about a minute, and users ask again.
QUIET_MS_MAX: Final = 400_000
TOP_UPS_MAX: Final = 25
TOP_UP_FIRST: Final = 1_000  # number of the first payment that is made to have enough packets


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run came to."""

    plan: Plan
    findings: list[Finding]
    coverage: Coverage
    nodes: int
    packets: int  # Prepares that left wallets
    hops: int  # Prepares that passed a link, as the auditor laid them beside each other
    faults: int
    crashes: int
    payments: dict[str, int]  # by outcome
    losses: int
    virtual_ms: int
    timeline: list[tuple[int, str, str]] = field(default_factory=list)


@final
class World:
    """A network on virtual time. `run` it once."""

    def __init__(self, plan: Plan, *, trace_to: Callable[[str], None] | None = None) -> None:
        self.plan: Final = plan
        self.agenda: Final = Agenda()
        self.coverage: Final = Coverage()
        self.is_traced: Final = trace_to is not None
        self.findings: Final[list[Finding]] = []
        self.timeline: Final[list[tuple[int, str, str]]] = []
        self.faults = 0
        self.crashes = 0
        self.packets = 0
        self.stalls: Final[list[tuple[str, int, int]]] = []  # node, from, until: its disk stood still
        self.told: Final[list[Told]] = []  # reports of outcomes that left
        self.outcomes: Final[dict[str, int]] = {}
        self._trace_to: Final = trace_to
        self._rng: Final = Random(plan.seed + 1)
        self._top_ups = 0
        self._top_up_failed: tuple[str, str] | None = None
        self._rejects: Final[dict[bytes, str]] = {}
        self._is_over = False
        self._calm_since: int | None = None
        self.lines: Final = {link.name: Line(self.agenda, link) for link in plan.links}
        for line in self.lines.values():
            line.on_hit = self.hit
        self.ledgers: Final[dict[str, Ledger]] = {}
        if plan.ledgers:
            from isthmus.sim.till import ledger_of  # engines need more than networks without them

            for ledger in plan.ledgers:
                self.ledgers[ledger.name] = ledger_of(self, ledger)
        self._routes: Final = {node.name: self._routes_of(node.name) for node in plan.nodes}
        self.nodes: Final[dict[str, Node]] = {}
        for node in plan.nodes:
            lines = [line for line in self.lines.values() if node.name in (line.plan.a, line.plan.b)]
            self.nodes[node.name] = (Wallet if node.kind == p.WALLET else Node)(self, node, lines)

    # --- the map ------------------------------------------------------------------------------------------------

    def _routes_of(self, start: str) -> list[tuple[str, str]]:
        """(address prefix, neighbour) for each wallet, by the shortest way over connectors."""
        first: dict[str, str] = {start: ""}
        queue = [start]
        while queue:
            name = queue.pop(0)
            if name != start and self.plan.node(name).kind == p.WALLET:
                continue
            for link in self.plan.links:
                if name in (link.a, link.b):
                    other = link.b if link.a == name else link.a
                    if other not in first:
                        first[other] = first[name] or other
                        queue.append(other)
        wallets = [node for node in self.plan.nodes if node.kind == p.WALLET and node.name != start]
        return [(f"test.{node.home}.{node.name}", first[node.name]) for node in wallets]

    def routes(self, name: str) -> list[tuple[str, str]]:
        return self._routes[name]

    def path(self, payer: str, payee: str) -> list[str]:
        """All nodes from one wallet to another."""
        address = f"test.{self.plan.node(payee).home}.{payee}"
        path = [payer]
        while path[-1] != payee:
            path.append(dict(self._routes[path[-1]])[address])
        return path

    def path_rate(self, payer: str, payee: str) -> Fraction:
        """Base units that arrive for one that leaves, by the plan's prices and spreads."""
        source, destination = self.plan.node(payer).asset, self.plan.node(payee).asset
        scale = p.ASSETS[destination][0].scale - p.ASSETS[source][0].scale
        rate = p.price(source) / p.price(destination) * Fraction(10) ** scale
        for name in self.path(payer, payee):
            rate *= 1 - self.plan.node(name).spread
        return rate

    # --- running ------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """From the start to the verdict."""
        try:
            self._begin()
            while not self._is_over and self.agenda.step():
                pass
        except Exception as error:  # noqa: BLE001 - whatever breaks is what the run is for
            place = traceback.extract_tb(error.__traceback__)[-1]
            words = f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"
            self.found("defect", "", words)
            self.tell("", "".join(traceback.format_exception(error)))
        verdict = judge(self)
        self.findings.extend(verdict.findings)
        return Result(
            plan=self.plan,
            findings=self.findings,
            coverage=self.coverage,
            nodes=len(self.nodes),
            packets=self.packets,
            hops=verdict.packets,
            faults=self.faults,
            crashes=self.crashes,
            payments=self.outcomes,
            losses=len(verdict.losses),
            virtual_ms=self.agenda.now,
            timeline=self.timeline,
        )

    def close(self) -> None:
        """Nothing runs on: what is left of tasks can be forgotten. The books can still be looked at."""
        for node in self.nodes.values():
            if node.process is not None:
                node.process.die()

    def _begin(self) -> None:
        for number, node in enumerate(self.nodes.values()):
            self.agenda.at(number * 3, node.start)
            if abs(node.plan.skew_ms) > 100:
                self.hit(p.SKEW)
        for payment in self.plan.payments:
            self.agenda.at(payment.at_ms, partial(self._pay, payment))
        for fault in self.plan.faults:
            arrange(self, fault)
        last = max((payment.at_ms for payment in self.plan.payments), default=0)
        self.agenda.at(max(self.plan.quiet_at, last) + 1, self._quiet)

    def _pay(self, payment: PaymentPlan) -> None:
        self.tell(payment.payer, str(payment))
        wallet = self.nodes[payment.payer]
        assert isinstance(wallet, Wallet)
        wallet.pay(payment)

    def _quiet(self) -> None:
        """All faults are over. Clocks are set right, as somebody would do some day."""
        self.tell("", "no more faults")
        for node in self.nodes.values():
            node.clock.offset_ms = 0
        for ledger in self.ledgers.values():
            ledger.calm()
        self.agenda.after(LOOK_MS, self._look)

    def _look(self) -> None:
        """Whether everything that must end has ended."""
        now = self.agenda.now
        waits_for = self._unended()
        if waits_for:
            self._calm_since = None
        elif self.packets < self.plan.packets_min and self._top_ups < TOP_UPS_MAX:
            self._top_up()
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= REST_MS:
            self._is_over = True
            return
        if now - self.plan.quiet_at > QUIET_MS_MAX:
            for node, text in waits_for:
                self.found("unended", node, text)
            self._is_over = True
            return
        self.agenda.after(LOOK_MS, self._look)

    @property
    def is_calm(self) -> bool:
        """Whether everything that must end has ended."""
        return not self._unended()

    def _unended(self) -> list[tuple[str, str]]:
        waits_for: list[tuple[str, str]] = []
        for node in self.nodes.values():
            process = node.process
            if process is None:
                waits_for.append((node.name, "it has not come back"))
                continue
            if not node.plan.is_honest:
                continue
            if isinstance(node, Wallet):
                waits_for += [(node.name, f"{wish} has not ended") for wish in node.wanted]
                waits_for += [(node.name, f"the payment {one.id} is still running") for one in node.ledger.running()]
            for account in process.kernel.books.peers.values():
                if account.received or account.sent:
                    legs = len(account.received) + len(account.sent)
                    waits_for.append((node.name, f"{legs} legs with {account.name} are still reserved"))
                if (account.fulfilled or account.unsaid) and self._is_honest_peer(node, account.name):
                    untold = len(account.fulfilled) + len(account.unsaid)
                    waits_for.append((node.name, f"{untold} outcomes with {account.name} are still untold"))
            if node.disk.waiting:
                waits_for.append((node.name, "its disk has not written all"))
        if self.plan.by_ccp and not waits_for:
            waits_for = lost_ways(self)
        if self.ledgers and not waits_for:
            from isthmus.sim.flows import unsettled

            waits_for = list(unsettled(self))
        return waits_for

    def _is_honest_peer(self, node: Node, account: str) -> bool:
        """Liars may say nothing, or take no reports."""
        line = next((line for line in node.lines if node.account_of(line) == account), None)
        return line is not None and self.plan.node(line.other(node.name)).is_honest

    def _top_up(self) -> None:
        """Pay a little more, where all is well now."""
        honest = [node.name for node in self.plan.nodes if node.kind == p.WALLET and node.is_honest]
        pairs = [(a, b) for a in honest for b in honest if a != b]
        good = [pair for pair in pairs if all(self.plan.node(name).is_honest for name in self.path(*pair))]
        payer, payee = self._rng.choice(good or pairs)
        if self._top_up_failed in pairs:
            # Where nothing goes one way any more, there is room for the other.
            payee, payer = self._top_up_failed
        self._top_up_failed = None
        self._top_ups += 1
        number = TOP_UP_FIRST + self._top_ups
        payment = PaymentPlan(
            number=number,
            payer=payer,
            payee=payee,
            at_ms=self.agenda.now,
            value=self._rng.randint(1_200, 3_000),
            deliver=False,
            slack=25,
            key=f"key {number}",
        )
        self._pay(payment)

    @staticmethod
    def is_top_up(wish: PaymentPlan) -> bool:
        """Its user doesn't insist."""
        return wish.number >= TOP_UP_FIRST

    # --- what others tell ---------------------------------------------------------------------------------------

    def invite(self, payee: str) -> Invitation | None:
        wallet = self.nodes[payee]
        assert isinstance(wallet, Wallet)
        return wallet.invite()

    def payment_ended(self, wallet: Wallet, wish: PaymentPlan, how: str) -> None:
        self.tell(wallet.name, f"payment {wish.number} is over: {how}")
        word = how.partition(" (")[0].partition(":")[0]
        if word != "completed" and self.is_top_up(wish):
            self._top_up_failed = (wish.payer, wish.payee)
        self.outcomes[word] = self.outcomes.get(word, 0) + 1
        self.coverage.enter("payment outcome", how.partition(" (")[0])

    def hit(self, kind: str) -> None:
        """A fault has met something."""
        self.coverage.enter("fault", kind)

    def found(self, kind: str, node: str, text: str) -> None:
        self.findings.append(Finding(kind, node, text))
        self.tell(node, f"FOUND {kind}: {text}")

    def tell(self, who: str, text: str) -> None:
        """A line for people."""
        self.timeline.append((self.agenda.now, who, text))
        if self._trace_to is not None:
            self._trace_to(f"{self.agenda.now:>7} {who:<4} # {text}")

    def trace(self, who: str, arrow: str, text: str) -> None:
        assert self._trace_to is not None
        self._trace_to(f"{self.agenda.now:>7} {who:<4} {arrow} {text}")

    def logged(self, who: str, fact: Log) -> None:
        self.coverage.enter("log", fact.event)
        if fact.level in ("warning", "error"):
            fields = ", ".join(f"{key} {value}" for key, value in fact.fields.items())
            self.tell(who, f"{fact.event} ({fields})")

    def rejected(self, node: Node, packet: bytes) -> None:
        """A Reject leaves a node: if it is the node's own, a rule of the switch was met."""
        words = self._rejects.get(packet)
        if words is None:
            try:
                reply = decode_reply(packet)
            except CodecError:
                return
            assert isinstance(reply, Reject)
            is_own = reply.triggered_by == node.address and node.plan.kind == p.CONNECTOR
            words = f"{reply.code} {reply.message.partition(':')[0]}" if is_own else ""
            self._rejects[packet] = words
        if words:
            self.coverage.enter("rule", words)

    def check_replay(self, node: Node) -> None:
        """The journal gives the very books and payments that the process has, up to its last decision."""
        problem = node.replay_problem()
        if problem:
            self.found("replay", node.name, problem)
