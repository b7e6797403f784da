"""Operations on settlements: pay a peer now, list what is under way, book what was paid by hand, reverse one."""

import asyncio
from typing import Final

from isthmus.connector.events import AccountId
from isthmus.node.admin.books import View, correction
from isthmus.node.admin.operation import (
    AMOUNT,
    COUNT,
    FLAG,
    TEXT,
    Call,
    Json,
    Operation,
    RefusedError,
    list_of,
    schema_of,
)
from isthmus.node.corrections import REVERSE, SETTLE_BY_HAND, BadRequestError, parse_settle
from isthmus.node.settlements_view import engines_json, recent_settlements, settlements_json
from isthmus.runtime import clock
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner

_KEY: Final = {**TEXT, "description": "Makes it happen once: the same key again gets the same answer."}
_NOTE: Final = {**TEXT, "description": "Why, for whoever reads the books later."}
_NUMBER: Final = {**TEXT, "pattern": "^[0-9]+$", "description": "Counts up for each account."}
OPEN: Final = schema_of(
    {
        "account": TEXT,
        "number": _NUMBER,
        "amount": AMOUNT,
        "asset_code": TEXT,
        "asset_scale": COUNT,
        "state": {"type": "string", "enum": ["begun", "taken", "failed"]},
        "begun_at_ms": COUNT,
        "age_ms": COUNT,
        "key": {**TEXT, "description": "Under which the engine pays it once, in hex."},
        "text": TEXT,
    }
)
SETTLER: Final = schema_of(
    {
        "account": TEXT,
        "asset_code": TEXT,
        "asset_scale": COUNT,
        "balance": {**AMOUNT, "description": "Positive: the peer owes us."},
        "on_ledger": {**AMOUNT, "description": "What the peer paid us by settlements, less what we paid it."},
        "leftover": {**AMOUNT, "description": "Of what came in: less than a unit, in units of leftover_scale."},
        "leftover_scale": COUNT,
        "kept_by_engine": COUNT,
    }
)
RECENT: Final = schema_of({"time_ms": COUNT, "kind": TEXT, "account": TEXT, "amount": AMOUNT, "text": TEXT})
ALARM: Final = schema_of(
    {
        "level": TEXT,
        "event": TEXT,
        "account": TEXT,
        "text": TEXT,
        "at_ms": {**COUNT, "description": "The last time."},
        "count": COUNT,
        "over_at_ms": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Since when what it tells of has ended; null while it stands.",
        },
    }
)
ENGINE: Final = schema_of(
    {
        "name": TEXT,
        "works": FLAG,
        "problem": TEXT,
        "accounts": list_of(
            schema_of({"account": TEXT, "says": {"type": "object", "additionalProperties": {"type": "string"}}})
        ),
        "alarms": list_of(ALARM),
    }
)
LIST: Final = schema_of(
    {
        "settlements": {**list_of(OPEN), "description": "Ours that are not at their end."},
        "accounts": {**list_of(SETTLER), "description": "Those that were ever settled."},
        "recent": {**list_of(RECENT), "description": "The last facts about settlements, newest first."},
        "engines": list_of(ENGINE),
    }
)
BEGUN: Final = schema_of(
    {
        "account": TEXT,
        "number": {**_NUMBER, "description": '"0" if the key was used before.'},
        "amount": AMOUNT,
        "key": TEXT,
    }
)


def settlement_operations(view: View, driver: Driver, engines: EngineRunner, journal: str) -> list[Operation]:
    """`journal` is the path of the node's own, where the last settlements are read."""

    async def list_all(call: Call) -> Json:
        recent = await asyncio.to_thread(recent_settlements, journal)
        now_ms = clock.system_now().wall_ms
        found = settlements_json(driver.kernel.books, recent, now_ms)
        return {**found, "engines": engines_json(engines.engines(), engines.describe)}

    async def settle(call: Call) -> Json:
        account = AccountId(call.path["account"])
        try:
            event = parse_settle(account, call.body)
        except BadRequestError as error:
            raise RefusedError(400, str(error)) from None
        if account not in driver.kernel.switch.lanes:
            raise RefusedError(404, "There is no such account.")
        told = await driver.settle(event)
        if told.problem:
            raise RefusedError(409, f"Nothing is settled: {told.problem}.")
        return {"account": account, "number": str(told.number), "amount": str(told.amount), "key": event.key}

    by_hand = schema_of(
        {"note": _NOTE, "key": _KEY, "amount": {**AMOUNT, "description": "Positive: the peer paid us."}}
    )
    reversal = schema_of(
        {"note": _NOTE, "key": _KEY, "number": _NUMBER},
        {"is_certain": {**FLAG, "description": "Reverse it although its engine has not said that it failed."}},
    )
    return [
        Operation(
            method="GET",
            path="/settlements",
            name="listSettlements",
            summary="Settlements under way, what came and went lately, leftovers, and what engines say.",
            handle=list_all,
            answer=LIST,
        ),
        Operation(
            method="POST",
            path="/accounts/{account}/settle",
            name="settle",
            summary="Pay a peer now, an amount or what its terms say, once for its key.",
            handle=settle,
            answer=BEGUN,
            body=schema_of({"key": _KEY}, {"amount": AMOUNT, "note": _NOTE}),
            refusals=(404, 409),
        ),
        correction(view, SETTLE_BY_HAND, "recordSettlement", "Book what was paid by hand, once for its key.", by_hand),
        correction(view, REVERSE, "reverseSettlement", "Owe again what a settlement could not pay.", reversal),
    ]
