"""Ledgers and transactions as JSON, in both versions of the API (xrpl.org "API Versioning")."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from xrpl.core.binarycodec import encode

from isthmus.ledgers.xrp.dev.entries import Entry, Fields
from isthmus.ledgers.xrp.dev.ledger import CLOSE_RESOLUTION, EPOCH_UNIX, Header
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.dev.store import StoredTransaction

_NETWORK_ID_MAX: Final = 0xFFFF  # that a compact id has room for


def iso_time(seconds: int) -> str:
    """Seconds since 2000-01-01 as ISO 8601."""
    return datetime.fromtimestamp(seconds + EPOCH_UNIX, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def human_time(seconds: int) -> str:
    """Seconds since 2000-01-01 as `rippled` shows times to people."""
    return datetime.fromtimestamp(seconds + EPOCH_UNIX, UTC).strftime("%Y-%b-%d %H:%M:%S.000000000 UTC")


def entry_fields(entry: Entry) -> Fields:
    """An entry with its key."""
    return {**entry.fields(), "index": entry.index}


def transaction_fields(fields: Mapping[str, Any], *, version: int) -> Fields:
    """A transaction's JSON: a payment's amount is called what it is, the most that it delivers."""
    shown = dict(fields)
    if shown.get("TransactionType") == "Payment":
        shown["DeliverMax"] = shown["Amount"]
        if version > 1:
            del shown["Amount"]
    return shown


def meta_fields(fields: Mapping[str, Any], meta: Fields) -> Fields:
    """Metadata, with what a payment delivered."""
    if fields["TransactionType"] == "Payment" and meta["TransactionResult"] == Result.TES_SUCCESS.token:
        return {**meta, "delivered_amount": fields["Amount"]}
    return meta


def compact_id(ledger_index: int, position: int, network_id: int) -> str | None:
    """The CTID (XLS-37): ledger, place and network in 16 digits; None where they don't fit."""
    if network_id > _NETWORK_ID_MAX or ledger_index >= 1 << 28:
        return None
    return f"{(0xC << 60) | (ledger_index << 32) | (position << 16) | network_id:016X}"


def validated(stored: StoredTransaction, header: Header, *, version: int, binary: bool = False) -> Fields:
    """A transaction in a list of them, as `account_tx` and `ledger` have it."""
    place: Fields = {"ledger_index": stored.ledger_index, "validated": True}
    meta = encode(stored.meta) if binary else meta_fields(stored.fields, stored.meta)
    if version > 1:
        place |= {
            "hash": stored.id,
            "ledger_hash": header.hash.hex().upper(),
            "close_time_iso": iso_time(header.close_time),
        }
    if binary:
        return {**place, "tx_blob": stored.blob.hex().upper(), "meta" if version == 1 else "meta_blob": meta}
    shown = transaction_fields(stored.fields, version=version)
    shown |= {"date": header.close_time, "ledger_index": stored.ledger_index}
    if version > 1:
        return {**place, "meta": meta, "tx_json": shown}
    shown |= {"hash": stored.id, "inLedger": stored.ledger_index}
    return {"meta": meta, "tx": shown, "validated": True}


def header_fields(header: Header, *, version: int) -> Fields:
    """A closed ledger's header."""
    own = header.hash.hex().upper()
    fields: Fields = {
        "account_hash": header.account_hash.hex().upper(),
        "close_flags": 0,
        "close_time": header.close_time,
        "close_time_human": human_time(header.close_time),
        "close_time_iso": iso_time(header.close_time),
        "close_time_resolution": CLOSE_RESOLUTION,
        "closed": True,
        "ledger_hash": own,
        "ledger_index": header.index if version > 1 else str(header.index),
        "parent_close_time": header.parent_close_time,
        "parent_hash": header.parent_hash.hex().upper(),
        "total_coins": str(header.drops),
        "transaction_hash": header.transaction_hash.hex().upper(),
    }
    if version == 1:
        older = {"accepted": True, "hash": own, "seqNum": str(header.index), "totalCoins": str(header.drops)}
        fields |= older
    return fields


def outcome_fields(result: Result) -> Fields:
    """How a transaction went."""
    return {
        "engine_result": result.token,
        "engine_result_code": result.code,
        "engine_result_message": result.message,
    }
