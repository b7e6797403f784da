"""The XRP Ledger as one or two servers tell it: validated ledgers, accounts, channels, transactions.

Nothing but validated ledgers decides anything: these are final, there are no reorganisations. With two servers, what
money depends on is asked of both, about one ledger by its number, and they must agree.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

from isthmus.errors import LedgerError, plain
from isthmus.ledgers.door import LedgersDisagreeError, ServerAwayError
from isthmus.ledgers.xrp.servers import TEXT_CHARS_MAX, RefusedError, Result, Server, server_at
from isthmus.ledgers.xrp.transactions import DROPS_MAX, is_address

PAGES_MAX: Final = 64  # of an account's transactions
PAGE: Final = 200
PARTIAL: Final = 0x0002_0000  # tfPartialPayment
CHANNELS_MAX: Final = 400  # from one account to another
# A server that takes these has taken the transaction, or will have no use for it: its end is seen in ledgers.
_QUIET: Final = ("tesSUCCESS", "terQUEUED", "terPRE_SEQ", "tefALREADY", "tefPAST_SEQ", "tefMAX_LEDGER")

_T = TypeVar("_T")


class WrongNetworkError(LedgerError):
    """The servers are not those of the network that is configured; nothing can be done on their word."""


class ServersDisagreeError(LedgersDisagreeError):
    """Two servers tell different things about one validated ledger."""


class HistoryError(LedgerError):
    """A server hasn't all the ledgers (any more) that something would be found in."""


@final
@dataclass(slots=True, frozen=True)
class Head:
    """A validated ledger."""

    index: int
    time: int  # its close time, in seconds of the ledger's epoch


@final
@dataclass(slots=True, frozen=True)
class Funds:
    """An account in a validated ledger."""

    balance: int  # drops, the reserve among them
    sequence: int  # of its next transaction


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class PayChan:
    """A payment channel in a validated ledger. Amounts in drops, times in seconds of the ledger's epoch."""

    id: str
    source: str
    destination: str
    public_key: bytes
    settle_delay: int
    amount: int
    balance: int  # what was paid out of it
    expiration: int | None = None
    cancel_after: int | None = None

    @property
    def ends_at(self) -> int | None:
        """From when on the rest goes back to its source."""
        ends = [one for one in (self.expiration, self.cancel_after) if one is not None]
        return min(ends) if ends else None


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Applied:
    """A transaction in a validated ledger. `result` begins with `tes`, or with `tec` if it only cost its fee."""

    hash: str
    ledger: int
    result: str
    kind: str
    source: str
    destination: str | None
    tag: int | None
    memos: tuple[bytes, ...]
    delivered: int | None  # drops that a Payment brought its destination; None for tokens, and where nobody tells
    ended: tuple[tuple[str, int], ...]  # channels that it ended, and what each had paid out in all

    @property
    def succeeded(self) -> bool:
        return self.result == "tesSUCCESS"


@final
@dataclass(slots=True, frozen=True)
class Unseen:
    """No validated ledger that was looked at has it. `everywhere`: all that it could be in were looked at."""

    everywhere: bool


@final
class Network:
    """Questions to servers. LedgerError: ServerAwayError, RefusedError, ServersDisagreeError, HistoryError."""

    def __init__(self, urls: Sequence[str], network_id: int, on_ledger: Callable[[], None] = lambda: None) -> None:
        """`on_ledger`: a server says that a ledger has closed (those with a WebSocket do); it is worth a look."""
        self._servers: Final = [server_at(url, on_ledger) for url in urls]
        self.id: Final = network_id
        self._newest = 0

    @property
    def is_pushing(self) -> bool:
        """Whether each server tells of ledgers that close."""
        return all(one.is_pushing for one in self._servers)

    async def close(self) -> None:
        for one in self._servers:
            await one.close()

    async def check(self) -> None:
        """WrongNetworkError if a server belongs to another network."""
        for one in self._servers:
            info = await one.ask("server_info")
            found = _read(info, _network_id, one.name)
            if found != self.id:
                raise WrongNetworkError(f"{one.name} is of the network {found}, not {self.id}")

    async def head(self) -> Head:
        """The newest validated ledger that all servers have. It never goes back."""
        heads = []
        for one in self._servers:
            answer = await one.ask("ledger", ledger_index="validated")
            heads.append(_read(answer, _head, one.name))
        lowest = min(heads, key=lambda head: head.index)
        if lowest.index < self._newest:
            raise ServerAwayError(f"a server is behind: it has validated ledger {lowest.index}, not {self._newest}")
        self._newest = lowest.index
        return lowest

    async def funds(self, address: str, at: int) -> Funds | None:
        """An account as of a validated ledger; None if it isn't there."""

        def read(answer: Result) -> Funds:
            data = answer["account_data"]
            return Funds(_drops(data["Balance"]), _count(data["Sequence"]))

        return await self._agreed("account_info", read, missing="actNotFound", account=address, ledger_index=at)

    async def channel(self, channel: str, at: int) -> PayChan | None:
        """A channel as of a validated ledger; None if it isn't there, or ended before."""

        def read(answer: Result) -> PayChan:
            node = answer["node"]
            if node["LedgerEntryType"] != "PayChannel" or answer["index"] != channel:
                raise ValueError("another entry than the one that was asked for")
            return _channel(channel, {name.lower(): value for name, value in node.items()})

        return await self._agreed(
            "ledger_entry", read, missing="entryNotFound", payment_channel=channel, ledger_index=at
        )

    async def channels(self, source: str, destination: str, at: int) -> list[PayChan]:
        """Those from one account to another, as of a validated ledger; `CHANNELS_MAX` at most."""

        def read(answer: Result) -> list[PayChan]:
            found = []
            for one in answer["channels"]:
                fields = {name.replace("_", "").lower(): value for name, value in one.items()}
                names = {"destination": one["destination_account"], "publickey": one["public_key_hex"]}
                found.append(_channel(one["channel_id"], {**fields, **names}))
            return found

        asked = {"account": source, "destination_account": destination, "ledger_index": at, "limit": CHANNELS_MAX}
        return await self._agreed("account_channels", read, missing="actNotFound", **asked) or []

    async def transaction(self, name: str, *, first: int, last: int) -> Applied | Unseen:
        """What became of a transaction, which can be in the ledgers `first` to `last` only."""

        def read(answer: Result) -> Applied | Unseen:
            if answer.get("validated") is not True:
                return Unseen(everywhere=False)
            return _applied(answer, answer["meta"])

        async def ask(one: Server) -> Applied | Unseen:
            try:
                answer = await one.ask("tx", transaction=name, min_ledger=first, max_ledger=last)
            except RefusedError as refused:
                if refused.token != "txnNotFound":
                    raise
                return Unseen(everywhere=refused.result.get("searched_all") is True)
            return _read(answer, read, one.name)

        found = [await ask(one) for one in self._servers]
        if all(isinstance(one, Applied) for one in found):
            self._same("tx", found)
            return found[0]
        # One that hasn't seen it yet may still: nothing is concluded before both have.
        return Unseen(everywhere=all(isinstance(one, Unseen) and one.everywhere for one in found))

    async def transactions(self, address: str, first: int, last: int) -> list[Applied]:
        """All that touched an account in these validated ledgers, the oldest first.

        HistoryError if a server doesn't have all these ledgers, any more or yet.
        """
        lists = [[one async for one in _history(each, address, first, last, forward=True)] for each in self._servers]
        self._same("account_tx", lists)
        return lists[0]

    async def last_of_channel(self, channel: str, source: str, first: int, last: int) -> int:
        """What a channel had paid out in all when it ended, in one of these validated ledgers.

        HistoryError if no server's history shows its end.
        """
        found = [await _last_of(one, channel, source, first, last) for one in self._servers]
        self._same("account_tx", found)
        return found[0]

    async def fee(self) -> int:
        """What a transaction must offer to get into the next ledger, in drops: the higher of what servers say."""
        fees = []
        for one in self._servers:
            answer = await one.ask("fee")
            fees.append(_read(answer, _fee, one.name))
        return max(fees)

    async def submit(self, blob: bytes) -> str:
        """Give the bytes to all servers: "" if one took them, else the first reason. ServerAwayError: none answers."""
        answers = await asyncio.gather(*(self._submit(one, blob) for one in self._servers), return_exceptions=True)
        reasons = []
        for answer in answers:
            if answer == "":
                return ""
            if isinstance(answer, BaseException) and not isinstance(answer, LedgerError):
                raise answer
            reasons.append(answer)
        told = [str(one) for one in reasons if not isinstance(one, ServerAwayError)]
        if not told:
            raise ServerAwayError("no server took the transaction: none answered")
        return told[0]

    @staticmethod
    async def _submit(one: Server, blob: bytes) -> str:
        answer = await one.ask("submit", tx_blob=blob.hex().upper())
        result = str(answer.get("engine_result"))
        return "" if result in _QUIET else plain(f"{result} {answer.get('engine_result_message')}", TEXT_CHARS_MAX)

    async def _agreed(self, method: str, read: Callable[[Result], _T], *, missing: str, **params: Any) -> _T | None:
        found: list[_T | None] = []
        for one in self._servers:
            try:
                answer = await one.ask(method, **params)
            except RefusedError as refused:
                if refused.token != missing:
                    raise
                found.append(None)
                continue
            if answer.get("validated") is not True:
                raise ServerAwayError(f"{one.name}: {method} was not answered by a validated ledger")
            found.append(_read(answer, read, one.name))
        self._same(method, found)
        return found[0]

    def _same(self, method: str, found: Sequence[object]) -> None:
        if any(one != found[0] for one in found):
            names = " and ".join(one.name for one in self._servers)
            raise ServersDisagreeError(f"{names} answer {method} differently")


async def _history(server: Server, address: str, first: int, last: int, *, forward: bool) -> AsyncIterator[Applied]:
    """An account's transactions in these ledgers, page by page. HistoryError if the server hasn't all of them."""
    marker: dict[str, Any] = {}
    asked = {"account": address, "ledger_index_min": first, "ledger_index_max": last, "forward": forward, "limit": PAGE}
    for _ in range(PAGES_MAX):
        answer = await server.ask("account_tx", **asked, **marker)
        low, high = answer.get("ledger_index_min"), answer.get("ledger_index_max")
        if not isinstance(low, int) or not isinstance(high, int) or low > first or high < last:
            raise HistoryError(f"{server.name} has not all ledgers from {first} to {last}")
        for one in _read(answer, _page, server.name):
            yield one
        if answer.get("marker") is None:
            return
        marker = {"marker": answer["marker"]}
    raise HistoryError(f"more than {PAGE * PAGES_MAX} transactions of {address} in ledgers {first} to {last}")


async def _last_of(server: Server, channel: str, source: str, first: int, last: int) -> int:
    """The newest first: a channel's end is looked for soon after it."""
    async for one in _history(server, source, first, last, forward=False):
        for name, balance in one.ended:
            if name == channel:
                return balance
    raise HistoryError(f"{server.name} shows no end of the channel {channel}")


def _read(answer: Result, read: Callable[[Result], _T], where: str) -> _T:
    """ServerAwayError for an answer of another form."""
    try:
        return read(answer)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ServerAwayError(f"{where}: an answer can't be read ({type(error).__name__}: {error})") from None


def _count(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise ValueError("not a count")
    return value


def _drops(value: object) -> int:
    amount = _count(value)
    if not isinstance(value, str) or amount > DROPS_MAX:
        raise ValueError("not an amount in drops")
    return amount


def _network_id(answer: Result) -> int:
    return _count(answer["info"].get("network_id", 0))


def _head(answer: Result) -> Head:
    return Head(_count(answer["ledger_index"]), _count(answer["ledger"]["close_time"]))


def _fee(answer: Result) -> int:
    return max(_drops(answer["drops"]["base_fee"]), _drops(answer["drops"]["open_ledger_fee"]))


def _channel(name: str, fields: Mapping[str, Any]) -> PayChan:
    """By names in lower case, without underscores, as both forms of a channel have them."""
    source, destination = str(fields["account"]), str(fields["destination"])
    if not is_address(source) or not is_address(destination):
        raise ValueError("not an address")
    expiration, cancel_after = fields.get("expiration"), fields.get("cancelafter")
    return PayChan(
        id=name,
        source=source,
        destination=destination,
        public_key=bytes.fromhex(fields["publickey"]),
        settle_delay=_count(fields["settledelay"]),
        amount=_drops(fields["amount"]),
        balance=_drops(fields["balance"]),
        expiration=None if expiration is None else _count(expiration),
        cancel_after=None if cancel_after is None else _count(cancel_after),
    )


def _applied(fields: Mapping[str, Any], meta: Mapping[str, Any]) -> Applied:
    tag = fields.get("DestinationTag")
    destination = fields.get("Destination")
    return Applied(
        hash=str(fields["hash"]),
        ledger=_count(fields.get("ledger_index", fields.get("inLedger"))),
        result=str(meta["TransactionResult"]),
        kind=str(fields["TransactionType"]),
        source=str(fields["Account"]),
        destination=None if destination is None else str(destination),
        tag=None if tag is None else _count(tag),
        memos=tuple(bytes.fromhex(one["Memo"].get("MemoData", "")) for one in fields.get("Memos", ())),
        delivered=_delivered(fields, meta) if fields["TransactionType"] == "Payment" else None,
        ended=tuple(_ended(meta)),
    )


def _delivered(fields: Mapping[str, Any], meta: Mapping[str, Any]) -> int | None:
    """What really arrived: a partial payment's `Amount` is only its most. Servers tell it for payments of all kinds."""
    if meta["TransactionResult"] != "tesSUCCESS":
        return None
    delivered = meta.get("delivered_amount", meta.get("DeliveredAmount"))
    if delivered is None and not _count(fields.get("Flags", 0)) & PARTIAL:
        delivered = fields.get("Amount")
    return _drops(delivered) if isinstance(delivered, str) and delivered.isdigit() else None


def _ended(meta: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for node in meta.get("AffectedNodes", ()):
        deleted = node.get("DeletedNode")
        if deleted is not None and deleted["LedgerEntryType"] == "PayChannel":
            yield str(deleted["LedgerIndex"]), _drops(deleted["FinalFields"].get("Balance", "0"))


def _page(answer: Result) -> list[Applied]:
    return [_applied(one["tx"], one["meta"]) for one in answer["transactions"] if one["validated"] is True]
