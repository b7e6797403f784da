"""What can be asked of a bank over HTTP: the server serves these operations, and the OpenAPI document tells of them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from isthmus.ledgers.bank.rules import Bank
from isthmus.ledgers.bank.values import (
    ACCOUNTS_PAGE_MAX,
    ENTRIES_PAGE_MAX,
    NAME_CHARS_MAX,
    REFERENCE_CHARS_MAX,
    Account,
    Order,
    RefusedError,
    bad,
    check_amount,
    check_asset,
    check_id,
    check_key,
    check_text,
)

Json: TypeAlias = dict[str, Any]
_NUMBER_DIGITS_MAX: Final = 18


@dataclass(slots=True, frozen=True, kw_only=True)
class Call:
    """A request whose caller is known: `holder` is an account's id, or None for the operator."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    key: str | None
    body: str
    holder: str | None

    def json(self, *known: str) -> Json:
        """The body, an object with no other fields than these."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            raise bad("body", "not JSON") from None
        if not isinstance(found, dict):
            raise bad("body", "not a JSON object")
        unknown = sorted(set(found) - set(known))
        if unknown:
            raise bad("body", f"there is no field {unknown[0][:40]!r}; these are known: {', '.join(known)}")
        return found

    @property
    def account(self) -> str:
        return check_id(self.path["account"], "account")

    def number(self, name: str, default: int, most: int) -> int:
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdecimal()) or len(text) > _NUMBER_DIGITS_MAX or int(text) > most:
            raise bad(name, f"use a whole number up to {most}")
        return int(text)


@dataclass(slots=True, frozen=True, kw_only=True)
class Operation:
    """A method on a path. It is called in a thread, and answers a status and JSON."""

    method: str
    path: str
    name: str
    summary: str
    handle: Callable[[Bank, Call], tuple[int, Json]]
    answer: Json
    statuses: tuple[int, ...] = (200,)
    body: Json | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    has_key: bool = False
    is_operators: bool = False  # else the account's holder may ask it too
    refusals: tuple[int, ...] = ()

    def parameters(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def _object(properties: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT: Final[Json] = {"type": "string"}
COUNT: Final[Json] = {"type": "integer", "minimum": 0}
AMOUNT: Final[Json] = {"type": "string", "pattern": "^[0-9]{1,20}$", "description": "In units of 10^-asset_scale."}
SIGNED: Final[Json] = {"type": "string", "pattern": "^-?[0-9]{1,20}$", "description": "In units of 10^-asset_scale."}
LIMIT: Final[Json] = {
    "type": ["string", "null"],
    "pattern": "^[0-9]{1,20}$",
    "description": "How far below zero the account may go; null: as far as amounts go, for who issues the asset.",
}
ACCOUNT: Final = _object(
    {
        "id": TEXT,
        "name": TEXT,
        "asset_code": TEXT,
        "asset_scale": COUNT,
        "balance": {**SIGNED, "description": "Above zero: the bank owes the holder."},
        "overdraft": LIMIT,
        "entries": {**COUNT, "description": "Of its statement; they are numbered from 1 without a gap."},
    }
)
TRANSFER: Final = _object(
    {"id": TEXT, "key": TEXT, "from": TEXT, "to": TEXT, "amount": AMOUNT, "reference": TEXT, "at_ms": COUNT}
)
ENTRY: Final = _object(
    {
        "number": COUNT,
        "transfer": TEXT,
        "at_ms": {**COUNT, "description": "Later for each entry of an account."},
        "amount": {**SIGNED, "description": "Above zero: it came in."},
        "balance": {**SIGNED, "description": "After it."},
        "counterparty": TEXT,
        "reference": TEXT,
    }
)
TOKEN: Final = _object({"id": TEXT, "label": TEXT, "created_at_ms": COUNT})


def _show_bank(bank: Bank, call: Call) -> tuple[int, Json]:
    return 200, {"id": bank.id, "holder": call.holder}


def _list_accounts(bank: Bank, call: Call) -> tuple[int, Json]:
    after = call.query.get("after", "")
    found = bank.accounts(check_id(after, "after") if after else "")
    return 200, {
        "accounts": [each.to_json() for each in found],
        "next": found[-1].id if len(found) == ACCOUNTS_PAGE_MAX else None,
    }


def _open_account(bank: Bank, call: Call) -> tuple[int, Json]:
    body = call.json("id", "name", "asset_code", "asset_scale", "overdraft")
    code, scale = check_asset(body.get("asset_code"), body.get("asset_scale"))
    account = Account(
        id=check_id(body.get("id"), "id"),
        name=check_text(body.get("name", ""), "name", NAME_CHARS_MAX),
        asset_code=code,
        asset_scale=scale,
        balance=0,
        overdraft=_overdraft(body.get("overdraft", "0")),
        entries=0,
        last_at_ms=0,
    )
    opened, is_new = bank.open_account(account)
    return 201 if is_new else 200, opened.to_json()


def _overdraft(value: object) -> int | None:
    return None if value is None else check_amount(value, "overdraft", minimum=0)


def _show_account(bank: Bank, call: Call) -> tuple[int, Json]:
    return 200, bank.account(call.account).to_json()


def _change_account(bank: Bank, call: Call) -> tuple[int, Json]:
    body = call.json("name", "overdraft")
    changes: Json = {}
    if "name" in body:
        changes["name"] = check_text(body["name"], "name", NAME_CHARS_MAX)
    if "overdraft" in body:
        changes["overdraft"] = _overdraft(body["overdraft"])
    return 200, bank.change_account(call.account, changes).to_json()


def _transfer(bank: Bank, call: Call) -> tuple[int, Json]:
    body = call.json("to", "amount", "reference")
    order = Order(
        payer=call.account,
        key=check_key(call.key),
        payee=check_id(body.get("to"), "to"),
        amount=check_amount(body.get("amount"), "amount"),
        reference=check_text(body.get("reference", ""), "reference", REFERENCE_CHARS_MAX),
    )
    made, is_new = bank.transfer(order)
    return 201 if is_new else 200, made.to_json()


def _show_transfer(bank: Bank, call: Call) -> tuple[int, Json]:
    return 200, bank.transfer_under(call.account, check_key(call.path["key"])).to_json()


def _void(bank: Bank, call: Call) -> tuple[int, Json]:
    key = check_key(call.path["key"])
    bank.void(call.account, key)
    return 200, {"key": key}


def _statement(bank: Bank, call: Call) -> tuple[int, Json]:
    after = call.number("after", 0, 10**_NUMBER_DIGITS_MAX - 1)
    limit = call.number("limit", ENTRIES_PAGE_MAX, ENTRIES_PAGE_MAX)
    account, entries = bank.statement(call.account, after, max(1, limit))
    return 200, {"account": account.to_json(), "entries": [each.to_json() for each in entries]}


def _list_tokens(bank: Bank, call: Call) -> tuple[int, Json]:
    return 200, {"tokens": [each.to_json() for each in bank.tokens(call.account)]}


def _new_token(bank: Bank, call: Call) -> tuple[int, Json]:
    label = check_text(call.json("label").get("label", ""), "label", NAME_CHARS_MAX)
    known, token = bank.new_token(call.account, label)
    return 201, {**known.to_json(), "token": token}


def _revoke(bank: Bank, call: Call) -> tuple[int, Json]:
    token = check_id(call.path["token"], "token")
    bank.revoke(call.account, token)
    return 200, {"id": token}


def _audit(bank: Bank, call: Call) -> tuple[int, Json]:
    return 200, {"problems": bank.audit()}


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/bank",
        name="showBank",
        summary="What tells this bank from others, and whose token it was asked with (null: the operator's).",
        handle=_show_bank,
        answer=_object({"id": TEXT, "holder": {"type": ["string", "null"]}}),
    ),
    Operation(
        method="GET",
        path="/accounts",
        name="listAccounts",
        summary=f"Accounts, in pages of {ACCOUNTS_PAGE_MAX}.",
        handle=_list_accounts,
        answer=_object({"accounts": {"type": "array", "items": ACCOUNT}, "next": {"type": ["string", "null"]}}),
        query={"after": "The `next` of the page before."},
        is_operators=True,
    ),
    Operation(
        method="POST",
        path="/accounts",
        name="openAccount",
        summary="Open an account. An asset's scale is the same in all accounts.",
        handle=_open_account,
        answer=ACCOUNT,
        statuses=(200, 201),
        body=_object({"id": TEXT, "asset_code": TEXT, "asset_scale": COUNT}, {"name": TEXT, "overdraft": LIMIT}),
        is_operators=True,
        refusals=(409,),
    ),
    Operation(
        method="GET",
        path="/accounts/{account}",
        name="showAccount",
        summary="An account and its balance.",
        handle=_show_account,
        answer=ACCOUNT,
        refusals=(404,),
    ),
    Operation(
        method="PATCH",
        path="/accounts/{account}",
        name="changeAccount",
        summary="Change an account's name or overdraft.",
        handle=_change_account,
        answer=ACCOUNT,
        body=_object({}, {"name": TEXT, "overdraft": LIMIT}),
        is_operators=True,
        refusals=(404,),
    ),
    Operation(
        method="GET",
        path="/accounts/{account}/entries",
        name="statement",
        summary=f"The statement, oldest first, in pages of up to {ENTRIES_PAGE_MAX}.",
        handle=_statement,
        answer=_object({"account": ACCOUNT, "entries": {"type": "array", "items": ENTRY}}),
        query={"after": "The number of the last entry that is known already.", "limit": "How many at most."},
        refusals=(404,),
    ),
    Operation(
        method="POST",
        path="/accounts/{account}/transfers",
        name="transfer",
        summary="Transfer to another account, once for its key: the same again answers 200 with what was done.",
        handle=_transfer,
        answer=TRANSFER,
        statuses=(200, 201),
        body=_object({"to": TEXT, "amount": AMOUNT}, {"reference": TEXT}),
        has_key=True,
        refusals=(404, 409, 422),
    ),
    Operation(
        method="GET",
        path="/accounts/{account}/transfers/{key}",
        name="showTransfer",
        summary="What was transferred under a key.",
        handle=_show_transfer,
        answer=TRANSFER,
        refusals=(404,),
    ),
    Operation(
        method="DELETE",
        path="/accounts/{account}/transfers/{key}",
        name="voidKey",
        summary="See to it that nothing is ever done under a key. Refused if it was used.",
        handle=_void,
        answer=_object({"key": TEXT}),
        refusals=(404, 409),
    ),
    Operation(
        method="GET",
        path="/accounts/{account}/tokens",
        name="listTokens",
        summary="The tokens of an account, without their secrets.",
        handle=_list_tokens,
        answer=_object({"tokens": {"type": "array", "items": TOKEN}}),
        is_operators=True,
        refusals=(404,),
    ),
    Operation(
        method="POST",
        path="/accounts/{account}/tokens",
        name="newToken",
        summary="A new token for the holder of an account. It is told this once.",
        handle=_new_token,
        answer=_object({**TOKEN["properties"], "token": TEXT}),
        statuses=(201,),
        body=_object({}, {"label": TEXT}),
        is_operators=True,
        refusals=(404, 409),
    ),
    Operation(
        method="DELETE",
        path="/accounts/{account}/tokens/{token}",
        name="revokeToken",
        summary="Refuse a token from here on.",
        handle=_revoke,
        answer=_object({"id": TEXT}),
        is_operators=True,
        refusals=(404,),
    ),
    Operation(
        method="GET",
        path="/audit",
        name="audit",
        summary="Read all books, and tell what is wrong with them: each asset must sum to zero.",
        handle=_audit,
        answer=_object({"problems": {"type": "array", "items": TEXT}}),
        is_operators=True,
    ),
)


def may(operation: Operation, call: Call) -> bool:
    """Whether this caller may ask this. The operator may ask everything."""
    if call.holder is None:
        return True
    return not operation.is_operators and call.path.get("account", call.holder) == call.holder


def refuse_stranger(operation: Operation, call: Call) -> None:
    """Other accounts are not told of, not even that they exist."""
    if not may(operation, call):
        raise RefusedError(403, "not-yours", "This token is good for another account.")
