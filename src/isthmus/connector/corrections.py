"""Corrections by the operator: a loss written off, a balance adjusted. Each is booked once for its key.

The same rules serve a running node and, when it is stopped, the command that opens its journal in its place. The key
under which a transfer is kept says what it was, so that a repetition gets the same answer after any restart, and the
same key for something else is refused.
"""

from typing import Final

from isthmus.connector.books import ADJUST, ADJUSTMENT, WRITE_OFF, WRITTEN_OFF, Account, Books, internal_name
from isthmus.connector.events import AccountId, Adjust, Corrected, WriteOff
from isthmus.connector.switch import Switch

# Of the caller's key: printable ASCII without spaces. What is kept adds kind, account and amount.
CORRECTION_KEY_CHARS_MAX: Final = 100
CORRECTION_AMOUNT_MAX: Final = 2**256 - 1
# Keys are kept for ever. People make some a day at most; beyond this a program went wild.
TRANSFER_KEYS_MAX: Final = 100_000


def take_correction(switch: Switch, event: WriteOff | Adjust) -> Corrected:
    """The operator's word to a running node."""
    lane = switch.lanes.get(event.account)
    if lane is None:
        return Corrected(event.token, 0, "there is no such account")
    told, is_new = correct(switch.books, lane.account, event)
    if is_new:
        single = single_of(event, told.amount)
        switch.singles.append(single)
        switch.log("info", "corrected", {"kind": single[0], "account": lane.id, "amount": str(told.amount)})
    return told


def correct(books: Books, account: Account, event: WriteOff | Adjust) -> tuple[Corrected, bool]:
    """Book it, unless its key was used or it can't be; the answer, and whether an entry was written."""
    assert event.account == account.name
    kind = WRITE_OFF if isinstance(event, WriteOff) else ADJUST
    booked = _booked(books, event.key)
    if booked is not None:
        amount = booked[2]
        if booked[:2] != (kind, account.index) or event.amount not in (None, amount):
            return _refused(event, "this key was used for another correction"), False
        return Corrected(event.token, amount, ""), False
    problem = _problem(books, account, event)
    if problem:
        return _refused(event, problem), False
    amount = account.loss.balance if event.amount is None else event.amount
    key = f"{event.key} {kind} {account.index} {amount}".encode()
    asset = (account.asset_code, account.asset_scale)
    if kind == WRITE_OFF:
        debit, credit = books.internal[internal_name(WRITTEN_OFF, *asset)], account.loss
    else:
        debit, credit = account, books.internal[internal_name(ADJUSTMENT, *asset)]
        if amount < 0:
            debit, credit = credit, debit
    is_new = books.transfer(debit, credit, abs(amount), kind, key, event.text)
    assert is_new
    return Corrected(event.token, amount, ""), True


def single_of(event: WriteOff | Adjust, amount: int) -> tuple[str, AccountId, int, str]:
    """What statements tell of it."""
    return "write-off" if isinstance(event, WriteOff) else "adjustment", event.account, amount, event.text


def _problem(books: Books, account: Account, event: WriteOff | Adjust) -> str:
    amount = event.amount
    if len(books.transfer_keys) >= TRANSFER_KEYS_MAX:
        return f"{TRANSFER_KEYS_MAX} corrections are in these books, and no more are taken"
    if amount is not None and abs(amount) > CORRECTION_AMOUNT_MAX:
        return "the amount is too large"
    if isinstance(event, Adjust):
        return "" if amount else "the amount is zero"
    loss = account.loss.balance
    if loss <= 0:
        return "there is no loss to write off"
    if amount is not None and not 0 < amount <= loss:
        return f"the amount must be above zero, and not above the loss of {loss}"
    return ""


def _refused(event: WriteOff | Adjust, problem: str) -> Corrected:
    return Corrected(event.token, 0, problem)


def _booked(books: Books, key: str) -> tuple[int, int, int] | None:
    """Kind, account and amount of the correction that was booked under this key."""
    start = f"{key} ".encode()
    for kept in books.transfer_keys:
        if kept.startswith(start):
            parts = kept[len(start) :].split(b" ")
            return int(parts[0]), int(parts[1]), int(parts[2])
    return None
