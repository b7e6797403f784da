"""A payment as `client.payment` makes it, without coroutines: quote, start, grants, outcome, and the way back after a
kill. What is journaled and when is the same; the machine and the ledger are the real ones.
"""

from collections.abc import Callable
from enum import Enum, auto
from fractions import Fraction
from typing import TYPE_CHECKING, Final, final

from isthmus.client import ledger
from isthmus.client.aftermath import arrived
from isthmus.client.goal import COMPLETED, FAILED, STOPPED, STREAM_ID, Rest, ended, rest, with_totals
from isthmus.client.ledger import Payment
from isthmus.sim.plan import PaymentPlan, units
from isthmus.stream.connection import Connection as Machine
from isthmus.stream.crypto import IV_BYTES
from isthmus.stream.orders import (
    ConnectionClosed,
    Credit,
    GrantWanted,
    Order,
    PeerTotal,
    QuoteFailed,
    QuoteReady,
    SendDone,
    SendFailed,
)
from isthmus.stream.rate import MinimumRate

if TYPE_CHECKING:
    from isthmus.sim.wallet import Wallet

TOTAL_MS: Final = 5_000
ASK_MS: Final = 1_000
CLOSE_MS: Final = 1_000
# A user whose quote fails asks again after this, and gives up in the end.
AGAIN_MS: Final = 3_000
QUOTES_MAX: Final = 12
QUOTING_MS_MAX: Final = 120_000


class State(Enum):
    """Where a payment stands."""

    INVITING = auto()
    QUOTING = auto()
    STARTING = auto()
    SETTLING = auto()
    ASKING = auto()
    SENDING = auto()
    ASKING_AGAIN = auto()
    ENDING = auto()
    OVER = auto()


@final
class Payer:
    """One payment at work in one process. Implements `client.endpoint.Party`."""

    def __init__(self, wallet: "Wallet", wish: PaymentPlan | None, payment: Payment | None = None) -> None:
        """A new payment, or one that another process left in the middle. Without a wish nobody asks for it again."""
        assert wallet.process is not None and wallet.endpoint is not None
        self.wallet: Final = wallet
        self.wish: Final = wish
        self.state = State.INVITING
        self._timers: Final = wallet.process.timers
        self._process: Final = wallet.process
        self._endpoint: Final = wallet.endpoint
        self._machine: Machine | None = None
        self._payment: Payment | None = payment
        self._secret = b""
        self._quotes = 0
        self._asked_at = wallet.world.agenda.now
        self._granting = 0
        self._asked = 0  # how often the receiver was asked at the end
        self._ending = COMPLETED, ""  # if the receiver's word changes nothing
        self._outcome: tuple[str, str] | None = None
        if payment is None:
            self._enter(State.INVITING)
            self._timers.call_soon(self._invite)
        else:
            self._enter(State.SETTLING)
            wallet.until_settled(self._resume)

    # --- client.endpoint.Party ----------------------------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        assert self._machine is not None
        return self._machine

    def told(self, order: Order) -> None:
        """News come while the machine is polled: what follows from them waits for a turn of its own."""
        self.wallet.world.coverage.news(order)
        if isinstance(order, QuoteReady):
            self._soon(State.QUOTING, lambda: self._start(order))
        elif isinstance(order, QuoteFailed):
            self._soon(State.QUOTING, lambda: self._quote_failed(order.failure.value))
        elif isinstance(order, GrantWanted):
            self._timers.call_soon(self._grant, order)
        elif isinstance(order, PeerTotal):
            self._soon(State.ASKING, lambda: self._total_known(order.total_received))
            self._soon(State.ASKING_AGAIN, lambda: self._total_known_now(order.total_received))
        elif isinstance(order, SendDone):
            self._soon(State.SENDING, lambda: self._sent(COMPLETED, _words(order.unsent)))
        elif isinstance(order, SendFailed):
            self._soon(State.ASKING, lambda: self._total_known(None))
            self._soon(State.ASKING_AGAIN, lambda: self._total_known_now(None))
            self._soon(State.SENDING, lambda: self._sent(FAILED, order.failure.value))
        elif isinstance(order, ConnectionClosed):
            self._soon(State.QUOTING, lambda: self._quote_failed("closed"))
            self._soon(State.ASKING, lambda: self._total_known(None))
            self._soon(State.ASKING_AGAIN, lambda: self._total_known_now(None))
            self._soon(State.SENDING, lambda: self._end(FAILED, "the connection is closed"))
            self._soon(State.OVER, lambda: self._endpoint.forget(self.machine))

    def polled(self) -> None: ...

    def credited(self, credit: Credit) -> None: ...

    def dropped(self) -> None: ...

    def _soon(self, state: State, action: Callable[[], None]) -> None:
        """In a turn of its own, if the payment still stands where this is of use."""
        self._timers.call_soon(lambda: action() if self.state is state else None)

    def _enter(self, state: State) -> None:
        self.state = state
        self.wallet.world.coverage.enter("payment", state.name.lower())

    # --- a new payment ------------------------------------------------------------------------------------------

    def _invite(self) -> None:
        """Ask the payee for an address, and the path for a quote."""
        wish = self.wish
        assert wish is not None
        invitation = self.wallet.world.invite(wish.payee)
        if invitation is None:
            self._quote_failed("the payee is away")
            return
        self._open(invitation.address, invitation.shared_secret)
        self._enter(State.QUOTING)
        source, destination = self._amounts(wish)
        if wish.deliver:
            self.machine.start_quote(destination=destination)
        else:
            self.machine.start_quote(source=source)
        self._endpoint.touch(self)

    def _amounts(self, wish: PaymentPlan) -> tuple[int, int]:
        """The value of the wish in our units and in the payee's."""
        payee = self.wallet.world.plan.node(wish.payee)
        return units(wish.value, self.wallet.plan.asset), units(wish.value, payee.asset)

    def _open(self, address: str, secret: bytes, *, first_sequence: int = 1) -> None:
        self._secret = secret
        self._endpoint.open(address, secret, self._made, first_sequence=first_sequence)

    def _made(self, machine: Machine) -> "Payer":
        self._machine = machine
        return self

    def _quote_failed(self, why: str) -> None:
        """Nothing has left: the user tries again a few times."""
        if self._machine is not None:
            self._endpoint.forget(self._machine)
        self._quotes += 1
        wish = self.wish
        assert wish is not None
        self._enter(State.INVITING)
        waited_ms = self.wallet.world.agenda.now - self._asked_at
        if self._quotes >= QUOTES_MAX or waited_ms > QUOTING_MS_MAX or self.wallet.world.is_top_up(wish):
            self._enter(State.OVER)
            self.wallet.ended(wish, f"no quote: {why}")
        else:
            self._timers.after(AGAIN_MS, self._invite)

    def _start(self, ready: QuoteReady) -> None:
        """Compare with the minimum, and make it durable that this is a payment."""
        wish, quote = self.wish, ready.quote
        assert wish is not None
        minimum = self.wallet.world.path_rate(wish.payer, wish.payee) * (100 - wish.slack) / 100
        floor = MinimumRate(minimum)
        if not floor.accepts(quote.source_amount, quote.destination_amount):
            self._quote_failed("below the minimum")
            return
        source_max = quote.source_amount
        if wish.deliver:
            source_max = max(source_max, floor.source(quote.destination_amount))
        asset = self.machine.peer_asset
        now = self.wallet.clock.now()
        payment = Payment(
            id=self.wallet.rng.randbytes(ledger.ID_BYTES).hex(),
            key=wish.key,
            terms=str(wish),
            target=wish.payee,
            destination=self.machine.peer_address,
            secret=self.wallet.keys.encrypt(self._secret, self.wallet.rng.randbytes(IV_BYTES)).hex(),
            source_max=source_max,
            minimum=str(minimum),
            rate=str(quote.rate),
            deliver=quote.destination_amount if wish.deliver else 0,
            asset_code="" if asset is None else asset.code,
            asset_scale=0 if asset is None else asset.scale,
            started_at=now.wall_ms,
        )
        self._payment = payment
        self._enter(State.STARTING)
        self._process.note(ledger.started(payment), self._started)

    def _started(self) -> None:
        stream_id = self.machine.open_stream()
        assert stream_id == STREAM_ID
        self._send()

    # --- after a kill -------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Our books have decided every packet of the earlier process: ask the receiver what arrived."""
        payment = self._known
        secret = self.wallet.keys.decrypt(bytes.fromhex(payment.secret))
        self._open(payment.destination, secret, first_sequence=max(1, payment.sequence_ceiling))
        self.machine.resume_stream(STREAM_ID)
        self._enter(State.ASKING)
        self._ask(State.ASKING, self._total_known)

    def _ask(self, state: State, known: Callable[[int | None], None], ms: int = 0) -> None:
        """Ask the receiver for its total, each second."""
        if self.state is not state:
            return
        if ms >= TOTAL_MS:
            known(None)
            return
        self.machine.ask_total(STREAM_ID)
        self._endpoint.touch(self)
        asked = self._asked
        self._timers.after(ASK_MS, lambda: self._ask(state, known, ms + ASK_MS) if self._asked == asked else None)

    def _total_known(self, told: int | None) -> None:
        payment = self._known
        aftermath = self.wallet.aftermath
        assert aftermath is not None
        sent, unknown = aftermath.sent(payment)
        least, most = arrived(payment, sent, unknown, told)
        self.machine.resume_stream(STREAM_ID, sent=sent, delivered=least, delivered_max=most, unknown=unknown)
        if self.wish is None:
            self._enter(State.SENDING)
            self._end(STOPPED, "the wallet was killed in the middle")
        else:
            self._send()

    @property
    def _known(self) -> Payment:
        assert self._payment is not None
        return self._payment

    # --- sending ------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        payment, machine = self._known, self.machine
        self._enter(State.SENDING)
        machine.set_minimum_rate(Fraction(payment.minimum))
        machine.grant(0, 0)  # from here on nothing leaves without a grant
        found = rest(payment, machine)
        if not isinstance(found, Rest):
            self._sent(*found)
            return
        if payment.deliver:
            _, delivered, _ = machine.stream_sent(STREAM_ID)
            machine.deliver_total(STREAM_ID, delivered + found.wanted, source_max=payment.source_max)
        else:
            machine.send_total(STREAM_ID, payment.source_max)
        self._endpoint.touch(self)

    def _sent(self, status: str, detail: str) -> None:
        """If replies don't tell what arrived, the receiver may."""
        machine = self.machine
        _, delivered, _ = machine.stream_sent(STREAM_ID)
        if delivered == machine.stream_delivered_max(STREAM_ID):
            self._end(status, detail)
            return
        self._enter(State.ASKING_AGAIN)
        self._ending = status, detail
        self._asked += 1
        machine.stop_sending(STREAM_ID)
        self._ask(State.ASKING_AGAIN, self._total_known_now)

    def _total_known_now(self, told: int | None) -> None:
        status, detail = self._ending
        is_known = told is not None and self.machine.believe_total(STREAM_ID, told)
        if is_known and status != FAILED and self._known.deliver:
            self._send()  # of a fixed amount it is known now what is missing
        else:
            self._end(status, detail)

    def _grant(self, order: GrantWanted) -> None:
        """One commit for both notes; then packets may leave."""
        grant = ledger.grant(self._known.id, total=order.total, sequence_ceiling=order.sequence_ceiling)
        self._granting += 1
        self._process.note(ledger.progress(self._totals()), lambda: None)
        self._process.note(grant, lambda: self._granted(order))

    def _granted(self, order: GrantWanted) -> None:
        self._granting -= 1
        self.machine.grant(order.total, order.sequence_ceiling)
        self._endpoint.touch(self)
        if self._outcome is not None and not self._granting:
            self._end(*self._outcome)

    def _totals(self) -> Payment:
        return with_totals(self._known, self.machine.totals)

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self, status: str, detail: str) -> None:
        """Make the outcome durable."""
        if self._granting:
            self._outcome = (status, detail)
            return
        self._enter(State.ENDING)
        payment = ended(self._totals(), status, detail, self.wallet.clock.wall_ms())
        self._process.note(ledger.ended(payment), lambda: self._over(payment))

    def _over(self, payment: Payment) -> None:
        self._enter(State.OVER)
        self.machine.close()
        self._endpoint.touch(self)
        self._timers.after(CLOSE_MS + self.machine.rtt_ms, lambda: self._endpoint.forget(self.machine))
        detail = f" ({payment.detail})" if payment.detail else ""
        self.wallet.ended(self.wish, f"{payment.status}{detail}")


def _words(unsent: int) -> str:
    return f"{unsent} is too small to arrive" if unsent else ""
