"""The wallet of the library: pay, be paid, quote, ping, and what happened before.

    async with isthmus.connect("btp+wss://:TOKEN@connector.example") as wallet:
        payment = await wallet.pay("$bob.example", "0.015", min_rate="24.5")

Made from a URL it lives in memory; made from a folder (`isthmus wallet init`) it is durable, and serves the other
commands of that wallet by a socket in its folder.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, final

from isthmus.client.core import Core, log
from isthmus.client.folder import SECRET_BYTES, WalletSettings, load_folder
from isthmus.client.goal import FAILED
from isthmus.client.hops import EndKind, is_destination
from isthmus.client.ledger import Payment, Receipts, streams
from isthmus.client.listener import Listener
from isthmus.client.payment import PaymentError, PaymentResult, Payments, Progress, Resolve
from isthmus.client.settling import LoadSettling, WalletSettling
from isthmus.client.streams import Connection, Rate, StreamError, as_fraction, whole_rate
from isthmus.client.streams import Offer as MoneyOffer
from isthmus.client.terms import DEFAULT_SLIPPAGE, Minimum, Offer, PaymentRequest
from isthmus.client.trace import TRACE_S, TRACE_S_MAX, Trace, trace
from isthmus.connector.events import Log
from isthmus.errors import ConfigError, IsthmusError, plain
from isthmus.ilp.address import is_prefix_of, is_valid
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import Fulfill, Reject
from isthmus.runtime import clock
from isthmus.stream.orders import Credit

PING_BYTES: Final = 32
PING_INTERVAL_MS: Final = 200
PINGS_MAX: Final = 1_000

CreditCallback = Callable[[Connection, Credit], None]


@final
@dataclass(slots=True, frozen=True)
class Pong:
    """The answer to one ping."""

    ms: float
    code: str  # of the Reject
    by: str  # who answered, by its own word
    reached: bool  # it was the destination


@final
@dataclass(slots=True, frozen=True)
class PingResult:
    """All answers; the rate in whole units if the target speaks STREAM."""

    address: str
    pongs: list[Pong]
    rate: Fraction | None = None
    asset: Asset | None = None


@final
class Wallet:
    """One wallet. An async context manager: the connection lives within it."""

    def __init__(
        self, settings: WalletSettings, *, resolve: Resolve | None = None, settling: WalletSettling | None = None
    ) -> None:
        self.core: Final = Core(settings, settling)
        self.payments: Final = Payments(self.core, resolve)
        self._resolve: Final = resolve
        self._listener: Listener | None = None
        self._subscribers: Final[list[CreditCallback]] = []
        # Ends payments that a killed process left behind, in durable wallets.
        self.recovery: asyncio.Task[None] | None = None

    @classmethod
    def at(
        cls,
        place: str | os.PathLike[str],
        *,
        token: str | None = None,
        resolve: Resolve | None = None,
        ca_file: str | None = None,
        allow_insecure: bool = False,
        settle: LoadSettling | None = None,
    ) -> "Wallet":
        """A wallet in memory for a BTP URL, the durable one of a folder otherwise, which may settle by itself."""
        text = os.fspath(place)
        if "://" not in text:
            settings = load_folder(Path(text))
            assert settings.asset is not None
            settling = None if settle is None else settle(Path(text), settings.asset)
            return cls(settings, resolve=resolve, settling=settling)
        settings = WalletSettings(
            connector=text,
            token=token,
            secret=os.urandom(SECRET_BYTES),
            ca_file=ca_file,
            allow_insecure=allow_insecure,
        )
        return cls(settings, resolve=resolve)

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect. Raises LinkError, JournalError, ConfigError."""
        await self.core.open()
        if self.core.is_durable:
            # A payer may come any time while we are here: its money is recorded, whoever looks at it later.
            self.listen()
            self.recovery = asyncio.create_task(self._recover())

    async def close(self) -> None:
        """Stop payments cleanly, finish what is in flight, disconnect."""
        await self.payments.close()
        if self.recovery is not None:
            self.recovery.cancel()
            await asyncio.gather(self.recovery, return_exceptions=True)
        await self.core.close()

    async def __aenter__(self) -> "Wallet":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _recover(self) -> None:
        try:
            await self.payments.recover()
        except IsthmusError as error:
            # It is tried again at the next start.
            log(Log("warning", "wallet.recovery", {"problem": str(error)}))

    # --- what is known ------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Our ILP address, by the connector's word."""
        return self.core.address

    @property
    def asset(self) -> Asset:
        """What we count in: amounts as ints are in its base units."""
        return self.core.asset

    @property
    def balance(self) -> int:
        """Of the account with the connector: positive if the connector owes us."""
        return self.core.balance

    def paid(self) -> list[Payment]:
        """All payments that are remembered, oldest first."""
        return list(self.core.ledger.payments.values())

    def received(self) -> dict[bytes, Receipts]:
        """What came in, by STREAM connection; the last credited last."""
        return dict(self.core.ledger.receipts)

    # --- paying -------------------------------------------------------------------------------------------------

    async def pay(
        self,
        target: str,
        amount: int | str,
        *,
        deliver: bool = False,
        min_rate: Rate | None = None,
        price: Rate | None = None,
        slippage: Rate = DEFAULT_SLIPPAGE,
        secret: bytes = b"",
        key: str = "",
        on_progress: Callable[[Progress], None] | None = None,
        stop: asyncio.Event | None = None,
    ) -> PaymentResult:
        """Pay a payment pointer, an SPSP URL, or an ILP address with its STREAM secret.

        `amount` is in base units, or text in whole units ("0.015", "0.015 BTC"): what leaves, or with `deliver` what
        arrives. `min_rate` is the least that must arrive, in whole units of the receiver's asset for one of ours; or
        give a `price` of one unit of ours, less `slippage`. With a `key` the payment is made once, however often this
        is called; in a durable wallet also after a kill.

        Raises StreamError or ConfigError if nothing left, PaymentError if it failed later: its `result` says what
        arrived. After `stop` the result has the status "stopped".
        """
        request = PaymentRequest(
            target=target,
            amount=amount,
            deliver=deliver,
            minimum=_minimum(min_rate, price, slippage),
            key=key,
            secret=secret,
        )
        result = await self.payments.pay(request, on_progress=on_progress, stop=stop)
        if result.status == FAILED:
            raise PaymentError(result)
        return result

    async def quote(
        self,
        target: str,
        amount: int | str,
        *,
        deliver: bool = False,
        min_rate: Rate | None = None,
        price: Rate | None = None,
        slippage: Rate = DEFAULT_SLIPPAGE,
        secret: bytes = b"",
    ) -> Offer:
        """What a payment would cost and deliver now. No money moves."""
        minimum = None if min_rate is None and price is None else _minimum(min_rate, price, slippage)
        request = PaymentRequest(target=target, amount=amount, deliver=deliver, minimum=minimum, secret=secret)
        return await self.payments.quote(request)

    async def open(self, address: str, secret: bytes, *, min_rate: Rate | None = None) -> Connection:
        """A STREAM connection to a receiver: money and data, both ways. Money needs a minimum rate (0 takes any)."""
        if self.core.is_durable and not self.core.ledger.has_streams:
            await self.core.note(streams())
        connection = self.payments.open(address, secret)
        if min_rate is not None:
            await connection.require_rate(min_rate)
        return connection

    # --- being paid ---------------------------------------------------------------------------------------------

    def listen(self, *, accept: Callable[[MoneyOffer], bool] | None = None, receive_max: int | None = None) -> Listener:
        """Receive. `accept` is asked before each packet's money is taken; `receive_max` bounds each stream."""
        endpoint = self.core.endpoint
        if self._listener is not None:
            self._listener.close()
        listener = Listener(endpoint, accept=accept)
        listener.on_credit = self._credited
        endpoint.listen(listener, receive_max=receive_max, ask=accept is not None)
        self._listener = listener
        return listener

    @property
    def listener(self) -> Listener:
        """The one that listens now; made if there is none."""
        return self.listen() if self._listener is None else self._listener

    def subscribe(self, on_credit: CreditCallback) -> Callable[[], None]:
        """Hear of each durable credit; returns how to end that."""
        self._subscribers.append(on_credit)
        return lambda: self._subscribers.remove(on_credit)

    def _credited(self, connection: Connection, credit: Credit) -> None:
        for tell in list(self._subscribers):
            tell(connection, credit)

    # --- measuring ----------------------------------------------------------------------------------------------

    async def ping(
        self,
        target: str,
        *,
        secret: bytes = b"",
        count: int = 5,
        interval_ms: int = PING_INTERVAL_MS,
        on_pong: Callable[[Pong], None] | None = None,
    ) -> PingResult:
        """Send packets that nobody can fulfil, and time the answers; the path's rate too where STREAM answers.

        `target`: an ILP address, a payment pointer or a URL.
        """
        if not 1 <= count <= PINGS_MAX:
            raise ConfigError("count", f"not 1 to {PINGS_MAX}", "Choose another")
        address, secret = await self._find(target, secret)
        pongs: list[Pong] = []
        for number in range(count):
            if number:
                await asyncio.sleep(interval_ms / 1000)
            pongs.append(await self._ping(address))
            if on_pong is not None:
                on_pong(pongs[-1])
        rate, asset = (await self._rate_to(address, secret) if secret else None) or (None, None)
        return PingResult(address, pongs, rate, asset)

    async def trace(
        self,
        target: str,
        *,
        secret: bytes = b"",
        seconds: float = TRACE_S,
        with_amounts: bool = True,
        on_change: Callable[[Trace], None] | None = None,
    ) -> Trace:
        """Find the hops on the way to an ILP address, a payment pointer or a URL, as far as they show. No money moves.

        `on_change` is told each time that more is known.
        """
        if not 0 < seconds <= TRACE_S_MAX:
            raise ConfigError("seconds", f"not above 0 and up to {TRACE_S_MAX}", "Choose another")
        address, secret = await self._find(target, secret)
        found = await trace(self.core, address, seconds=seconds, with_amounts=with_amounts, on_change=on_change)
        # A receiver may say F02 to what it can't decrypt (ilp-protocol-stream does): if it answers STREAM, it is there.
        ending = found.ending
        may_be_there = ending.code == "F02" and ending.by is not None and is_prefix_of(ending.by, address)
        if secret and with_amounts and (ending.kind is EndKind.REACHED or may_be_there):
            answer = await self._rate_to(address, secret)
            if answer is not None:
                reached = replace(ending, kind=EndKind.REACHED)
                found = replace(found, ending=reached, rate=answer[0], asset=answer[1])
        return found

    async def _find(self, target: str, secret: bytes) -> tuple[str, bytes]:
        """The address and STREAM secret behind a target; no secret for a bare address."""
        if secret or is_valid(target):
            return target, secret
        if self._resolve is None:
            raise ConfigError("target", "no ILP address, and no way to resolve it", "Give an ILP address")
        receiver = await self._resolve(target)
        return receiver.address, receiver.secret

    async def _rate_to(self, address: str, secret: bytes) -> tuple[Fraction | None, Asset | None] | None:
        """The path's rate in whole units and what it leads to; None if no STREAM receiver answers."""
        connection = self.payments.open(address, secret)
        try:
            quote = await connection.quote()
            asset = connection.asset
            return (None if asset is None else whole_rate(quote.rate, self.asset, asset)), asset
        except StreamError:
            return None
        finally:
            connection.forget()

    async def _ping(self, address: str) -> Pong:
        answered: asyncio.Future[Fulfill | Reject] = asyncio.get_running_loop().create_future()
        started_ns = clock.mono_ns()
        self.core.endpoint.probe(
            address, 0, os.urandom(PING_BYTES), lambda reply: None if answered.done() else answered.set_result(reply)
        )
        reply = await answered  # the kernel answers at the expiry, if nobody else does
        ms = (clock.mono_ns() - started_ns) / 1_000_000
        if isinstance(reply, Fulfill):
            return Pong(ms, "", "", True)  # impossible by the condition, unless SHA-256 is broken
        reached = is_destination(reply.code, reply.triggered_by, address)
        return Pong(ms, plain(reply.code), plain(reply.triggered_by), reached)


def _minimum(min_rate: Rate | None, price: Rate | None, slippage: Rate) -> Minimum | None:
    if min_rate is not None:
        return Minimum(rate=as_fraction(min_rate))
    return None if price is None else Minimum(price=as_fraction(price), slippage=as_fraction(slippage))


@asynccontextmanager
async def listening(
    wallet: Wallet, *, accept: Callable[[MoneyOffer], bool] | None = None, receive_max: int | None = None
) -> AsyncIterator[Listener]:
    """Open the wallet and listen; both end with the block."""
    async with wallet:
        listener = wallet.listen(accept=accept, receive_max=receive_max)
        try:
            yield listener
        finally:
            listener.close()
