"""A node over all its lives: what it is configured with, its disk, its clock, and the process that runs just now."""

from random import Random
from typing import TYPE_CHECKING, Final

from isthmus.connector.events import AccountId, Outbound
from isthmus.connector.kernel import Kernel
from isthmus.connector.replay import Application
from isthmus.connector.routing.terms import NO_ROUTES, RouteTerms
from isthmus.connector.settling import NO_SETTLEMENT, SettleTerms
from isthmus.connector.tables import (
    CHILD,
    PARENT,
    PEER,
    AccountTerms,
    RateTable,
    RouteTable,
    Tables,
    TablesChanged,
)
from isthmus.errors import CodecError, JournalError
from isthmus.ilp.outcomes import OUTCOMES_DESTINATION, decode_report
from isthmus.ilp.packet import PREPARE, REJECT, decode_prepare
from isthmus.sim import plan as p
from isthmus.sim.agenda import WALL_START_MS, Clock, Due
from isthmus.sim.btp import Dialler, Listener
from isthmus.sim.disk import Disk
from isthmus.sim.evidence import Told
from isthmus.sim.http import HttpLink
from isthmus.sim.plan import ASSETS, LinkPlan, NodePlan, units
from isthmus.sim.process import Process
from isthmus.sim.vices import Vice, vice_of
from isthmus.sim.wire import Line

if TYPE_CHECKING:
    from isthmus.sim.till import Till
    from isthmus.sim.world import World

# How soon a supervisor starts a process again that has halted.
RESTART_MS: Final = 400
_NO_ENTROPY: Final = bytes(32)
_REPORTS: Final = OUTCOMES_DESTINATION.encode()


class Node:
    """A connector; `wallet.Wallet` is the other kind."""

    def __init__(self, world: "World", plan: NodePlan, lines: list[Line]) -> None:
        self.world: Final = world
        self.plan: Final = plan
        self.name: Final = plan.name
        self.lines: Final = lines
        self.rng: Final = Random(plan.seed)
        self.clock: Final = Clock(world.agenda, plan.skew_ms)
        self.disk: Final = Disk(world.agenda, journal_id=self.rng.randbytes(16), sync_ms=plan.sync_ms)
        self.vice: Final[Vice | None] = vice_of(plan, Random(self.rng.getrandbits(62)))
        self.process: Process | None = None
        self.rate_change: Final[dict[int, int]] = {}  # percent, by fault
        self.dry: Final[dict[int, None]] = {}  # faults that take the liquidity away
        self.downs: Final[list[list[int]]] = []  # (from, until) of the times without a process
        self.marks: Final[list[tuple[int, int]]] = []  # (wall ms of whoever watches, sequence): durable then
        self.tills: Final[list[Till]] = []  # of all its lives: see `AgendaLoop`
        self.till_rng: Final = Random(f"till of {plan.seed}")
        self.overpaid: Final[set[tuple[AccountId, int]]] = set()  # settlements for which it paid too much (a vice)
        self._start_due: Due | None = None
        self._commits = 0

    # --- what it is configured with -----------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return f"test.{self.name}"

    def account_of(self, line: Line) -> str:
        """The name of its account with the neighbour on this line."""
        return line.other(self.name)

    def tables(self) -> Tables:
        """Terms, routes and rates as they are now."""
        accounts = {}
        for line in self.lines:
            terms = self._terms(line.plan)
            accounts[terms.id] = terms
        routes = {address: AccountId(name) for address, name in self.world.routes(self.name)}
        if self.world.plan.by_ccp:
            routes = {address: name for address, name in routes.items() if address.startswith(f"{self.address}.")}
        return Tables(self.address, accounts, RouteTable(routes), self._rates())

    def _terms(self, link: LinkPlan) -> AccountTerms:
        name = link.b if link.a == self.name else link.a
        is_wallet = self.world.plan.node(name).kind == p.WALLET
        settle = link.settle(self.name)
        receivable = payable = link.credit
        if settle is not None:
            receivable, payable = settle.receivable, None
        if self.dry:
            receivable = 0
            payable = 0 if settle is None else None
        return AccountTerms(
            id=AccountId(name),
            asset=ASSETS[link.asset][0],
            relation=CHILD if is_wallet else self._relation(link),
            receivable_max=_units(receivable, link.asset),
            payable_max=_units(payable, link.asset),
            packet_amount_max=_units(link.packet_max, link.asset),
            packets_per_minute=link.packets_per_minute,
            amount_per_second=_units(link.value_per_second, link.asset),
            ildcp_server=is_wallet,
            child_address=f"{self.address}.{name}" if is_wallet else "",
            routes=_routes(name) if self.world.plan.by_ccp and not is_wallet else NO_ROUTES,
            settle=self.settle_terms(link),
        )

    def _relation(self, link: LinkPlan) -> str:
        """Of the connector at the other end. A bad speaker takes its parents for peers, so it tells them everything."""
        if not link.parent or (link.parent != self.name and self.plan.vice.startswith(p.TELLS_LIES)):
            return PEER
        return CHILD if link.parent == self.name else PARENT

    def settle_terms(self, link: LinkPlan) -> SettleTerms:
        """When we pay the neighbour on this link by ourselves."""
        plan = link.settle(self.name)
        if plan is None:
            return NO_SETTLEMENT
        return SettleTerms(
            engine=link.ledger,
            threshold=_units(plan.threshold, link.asset),
            target=units(plan.target, link.asset),
            ahead_max=units(plan.ahead, link.asset),
            minimum=max(1, units(plan.minimum, link.asset)),
            amount_max=_units(plan.amount_max, link.asset),
            ledger_scale=self.world.plan.ledger(link.ledger).decimals if plan.knows_scale else None,
        )

    def _rates(self) -> RateTable:
        change = sum(self.rate_change.values())
        codes = list(ASSETS)
        rates = {}
        for number, base in enumerate(codes):
            for quote in codes[number + 1 :]:
                rates[base, quote] = p.price(base) / p.price(quote) * (100 + change) / 100
        return RateTable(rates, spread=self.plan.spread)

    def tables_changed(self) -> None:
        """The operator has new tables, and the running process gets them."""
        if self.process is not None:
            self.process.post(TablesChanged(self.tables()))

    def dial_anew(self, line: Line) -> bool:
        """Open a second connection on this line; False if none is up."""
        link = None if self.process is None else self.process.links.get(AccountId(self.account_of(line)))
        return isinstance(link, Dialler) and link.dial_anew()

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process on what the disk has."""
        self._start_due = None
        if self.process is not None:
            return
        if self.downs and self.downs[-1][1] < 0:
            self.downs[-1][1] = self.world.agenda.now
        self.clock.boot(self.rng.randrange(10_000, 2_000_000))
        try:
            self._start()
        except JournalError as error:
            self.world.found("journal", self.name, f"the node can't start: {error}")

    def _start(self) -> None:
        self.process = Process(self, self.tables(), self.application())
        self._begin()

    def application(self) -> Application | None:
        """A fresh one for a process; connectors have none."""
        return None

    def _begin(self) -> None:
        assert self.process is not None
        for line in self.lines:
            account = AccountId(self.account_of(line))
            if line.plan.carrier == p.HTTP:
                self.process.attach(HttpLink(self.process, account, line))
            elif line.plan.a == self.name:
                self.process.attach(Dialler(self.process, account, line))
            else:
                self.process.attach(Listener(self.process, account, line))
        if self.world.plan.ledgers:
            from isthmus.sim.till import Till

            self.process.till = Till(self.process)
        for link in self.process.links.values():
            link.begin()

    def crash(self, down_ms: int, *, written: int, loses_power: bool) -> bool:
        """The process dies now, and comes back after a while. False if none was running."""
        process = self.process
        if process is None:
            return False
        self.world.check_replay(self)
        if loses_power:
            # Nobody says goodbye for this machine: its neighbours find out by themselves.
            for line in self.lines:
                line.cut("power loss", seen_by=self.name)
        process.die()
        self.process = None
        self.died()
        self.disk.crash(written=written)
        self.downs.append([self.world.agenda.now, -1])
        self._start_due = self.world.agenda.after(down_ms, self.start)
        return True

    def died(self) -> None:
        """For whoever has more than a process to forget."""

    def halted(self, problem: str) -> None:
        """The journal failed: the process ends, and a supervisor starts the next."""
        self.world.tell(self.name, f"halts: {problem}")
        self.world.agenda.after(0, lambda: self.crash(RESTART_MS, written=0, loses_power=False))

    def committed_before(self, sequence: int) -> None:
        """A new process finds batches up to this one: more than the last one knew of, if its last write was unknown."""
        self.marks.append((WALL_START_MS + self.world.agenda.now, sequence))

    def committed(self, sequence: int) -> None:
        """Batches up to this one are durable. Now and then there is a checkpoint, for the next start to begin with."""
        self.marks.append((WALL_START_MS + self.world.agenda.now, sequence))
        self._commits += 1
        process = self.process
        if self._commits % 29 == 0 and process is not None and process.kernel.at_boundary() and not self.disk.waiting:
            assert self.disk.journal is not None
            self.disk.journal.save_checkpoint(process.kernel.sequence, process.kernel.state())

    def sees(self, account: AccountId, frames: list[Outbound]) -> None:
        """These leave the process: what its rules refused is counted."""
        for frame in frames:
            if frame.packet[0] == REJECT:
                self.world.rejected(self, frame.packet)

    def tells(self, account: AccountId, frames: list[Outbound]) -> None:
        """The auditor wants to know which reports of outcomes leave, and when."""
        for frame in frames:
            if frame.packet[0] == PREPARE and _REPORTS in frame.packet:
                report = decode_report(decode_prepare(frame.packet).data)
                at_ms = WALL_START_MS + self.world.agenda.now
                self.world.told.append(Told(self.name, account, report.session.hex(), report.watermark, at_ms))

    # --- what is looked at --------------------------------------------------------------------------------------

    def replay_problem(self) -> str:
        """Compare the running process with a replay of its journal, what waits for the disk included."""
        process, journal = self.process, self.disk.journal
        if process is None or journal is None:
            return ""
        live = process.kernel
        application = self.application()
        kernel = Kernel(_NO_ENTROPY, application=application)
        batches = [(batch.sequence, batch.record) for batch in journal.read_from(1)] + self.disk.waiting
        if live.books.has_entries():
            batches.append((live.sequence + 1, bytes(live.books.record)))
        try:
            for sequence, record in batches:
                kernel.replay(sequence, record)
            live.books.check()
        except (CodecError, AssertionError) as error:
            return f"its journal can't be replayed: {error}"
        if kernel.digest() != live.digest():
            return f"replay gives other books after batch {live.sequence}"
        if kernel.application.encode_state() != live.application.encode_state():
            return f"replay gives another state of the wallet after batch {live.sequence}"
        return ""


def _units(cents: int | None, code: str) -> int | None:
    return None if cents is None else units(cents, code)


def _routes(neighbour: str) -> RouteTerms:
    """Both tell each other everything, under the name that they know each other by."""
    return RouteTerms(send=True, receive=True, speaker=f"test.{neighbour}")
