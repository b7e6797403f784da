"""Operations on what a node is and holds: health, accounts, balances, the books' digest, corrections."""

from typing import Final, Protocol

from isthmus.connector.events import AccountId, Correction
from isthmus.node.admin.operation import (
    AMOUNT,
    COUNT,
    FLAG,
    LIMIT,
    TEXT,
    Answer,
    Call,
    Handler,
    Json,
    Operation,
    RefusedError,
    list_of,
    schema_of,
)
from isthmus.node.corrections import ADJUST, GIVE_UP, WRITE_OFF, BadRequestError, parse_correction

HEALTH: Final = schema_of(
    {
        "status": {"type": "string", "enum": ["ok", "journal slow", "halted"]},
        "address": {"type": "string", "description": "Empty while the parent has not told it."},
        "links_down": list_of(TEXT),
        "sequence": {**COUNT, "description": "The last batch appended to the journal."},
        "build": TEXT,
    }
)
_LOSS: Final = "What the peer didn't pay, until it is written off: subtract it from what its balance says we owe."
BALANCE: Final = schema_of(
    {
        "account": TEXT,
        "kind": {"type": "string", "enum": ["peer", "own"]},
        "asset_code": TEXT,
        "asset_scale": COUNT,
        "balance": AMOUNT,
    },
    {"loss": {**AMOUNT, "description": _LOSS}},
)
DIGEST: Final = schema_of({"sequence": COUNT, "digest": {**TEXT, "description": "SHA-256 in hex."}})
CORRECTION: Final = schema_of({"account": TEXT, "kind": TEXT, "amount": AMOUNT, "key": TEXT})
_KEY: Final = {**TEXT, "description": "Makes it happen once: the same key again gets the same answer."}
_NOTE: Final = {**TEXT, "description": "Why, for whoever reads the books later."}
_REQUIRED: Final = {"note": _NOTE, "key": _KEY}
# What `NodeView.accounts` tells of each.
ACCOUNT_SHOWN: Final[dict[str, Json]] = {
    "id": TEXT,
    "asset_code": TEXT,
    "asset_scale": COUNT,
    "relation": TEXT,
    "enabled": FLAG,
    "source": {"type": "string", "enum": ["file", "run time", "file, changed at run time", "removed"]},
    "link": {"type": "string", "enum": ["up", "down", "blocked", "closed"]},
    "balance": {**AMOUNT, "description": "In base units; positive: the peer owes us."},
    "loss": {**AMOUNT, "description": _LOSS},
    "reserved_incoming": AMOUNT,
    "reserved_outgoing": AMOUNT,
    "at_risk": AMOUNT,
    "fulfilled_unacknowledged": AMOUNT,
    "unsaid": AMOUNT,
    "takes_reports": TEXT,
    "receivable_max": LIMIT,
    "payable_max": LIMIT,
    "packets_in_flight": COUNT,
    "fulfilled": COUNT,
    "rejected": {"type": "object", "additionalProperties": COUNT, "description": "By code."},
}


class View(Protocol):
    """What the API shows, quickly and changing nothing; but `correct`."""

    def health(self) -> Json: ...

    def accounts(self) -> list[Json]: ...

    def balances(self) -> list[Json]: ...

    async def digest(self) -> Json:
        """Waits for a batch to be durable. Raises JournalError if the node stops, RefusedError."""

    async def correct(self, correction: Correction) -> Json:
        """Waits until it is durable. Raises as `digest`."""

    def metrics(self) -> bytes:
        """Prometheus text format."""


def books_operations(view: View) -> list[Operation]:
    """Everything but changes of accounts and routes."""

    async def health(call: Call) -> Answer:
        shown = view.health()
        return Answer(200 if shown["status"] == "ok" else 503, shown)

    async def accounts(call: Call) -> Json:
        return {"accounts": view.accounts()}

    async def balances(call: Call) -> Json:
        return {"balances": view.balances()}

    async def digest(call: Call) -> Json:
        return await view.digest()

    return [
        Operation(
            method="GET",
            path="/health",
            name="health",
            summary="Whether the node is well; 503 if its journal is slow or gone. Needs no token.",
            handle=health,
            answer=HEALTH,
            is_open=True,
        ),
        Operation(
            method="GET",
            path="/accounts",
            name="listAccounts",
            summary="All accounts: terms, link, balance, what is in flight.",
            handle=accounts,
            answer=schema_of({"accounts": list_of(schema_of(ACCOUNT_SHOWN))}),
        ),
        Operation(
            method="GET",
            path="/balances",
            name="listBalances",
            summary="What each account holds: peers first, then the node's own.",
            handle=balances,
            answer=schema_of({"balances": list_of(BALANCE)}),
        ),
        Operation(
            method="GET",
            path="/books/digest",
            name="digestBooks",
            summary="The SHA-256 of the books right after a durable batch.",
            handle=digest,
            answer=DIGEST,
        ),
        correction(
            view,
            WRITE_OFF,
            "writeOff",
            "Give up a loss, all of it or an amount, once for its key.",
            schema_of(_REQUIRED, {"amount": AMOUNT}),
        ),
        correction(
            view,
            ADJUST,
            "adjust",
            "Set the balance right by an amount, once for its key.",
            schema_of({**_REQUIRED, "amount": AMOUNT}),
        ),
        correction(
            view,
            GIVE_UP,
            "giveUp",
            "Forget what the peer won't acknowledge any more, once for the key.",
            schema_of(_REQUIRED),
        ),
    ]


def correction(view: View, kind: str, name: str, summary: str, body: Json) -> Operation:
    """An operation by which the operator corrects the books; `body` is the schema of what is sent."""

    async def correct(call: Call) -> Json:
        try:
            asked = parse_correction(kind, AccountId(call.path["account"]), call.body)
        except BadRequestError as error:
            raise RefusedError(400, str(error)) from None
        return await view.correct(asked)

    handle: Handler = correct
    return Operation(
        method="POST",
        path=f"/accounts/{{account}}/{kind}",
        name=name,
        summary=summary,
        handle=handle,
        answer=CORRECTION,
        body=body,
        refusals=(404, 409),
    )
