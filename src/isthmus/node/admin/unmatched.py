"""Operations on money that came in and is nobody's yet: list it, assign it to a peer, dismiss it."""

from typing import Final

from isthmus.connector.events import AccountId
from isthmus.errors import LedgerError
from isthmus.node.admin.engines import named, note_of, working
from isthmus.node.admin.operation import (
    AMOUNT,
    COUNT,
    TEXT,
    Call,
    Json,
    Operation,
    RefusedError,
    list_of,
    schema_of,
)
from isthmus.runtime.engines import EngineRunner, Running
from isthmus.settlement.port import StepRefusedError
from isthmus.settlement.unmatched import UnmatchedKeeper

UNMATCHED: Final = schema_of(
    {
        "engine": TEXT,
        "id": {**TEXT, "description": "The engine's word for it."},
        "amount": {**AMOUNT, "description": "In the ledger's units: 10^-unit_scale of unit_code."},
        "unit_code": TEXT,
        "unit_scale": COUNT,
        "at_ms": COUNT,
        "payer": TEXT,
        "reference": TEXT,
        "why": {**TEXT, "description": "Why it is nobody's."},
    }
)
LIST: Final = schema_of(
    {
        "transfers": list_of(UNMATCHED),
        "engines": {**list_of(TEXT), "description": "Those that find such transfers, with some or without."},
    }
)
ASSIGNED: Final = schema_of({"account": TEXT, "amount": {**AMOUNT, "description": "What was credited."}})
DISMISSED: Final = schema_of({"engine": TEXT, "id": TEXT})
_NOTE: Final = {**TEXT, "description": "Why, for whoever reads the books later."}


def unmatched_operations(engines: EngineRunner) -> list[Operation]:
    """Each is done once: what was assigned or dismissed is in no list any more."""

    async def list_all(call: Call) -> Json:
        found = [(one, one.engine) for one in engines.engines() if one.works]
        keepers = [(one, keeper) for one, keeper in found if isinstance(keeper, UnmatchedKeeper)]
        return {
            "transfers": [
                {"engine": one.name, **each.to_json()} for one, keeper in keepers for each in keeper.unmatched()
            ],
            "engines": [one.name for one, _ in keepers],
        }

    async def assign(call: Call) -> Json:
        account = AccountId(call.path["account"])
        keeper = _keeper(working(engines.engine_of(account)))
        try:
            units = await keeper.assign(call.path["id"], account, note_of(call))
        except (LedgerError, StepRefusedError) as error:
            raise RefusedError(409, f"Nothing is credited: {error}.") from None
        return {"account": account, "amount": str(units)}

    async def dismiss(call: Call) -> Json:
        name, transfer = call.path["engine"], call.path["id"]
        one = named(engines, name)
        try:
            keeper = _keeper(working(one))
            await keeper.dismiss(transfer, note_of(call))
        except (LedgerError, StepRefusedError) as error:
            raise RefusedError(409, f"Nothing is dismissed: {error}.") from None
        return {"engine": name, "id": transfer}

    note = schema_of({"note": _NOTE})
    return [
        Operation(
            method="GET",
            path="/unmatched",
            name="listUnmatched",
            summary="Transfers to us that say nothing of whose they are.",
            handle=list_all,
            answer=LIST,
        ),
        Operation(
            method="POST",
            path="/accounts/{account}/unmatched/{id}/assign",
            name="assignUnmatched",
            summary="Credit such a transfer to a peer.",
            handle=assign,
            answer=ASSIGNED,
            body=note,
            refusals=(404, 409),
        ),
        Operation(
            method="POST",
            path="/unmatched/{engine}/{id}/dismiss",
            name="dismissUnmatched",
            summary="Take such a transfer from the list, with nothing credited.",
            handle=dismiss,
            answer=DISMISSED,
            body=note,
            refusals=(404, 409),
        ),
    ]


def _keeper(one: Running) -> UnmatchedKeeper:
    if not isinstance(one.engine, UnmatchedKeeper):
        raise RefusedError(409, f"The engine {one.name} knows whose each payment is.")
    return one.engine
