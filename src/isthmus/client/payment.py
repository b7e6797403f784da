"""Payments that survive a kill (design, "STREAM and the durable payment").

In the wallet's journal a payment is *started* before its first packet of money, with everything that is needed to go
on: address, secret (encrypted), amounts, minimum rate. A *grant* is durable before packets leave under it. After a
kill the wallet waits until its own books have decided every packet of the earlier process, opens the same connection
with packet numbers above the granted ones, asks the receiver what arrived, and counts all that was granted and has
no outcome as sent: it never sends the difference by itself. Where replies don't tell what arrived, it asks again at
the end.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, TypeAlias, final

from isthmus.client import ledger
from isthmus.client.aftermath import arrived
from isthmus.client.core import Core
from isthmus.client.goal import COMPLETED, FAILED, STOPPED, STREAM_ID, Rest, ended, rest, with_totals
from isthmus.client.ledger import RUNNING, Payment
from isthmus.client.streams import Connection, Stream, StreamError, whole_rate
from isthmus.client.terms import Offer, PaymentRequest, Receiver, offer
from isthmus.errors import CodecError, ConfigError, IsthmusError, JournalError, LinkError
from isthmus.ilp.address import is_valid
from isthmus.ilp.asset import Asset, format_amount
from isthmus.runtime import clock
from isthmus.stream.crypto import IV_BYTES
from isthmus.stream.orders import Failure, GrantWanted
from isthmus.stream.rate import MinimumRate

PROGRESS_MS: Final = 100
TOTAL_MS: Final = 5_000  # how long the receiver is waited for to say what arrived
ASK_MS: Final = 1_000  # and how long for one answer, before it is asked again
SECRET_BYTES: Final = 32

# Asks whom a payment pointer or URL leads to.
Resolve: TypeAlias = Callable[[str], Awaitable[Receiver]]


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Progress:
    """How far a payment is. Amounts are base units."""

    sent: int
    delivered: int
    source_max: int
    deliver: int  # 0 for a fixed source amount
    in_flight: int
    packets: int  # fulfilled
    packets_in_flight: int
    rejected: dict[str, int]  # by ILP code
    rate: Fraction  # whole units delivered for one sent, as seen last
    source_asset: Asset
    destination_asset: Asset
    seconds: float


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class PaymentResult:
    """How a payment ended: `sent` to `sent + unknown` left, `delivered` to `delivered_max` arrived."""

    id: str
    key: str
    target: str
    status: str  # completed | stopped | failed | uncertain
    detail: str
    sent: int
    delivered: int
    delivered_max: int
    unknown: int
    source_asset: Asset
    destination_asset: Asset | None
    packets: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    repeated: bool = False  # the key was used before: this is what happened then
    receipt: bytes = b""

    @property
    def rate(self) -> Fraction | None:
        """Whole units delivered for one sent."""
        if not self.sent or self.destination_asset is None:
            return None
        return whole_rate(Fraction(self.delivered, self.sent), self.source_asset, self.destination_asset)


class PaymentError(IsthmusError):
    """A payment failed after it was begun; `result` says what left and what arrived."""

    def __init__(self, result: PaymentResult) -> None:
        super().__init__(result.detail)
        self.result: Final = result


class StoppedError(IsthmusError):
    """The user stopped before anything left."""

    def __init__(self) -> None:
        super().__init__("stopped before anything left")


class KeyConflictError(ConfigError):
    """The key belongs to another payment."""

    def __init__(self, payment_terms: str) -> None:
        super().__init__("key", f"it was used before, to {payment_terms}", "Choose another key for another payment")


@final
class Payments:
    """All payments of one wallet."""

    def __init__(self, core: Core, resolve: Resolve | None) -> None:
        self._core: Final = core
        self._resolve: Final = resolve
        self._running: Final[set[asyncio.Task[PaymentResult]]] = set()
        self._keys: Final[dict[str, tuple[str, asyncio.Task[PaymentResult]]]] = {}
        self._closing: Final[set[asyncio.Task[None]]] = set()
        self._stop: Final = asyncio.Event()

    # --- quotes -------------------------------------------------------------------------------------------------

    async def quote(self, request: PaymentRequest) -> Offer:
        """What the path offers for it. Moves no money. Raises StreamError, and whatever resolving raises."""
        request.check()
        receiver = await self._receiver(request)
        await self._core.until_paid_ahead()
        connection = self.open(receiver.address, receiver.secret)
        try:
            found = await self._quote(connection, request)
            return replace(found, host=receiver.host, final_host=receiver.final_host)
        finally:
            connection.forget()  # not closed: the same address and secret may be paid next

    async def _receiver(self, request: PaymentRequest) -> Receiver:
        if request.secret:
            receiver = Receiver(request.target, request.secret)
        elif self._resolve is None:
            raise ConfigError("target", "no way to resolve it is known", "Give an ILP address and its secret")
        else:
            receiver = await self._resolve(request.target)
        if not is_valid(receiver.address) or len(receiver.secret) != SECRET_BYTES:
            raise ConfigError("target", "not an ILP address with a secret of 32 bytes", "Ask the receiver")
        return receiver

    def open(self, address: str, secret: bytes, *, first_sequence: int = 1) -> Connection:
        """A connection of ours; nothing is sent yet."""
        endpoint = self._core.endpoint
        party = endpoint.open(
            address,
            secret,
            lambda machine: Connection(endpoint, machine, secret=secret),
            first_sequence=first_sequence,
        )
        assert isinstance(party, Connection)
        return party

    async def _quote(self, connection: Connection, request: PaymentRequest) -> Offer:
        source = self._core.asset
        if not request.deliver:
            quote = await connection.quote(source=request.units(source))
        else:
            if connection.asset is None and isinstance(request.amount, str):
                await connection.quote()  # the amount is in the receiver's asset, which only the receiver can tell
            destination = connection.asset
            units = request.amount if isinstance(request.amount, int) else request.units(_known(destination))
            quote = await connection.quote(destination=units)
        return offer(request, quote, source, _known(connection.asset))

    # --- paying -------------------------------------------------------------------------------------------------

    async def pay(
        self,
        request: PaymentRequest,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        stop: asyncio.Event | None = None,
    ) -> PaymentResult:
        """Pay, once for each key. `stop` ends it cleanly: no new packets, an outcome for those in flight.

        Raises ConfigError or StreamError before any money moved. Later the result tells what happened.
        """
        request.check()
        if request.minimum is None and not (request.key and self._core.ledger.with_key(request.key)):
            raise ConfigError("minimum rate", "none is given", "Give one: a quote alone would believe any connector")
        stop = asyncio.Event() if stop is None else stop
        task = self._task(request, on_progress, stop)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()  # the payment ends by itself, and is recorded
            raise

    def known(self, request: PaymentRequest) -> str:
        """The status of the payment with this request's key; "new" if there is none. Raises KeyConflictError."""
        payment = self._core.ledger.with_key(request.key) if request.key else None
        if payment is None or _is_void(payment):
            return "new"
        if payment.terms != request.terms():
            raise KeyConflictError(payment.terms)
        return payment.status

    def _task(
        self, request: PaymentRequest, on_progress: Callable[[Progress], None] | None, stop: asyncio.Event
    ) -> asyncio.Task[PaymentResult]:
        terms = request.terms()
        if request.key:
            under_way = self._keys.get(request.key)
            if under_way is not None:
                if under_way[0] != terms:
                    raise KeyConflictError(under_way[0])
                return under_way[1]
        task = asyncio.create_task(self._pay(request, on_progress, stop))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # Who waited for it may have been cancelled: its failure is then nobody's.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        if request.key:
            self._keys[request.key] = (terms, task)
            task.add_done_callback(lambda _: self._keys.pop(request.key, None))
        return task

    async def _pay(
        self, request: PaymentRequest, on_progress: Callable[[Progress], None] | None, stop: asyncio.Event
    ) -> PaymentResult:
        known = self._core.ledger.with_key(request.key) if request.key else None
        if known is None or _is_void(known):
            run = await self._unless(stop, self._begin(request))
        elif known.terms != request.terms():
            raise KeyConflictError(known.terms)
        elif known.status == RUNNING:
            run = await self._unless(stop, self._resume(known))
        else:
            return _recorded(known, self._core.asset)
        run.on_progress = on_progress
        result = await run.run(stop, self._stop)
        self._end(run.connection)
        return result

    async def _unless(self, stop: asyncio.Event, beginning: Coroutine[Any, Any, "_Run"]) -> "_Run":
        """Begin, or be stopped before money moves."""
        task = asyncio.create_task(beginning)
        waits = [asyncio.create_task(event.wait()) for event in (stop, self._stop)]
        await asyncio.wait([task, *waits], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if task.cancelled() or task.exception() is not None:
                raise StoppedError
        return task.result()

    async def _begin(self, request: PaymentRequest) -> "_Run":
        """Resolve, quote, compare with the minimum, and make it durable that this is a payment."""
        receiver = await self._receiver(request)
        await self._core.until_paid_ahead()
        connection = self.open(receiver.address, receiver.secret)
        try:
            found = await self._quote(connection, request)
            _check(found)
            assert found.minimum is not None
            payment = Payment(
                id=os.urandom(ledger.ID_BYTES).hex(),
                key=request.key,
                terms=request.terms(),
                target=request.target,
                destination=connection.address,
                secret=self._core.keys.encrypt(connection.secret, os.urandom(IV_BYTES)).hex(),
                source_max=found.source_max,
                minimum=str(found.minimum),
                rate=str(found.rate),
                deliver=found.destination_amount if request.deliver else 0,
                asset_code=found.destination_asset.code,
                asset_scale=found.destination_asset.scale,
                started_at=clock.system_now().wall_ms,
            )
            await self._core.note(ledger.started(payment))
        except BaseException:
            connection.forget()
            raise
        return _Run(self._core, payment, connection, connection.stream())

    # --- after a kill -------------------------------------------------------------------------------------------

    async def _resume(self, payment: Payment) -> "_Run":
        """Take up a payment that another process left in the middle."""
        core = self._core
        aftermath = await core.until_settled()
        try:
            secret = core.keys.decrypt(bytes.fromhex(payment.secret))
        except (CodecError, ValueError):
            raise JournalError(f"the secret of payment {payment.id} can't be read: was the wallet's changed?") from None
        connection = self.open(payment.destination, secret, first_sequence=max(1, payment.sequence_ceiling))
        stream = connection.resume(STREAM_ID)
        told = await _peer_total(connection)
        sent, unknown = aftermath.sent(payment)
        least, most = arrived(payment, sent, unknown, told)
        connection.resume(STREAM_ID, sent=sent, delivered=least, delivered_max=most, unknown=unknown)
        return _Run(core, payment, connection, stream)

    async def recover(self) -> None:
        """End payments without a key that a killed process left behind: nobody will ask for them again."""
        for payment in [one for one in self._core.ledger.running() if not one.key]:
            run = await self._resume(payment)
            await run.end(STOPPED, "the wallet was killed in the middle")
            self._end(run.connection)

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self, connection: Connection) -> None:
        """Say goodbye in the background."""
        task = asyncio.create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Stop what runs: each payment gets an outcome for what is in flight, and is recorded."""
        self._stop.set()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.gather(*self._closing, return_exceptions=True)


@final
class _Run:
    """One payment at work in this process."""

    def __init__(self, core: Core, payment: Payment, connection: Connection, stream: Stream) -> None:
        self.connection: Final = connection
        self.on_progress: Callable[[Progress], None] | None = None
        self._core: Final = core
        self._payment: Final = payment
        self._stream: Final = stream
        self._started_ms: Final = clock.mono_ms()
        self._grants: Final[set[asyncio.Task[None]]] = set()

    async def run(self, stop: asyncio.Event, stop_all: asyncio.Event) -> PaymentResult:
        """Send until the goal, a failure, or a stop. The end is durable before this returns."""
        self.connection.on_grant = self._grant_wanted
        machine = self.connection.machine
        machine.set_minimum_rate(Fraction(self._payment.minimum))
        machine.grant(0, 0)  # from here on nothing leaves without a grant
        sending = asyncio.create_task(self._send(lambda: stop.is_set() or stop_all.is_set()))
        helpers = [asyncio.create_task(self._stop_on(event)) for event in (stop, stop_all)]
        if self.on_progress is not None:
            helpers.append(asyncio.create_task(self._tell(self.on_progress)))
        try:
            status, detail = await sending
        finally:
            for helper in helpers:
                helper.cancel()
        if status == COMPLETED and (stop.is_set() or stop_all.is_set()) and not self._is_reached():
            status, detail = STOPPED, "stopped before its end"
        return await self.end(status, detail)

    async def _send(self, is_stopped: Callable[[], bool]) -> tuple[str, str]:
        """Status and detail."""
        while True:
            status, detail = await self._send_rest()
            if is_stopped() or not await self._ask_again() or status == FAILED or not self._payment.deliver:
                return status, detail
            # Of a fixed amount it is known now what is missing.

    async def _ask_again(self) -> bool:
        """If replies don't tell what arrived, the receiver may. True if it is known only now."""
        connection = self.connection
        machine = connection.machine
        if connection.is_over or not machine.has_stream(STREAM_ID):
            return False
        _, delivered, _ = machine.stream_sent(STREAM_ID)
        if delivered == machine.stream_delivered_max(STREAM_ID):
            return False
        self._stream.stop()
        told = await _peer_total(connection)
        return told is not None and machine.has_stream(STREAM_ID) and machine.believe_total(STREAM_ID, told)

    async def _send_rest(self) -> tuple[str, str]:
        found = rest(self._payment, self.connection.machine)
        if not isinstance(found, Rest):
            return found
        try:
            if self._payment.deliver:
                done = await self._stream.deliver(found.wanted, source_max=found.left)
            else:
                done = await self._stream.send(found.left)
        except StreamError as error:
            return FAILED, str(error)
        asset = self._core.asset
        return COMPLETED, f"{format_amount(done.unsent, asset)} is too small to arrive" if done.unsent else ""

    def _is_reached(self) -> bool:
        payment = self._payment
        sent, delivered, unknown = self.connection.machine.stream_sent(STREAM_ID)
        return delivered >= payment.deliver if payment.deliver else sent + unknown >= payment.source_max

    async def _stop_on(self, event: asyncio.Event) -> None:
        await event.wait()
        self._stream.stop()

    async def _tell(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            on_progress(self._progress())
            await asyncio.sleep(PROGRESS_MS / 1000)

    def _progress(self) -> Progress:
        totals = self.connection.totals
        source, destination = self._core.asset, Asset(self._payment.asset_code, self._payment.asset_scale)
        return Progress(
            sent=totals.sent,
            delivered=totals.delivered,
            source_max=self._payment.source_max,
            deliver=self._payment.deliver,
            in_flight=totals.in_flight,
            packets=totals.packets_fulfilled,
            packets_in_flight=totals.packets_in_flight,
            rejected=dict(totals.rejected),
            rate=whole_rate(self.connection.rate, source, destination),
            source_asset=source,
            destination_asset=destination,
            seconds=self._seconds(),
        )

    # --- what is made durable -----------------------------------------------------------------------------------

    def _grant_wanted(self, order: GrantWanted) -> None:
        task = asyncio.create_task(self._make_grant(order))
        self._grants.add(task)
        task.add_done_callback(self._grants.discard)

    async def _make_grant(self, order: GrantWanted) -> None:
        progress = ledger.progress(self._outcome())
        grant = ledger.grant(self._payment.id, total=order.total, sequence_ceiling=order.sequence_ceiling)
        try:
            await asyncio.gather(self._core.note(progress), self._core.note(grant))
        except JournalError:
            return  # the wallet stops: everybody who waits is told
        self.connection.machine.grant(order.total, order.sequence_ceiling)
        self.connection.poke()

    def _outcome(self) -> Payment:
        return with_totals(self._payment, self.connection.totals)

    async def end(self, status: str, detail: str) -> PaymentResult:
        """Make the outcome durable."""
        if self._grants:
            await asyncio.gather(*self._grants)
        machine_totals = self.connection.totals
        payment = ended(self._outcome(), status, detail, clock.system_now().wall_ms)
        await self._core.note(ledger.ended(payment))
        return replace(
            _recorded(payment, self._core.asset),
            packets=machine_totals.packets_fulfilled,
            rejected=dict(machine_totals.rejected),
            seconds=self._seconds(),
            repeated=False,
            receipt=self._stream.receipt,
        )

    def _seconds(self) -> float:
        return (clock.mono_ms() - self._started_ms) / 1000


async def _peer_total(connection: Connection) -> int | None:
    """What the receiver says that it got; None if it doesn't in time."""
    for _ in range(TOTAL_MS // ASK_MS):
        try:
            async with asyncio.timeout(ASK_MS / 1000):
                return await connection.peer_total(STREAM_ID)
        except TimeoutError:
            pass
    return None


def _recorded(payment: Payment, source: Asset) -> PaymentResult:
    """What the journal says of an ended payment."""
    return PaymentResult(
        id=payment.id,
        key=payment.key,
        target=payment.target,
        status=payment.status,
        detail=payment.detail,
        sent=payment.sent,
        delivered=payment.delivered,
        delivered_max=payment.delivered_max,
        unknown=payment.unknown,
        source_asset=source,
        destination_asset=Asset(payment.asset_code, payment.asset_scale) if payment.asset_code else None,
        seconds=max(0, payment.ended_at - payment.started_at) / 1000,
        repeated=True,
    )


def _is_void(payment: Payment) -> bool:
    """It failed before anything left: its key may be used again."""
    return payment.status == FAILED and not payment.sent and not payment.unknown


def _check(found: Offer) -> None:
    """A quote below the minimum fails before money moves."""
    if found.minimum is None:
        raise ConfigError("minimum rate", "none is given", "Give one: a quote alone would believe any connector")
    if not found.is_enough:
        floor = MinimumRate(found.minimum).destination(found.source_amount)
        given = format_amount(found.destination_amount, found.destination_asset)
        message = f"{given} would arrive, less than the minimum of {format_amount(floor, found.destination_asset)}"
        raise StreamError(Failure.RATE_TOO_LOW, message=message)


def _known(asset: Asset | None) -> Asset:
    if asset is None:
        raise LinkError("the receiver doesn't say what it counts in")
    return asset
