"""Corrections by the operator: a loss written off, a balance adjusted, outcomes given up. Each is booked once.

The same rules serve a running node and, when it is stopped, the command that opens its journal in its place. The key
under which a transfer is kept says what it was, so that a repetition gets the same answer after any restart, and the
same key for something else is refused.
"""

from typing import Final

from isthmus.connector.books import ADJUST, ADJUSTMENT, GIVE_UP, WRITE_OFF, WRITTEN_OFF, Account, Books, internal_name
from isthmus.connector.events import AccountId, Adjust, CloseLink, Corrected, Correction, GiveUp, WriteOff
from isthmus.connector.lane import Lane
from isthmus.connector.switch import Switch

# Of the caller's key: printable ASCII without spaces. What is kept adds kind, account and amount.
CORRECTION_KEY_CHARS_MAX: Final = 100
CORRECTION_AMOUNT_MAX: Final = 2**256 - 1
# Keys are kept for ever. People make some a day at most; beyond this a program went wild.
TRANSFER_KEYS_MAX: Final = 100_000

_KINDS: Final[dict[type, int]] = {WriteOff: WRITE_OFF, Adjust: ADJUST, GiveUp: GIVE_UP}
_NAMES: Final = {WRITE_OFF: "write-off", ADJUST: "adjustment", GIVE_UP: "give-up"}


def take_correction(switch: Switch, event: Correction) -> Corrected:
    """The operator's word to a running node."""
    lane = switch.lanes.get(event.account)
    if lane is None:
        return Corrected(event.token, 0, "there is no such account")
    untold = {key[0] for key in lane.account.unsaid}
    told, is_new = correct(switch.books, lane.account, event)
    if is_new:
        single = single_of(event, told.amount)
        switch.singles.append(single)
        switch.log("info", "corrected", {"kind": single[0], "account": lane.id, "amount": str(told.amount)})
        if isinstance(event, GiveUp) and lane.session in untold:
            _leave_session(switch, lane)
    return told


def _leave_session(switch: Switch, lane: Lane) -> None:
    """What was given up must not be told as posted, which a later report of the same session would do."""
    lane.renewing = True
    if lane.up:
        switch.effects.append(CloseLink(lane.id, "outcomes of this session were given up"))


def correct(books: Books, account: Account, event: Correction) -> tuple[Corrected, bool]:
    """Book it, unless its key was used or it can't be; the answer, and whether an entry was written."""
    assert event.account == account.name
    kind = _KINDS[type(event)]
    asked = None if isinstance(event, GiveUp) else event.amount
    booked = _booked(books, event.key)
    if booked is not None:
        amount = booked[2]
        if booked[:2] != (kind, account.index) or asked not in (None, amount):
            return _refused(event, "this key was used for another correction"), False
        return Corrected(event.token, amount, ""), False
    problem = _problem(books, account, event)
    if problem:
        return _refused(event, problem), False
    if asked is None:
        asked = account.fulfilled_amount if kind == GIVE_UP else account.loss.balance
    _book(books, account, event, kind, asked)
    return Corrected(event.token, asked, ""), True


def _book(books: Books, account: Account, event: Correction, kind: int, amount: int) -> None:
    key = f"{event.key} {kind} {account.index} {amount}".encode()
    asset = (account.asset_code, account.asset_scale)
    if kind == WRITE_OFF:
        debit, credit = books.internal[internal_name(WRITTEN_OFF, *asset)], account.loss
    elif kind == GIVE_UP:
        debit = credit = account
    else:
        debit, credit = account, books.internal[internal_name(ADJUSTMENT, *asset)]
        if amount < 0:
            debit, credit = credit, debit
    is_new = books.transfer(debit, credit, abs(amount), kind, key, event.text)
    assert is_new
    if kind == GIVE_UP:
        for leg in books.give_up(account):
            if leg.amount:
                books.put_at_risk(account, leg.id, leg.amount, 0)


def single_of(event: Correction, amount: int) -> tuple[str, AccountId, int, str]:
    """What statements tell of it."""
    return _NAMES[_KINDS[type(event)]], event.account, amount, event.text


def _problem(books: Books, account: Account, event: Correction) -> str:
    if len(books.transfer_keys) >= TRANSFER_KEYS_MAX:
        return f"{TRANSFER_KEYS_MAX} corrections are in these books, and no more are taken"
    if isinstance(event, GiveUp):
        return _problem_of_giving_up(account)
    amount = event.amount
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


def _problem_of_giving_up(account: Account) -> str:
    in_flight = len(account.received) + len(account.sent)
    if in_flight:
        return f"packets are in flight on this account ({in_flight}); a node that runs decides them by their expiry"
    if not account.fulfilled and not account.unsaid:
        return "nothing is kept for this peer"
    return ""


def _refused(event: Correction, problem: str) -> Corrected:
    return Corrected(event.token, 0, problem)


def _booked(books: Books, key: str) -> tuple[int, int, int] | None:
    """Kind, account and amount of the correction that was booked under this key."""
    start = f"{key} ".encode()
    for kept in books.transfer_keys:
        if kept.startswith(start):
            parts = kept[len(start) :].split(b" ")
            return int(parts[0]), int(parts[1]), int(parts[2])
    return None
