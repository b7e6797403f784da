"""Corrections by the operator: a loss written off, a balance adjusted, outcomes given up, settlements by hand.

A settlement of ours that its ledger proves to have failed is reversed here too. Each is booked once.

The same rules serve a running node and, when it is stopped, the command that opens its journal in its place. The key
under which a transfer is kept says what it was, so that a repetition gets the same answer after any restart, and the
same key for something else is refused.
"""

from typing import Final

from isthmus.connector import settlement_books
from isthmus.connector.books import (
    ADJUST,
    ADJUSTMENT,
    GIVE_UP,
    SETTLE_BACK,
    SETTLE_BY_HAND,
    WRITE_OFF,
    WRITTEN_OFF,
    Account,
    Books,
    internal_name,
)
from isthmus.connector.events import (
    AccountId,
    Adjust,
    CloseLink,
    Corrected,
    Correction,
    GiveUp,
    RecordSettlement,
    ReverseSettlement,
    WriteOff,
)
from isthmus.connector.lane import Lane
from isthmus.connector.settling import FAILED, REVERSED, STATES, Settlement
from isthmus.connector.switch import Switch

# Of the caller's key: printable ASCII without spaces. What is kept adds kind, account and amount.
CORRECTION_KEY_CHARS_MAX: Final = 100
CORRECTION_AMOUNT_MAX: Final = 2**256 - 1
# Keys are kept for ever. People make some a day at most; beyond this a program went wild.
TRANSFER_KEYS_MAX: Final = 100_000

_KINDS: Final[dict[type, int]] = {
    WriteOff: WRITE_OFF,
    Adjust: ADJUST,
    GiveUp: GIVE_UP,
    RecordSettlement: SETTLE_BY_HAND,
    ReverseSettlement: SETTLE_BACK,
}
_NAMES: Final = {
    WRITE_OFF: "write-off",
    ADJUST: "adjustment",
    GIVE_UP: "give-up",
    SETTLE_BY_HAND: "settlement by hand",
    SETTLE_BACK: "settlement reversed",
}


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
        if isinstance(event, ReverseSettlement):
            switch.settlement_tally.count(lane.id, STATES[REVERSED])
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
    asked = None if isinstance(event, GiveUp | ReverseSettlement) else event.amount
    booked = booked_under(books, event.key)
    if booked is not None:
        amount = booked[2]
        if booked[:2] != (kind, account.index) or asked not in (None, amount):
            return _refused(event, "this key was used for another correction"), False
        return Corrected(event.token, amount, ""), False
    problem = _problem(books, account, event)
    if problem:
        return _refused(event, problem), False
    if isinstance(event, ReverseSettlement):
        settlement = _open_settlement(account, event.number)
        assert settlement is not None
        asked = settlement.amount
        key = transfer_key(event.key, kind, account, asked)
        settlement_books.reverse(books, account, settlement, key, event.text)
        return Corrected(event.token, asked, ""), True
    if asked is None:
        asked = account.fulfilled_amount if kind == GIVE_UP else account.loss.balance
    _book(books, account, event, kind, asked)
    return Corrected(event.token, asked, ""), True


def _open_settlement(account: Account, number: int) -> Settlement | None:
    return None if account.settling is None else account.settling.open.get(number)


def _book(books: Books, account: Account, event: Correction, kind: int, amount: int) -> None:
    key = transfer_key(event.key, kind, account, amount)
    asset = (account.asset_code, account.asset_scale)
    if kind == WRITE_OFF:
        debit, credit = books.internal[internal_name(WRITTEN_OFF, *asset)], account.loss
    elif kind == GIVE_UP:
        debit = credit = account
    elif kind == SETTLE_BY_HAND:
        debit, credit = settlement_books.settled_account(books, account), account
    else:
        debit, credit = account, books.internal[internal_name(ADJUSTMENT, *asset)]
    if amount < 0:  # only of these two
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


def problem_of_keys(books: Books) -> str:
    """Why no other key can be kept; "" if one can."""
    if len(books.transfer_keys) >= TRANSFER_KEYS_MAX:
        return f"{TRANSFER_KEYS_MAX} corrections are in these books, and no more are taken"
    return ""


def _problem(books: Books, account: Account, event: Correction) -> str:
    problem = problem_of_keys(books)
    if problem:
        return problem
    if isinstance(event, GiveUp):
        return _problem_of_giving_up(account)
    if isinstance(event, ReverseSettlement):
        return _problem_of_reversal(account, event)
    amount = event.amount
    if amount is not None and abs(amount) > CORRECTION_AMOUNT_MAX:
        return "the amount is too large"
    if isinstance(event, Adjust | RecordSettlement):
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


def _problem_of_reversal(account: Account, event: ReverseSettlement) -> str:
    settlement = _open_settlement(account, event.number)
    if settlement is None:
        return f"there is no settlement {event.number} that is not at its end"
    if settlement.state != FAILED and not event.is_certain:
        return "its engine has not said that it failed; paid all the same, it would be paid twice"
    return ""


def _refused(event: Correction, problem: str) -> Corrected:
    return Corrected(event.token, 0, problem)


def transfer_key(key: str, kind: int, account: Account, amount: int) -> bytes:
    """What is kept under an operator's key: what it was used for."""
    return f"{key} {kind} {account.index} {amount}".encode()


def booked_under(books: Books, key: str) -> tuple[int, int, int] | None:
    """Kind, account and amount of what was booked under this key."""
    start = f"{key} ".encode()
    for kept in books.transfer_keys:
        if kept.startswith(start):
            parts = kept[len(start) :].split(b" ")
            return int(parts[0]), int(parts[1]), int(parts[2])
    return None
