"""Requests to correct the books, as the admin API takes them: JSON in, an event out, or what is wrong."""

import json
import re
from typing import Any, Final

from isthmus.connector.corrections import CORRECTION_AMOUNT_MAX, CORRECTION_KEY_CHARS_MAX
from isthmus.connector.events import (
    AccountId,
    Adjust,
    Correction,
    GiveUp,
    RecordSettlement,
    ReverseSettlement,
    Settle,
    WriteOff,
)

NOTE_CHARS_MAX: Final = 500
WRITE_OFF: Final = "write-off"
ADJUST: Final = "adjust"
GIVE_UP: Final = "give-up"
SETTLE_BY_HAND: Final = "settlement"
REVERSE: Final = "reverse-settlement"

_KINDS: Final[dict[type, str]] = {
    WriteOff: WRITE_OFF,
    Adjust: ADJUST,
    GiveUp: GIVE_UP,
    RecordSettlement: SETTLE_BY_HAND,
    ReverseSettlement: REVERSE,
}
# What a request holds besides note and key.
_FIELDS: Final = {GIVE_UP: [], REVERSE: ["number", "is_certain"]}

_KEY: Final = re.compile(rf"[!-~]{{1,{CORRECTION_KEY_CHARS_MAX}}}", re.ASCII)
_AMOUNT: Final = re.compile(r"-?[0-9]{1,78}", re.ASCII)


class BadRequestError(Exception):
    """What is wrong with a request, for whoever made it."""


def kind_of(correction: Correction) -> str:
    return _KINDS[type(correction)]


def parse_correction(kind: str, account: AccountId, body: str) -> Correction:
    """The event that a request's body stands for; its token is the driver's business."""
    found = _object(body)
    known = [*_FIELDS.get(kind, ["amount"]), "note", "key"]
    unknown = sorted(set(found) - set(known))
    if unknown:
        names = f"{', '.join(known[:-1])} and {known[-1]}"
        raise BadRequestError(f"{unknown[0][:40]!r} is not known here; give {names}.")
    note = check_note(found.get("note"))
    key = check_key(found.get("key"))
    if kind == GIVE_UP:
        return GiveUp(account, key, note, 0)
    if kind == REVERSE:
        return ReverseSettlement(account, _number(found.get("number")), key, note, 0, _flag(found.get("is_certain")))
    if kind in (ADJUST, SETTLE_BY_HAND):
        amount = _amount(found.get("amount"), least=-CORRECTION_AMOUNT_MAX)
        return (Adjust if kind == ADJUST else RecordSettlement)(account, amount, key, note, 0)
    written_off = None if found.get("amount") is None else _amount(found["amount"], least=1)
    return WriteOff(account, written_off, key, note, 0)


def parse_settle(account: AccountId, body: str) -> Settle:
    """A payment that the operator wants now; the note may be left out."""
    found = _object(body)
    unknown = sorted(set(found) - {"amount", "note", "key"})
    if unknown:
        raise BadRequestError(f"{unknown[0][:40]!r} is not known here; give amount, note and key.")
    amount = None if found.get("amount") is None else _amount(found["amount"], least=1)
    note = "" if found.get("note") is None else check_note(found["note"])
    return Settle(account, amount, check_key(found.get("key")), note, 0)


def check_key(key: object) -> str:
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        raise BadRequestError(
            f"key must be 1 to {CORRECTION_KEY_CHARS_MAX} characters of ASCII without spaces, new for each correction."
        )
    return key


def check_note(note: object) -> str:
    if not isinstance(note, str) or not note.strip() or len(note) > NOTE_CHARS_MAX:
        raise BadRequestError(f"note must say why, in 1 to {NOTE_CHARS_MAX} characters.")
    try:
        note.encode()
    except UnicodeEncodeError:
        raise BadRequestError("note is not text: it has half a character.") from None
    return note.strip()


def _object(body: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError("The body is not JSON.") from None
    if not isinstance(found, dict):
        raise BadRequestError("The body is not a JSON object.")
    return found


def _number(value: object) -> int:
    if not isinstance(value, str) or re.fullmatch(r"[0-9]{1,19}", value, re.ASCII) is None:
        raise BadRequestError('number must be a string of digits, as settlements are numbered: "3".')
    return int(value)


def _flag(value: object) -> bool:
    if value not in (None, True, False):
        raise BadRequestError("is_certain must be true or false.")
    return value is True


def _amount(value: object, *, least: int) -> int:
    if not isinstance(value, str) or _AMOUNT.fullmatch(value) is None:
        raise BadRequestError('amount must be a string of digits in base units, like "12500".')
    amount = int(value)
    if amount == 0 or not least <= amount <= CORRECTION_AMOUNT_MAX:
        raise BadRequestError("amount is zero, of the wrong sign or too large.")
    return amount
