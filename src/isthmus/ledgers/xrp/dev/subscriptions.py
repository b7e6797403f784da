"""Who wants to be told what: ledgers that close, transactions, and those of certain accounts.

A subscriber is told of each thing once, however many of its subscriptions cover it; the ledger first, then its
transactions in order. Pure: messages come out by the subscriber's own `push`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from isthmus.ledgers.xrp.dev.desk import Desk, Request, checked_address
from isthmus.ledgers.xrp.dev.entries import Fields
from isthmus.ledgers.xrp.dev.faults import Code, Fault
from isthmus.ledgers.xrp.dev.ledger import Closed, Header, Included
from isthmus.ledgers.xrp.dev.methods_server import HOST, LOAD
from isthmus.ledgers.xrp.dev.rendering import (
    compact_id,
    iso_time,
    meta_fields,
    outcome_fields,
    transaction_fields,
)

ACCOUNTS_MAX: Final = 1_000  # for one subscriber, of each kind
# Nothing ever comes on the last ones here: they belong to consensus, to validators and to the exchange.
STREAMS: Final = (
    "ledger",
    "transactions",
    "transactions_proposed",
    "server",
    "consensus",
    "validations",
    "manifests",
    "book_changes",
)


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection. What it subscribed to, with the version of the API in which it did."""

    push: Callable[[str], None]  # a message, as JSON
    streams: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)
    accounts_proposed: dict[str, int] = field(default_factory=dict)


def ledger_message(desk: Desk, header: Header) -> Fields:
    """What is told of a closed ledger, but for its type and its number of transactions."""
    prices = desk.ledger.prices
    return {
        "fee_base": prices.base_fee,
        "fee_ref": prices.base_fee,
        "ledger_hash": header.hash.hex().upper(),
        "ledger_index": header.index,
        "ledger_time": header.close_time,
        "network_id": desk.ledger.network_id,
        "reserve_base": prices.reserve_base,
        "reserve_inc": prices.reserve_increment,
        "validated_ledgers": desk.complete_ledgers,
    }


class Subscriptions:
    """All subscribers."""

    def __init__(self) -> None:
        self._all: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def forget(self, subscriber: Subscriber) -> None:
        """It went away."""
        self._all.pop(subscriber, None)

    def subscribe(self, subscriber: Subscriber, desk: Desk, request: Request) -> Fields:
        """Add subscriptions; a Fault adds none of them."""
        streams, accounts, proposed = _wanted(request)
        for before, more in ((subscriber.accounts, accounts), (subscriber.accounts_proposed, proposed)):
            if len(before.keys() | set(more)) > ACCOUNTS_MAX:
                raise Fault(Code.INVALID_PARAMS, f"More than {ACCOUNTS_MAX} accounts on one connection.")
        version = request.version
        subscriber.streams.update(dict.fromkeys(streams, version))
        subscriber.accounts.update(dict.fromkeys(accounts, version))
        subscriber.accounts_proposed.update(dict.fromkeys(proposed, version))
        self._all[subscriber] = None
        answer: Fields = {}
        if "ledger" in streams:
            answer |= ledger_message(desk, desk.ledger.last)
        if "server" in streams:
            answer |= {"hostid": HOST, "load_base": LOAD, "load_factor": LOAD, "server_status": "full"}
        return answer

    def unsubscribe(self, subscriber: Subscriber, request: Request) -> Fields:
        """Take subscriptions away, whether they were there or not."""
        streams, accounts, proposed = _wanted(request)
        for table, names in (
            (subscriber.streams, streams),
            (subscriber.accounts, accounts),
            (subscriber.accounts_proposed, proposed),
        ):
            for name in names:
                table.pop(name, None)
        return {}

    def tell_closed(self, desk: Desk, closed: Closed) -> None:
        """A ledger was closed, and is kept."""
        header = closed.header
        message = {"type": "ledgerClosed", **ledger_message(desk, header), "txn_count": len(closed.transactions)}
        text = json.dumps(message)
        for subscriber in list(self._all):
            if "ledger" in subscriber.streams:
                subscriber.push(text)
        for position, included in enumerate(closed.transactions):
            self._tell(included, _Wording(desk, included, header, position), ("transactions", "transactions_proposed"))

    def tell_proposed(self, desk: Desk, included: Included) -> None:
        """A transaction came into the open ledger."""
        self._tell(included, _Wording(desk, included, None, 0), ("transactions_proposed",))

    def _tell(self, included: Included, wording: "_Wording", streams: tuple[str, ...]) -> None:
        for subscriber in list(self._all):
            versions = [subscriber.streams[name] for name in streams if name in subscriber.streams]
            tables = (
                [subscriber.accounts_proposed]
                if wording.header is None
                else [
                    subscriber.accounts,
                    subscriber.accounts_proposed,
                ]
            )
            versions += [table[address] for table in tables for address in included.affected if address in table]
            if versions:
                subscriber.push(wording.text(versions[0]))


class _Wording:
    """One transaction's message in the versions of the API that somebody wants it in."""

    def __init__(self, desk: Desk, included: Included, header: Header | None, position: int) -> None:
        self.header = header
        self._desk = desk
        self._included = included
        self._position = position
        self._texts: dict[int, str] = {}

    def text(self, version: int) -> str:
        if version not in self._texts:
            self._texts[version] = json.dumps(self._fields(version))
        return self._texts[version]

    def _fields(self, version: int) -> Fields:
        included, header = self._included, self.header
        transaction = included.transaction
        shown = transaction_fields(transaction.fields, version=version)
        message: Fields = {"type": "transaction", **outcome_fields(included.result)}
        if header is None:
            message |= {
                "ledger_current_index": self._desk.ledger.index,
                "status": "proposed",
                "validated": False,
            }
        else:
            shown["date"] = header.close_time
            compact = compact_id(header.index, self._position, self._desk.ledger.network_id)
            message |= {
                "ledger_hash": header.hash.hex().upper(),
                "ledger_index": header.index,
                "close_time_iso": iso_time(header.close_time),
                "meta": meta_fields(transaction.fields, included.meta),
                "status": "closed",
                "validated": True,
                **({} if compact is None else {"ctid": compact}),
            }
        if version > 1:
            return {**message, "hash": transaction.id, "tx_json": shown}
        return {**message, "transaction": {**shown, "hash": transaction.id}}


def _wanted(request: Request) -> tuple[list[str], list[str], list[str]]:
    """The streams, accounts and proposed accounts that a request names, all checked."""
    if request.params.get("url") is not None:
        raise Fault(Code.NO_PERMISSION)
    if request.params.get("books"):
        raise Fault(Code.NOT_SUPPORTED, "There are no order books here.")
    streams = request.params.get("streams") or []
    if not isinstance(streams, list) or any(each not in STREAMS for each in streams):
        raise Fault(Code.STREAM_MALFORMED)
    tables: list[list[str]] = []
    for name in ("accounts", "accounts_proposed"):
        addresses = request.params.get(name) or []
        if not isinstance(addresses, list):
            raise Fault(Code.ACCOUNT_MALFORMED)
        tables.append([checked_address(each) for each in addresses])
    return streams, tables[0], tables[1]
