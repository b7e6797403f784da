"""Connections and streams as an application uses them: money and bytes, both ways, awaited.

    connection = await wallet.open(address, secret, min_rate="24.5")
    stream = connection.stream()
    await stream.send(1_000)
    async for money in stream: ...

A thin, asynchronous face of `isthmus.stream.connection`; nothing here is durable by itself (a payment that must
survive a kill is `Wallet.pay`).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, final

from isthmus.errors import IsthmusError, plain
from isthmus.ilp.asset import Asset
from isthmus.stream.connection import Connection as Machine
from isthmus.stream.orders import (
    ConnectionClosed,
    Credit,
    DataArrived,
    DecisionWanted,
    Failure,
    GrantWanted,
    Order,
    PeerAddress,
    PeerAsset,
    PeerEnded,
    PeerTotal,
    Quote,
    QuoteFailed,
    QuoteReady,
    ReceiptArrived,
    SendDone,
    SendFailed,
    StreamClosed,
    StreamOpened,
    StreamsAllowed,
    Totals,
)
from isthmus.stream.packet import INTERNAL_ERROR, NO_ERROR
from isthmus.stream.settings import SEND_BYTES_MAX

if TYPE_CHECKING:
    from isthmus.client.endpoint import Endpoint

# A rate as people say it: whole units of the receiver's asset for one of ours ("24.5" ETH for a BTC).
Rate: TypeAlias = str | int | Decimal | Fraction
T = TypeVar("T")

STREAMS_MAX: Final = 1_024  # of one connection that we remember; closed ones beyond it are forgotten
RATE_TEXT_MAX: Final = 100
CLOSE_MS: Final = 1_000  # how much longer than a round trip we wait for the peer to hear of a connection's end
READ_BYTES_MAX: Final = 65_536


class StreamError(IsthmusError):
    """Sending, quoting or the connection failed. What left and arrived until then is certain but for `unknown`."""

    def __init__(
        self,
        failure: Failure,
        *,
        code: str = "",
        message: str = "",
        triggered_by: str = "",
        sent: int = 0,
        delivered: int = 0,
        unknown: int = 0,
        quote: Quote | None = None,
    ) -> None:
        super().__init__(explain(failure, code, message, triggered_by))
        self.failure: Final = failure
        self.code: Final = code  # the ILP error code behind it, if any
        self.triggered_by: Final = triggered_by
        self.sent: Final = sent
        self.delivered: Final = delivered
        self.unknown: Final = unknown
        self.quote: Final = quote  # what the path offered, if that is the trouble


def explain(failure: Failure, code: str, message: str, triggered_by: str) -> str:
    """One sentence: what failed, and what the path said."""
    said = " ".join(plain(part) for part in (code, message) if part)
    who = f" by {plain(triggered_by)}" if triggered_by else ""
    return f"{failure.value} ({said}{who})" if said else failure.value


@final
@dataclass(slots=True, frozen=True)
class Sent:
    """What one `send` or `deliver` did. `unsent` was too small to arrive."""

    sent: int
    delivered: int
    unsent: int


@final
@dataclass(slots=True, frozen=True)
class Money:
    """What came in since the last one, in one or several packets, and in all. Its credit is durable."""

    amount: int
    total: int


@final
@dataclass(slots=True, frozen=True)
class Offer:
    """Money that waits for our yes. Without an answer in time it goes back."""

    amount: int
    streams: list[tuple[int, int]]  # stream id, amount


def as_fraction(rate: Rate) -> Fraction:
    """Read a rate, exactly. ValueError for anything but a non-negative number."""
    if isinstance(rate, float):
        raise TypeError("a rate is a str, int, Decimal or Fraction: floats are not exact")
    if isinstance(rate, str) and len(rate) > RATE_TEXT_MAX:
        raise ValueError(f"a rate has at most {RATE_TEXT_MAX} characters")
    if isinstance(rate, str) and abs(int(rate.lower().partition("e")[2] or 0)) > RATE_TEXT_MAX:
        raise ValueError(f"a rate has at most {RATE_TEXT_MAX} digits")
    try:
        value = Fraction(rate)
    except ZeroDivisionError:
        raise ValueError("a rate over nothing") from None
    if value < 0:
        raise ValueError(f"a rate is not negative: {rate}")
    return value


def base_rate(rate: Fraction, source: Asset, destination: Asset) -> Fraction:
    """From whole units to base units: 24.5 ETH (scale 9) for a BTC (scale 8) is 245 for 1."""
    return rate * Fraction(10) ** (destination.scale - source.scale)


def whole_rate(rate: Fraction, source: Asset, destination: Asset) -> Fraction:
    """From base units to whole units."""
    return rate * Fraction(10) ** (source.scale - destination.scale)


@final
class Connection:
    """One STREAM connection, ours or one that came to us. Iterating it gives the streams that the peer opens."""

    def __init__(self, endpoint: "Endpoint", machine: Machine, *, tag: bytes = b"", secret: bytes = b"") -> None:
        self.machine: Final = machine
        self.secret: Final = secret  # of a connection that we opened
        self.tag: Final = tag  # of the invitation that led here
        self.closed: ConnectionClosed | None = None
        self.received = 0  # on all streams; what is durable
        # Called for each durable credit, and when a durable payment needs a grant.
        self.on_credit: Callable[[Credit], None] | None = None
        self.on_grant: Callable[[GrantWanted], None] | None = None
        self.decide: Callable[[Offer], bool] | None = None
        self._endpoint: Final = endpoint
        self._streams: Final[dict[int, Stream]] = {}
        self._opened: Final[deque[Stream]] = deque(maxlen=STREAMS_MAX)
        self._quote: QuoteReady | QuoteFailed | None = None
        self._quoting: Final = asyncio.Lock()
        self._peer_totals: Final[dict[int, PeerTotal]] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._dropped = False

    # --- what is known ------------------------------------------------------------------------------------------

    @property
    def id(self) -> bytes:
        """16 bytes; names the connection in the wallet's history."""
        return self.machine.settings.connection_id

    @property
    def asset(self) -> Asset | None:
        """What the peer's account counts in; None until it has told us."""
        return self.machine.peer_asset

    @property
    def address(self) -> str:
        """The peer's ILP address; empty if it has none."""
        return self.machine.peer_address

    @property
    def rate(self) -> Fraction:
        """The rate last seen, in base units; 0 while unknown."""
        return self.machine.rate

    @property
    def totals(self) -> Totals:
        """What was sent, delivered, rejected … A live object."""
        return self.machine.totals

    # --- streams ------------------------------------------------------------------------------------------------

    def stream(self) -> "Stream":
        """Open a stream. Raises StreamError where the peer allows no more of them now."""
        if self.closed is not None:
            raise StreamError(Failure.CLOSED)
        stream_id = self.machine.open_stream()
        if stream_id is None:
            self.poke()
            raise StreamError(Failure.REFUSED, message="the peer allows no more streams for now")
        return self._stream(stream_id)

    def resume(
        self, stream_id: int, *, sent: int = 0, delivered: int = 0, delivered_max: int = 0, unknown: int = 0
    ) -> "Stream":
        """Open a stream of an earlier life again, with what is known of it."""
        self.machine.resume_stream(
            stream_id, sent=sent, delivered=delivered, delivered_max=delivered_max, unknown=unknown
        )
        return self._stream(stream_id)

    def __aiter__(self) -> "AsyncIterator[Stream]":
        return self._incoming()

    async def _incoming(self) -> "AsyncIterator[Stream]":
        while await self.until(lambda: bool(self._opened) or self.is_over) and self._opened:
            yield self._opened.popleft()

    def _stream(self, stream_id: int) -> "Stream":
        found = self._streams.get(stream_id)
        if found is None:
            self._streams[stream_id] = found = Stream(self, stream_id)
        return found

    # --- quotes and rates ---------------------------------------------------------------------------------------

    async def quote(self, *, source: int = 0, destination: int = 0) -> Quote:
        """Ask the path what a payment would give, with packets that nobody can fulfil. Raises StreamError."""
        async with self._quoting:
            self._quote = None
            self.machine.start_quote(source=source, destination=destination)
            self.poke()
            result = await self._quoted()
        if result is None:
            raise self._over()
        if isinstance(result, QuoteFailed):
            raise StreamError(
                result.failure,
                code=result.code,
                message=result.message,
                triggered_by=result.triggered_by,
                quote=result.quote,
            )
        return result.quote

    async def _quoted(self) -> QuoteReady | QuoteFailed | None:
        await self.until(lambda: self._quote is not None or self.is_over)
        return self._quote

    async def require_rate(self, rate: Rate) -> None:
        """Set the least that the path must give, in whole units; money is sent only after this.

        It must come from outside the path: a price source, or a person. 0 accepts anything.
        """
        least = as_fraction(rate)
        if least and self.asset is None:
            await self.quote()
        asset = self.asset
        if least and asset is None:
            raise StreamError(Failure.NO_ANSWER, message="the receiver doesn't say what it counts in")
        if asset is not None and self.machine.settings.asset is not None:
            least = base_rate(least, self.machine.settings.asset, asset)
        self.machine.set_minimum_rate(least)

    # --- the end ------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self.closed is not None or self._dropped

    def forget(self) -> None:
        """Leave without a word: the peer drops the connection when it was idle for long."""
        self._endpoint.forget(self.machine)
        self.dropped()

    async def close(self, code: int = NO_ERROR, message: str = "") -> None:
        """Wait for what is in flight, and say goodbye (bounded)."""
        if not self.is_over:
            self.machine.close(code, message)
            self.poke()
            try:
                async with asyncio.timeout((CLOSE_MS + self.machine.rtt_ms) / 1000):
                    await self.until(lambda: self.is_over)
            except TimeoutError:
                pass  # the peer will find out by itself
        self.forget()

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close(NO_ERROR if kind is None else INTERNAL_ERROR)

    def _over(self) -> StreamError:
        message = self.closed.message if self.closed is not None else "it was idle for long"
        return StreamError(Failure.CLOSED, message=message)

    # --- waiting ------------------------------------------------------------------------------------------------

    def poke(self) -> None:
        """The machine was called: let the endpoint look at it."""
        self._endpoint.touch(self)

    async def until(self, holds: Callable[[], bool]) -> bool:
        """Wait for news until the condition holds."""
        while not holds():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return True

    def _news(self) -> None:
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # --- endpoint.Party -----------------------------------------------------------------------------------------

    def told(self, order: Order) -> None:
        if isinstance(order, GrantWanted):
            if self.on_grant is not None:
                self.on_grant(order)
            return
        if isinstance(order, SendDone | DataArrived | PeerEnded | StreamClosed | ReceiptArrived):
            self._stream(order.stream_id).told(order)
            if len(self._streams) > STREAMS_MAX and isinstance(order, StreamClosed):
                self._forget_closed()
        elif isinstance(order, SendFailed):
            for stream in self._streams.values():
                stream.failed(order)
        elif isinstance(order, StreamOpened):
            self._opened.append(self._stream(order.stream_id))
        elif isinstance(order, QuoteReady | QuoteFailed):
            self._quote = order
        elif isinstance(order, PeerTotal):
            self._peer_totals[order.stream_id] = order
        elif isinstance(order, DecisionWanted):
            self._decide(order)
        elif isinstance(order, ConnectionClosed):
            self.closed = order
        else:
            assert isinstance(order, PeerAsset | PeerAddress | StreamsAllowed), order

    def polled(self) -> None:
        self._news()

    def credited(self, credit: Credit) -> None:
        self.received += credit.amount
        for part in credit.money:
            self._stream(part.stream_id).credited(part.amount, part.total)
        if self.on_credit is not None:
            self.on_credit(credit)
        self._news()

    def dropped(self) -> None:
        self._dropped = True
        self._news()

    def _forget_closed(self) -> None:
        for stream in self._streams.values():
            if stream.is_closed:
                del self._streams[stream.id]
                return

    def _decide(self, order: DecisionWanted) -> None:
        # In a turn of its own: the machine is being polled now.
        def decide() -> None:
            takes = self.decide is None or self.decide(Offer(order.amount, order.money))
            if takes:
                self.machine.accept(order.request)
            else:
                self.machine.refuse(order.request)
            self.poke()

        asyncio.get_running_loop().call_soon(decide)

    async def peer_total(self, stream_id: int) -> int | None:
        """What the peer says it received on the stream; None if it doesn't say."""
        self._peer_totals.pop(stream_id, None)
        self.machine.ask_total(stream_id)
        self.poke()
        await self.until(lambda: stream_id in self._peer_totals or self.is_over or self.machine.failure is not None)
        told = self._peer_totals.pop(stream_id, None)
        return None if told is None else told.total_received


@final
class Stream:
    """One stream: money and bytes both ways. Iterating it gives the money that comes in, until the peer ends it."""

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self.connection: Final = connection
        self.id: Final = stream_id
        self.received = 0  # durable
        self.receipt = b""  # the newest receipt (RFC 0039) for what we sent
        self._taken = 0  # of `received`, by iteration
        self._sending: Final = asyncio.Lock()
        self._done: SendDone | None = None
        self._failed: SendFailed | None = None
        self._peer_ended = False
        self.is_closed = False

    @property
    def _machine(self) -> Machine:
        return self.connection.machine

    # --- money out ----------------------------------------------------------------------------------------------

    async def send(self, amount: int) -> Sent:
        """Send so many base units of ours more. Raises StreamError with what left until then."""
        if amount <= 0:
            raise ValueError("an amount to send is positive")
        async with self._sending:
            sent, delivered, unknown = self._before()
            self._machine.send_total(self.id, sent + unknown + amount)
            return await self._outcome(sent, delivered)

    async def deliver(self, amount: int, *, source_max: int) -> Sent:
        """Send until so many base units of the receiver's have arrived, for at most `source_max` of ours."""
        if amount <= 0 or source_max <= 0:
            raise ValueError("an amount to deliver and its maximum cost are positive")
        async with self._sending:
            sent, delivered, unknown = self._before()
            total = delivered + amount
            self._machine.deliver_total(self.id, total, source_max=sent + unknown + source_max)
            return await self._outcome(sent, delivered)

    def stop(self) -> None:
        """Send no more money; what is in flight gets its outcome, then `send` returns."""
        if not self._is_gone:
            self._machine.stop_sending(self.id)
            self.connection.poke()

    def _before(self) -> tuple[int, int, int]:
        if self._is_gone:
            raise StreamError(Failure.CLOSED)
        self._done = self._failed = None
        return self._machine.stream_sent(self.id)

    async def _outcome(self, sent: int, delivered: int) -> Sent:
        self.connection.poke()
        try:
            await self.connection.until(lambda: bool(self._done or self._failed) or self._is_gone)
        except asyncio.CancelledError:
            self.stop()
            raise
        if self._done is not None:
            return Sent(self._done.sent - sent, self._done.delivered - delivered, self._done.unsent)
        unknown = 0
        if self._machine.has_stream(self.id):
            sent_now, delivered_now, unknown = self._machine.stream_sent(self.id)
            sent, delivered = sent_now - sent, delivered_now - delivered
        failed = self._failed
        if failed is None:
            raise StreamError(Failure.CLOSED, sent=sent, delivered=delivered, unknown=unknown)
        raise StreamError(
            failed.failure,
            code=failed.code,
            message=failed.message,
            triggered_by=failed.triggered_by,
            sent=sent,
            delivered=delivered,
            unknown=unknown,
        )

    # --- money in -----------------------------------------------------------------------------------------------

    def limit(self, total: int | None) -> None:
        """Take up to so much on this stream in all; None for everything. Limits are only ever raised."""
        if not self._is_gone:
            self._machine.set_receive_max(self.id, total)
            self.connection.poke()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Money:
        await self.connection.until(lambda: self.received > self._taken or self._peer_ended or self._is_gone)
        if self.received == self._taken:
            raise StopAsyncIteration
        amount = self.received - self._taken
        self._taken = self.received
        return Money(amount, self.received)

    # --- bytes --------------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Queue bytes for the peer; waits while it takes none. Raises StreamError if it never will."""
        rest = memoryview(data)
        while rest:
            if self._is_gone or self._failed is not None:
                raise StreamError(Failure.CLOSED)
            taken = self._machine.write(self.id, bytes(rest))
            self.connection.poke()
            rest = rest[taken:]
            if rest:
                await self.connection.until(self._takes_bytes)

    def _takes_bytes(self) -> bool:
        return self._is_gone or self._failed is not None or self._machine.unsent_bytes(self.id) < SEND_BYTES_MAX

    async def read(self, size_max: int = READ_BYTES_MAX) -> bytes:
        """Up to so many bytes, as soon as there are any; b"" once the peer has ended the stream."""
        await self.connection.until(lambda: self._machine.readable(self.id) > 0 or self._peer_ended or self._is_gone)
        data = self._machine.read(self.id, size_max)
        if data:
            self.connection.poke()
        return data

    async def drain(self) -> None:
        """Wait until the peer has acknowledged all that was written."""
        self.connection.poke()
        await self.connection.until(
            lambda: self._machine.all_acknowledged(self.id) or self._is_gone or self._failed is not None
        )

    # --- the end ------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Send nothing more than what is queued; the peer may go on (half-closed)."""
        self._machine.end_stream(self.id)
        self.connection.poke()

    def close(self, code: int = NO_ERROR, message: str = "") -> None:
        """Close both ways, after what is queued."""
        self._machine.close_stream(self.id, code, message)
        self.connection.poke()

    @property
    def _is_gone(self) -> bool:
        return self.is_closed or self.connection.is_over or not self._machine.has_stream(self.id)

    # --- news ---------------------------------------------------------------------------------------------------

    def told(self, order: SendDone | DataArrived | PeerEnded | StreamClosed | ReceiptArrived) -> None:
        if isinstance(order, SendDone):
            self._done = order
        elif isinstance(order, PeerEnded):
            self._peer_ended = True
        elif isinstance(order, StreamClosed):
            self.is_closed = True
        elif isinstance(order, ReceiptArrived):
            self.receipt = order.receipt

    def failed(self, order: SendFailed) -> None:
        self._failed = order

    def credited(self, amount: int, total: int) -> None:
        self.received = max(self.received, total)
