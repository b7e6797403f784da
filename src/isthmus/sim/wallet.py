"""A wallet: the real STREAM endpoint and ledger on a simulated process, as `client.core` puts them together."""

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Final, final

from isthmus.client import ledger
from isthmus.client.aftermath import Aftermath
from isthmus.client.endpoint import Endpoint
from isthmus.client.ledger import WalletLedger
from isthmus.client.tables import UPLINK, wallet_tables
from isthmus.connector.events import SESSION_BYTES, AccountId, Outbound
from isthmus.connector.replay import Application
from isthmus.connector.tables import Tables
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import PREPARE
from isthmus.sim.node import Node
from isthmus.sim.payer import Payer
from isthmus.sim.plan import ASSETS, NodePlan, PaymentPlan, units
from isthmus.sim.process import Process
from isthmus.sim.wire import Line
from isthmus.stream.connection import Connection as Machine
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import Credit, DecisionWanted, Order
from isthmus.stream.tokens import Invitation

if TYPE_CHECKING:
    from isthmus.sim.world import World


# What a user needs to take money that he was asked about.
ANSWER_MS: Final = 12


@final
class Guest:
    """A connection that a payer opened. Implements `client.endpoint.Party`; the ledger has its money."""

    def __init__(self, wallet: "Wallet", machine: Machine) -> None:
        self.machine: Final = machine
        self._wallet: Final = wallet

    def told(self, order: Order) -> None:
        """Streams, assets and ends: nothing to do. Money that waits for the user's word is taken a little later."""
        self._wallet.world.coverage.news(order)
        if isinstance(order, DecisionWanted):
            process, endpoint = self._wallet.process, self._wallet.endpoint
            assert process is not None and endpoint is not None
            process.timers.after(ANSWER_MS, lambda: self._take(order, endpoint))

    def _take(self, order: DecisionWanted, endpoint: Endpoint) -> None:
        self.machine.accept(order.request)
        endpoint.touch(self)

    def polled(self) -> None: ...

    def credited(self, credit: Credit) -> None:
        """The user sees the money now. He was promised that it stays, so the auditor is told what he saw."""
        seen = self._wallet.seen
        seen[credit.connection_id] = seen.get(credit.connection_id, 0) + credit.amount

    def dropped(self) -> None: ...


@final
class Wallet(Node):
    """Pays and is paid. Its user asks again for what has not ended when the process comes back."""

    def __init__(self, world: "World", plan: NodePlan, lines: list[Line]) -> None:
        super().__init__(world, plan, lines)
        self.secret: Final = self.rng.randbytes(32)
        self.keys: Final = Keys(sha256(b"journal" + self.secret).digest())
        # Some users look at what comes in before they take it.
        self.asks: Final = plan.is_honest and plan.seed % 6 == 0
        self.ledger = WalletLedger()
        self.endpoint: Endpoint | None = None
        self.aftermath: Aftermath | None = None
        self.seen: Final[dict[bytes, int]] = {}  # what the user was told came in, by connection
        self.payers: Final[list[Payer]] = []
        self.wanted: Final[list[PaymentPlan]] = []  # asked for, and not ended
        self._settle_waits: list[Callable[[], None]] = []

    @property
    def address(self) -> str:
        return f"test.{self.plan.home}.{self.name}"

    @property
    def asset(self) -> Asset:
        return ASSETS[self.plan.asset][0]

    def account_of(self, line: Line) -> str:
        return UPLINK

    def tables(self) -> Tables:
        link = self.lines[0].plan
        settle = link.settle(self.name)
        receivable = None if settle is None or settle.receivable is None else units(settle.receivable, link.asset)
        return wallet_tables(
            self.address,
            self.asset,
            self.plan.timeout_ms,
            settle=self.settle_terms(link),
            receivable_max=receivable,
        )

    def application(self) -> Application:
        return WalletLedger()

    # --- life ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.ledger = WalletLedger()
        self.process = process = Process(self, self.tables(), self.ledger)
        kernel = process.kernel
        self.aftermath = Aftermath(kernel.books, self.ledger)
        endpoint = Endpoint(
            process,
            session=self.rng.randbytes(SESSION_BYTES),
            server_secret=sha256(b"receiver" + self.secret).digest(),
            address=self.address,
            asset=self.asset,
            timeout_ms=self.plan.timeout_ms,
            recall=self.ledger.receipts.get,
            on_old_reply=self._old_reply,
            now=self.clock.now,
            random_bytes=self.rng.randbytes,
            scheduler=process.timers,
        )
        self.endpoint = endpoint
        # A credit is applied while its batch is open: the one after the last appended.
        self.ledger.on_credit = lambda connection, sequence: endpoint.credit_posted(
            connection, sequence, kernel.sequence + 1
        )
        process.on_commit = endpoint.durable
        endpoint.listen(self, ask=self.asks)
        process.attach(_Local(endpoint))
        self._begin()
        process.link_up(_Local(endpoint).account)
        for wish in list(self.wanted):
            self.begin(wish)
        for payment in [one for one in self.ledger.running() if not one.key]:
            self.payers.append(Payer(self, None, payment))

    def accepted(self, machine: Machine, tag: bytes) -> Guest:
        """A payer has come (`client.endpoint.Host`)."""
        return Guest(self, machine)

    def sees(self, account: AccountId, frames: list[Outbound]) -> None:
        """Prepares that leave for the connector are the packets that a run is measured by."""
        if account == UPLINK and self.process is not None:
            # Not what neighbours ask each other, which has no leg.
            legs = self.process.kernel.books.peers[UPLINK].sent
            self.world.packets += sum(1 for frame in frames if frame.request_id in legs and frame.packet[0] == PREPARE)

    def died(self) -> None:
        self.endpoint = None
        self.aftermath = None
        self.payers.clear()
        self._settle_waits.clear()

    # --- paying -------------------------------------------------------------------------------------------------

    def invite(self) -> Invitation | None:
        """An address to be paid at; None while the wallet is down."""
        return None if self.endpoint is None else self.endpoint.invite()

    def pay(self, wish: PaymentPlan) -> None:
        """The user asks for a payment."""
        self.wanted.append(wish)
        self.begin(wish)

    def begin(self, wish: PaymentPlan) -> None:
        """Begin a payment, or take it up again."""
        if self.endpoint is None:
            return  # the user asks again when the wallet is back
        known = self.ledger.with_key(wish.key) if wish.key else None
        if known is None or (known.status == "failed" and not known.sent and not known.unknown):
            self.payers.append(Payer(self, wish))
        elif known.status == ledger.RUNNING:
            self.payers.append(Payer(self, wish, known))
        else:
            self.ended(wish, known.status)

    def ended(self, wish: PaymentPlan | None, how: str) -> None:
        """A payment is over, for its user."""
        if wish is not None and wish in self.wanted:
            self.wanted.remove(wish)
            self.world.payment_ended(self, wish, how)

    def until_settled(self, then: Callable[[], None]) -> None:
        """Call when each packet of an earlier process has its outcome."""
        assert self.aftermath is not None and self.process is not None
        if self.aftermath.is_settled:
            self.process.timers.call_soon(then)
        else:
            self._settle_waits.append(then)

    def _old_reply(self, frame: Outbound) -> None:
        assert self.aftermath is not None and self.process is not None
        self.aftermath.decided(frame)
        if self.aftermath.is_settled:
            waits, self._settle_waits = self._settle_waits, []
            for then in waits:
                self.process.timers.call_soon(then)


@final
class _Local:
    """The endpoint's link, as a process carries links."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.account: AccountId = endpoint.link.account
        self._endpoint: Final = endpoint

    def begin(self) -> None:
        """It is always there."""

    def write(self, frames: list[Outbound]) -> None:
        self._endpoint.link.write(frames)

    def reset(self, why: str) -> None:
        """There is nothing to drop."""

    def renew(self, session: bytes) -> None:
        """The endpoint has a session of its own."""

    def die(self) -> None: ...
