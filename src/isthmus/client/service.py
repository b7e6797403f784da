"""What a wallet does for the commands of its user, in JSON: the same whether they run in its process or ask by socket.

Amounts are strings in base units beside their asset; rates are exact fractions in whole units ("49/2" ETH for a BTC).
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from fractions import Fraction
from typing import Any, Final, TypeAlias, final

from isthmus.client.arrivals import Arrivals
from isthmus.client.control import ControlError, Emit, Json
from isthmus.client.hops import Hop
from isthmus.client.ledger import Payment, Receipts
from isthmus.client.payment import PaymentResult, Progress
from isthmus.client.settling import Settler, no_settler
from isthmus.client.streams import Connection, whole_rate
from isthmus.client.terms import Offer, PaymentRequest
from isthmus.client.trace import Trace
from isthmus.client.wallet import Pong, Wallet
from isthmus.ilp.asset import Asset, parse_amount
from isthmus.runtime import clock
from isthmus.stream.orders import Credit

HISTORY_PAGE_MAX: Final = 50  # entries of one answer: below the socket's bound on a line
INTERRUPTED: Final = 130  # the exit status for it
TELL_MS: Final = 100  # money that comes in is told at most so often, for each connection

Method: TypeAlias = Callable[[Json, Emit, asyncio.Event], Coroutine[Any, Any, Json]]


@final
class Service:
    """Answers requests for one wallet. `handle` fits `client.control.ControlServer`."""

    def __init__(self, wallet: Wallet) -> None:
        self._wallet: Final = wallet
        self._methods: Final[dict[str, Method]] = {
            "show": self._show,
            "quote": self._quote,
            "pay": self._pay,
            "known": self._known,
            "ping": self._ping,
            "trace": self._trace,
            "history": self._history,
            "invite": self._invite,
            "receive": self._receive,
            "settle": self._settle,
            "leave": self._leave,
        }
        self._busy = 0
        self._idle: Final = asyncio.Event()
        self._idle.set()

    async def handle(self, method: str, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        """One request. Raises IsthmusError for what the caller is told."""
        found = self._methods.get(method)
        if found is None:
            raise ControlError(f"the wallet's process doesn't know {method!r}: it may be an older isthmus", status=1)
        if method == "receive":
            return await found(params, emit, cancelled)  # ends when its caller does: nobody waits for it
        self._busy += 1
        self._idle.clear()
        try:
            if method == "pay":
                return await found(params, emit, cancelled)  # stops cleanly by itself
            return await _unless(cancelled, found(params, emit, cancelled))
        except (KeyError, TypeError, ValueError) as error:
            raise ControlError(f"not a request for {method!r}: {error!r}", status=2) from error
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    @property
    def busy(self) -> int:
        """Requests that will end by themselves."""
        return self._busy

    async def idle(self) -> None:
        """Wait until there are none."""
        await self._idle.wait()

    # --- methods ------------------------------------------------------------------------------------------------

    async def _show(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        core = self._wallet.core
        return {
            "address": core.address,
            "asset": asset_json(core.asset),
            "connector": core.settings.connector,
            "up": core.is_up,
            "problem": core.problem or core.trouble,
            "balance": str(core.balance),
            "loss": str(core.loss),
            "payments": len(core.ledger.payments),
            "received": str(sum(one.total for one in core.ledger.receipts.values())),
            "settlement": core.settlement_json(),
        }

    async def _quote(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        return offer_json(await self._wallet.payments.quote(PaymentRequest.from_json(params)))

    async def _pay(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        source = self._wallet.asset

        def tell(progress: Progress) -> None:
            emit({"progress": progress_json(progress)})

        request = PaymentRequest.from_json(params)
        result = await self._wallet.payments.pay(request, on_progress=tell, stop=cancelled)
        return result_json(result, source)

    async def _known(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        """What became of a key: "new", "running" or the status of the payment's end."""
        return {"status": self._wallet.payments.known(PaymentRequest.from_json(params))}

    async def _ping(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        found = await self._wallet.ping(
            params["target"],
            count=params["count"],
            interval_ms=params["interval_ms"],
            on_pong=lambda pong: emit({"pong": pong_json(pong)}),
        )
        return {
            "address": found.address,
            "pongs": [pong_json(pong) for pong in found.pongs],
            "rate": None if found.rate is None else str(found.rate),
            "source_asset": asset_json(self._wallet.asset),
            "destination_asset": None if found.asset is None else asset_json(found.asset),
        }

    async def _trace(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        source = self._wallet.asset
        found = await self._wallet.trace(
            params["target"],
            seconds=params["seconds"],
            with_amounts=params["with_amounts"],
            on_change=lambda known: emit({"trace": trace_json(known, source)}),
        )
        return trace_json(found, source)

    async def _history(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        return history_page(self._wallet, params["offset"], params["limit"])

    async def _invite(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        invitation = self._wallet.listener.invite(
            receipt_nonce=bytes.fromhex(params.get("receipt_nonce", "")),
            receipt_secret=bytes.fromhex(params.get("receipt_secret", "")),
        )
        return {
            "address": invitation.address,
            "secret": invitation.shared_secret.hex(),
            "receipts_enabled": invitation.receipts_enabled,
        }

    async def _settle(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        """Pay the connector now, once for the key; and wait for its end, for a while."""
        settler = self._settler()
        text = params.get("amount")
        amount = None if text is None else parse_amount(str(text), self._wallet.asset)
        if amount == 0:
            raise ControlError("nothing is settled: the amount is zero", status=2)
        told = await settler.pay(amount, str(params["key"]), str(params.get("note", "")))
        if told.problem:
            raise ControlError(f"nothing is settled: {told.problem}", status=1)
        await settler.until_paid_ahead()
        shown = settler.to_json()
        state = next((one["state"] for one in shown["under_way"] if one["number"] == str(told.number)), "ended")
        return {
            "amount": str(told.amount),
            "asset": asset_json(self._wallet.asset),
            "number": str(told.number),
            "state": state,
            "alarms": shown["alarms"],
        }

    async def _leave(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        """Redeem what channels to us owe, before nobody watches them; `always`: whatever it costs; `ends` them."""
        if self._wallet.core.settler is None and not params.get("always"):
            return {"channels": []}
        settler = self._settler()
        ends, always = bool(params.get("ends")), bool(params.get("always"))
        return {"channels": await settler.leave(always=always, and_end=ends)}

    def _settler(self) -> Settler:
        settler = self._wallet.core.settler
        if settler is None:
            raise no_settler()
        return settler

    async def _receive(self, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        """Tell what comes in, until the caller goes: {"receiving": {"at": wall ms}} first, then {"money": …}.

        A caller whose last teller ended gives as `since` the first `at` that it was told, and what it knows of each
        connection: it is told of what came in between.
        """
        arrivals = Arrivals(self._wallet.core.ledger, params.get("since"))
        asset = asset_json(self._wallet.asset)

        def credited(connection: Connection, credit: Credit) -> None:
            arrivals.credited(credit.connection_id)

        def tell() -> None:
            for arrival in arrivals.take():
                emit({"money": {**arrival, "asset": asset}})

        unsubscribe = self._wallet.subscribe(credited)
        try:
            emit({"receiving": {"at": clock.system_now().wall_ms}})
            while not cancelled.is_set():
                tell()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TELL_MS / 1000):
                        await cancelled.wait()
            tell()
        finally:
            unsubscribe()
        return {"received": str(arrivals.told), "asset": asset}


async def _unless(cancelled: asyncio.Event, answering: Coroutine[Any, Any, Json]) -> Json:
    """Answer, unless the caller wants no more."""
    task = asyncio.create_task(answering)
    wait = asyncio.create_task(cancelled.wait())
    try:
        await asyncio.wait([task, wait], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ControlError("interrupted", status=INTERRUPTED)
    finally:
        wait.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def history_page(wallet: Wallet, offset: int, limit: int) -> Json:
    """The newest entries first."""
    entries = [_paid_json(one, wallet.asset) for one in wallet.paid()]
    entries += [_received_json(key, one, wallet.asset) for key, one in wallet.received().items()]
    entries.sort(key=lambda entry: int(entry["at"]), reverse=True)
    page = entries[offset : offset + min(limit, HISTORY_PAGE_MAX)]
    return {"entries": page, "count": len(entries)}


# --- JSON ------------------------------------------------------------------------------------------------------------


def asset_json(asset: Asset) -> Json:
    return {"code": asset.code, "scale": asset.scale}


def asset_from(loaded: Json) -> Asset:
    return Asset(loaded["code"], loaded["scale"])


def offer_json(found: Offer) -> Json:
    source, destination = found.source_asset, found.destination_asset

    def whole(rate: Fraction | None) -> str | None:
        return None if rate is None else str(whole_rate(rate, source, destination))

    return {
        "source_asset": asset_json(source),
        "destination_asset": asset_json(destination),
        "source_amount": str(found.source_amount),
        "source_max": str(found.source_max),
        "destination_amount": str(found.destination_amount),
        "destination_minimum": str(found.destination_minimum),
        "rate": whole(found.rate),
        "minimum": whole(found.minimum),
        "enough": found.is_enough,
        "packet_max": None if found.packet_max is None else str(found.packet_max),
        "host": found.host,
        "final_host": found.final_host,
    }


def progress_json(progress: Progress) -> Json:
    return {
        "sent": str(progress.sent),
        "delivered": str(progress.delivered),
        "source_max": str(progress.source_max),
        "deliver": str(progress.deliver),
        "in_flight": str(progress.in_flight),
        "packets": progress.packets,
        "packets_in_flight": progress.packets_in_flight,
        "rejected": progress.rejected,
        "rate": str(progress.rate),
        "source_asset": asset_json(progress.source_asset),
        "destination_asset": asset_json(progress.destination_asset),
        "seconds": round(progress.seconds, 3),
    }


def result_json(result: PaymentResult, source: Asset) -> Json:
    rate = result.rate
    return {
        "id": result.id,
        "key": result.key,
        "target": result.target,
        "status": result.status,
        "detail": result.detail,
        "sent": str(result.sent),
        "delivered": str(result.delivered),
        "delivered_max": str(result.delivered_max),
        "unknown": str(result.unknown),
        "source_asset": asset_json(source),
        "destination_asset": None if result.destination_asset is None else asset_json(result.destination_asset),
        "rate": None if rate is None else str(rate),
        "packets": result.packets,
        "rejected": result.rejected,
        "seconds": round(result.seconds, 3),
        "repeated": result.repeated,
        "receipt": result.receipt.hex(),
    }


def pong_json(pong: Pong) -> Json:
    return {"ms": round(pong.ms, 3), "code": pong.code, "by": pong.by, "reached": pong.reached}


def trace_json(found: Trace, source: Asset) -> Json:
    ending = found.ending
    return {
        "address": found.address,
        "hops": [hop_json(number, found.hops) for number in range(len(found.hops))],
        "ending": {"kind": ending.kind.value, "code": ending.code, "by": ending.by, "message": ending.message},
        "mixed": found.is_mixed,
        "largest": None if found.largest is None else str(found.largest),
        "largest_by_room": found.is_largest_by_room,
        "rate": None if found.rate is None else str(found.rate),
        "source_asset": asset_json(source),
        "destination_asset": None if found.asset is None else asset_json(found.asset),
        "packets": found.probes,
        "seconds": round(found.seconds, 3),
    }


def hop_json(number: int, hops: list[Hop]) -> Json:
    """One hop. The rate after it is what came to the next one, or else follows from the least that it can send on."""
    hop = hops[number]
    received = hop.received
    arrived = hops[number + 1].received if number + 1 < len(hops) else None
    rate_after: Json | None = None
    if arrived is not None:
        rate_after = {"rate": str(arrived.rate), "from": "F08"}
    elif hop.smallest is not None:
        rate_after = {"rate": str(Fraction(1, hop.smallest)), "from": "R01"}
    return {
        "number": number + 1,
        "address": hop.address,
        "code": hop.code,
        "ms": None if hop.delay_us is None else hop.delay_us / 1000,
        "answers": hop.answers,
        "time_left_ms": None if hop.hold_ms is None else list(hop.hold_ms),
        "received": None
        if received is None
        else {"sent": str(received.sent), "received": str(received.received), "maximum": str(received.maximum)},
        "smallest": None if hop.smallest is None else str(hop.smallest),
        "rate_after": rate_after,
    }


def _paid_json(payment: Payment, source: Asset) -> dict[str, Any]:
    return {
        "kind": "paid",
        "at": payment.started_at,
        "ended_at": payment.ended_at,
        "id": payment.id,
        "key": payment.key,
        "target": payment.target,
        "status": payment.status,
        "detail": payment.detail,
        "sent": str(payment.sent),
        "delivered": str(payment.delivered),
        "delivered_max": str(payment.delivered_max),
        "unknown": str(payment.unknown),
        "source_asset": asset_json(source),
        "destination_asset": {"code": payment.asset_code, "scale": payment.asset_scale},
    }


def _received_json(connection_id: bytes, receipts: Receipts, asset: Asset) -> dict[str, Any]:
    return {
        "kind": "received",
        "at": receipts.first_at,
        "ended_at": receipts.last_at,
        "id": connection_id.hex(),
        "amount": str(receipts.total),
        "packets": receipts.packets,
        "asset": asset_json(asset),
    }
