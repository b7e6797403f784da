"""What the bank's books are made of, and its bounds. Pure."""

import re
from dataclasses import dataclass
from typing import Any, Final, final

from isthmus.errors import plain

# Of one transfer, and of what any account has or owes: that of an ILP amount.
AMOUNT_MAX: Final = 2**64 - 1
SCALE_MAX: Final = 18
REFERENCE_CHARS_MAX: Final = 140  # as bank transfers have
NAME_CHARS_MAX: Final = 100
ID_CHARS_MAX: Final = 64
KEY_CHARS_MAX: Final = 64
ENTRIES_PAGE_MAX: Final = 100
ACCOUNTS_PAGE_MAX: Final = 100
TOKENS_PER_ACCOUNT_MAX: Final = 16
_ID: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{ID_CHARS_MAX - 1}}}", re.ASCII)
_KEY: Final = re.compile(rf"[A-Za-z0-9._~-]{{1,{KEY_CHARS_MAX}}}", re.ASCII)
_ASSET: Final = re.compile(r"[A-Za-z0-9]{1,12}", re.ASCII)


class RefusedError(Exception):
    """The bank doesn't do it: a status of HTTP, a word for programs, and why."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Account:
    """Amounts are in units of 10^-scale of the asset. The balance is above zero if the bank owes the holder."""

    id: str
    name: str
    asset_code: str
    asset_scale: int
    balance: int
    overdraft: int | None  # how far below zero it may go; None: as far as amounts go, for whoever issues the asset
    entries: int  # how many its statement has; they are numbered from 1 without a gap
    last_at_ms: int  # of the last one

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "asset_code": self.asset_code,
            "asset_scale": self.asset_scale,
            "balance": str(self.balance),
            "overdraft": None if self.overdraft is None else str(self.overdraft),
            "entries": self.entries,
        }


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Order:
    """What a transfer is asked to be. With the same key it happens once, whatever is sent again."""

    payer: str
    key: str
    payee: str
    amount: int
    reference: str


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Transfer:
    """One that happened."""

    id: str
    order: Order
    at_ms: int

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "key": self.order.key,
            "from": self.order.payer,
            "to": self.order.payee,
            "amount": str(self.order.amount),
            "reference": self.order.reference,
            "at_ms": self.at_ms,
        }


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Entry:
    """One line of a statement. The amount is above zero for what came in."""

    number: int
    transfer: str
    at_ms: int
    amount: int
    balance: int  # after it
    counterparty: str
    reference: str

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "transfer": self.transfer,
            "at_ms": self.at_ms,
            "amount": str(self.amount),
            "balance": str(self.balance),
            "counterparty": self.counterparty,
            "reference": self.reference,
        }


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Token:
    """What is known of a token: never the token."""

    id: str
    label: str
    created_at_ms: int

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "label": self.label, "created_at_ms": self.created_at_ms}


def bad(field: str, problem: str) -> RefusedError:
    return RefusedError(400, "bad-request", f"{field}: {problem}.")


def check_id(text: object, field: str) -> str:
    if not isinstance(text, str) or _ID.fullmatch(text) is None:
        raise bad(field, f"use 1 to {ID_CHARS_MAX} of a-z 0-9 . _ -, beginning with a letter or digit")
    return text


def check_key(text: object) -> str:
    if not isinstance(text, str) or _KEY.fullmatch(text) is None:
        raise bad("Idempotency-Key", f"send a header with 1 to {KEY_CHARS_MAX} of A-Z a-z 0-9 . _ ~ -")
    return text


def check_asset(code: object, scale: object) -> tuple[str, int]:
    if not isinstance(code, str) or _ASSET.fullmatch(code) is None:
        raise bad("asset_code", "use 1 to 12 letters or digits")
    if isinstance(scale, bool) or not isinstance(scale, int) or not 0 <= scale <= SCALE_MAX:
        raise bad("asset_scale", f"use a whole number, 0 to {SCALE_MAX}")
    return code, scale


def check_amount(text: object, field: str, minimum: int = 1) -> int:
    """An amount as JSON has it: a string of digits."""
    most = len(str(AMOUNT_MAX))
    if not isinstance(text, str) or not (text.isascii() and text.isdecimal()) or len(text) > most:
        raise bad(field, f"send a string of digits, {minimum} to {AMOUNT_MAX}")
    if not minimum <= int(text) <= AMOUNT_MAX:
        raise bad(field, f"{int(text)} is not {minimum} to {AMOUNT_MAX}")
    return int(text)


def check_text(text: object, field: str, chars_max: int) -> str:
    """One line that terminals and statements can show."""
    if not isinstance(text, str) or len(text) > chars_max or plain(text, chars_max) != text:
        raise bad(field, f"send a text of {chars_max} printable characters at most")
    return text
