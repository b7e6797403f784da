"""Requests that submit transactions and ask for them: `submit`, `tx`."""

import re
from typing import Final

from xrpl.core.binarycodec import encode

from isthmus.errors import CodecError
from isthmus.ledgers.xrp.dev.desk import Desk, Request
from isthmus.ledgers.xrp.dev.entries import Fields
from isthmus.ledgers.xrp.dev.faults import Code, Fault, invalid, missing
from isthmus.ledgers.xrp.dev.ledger import Submitted
from isthmus.ledgers.xrp.dev.rendering import compact_id, iso_time, meta_fields, outcome_fields, transaction_fields
from isthmus.ledgers.xrp.dev.store import StoredTransaction
from isthmus.ledgers.xrp.dev.transactions import LocalRefusal, Transaction, check_locally, decode

RANGE_MAX: Final = 1_000
_COMPACT: Final = re.compile(r"C[0-9A-F]{15}")


def read_submission(request: Request) -> Transaction:
    """The transaction of a `submit`, its signature checked. Secrets aren't taken: clients sign."""
    text = request.get("tx_blob", str)
    if text is None:
        if "tx_json" in request.params:
            raise Fault(Code.NOT_SUPPORTED, "Signing is not supported by this server.")
        raise missing("tx_blob")
    try:
        blob = bytes.fromhex(text)
    except ValueError:
        raise invalid("tx_blob") from None
    try:
        transaction = decode(blob)
        check_locally(transaction)
    except (CodecError, LocalRefusal) as error:
        raise Fault(Code.INVALID_TRANSACTION, str(error), error_exception=str(error)) from None
    return transaction


def submission(desk: Desk, submitted: Submitted, request: Request) -> Fields:
    """The answer to a `submit`."""
    transaction, result = submitted.transaction, submitted.result
    applied = submitted.included is not None
    following = desk.ledger.next_sequence(transaction.account)
    answer: Fields = {
        "accepted": applied or submitted.kept,
        "applied": applied,
        "broadcast": applied,
        "kept": applied or submitted.kept,
        "queued": False,
        "open_ledger_cost": str(desk.ledger.prices.base_fee),
        "validated_ledger_index": desk.ledger.last.index,
        "tx_blob": transaction.blob.hex().upper(),
        "tx_json": {**transaction_fields(transaction.fields, version=request.version), "hash": transaction.id},
        **outcome_fields(result),
    }
    if following is not None:
        answer["account_sequence_next"] = following
        answer["account_sequence_available"] = desk.ledger.next_free_sequence(transaction.account)
    return answer


def tx(desk: Desk, request: Request) -> Fields:
    """A transaction by its hash or its compact id: validated, or in the open ledger."""
    name, compact = request.hash("transaction"), request.get("ctid", str)
    if (name is None) == (compact is None):
        raise Fault(Code.INVALID_PARAMS)
    searched = _searched(desk, request)
    stored = desk.store.transaction(name) if name is not None else _by_compact_id(desk, compact or "")
    if stored is not None:
        return _validated(desk, stored, request)
    for each in desk.ledger.included:
        if each.transaction.id == name:
            shown = transaction_fields(each.transaction.fields, version=request.version)
            if request.version > 1:
                return {"tx_json": shown, "hash": name, "validated": False}
            return {**shown, "hash": name, "validated": False}
    raise Fault(Code.TRANSACTION_NOT_FOUND, **searched)


def _searched(desk: Desk, request: Request) -> Fields:
    """Whether all ledgers of the range that was asked for are here."""
    low, high = request.get("min_ledger", int), request.get("max_ledger", int)
    if low is None or high is None:
        return {}
    if not 0 <= low <= high:
        raise Fault(Code.INVALID_RANGE)
    if high - low > RANGE_MAX:
        raise Fault(Code.EXCESSIVE_RANGE)
    return {"searched_all": desk.store.first_index() <= low and high <= desk.ledger.last.index}


def _by_compact_id(desk: Desk, text: str) -> StoredTransaction | None:
    if not _COMPACT.fullmatch(text):
        raise invalid("ctid")
    number = int(text, 16)
    if number & 0xFFFF != desk.ledger.network_id:
        raise Fault(Code.INVALID_PARAMS, "Wrong network. This server's network is " + str(desk.ledger.network_id) + ".")
    return desk.store.transaction_at((number >> 32) & 0xFFF_FFFF, (number >> 16) & 0xFFFF)


def _validated(desk: Desk, stored: StoredTransaction, request: Request) -> Fields:
    header = desk.store.header(stored.ledger_index)
    assert header is not None, "transactions are forgotten with their ledger"
    binary, version = request.flag("binary"), request.version
    compact = compact_id(stored.ledger_index, stored.position, desk.ledger.network_id)
    place: Fields = {
        "hash": stored.id,
        "ledger_index": stored.ledger_index,
        "inLedger": stored.ledger_index,
        "validated": True,
        **({} if compact is None else {"ctid": compact}),
    }
    meta = encode(stored.meta) if binary else meta_fields(stored.fields, stored.meta)
    shown = transaction_fields(stored.fields, version=version)
    if version == 1:
        body = {"tx": stored.blob.hex().upper()} if binary else shown
        return {**body, **place, "date": header.close_time, "meta": meta}
    place |= {"close_time_iso": iso_time(header.close_time), "ledger_hash": header.hash.hex().upper()}
    if binary:
        return {**place, "tx_blob": stored.blob.hex().upper(), "meta_blob": meta}
    more = {"date": header.close_time, "ledger_index": stored.ledger_index}
    return {**place, "tx_json": {**shown, **more}, "meta": meta}
