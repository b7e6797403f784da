"""Requests about the server and its ledgers: `server_info`, `server_state`, `fee`, `ledger`, `ledger_data`, ping."""

from typing import Any, Final

from xrpl.core.binarycodec import encode

from isthmus.ledgers.xrp.dev.desk import Chosen, Desk, Request, choose
from isthmus.ledgers.xrp.dev.entries import Fields, serialised
from isthmus.ledgers.xrp.dev.faults import Code, Fault, invalid
from isthmus.ledgers.xrp.dev.held import HELD_MAX
from isthmus.ledgers.xrp.dev.ledger import OPEN_TRANSACTIONS_MAX
from isthmus.ledgers.xrp.dev.rendering import (
    entry_fields,
    header_fields,
    human_time,
    meta_fields,
    transaction_fields,
    validated,
)

# The version whose behaviour is followed; clients read it to know what they can use.
BUILD_VERSION: Final = "2.6.0+isthmus"
HOST: Final = "isthmus development ledger"
LOAD: Final = 256
_DROPS_PER_XRP: Final = 1_000_000
_STATE_PAGE_MAX: Final = 256
_STATE_BINARY_PAGE_MAX: Final = 2_048


def _common(desk: Desk) -> Fields:
    uptime = max(0, desk.now - desk.started_at)
    return {
        "build_version": BUILD_VERSION,
        "complete_ledgers": desk.complete_ledgers,
        "hostid": HOST,
        "io_latency_ms": 1,
        "jq_trans_overflow": "0",
        "network_id": desk.ledger.network_id,
        "peers": 0,
        "server_state": "full",
        "server_state_duration_us": str(uptime * 1_000_000),
        "time": human_time(desk.now),
        "uptime": uptime,
        "validation_quorum": 1,
    }


def server_info(desk: Desk, request: Request) -> Fields:
    """For people: XRP, and seconds. Says that every ledger is there."""
    last, prices = desk.ledger.last, desk.ledger.prices
    info = _common(desk) | {
        "last_close": {"converge_time_s": 0, "proposers": 0},
        "load_factor": 1,
        "validated_ledger": {
            "age": max(0, desk.now - last.close_time),
            "base_fee_xrp": prices.base_fee / _DROPS_PER_XRP,
            "hash": last.hash.hex().upper(),
            "reserve_base_xrp": prices.reserve_base / _DROPS_PER_XRP,
            "reserve_inc_xrp": prices.reserve_increment / _DROPS_PER_XRP,
            "seq": last.index,
        },
    }
    return {"info": info}


def server_state(desk: Desk, request: Request) -> Fields:
    """For programs: drops, and load in 256ths."""
    last, prices = desk.ledger.last, desk.ledger.prices
    state = _common(desk) | {
        "last_close": {"converge_time": 0, "proposers": 0},
        "load_base": LOAD,
        "load_factor": LOAD,
        "load_factor_fee_escalation": LOAD,
        "load_factor_fee_queue": LOAD,
        "load_factor_fee_reference": LOAD,
        "load_factor_server": LOAD,
        "validated_ledger": {
            "base_fee": prices.base_fee,
            "close_time": last.close_time,
            "hash": last.hash.hex().upper(),
            "reserve_base": prices.reserve_base,
            "reserve_inc": prices.reserve_increment,
            "seq": last.index,
        },
    }
    del state["hostid"]
    return {"state": state}


def fee(desk: Desk, request: Request) -> Fields:
    """Always the base fee: it never rises here."""
    base = str(desk.ledger.prices.base_fee)
    return {
        "current_ledger_size": str(len(desk.ledger.included)),
        "current_queue_size": str(desk.ledger.held),
        "drops": {"base_fee": base, "median_fee": base, "minimum_fee": base, "open_ledger_fee": base},
        "expected_ledger_size": str(OPEN_TRANSACTIONS_MAX),
        "ledger_current_index": desk.ledger.index,
        "levels": {
            "median_level": str(LOAD),
            "minimum_level": str(LOAD),
            "open_ledger_level": str(LOAD),
            "reference_level": str(LOAD),
        },
        "max_queue_size": str(HELD_MAX),
    }


def ping(desk: Desk, request: Request) -> Fields:
    """Nothing, quickly."""
    return {}


def ledger_current(desk: Desk, request: Request) -> Fields:
    """The open ledger's index."""
    return {"ledger_current_index": desk.ledger.index}


def ledger_closed(desk: Desk, request: Request) -> Fields:
    """The last closed ledger."""
    return {"ledger_hash": desk.ledger.last.hash.hex().upper(), "ledger_index": desk.ledger.last.index}


def ledger(desk: Desk, request: Request) -> Fields:
    """A ledger's header, and its transactions if asked for."""
    if any(request.flag(name) for name in ("accounts", "full")):
        raise Fault(Code.NOT_SUPPORTED, "Ask for the state by ledger_data.")
    chosen = choose(desk, request)
    fields = _header_fields(desk, chosen, request)
    if request.flag("transactions"):
        fields["transactions"] = _transactions(desk, chosen, request)
    return {"ledger": fields, **chosen.place}


def _header_fields(desk: Desk, chosen: Chosen, request: Request) -> Fields:
    if chosen.header is None:
        parent = desk.ledger.last.hash.hex().upper()
        index = chosen.open_index
        return {
            "closed": False,
            "ledger_index": index if request.version > 1 else str(index),
            "parent_hash": parent,
        }
    if request.flag("binary"):
        return {"closed": True, "ledger_data": chosen.header.serialised().hex().upper()}
    return header_fields(chosen.header, version=request.version)


def _transactions(desk: Desk, chosen: Chosen, request: Request) -> list[Any]:
    expand, binary, version = request.flag("expand"), request.flag("binary"), request.version
    if chosen.header is None:
        opened = [each.transaction for each in desk.ledger.included]
        if not expand:
            return [each.id for each in opened]
        if binary:
            return [{"tx_blob": each.blob.hex().upper()} for each in opened]
        return [{**transaction_fields(each.fields, version=version), "hash": each.id} for each in opened]
    stored = desk.store.transactions_of(chosen.header.index)
    if not expand:
        return [each.id for each in stored]
    if version > 1:
        return [validated(each, chosen.header, version=version, binary=binary) for each in stored]
    if binary:
        return [{"tx_blob": each.blob.hex().upper(), "meta": encode(each.meta)} for each in stored]
    return [
        {
            **transaction_fields(each.fields, version=version),
            "hash": each.id,
            "metaData": meta_fields(each.fields, each.meta),
        }
        for each in stored
    ]


def ledger_data(desk: Desk, request: Request) -> Fields:
    """A page of a closed ledger's state."""
    chosen = choose(desk, request, default="validated")
    if chosen.header is None:
        raise Fault(Code.NOT_SUPPORTED, "The open ledger's state has no hash yet; name a closed one.")
    binary = request.flag("binary")
    most = _STATE_BINARY_PAGE_MAX if binary else _STATE_PAGE_MAX
    limit = request.limit(default=most, most=most)
    marker = request.params.get("marker", "")
    if not isinstance(marker, str):
        raise invalid("marker")
    page = desk.store.entries_after(chosen.header.index, marker, limit + 1)
    state: list[Fields] = [
        {"data": serialised(each).hex().upper(), "index": each.index} if binary else entry_fields(each)
        for each in page[:limit]
    ]
    answer: Fields = {**chosen.place, "state": state}
    if not marker:
        answer["ledger"] = _header_fields(desk, chosen, request)
    if len(page) > limit:
        answer["marker"] = page[limit - 1].index
    return answer
