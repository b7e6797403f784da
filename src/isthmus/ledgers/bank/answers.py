"""What a bank answers, read by those who ask it. Pure: CodecError for anything else, whatever it is."""

from typing import Any, Final

from isthmus.errors import CodecError, plain
from isthmus.ledgers.bank.values import (
    AMOUNT_MAX,
    ENTRIES_PAGE_MAX,
    ID_CHARS_MAX,
    KEY_CHARS_MAX,
    NAME_CHARS_MAX,
    REFERENCE_CHARS_MAX,
    SCALE_MAX,
    Account,
    Entry,
    Order,
    Transfer,
)

_COUNT_MAX: Final = 10**18
_TIME_MAX: Final = 10**15  # ms
_DIGITS_MAX: Final = len(str(AMOUNT_MAX))


def account_of(value: object) -> Account:
    fields = _object(value, "account")
    overdraft = fields.get("overdraft")
    return Account(
        id=_text(fields, "id", ID_CHARS_MAX),
        name=_text(fields, "name", NAME_CHARS_MAX),
        asset_code=_text(fields, "asset_code", ID_CHARS_MAX),
        asset_scale=_count(fields, "asset_scale", SCALE_MAX),
        balance=_signed(fields, "balance"),
        overdraft=None if overdraft is None else _signed(fields, "overdraft"),
        entries=_count(fields, "entries", _COUNT_MAX),
        last_at_ms=0,
    )


def statement_of(value: object) -> tuple[Account, list[Entry]]:
    fields = _object(value, "statement")
    entries = fields.get("entries")
    if not isinstance(entries, list) or len(entries) > ENTRIES_PAGE_MAX:
        raise CodecError("entries", 0, f"not a list of {ENTRIES_PAGE_MAX} at most")
    return account_of(fields.get("account")), [_entry(each) for each in entries]


def transfer_of(value: object) -> Transfer:
    fields = _object(value, "transfer")
    order = Order(
        payer=_text(fields, "from", ID_CHARS_MAX),
        key=_text(fields, "key", KEY_CHARS_MAX),
        payee=_text(fields, "to", ID_CHARS_MAX),
        amount=_signed(fields, "amount"),
        reference=_text(fields, "reference", REFERENCE_CHARS_MAX),
    )
    if order.amount <= 0:
        raise CodecError("amount", 0, "not above zero")
    return Transfer(
        id=_text(fields, "id", ID_CHARS_MAX, least=1), order=order, at_ms=_count(fields, "at_ms", _TIME_MAX)
    )


def bank_of(value: object) -> tuple[str, str | None]:
    """The bank's id, and whose token it was asked with."""
    fields = _object(value, "bank")
    holder = fields.get("holder")
    name = _text(fields, "id", ID_CHARS_MAX, least=1)
    return name, None if holder is None else _text(fields, "holder", ID_CHARS_MAX, least=1)


def _entry(value: object) -> Entry:
    fields = _object(value, "entry")
    return Entry(
        number=_count(fields, "number", _COUNT_MAX),
        transfer=_text(fields, "transfer", ID_CHARS_MAX, least=1),
        at_ms=_count(fields, "at_ms", _TIME_MAX),
        amount=_signed(fields, "amount"),
        balance=_signed(fields, "balance"),
        counterparty=_text(fields, "counterparty", ID_CHARS_MAX),
        reference=_text(fields, "reference", REFERENCE_CHARS_MAX),
    )


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CodecError(name, 0, "not an object")
    return value


def _text(fields: dict[str, Any], name: str, chars_max: int, *, least: int = 0) -> str:
    found = fields.get(name)
    if not isinstance(found, str) or not least <= len(found) <= chars_max or plain(found, chars_max) != found:
        raise CodecError(name, 0, f"not a text of {chars_max} printable characters at most")
    return found


def _count(fields: dict[str, Any], name: str, most: int) -> int:
    found = fields.get(name)
    if type(found) is not int or not 0 <= found <= most:
        raise CodecError(name, 0, f"not a whole number up to {most}")
    return found


def _signed(fields: dict[str, Any], name: str) -> int:
    text = fields.get(name)
    digits = text.removeprefix("-") if isinstance(text, str) else ""
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > _DIGITS_MAX or int(digits) > AMOUNT_MAX:
        raise CodecError(name, 0, f"not a whole number up to {AMOUNT_MAX}, as text")
    assert isinstance(text, str)
    return int(text)
