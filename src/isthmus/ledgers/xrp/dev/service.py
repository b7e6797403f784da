"""The development ledger at work: one order of requests and closes, and nobody is told what isn't on the disk yet.

Requests are answered and ledgers closed and written one after the other, on the event loop's thread: so an answer about
a validated ledger is never ahead of the disk. A ledger that can't be written ends the service.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from isthmus.errors import LedgerError
from isthmus.ledgers.xrp.dev import methods_account, methods_server, methods_transaction
from isthmus.ledgers.xrp.dev.desk import Desk, Request
from isthmus.ledgers.xrp.dev.entries import Fields
from isthmus.ledgers.xrp.dev.faucet import Faucet
from isthmus.ledgers.xrp.dev.faults import Code, Fault, invalid
from isthmus.ledgers.xrp.dev.ledger import EPOCH_UNIX, TIME_MAX
from isthmus.ledgers.xrp.dev.rules import Prices
from isthmus.ledgers.xrp.dev.store import LEDGERS_KEPT, Store
from isthmus.ledgers.xrp.dev.subscriptions import Subscriber, Subscriptions

CLOSE_EVERY_MS_MIN: Final = 300  # faster than that, clients that count ledgers give up on transactions too soon
CLOSE_EVERY_MS: Final = 1_000
NETWORK_ID: Final = 1_000  # one of the old ones, which transactions don't name; neither the main nor a test net's
ADVANCE_SECONDS_MAX: Final = 366 * 24 * 3_600
_READ: Final[dict[str, Callable[[Desk, Request], Fields]]] = {
    "account_channels": methods_account.account_channels,
    "account_info": methods_account.account_info,
    "account_lines": methods_account.account_lines,
    "account_objects": methods_account.account_objects,
    "account_tx": methods_account.account_tx,
    "channel_verify": methods_account.channel_verify,
    "fee": methods_server.fee,
    "ledger": methods_server.ledger,
    "ledger_closed": methods_server.ledger_closed,
    "ledger_current": methods_server.ledger_current,
    "ledger_data": methods_server.ledger_data,
    "ledger_entry": methods_account.ledger_entry,
    "ping": methods_server.ping,
    "server_info": methods_server.server_info,
    "server_state": methods_server.server_state,
    "tx": methods_transaction.tx,
}
# What would need a secret: the answer of a server that doesn't sign for others.
_SIGNING: Final = ("channel_authorize", "sign", "sign_for", "wallet_propose")
COMMANDS: Final = (*_READ, "ledger_accept", "submit", "subscribe", "unsubscribe")


class Service:
    """A ledger, its store and its subscribers. `close_every_ms` None: ledgers close by `ledger_accept` only."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        close_every_ms: int | None = CLOSE_EVERY_MS,
        network_id: int = NETWORK_ID,
        prices: Prices | None = None,
        ledgers_kept: int = LEDGERS_KEPT,
    ) -> None:
        self._close_every_ms = close_every_ms
        self._store = Store(path, ledgers_kept=ledgers_kept)
        try:
            now = _now()
            ledger = self._store.open_ledger(now=now, prices=prices or Prices(), network_id=network_id)
        except BaseException:
            self._store.close()
            raise
        # The ledger's clock may have been set ahead before a restart; it goes on from there.
        self._ahead = max(0, ledger.last.close_time - now)
        self._desk = Desk(ledger, self._store, started_at=now + self._ahead, now=now + self._ahead)
        self._faucet = Faucet(ledger)
        self._broken: LedgerError | None = None
        self._broke = asyncio.Event()
        self.subscriptions = Subscriptions()

    @property
    def network_id(self) -> int:
        """Which network it says that it is."""
        return self._desk.ledger.network_id

    @property
    def last_index(self) -> int:
        """Of the last closed ledger."""
        return self._desk.ledger.last.index

    def stop(self) -> None:
        """Let go of the file. What is in the open ledger was never validated, and is lost."""
        self._store.close()

    async def run(self) -> None:
        """Close ledgers as time goes by, until cancelled. LedgerError if one can't be kept."""
        every = self._close_every_ms
        while self._broken is None:
            try:
                await asyncio.wait_for(self._broke.wait(), None if every is None else every / 1_000)
            except TimeoutError:
                self.close_ledger()
        raise self._broken

    def close_ledger(self, *, advance: int = 0) -> None:
        """Close the open ledger, `advance` seconds later than it is; from then on the ledger's clock is ahead.

        LedgerError if it can't be kept; the service answers nothing more then.
        """
        self._ahead += advance
        closed = self._desk.ledger.close(self._tick())
        try:
            self._store.save(closed)
        except LedgerError as error:
            self._broken = error
            self._broke.set()
            raise
        self.subscriptions.tell_closed(self._desk, closed)

    def _tick(self) -> int:
        if self._broken is not None:
            raise self._broken
        # A clock that was set ahead to the end of the ledger's time stands still there.
        self._desk.now = min(_now() + self._ahead, TIME_MAX)
        return self._desk.now

    def answer(self, request: Request, subscriber: Subscriber | None = None) -> Fields:
        """The result of a request, or a Fault. Without a subscriber the way it came on can't carry pushes."""
        self._tick()
        read = _READ.get(request.command)
        if read is not None:
            return read(self._desk, request)
        if request.command == "submit":
            return self._submit(request)
        if request.command == "ledger_accept":
            return self._accept(request)
        if request.command in ("subscribe", "unsubscribe"):
            if subscriber is None:
                raise Fault(Code.NO_EVENTS)
            if request.command == "unsubscribe":
                return self.subscriptions.unsubscribe(subscriber, request)
            return self.subscriptions.subscribe(subscriber, self._desk, request)
        if request.command in _SIGNING:
            raise Fault(Code.NOT_SUPPORTED, "Signing is not supported by this server.")
        raise Fault(Code.UNKNOWN_COMMAND)

    def _submit(self, request: Request) -> Fields:
        transaction = methods_transaction.read_submission(request)
        before = len(self._desk.ledger.included)
        submitted = self._desk.ledger.submit(transaction, fail_hard=request.flag("fail_hard"))
        # With those that waited for it, if any did.
        for included in self._desk.ledger.included[before:]:
            self.subscriptions.tell_proposed(self._desk, included)
        return methods_transaction.submission(self._desk, submitted, request)

    def _accept(self, request: Request) -> Fields:
        advance = request.get("advance", int) or 0
        if not 0 <= advance <= ADVANCE_SECONDS_MAX or self._desk.now + advance > TIME_MAX:
            raise invalid("advance")
        self.close_ledger(advance=advance)
        return {"ledger_current_index": self._desk.ledger.index}

    def fund(self, address: str, xrp: int) -> str:
        """Pay an address out of the genesis account; the transaction's id. LedgerError if that can't be done."""
        self._tick()
        transaction_id = self._faucet.pay(address, xrp)
        self.subscriptions.tell_proposed(self._desk, self._desk.ledger.included[-1])
        return transaction_id

    def has(self, address: str) -> bool:
        """Whether there is such an account."""
        return self._desk.ledger.open.account(address) is not None


def _now() -> int:
    now = int(time.time()) - EPOCH_UNIX
    if not 0 < now <= TIME_MAX:
        raise LedgerError("this machine's clock is outside of the years 2000 to 2136, in which the XRP Ledger lives")
    return now
