"""Settlements: when we pay a peer, and what its payments and our engine's word change in the books.

Outgoing: the payable is debited by one durable entry, under one key for ever; only then the engine hears of it
(`SettlementDue`), in each process again until it says that it has it. Nothing is refunded by itself (SE-10): the
operator reverses a settlement that the ledger proves to have failed (`corrections.py`). While one is not with its
engine, or has failed, no other is begun on that account, so the limits of the account stop the peer (CONN-8).

Incoming: an engine tells what it has verified, with a key or with what it keeps itself, in one step that is journaled
whole or not at all.
"""

from hashlib import sha256
from typing import Final

from isthmus.connector import settlement_books
from isthmus.connector.books import SETTLE, Account
from isthmus.connector.corrections import booked_under, problem_of_keys, transfer_key
from isthmus.connector.events import AccountId, Settle, SettlementAnswered, SettlementDue, SettlementStep
from isthmus.connector.lane import Lane
from isthmus.connector.octets import TRANSFER_AMOUNT_BYTES_MAX
from isthmus.connector.settling import (
    BEGUN,
    CONFIRMED,
    CREDIT_KEY_BYTES_MAX,
    CREDIT_KEY_USED_MS,
    CREDIT_KEYS_MAX,
    ENDED,
    ENGINE_KEYS_MAX,
    ENGINE_VALUE_BYTES_MAX,
    FAILED,
    OPEN_SETTLEMENTS_MAX,
    QUANTITY_MAX,
    QUANTITY_SCALE_MAX,
    SETTLEMENT_KEY_BYTES,
    STATES,
    TAKEN,
    Settlement,
    credit_of,
)
from isthmus.connector.switch import Switch

# Of one step: an engine that knows more tells it in more than one.
STEP_MAX: Final = 1_024
_AMOUNT_END: Final = 1 << (8 * TRANSFER_AMOUNT_BYTES_MAX - 8)
_MOVES: Final = {
    BEGUN: (TAKEN, CONFIRMED, ENDED, FAILED),
    TAKEN: (CONFIRMED, ENDED, FAILED),
    FAILED: (TAKEN, CONFIRMED),
}


def settle_what_is_due(switch: Switch) -> None:
    """Begin what the accounts that changed in the open batch call for; before it is appended."""
    for account in [one for one in switch.books.changed if one.index in switch.settlers]:
        consider(switch, switch.settlers[account.index])


def consider(switch: Switch, lane: Lane) -> None:
    """Begin a settlement if the account's terms call for one now, and none is in its way."""
    account = lane.account
    terms = lane.terms.settle
    if terms.threshold is None or lane.closed or lane.disabled or switch.draining:
        return
    amount = terms.due(-account.balance, account.asset_scale)
    if amount and not _obstacle(account):
        _begin(switch, lane, amount, b"", "")


def take_settle(switch: Switch, event: Settle) -> SettlementAnswered:
    """The operator's word to pay a peer now; once for its key."""
    lane = switch.lanes.get(event.account)
    if lane is None or lane.closed:
        return SettlementAnswered(event.token, "there is no such account")
    booked = booked_under(switch.books, event.key)
    if booked is not None:
        kind, index, amount = booked
        if (kind, index) != (SETTLE, lane.account.index) or event.amount not in (None, amount):
            return SettlementAnswered(event.token, "this key was used for something else")
        return SettlementAnswered(event.token, amount=amount)
    asset_scale = lane.account.asset_scale
    owed = -lane.account.balance
    amount = lane.terms.settle.payable(owed, asset_scale) if event.amount is None else event.amount
    problem = _problem(lane, amount, owed) or problem_of_keys(switch.books)
    if problem:
        return SettlementAnswered(event.token, problem)
    key = transfer_key(event.key, SETTLE, lane.account, amount)
    number = _begin(switch, lane, amount, key, event.text)
    return SettlementAnswered(event.token, "", number, amount)


def _problem(lane: Lane, amount: int, owed: int) -> str:
    terms = lane.terms.settle
    if not terms.engine:
        return "this account has no settlement engine; `isthmus settle --by-hand` books what was paid elsewhere"
    if amount < 1:
        return "nothing is owed to this peer that its terms would pay" if owed < 1 else "it is less than the minimum"
    unit = terms.unit(lane.account.asset_scale)
    if amount % unit:
        return f"the ledger counts in units of {unit}, and this is no multiple of it"
    if terms.amount_max is not None and amount > terms.amount_max:
        return f"it is above the largest settlement, {terms.amount_max}"
    if amount - owed > terms.ahead_max:
        return f"the peer would owe us {amount - owed} of it, and ahead_max allows {terms.ahead_max}"
    return _obstacle(lane.account)


def _obstacle(account: Account) -> str:
    """Why no settlement can be begun now; "" for nothing."""
    settling = account.settling
    if settling is None:
        return ""
    waits = settling.under_way()
    if waits is not None and waits.state == FAILED:
        return f"settlement {waits.number} has failed, and waits for its reversal"
    if waits is not None:
        return f"settlement {waits.number} is not with its engine yet"
    if len(settling.open) >= OPEN_SETTLEMENTS_MAX:
        return f"{OPEN_SETTLEMENTS_MAX} settlements are under way"
    return ""


def _begin(switch: Switch, lane: Lane, amount: int, key: bytes, text: str) -> int:
    account = lane.account
    number = settlement_books.settling_of(account).last + 1
    seed = b"settlement " + number.to_bytes(8, "big") + account.name.encode()
    engine_key = sha256(switch.entropy + seed).digest()[:SETTLEMENT_KEY_BYTES]
    settlement = Settlement(number, amount, engine_key, switch.wall, BEGUN, text)
    settlement_books.begin(switch.books, account, settlement, key)
    told = f"settlement {number}" + (f": {text}" if text else "")
    switch.singles.append(("settlement", lane.id, -amount, told))
    switch.settlement_tally.count(lane.id, STATES[BEGUN])
    switch.tell(lane, "settlement_begun", {"number": number, "amount": str(amount)})
    switch.answer_after_all(SettlementDue(lane.id, number, amount, engine_key))
    return number


def due_again(switch: Switch) -> None:
    """A process begins: engines hear again of what they have not taken."""
    for account in switch.books.peers.values():
        if account.settling is not None:
            for one in account.settling.open.values():
                if one.state == BEGUN:
                    due = SettlementDue(AccountId(account.name), one.number, one.amount, one.key)
                    switch.answer_after_all(due)


def forget_engine(switch: Switch, account: AccountId) -> None:
    """Drop what its engine keeps of an account, entry by entry: the journal tells what it was, and when it went.

    Numbers of settlements, leftovers and keys of credits stay, as the books do.
    """
    found = switch.books.peers.get(account)
    if found is not None and found.settling is not None:
        for key in list(found.settling.engine):
            settlement_books.keep(switch.books, found, key, b"")


# --- what engines tell -----------------------------------------------------------------------------------------------


def take_step(switch: Switch, event: SettlementStep) -> SettlementAnswered:
    """Book what an engine tells, whole or not at all."""
    lane = switch.lanes.get(event.account)
    if lane is None or lane.closed:
        return SettlementAnswered(event.token, "there is no such account")
    problem = _problem_of_step(lane.account, event, switch.wall)
    if problem:
        switch.log("error", "settlement_step_refused", {"account": lane.id, "problem": problem})
        return SettlementAnswered(event.token, problem)
    amounts = [_credit(switch, lane, *one) for one in event.credits]
    for amount, text in event.undone:
        settlement_books.take_back(switch.books, lane.account, amount, text)
        switch.singles.append(("settlement undone", lane.id, amount, text))
        switch.settlement_tally.count(lane.id, "undone")
        switch.log("error", "settlement_undone", {"account": lane.id, "amount": str(amount), "text": text})
    for number, state, why in event.moved:
        _move(switch, lane, number, state, why)
    for key, value in event.kept:
        settlement_books.keep(switch.books, lane.account, key, value)
    consider(switch, lane)
    return SettlementAnswered(event.token, amount=sum(amounts), amounts=amounts)


def _credit(switch: Switch, lane: Lane, amount: int, scale: int, key: str, text: str) -> int:
    """Credit the peer once for this key; what it gave, then or before."""
    account = lane.account
    settling = settlement_books.settling_of(account)
    key_bytes = key.encode()
    before = settling.credited.get(key_bytes) if key else None
    if before is not None:
        credited, used_at = before
        if switch.wall - used_at >= CREDIT_KEY_USED_MS:
            settlement_books.use_key(switch.books, account, key_bytes, switch.wall)
        return credited
    units, leftover = credit_of(amount, scale, (settling.leftover, settling.leftover_scale), account.asset_scale)
    settlement_books.credit(switch.books, account, units, leftover, key=key_bytes, text=text, now=switch.wall)
    if units:
        switch.singles.append(("settlement", lane.id, units, text))
    switch.settlement_tally.count(lane.id, "credited")
    switch.tell(lane, "settlement_received", {"amount": str(units)})
    return units


def _move(switch: Switch, lane: Lane, number: int, state: int, why: str) -> None:
    settlement = settlement_books.settling_of(lane.account).open[number]
    if settlement.state == state:
        return  # told twice
    settlement_books.move(switch.books, lane.account, settlement, state, why)
    switch.settlement_tally.moved(lane.id, settlement, state, switch.wall)
    fields: dict[str, str | int] = {"number": number, "amount": str(settlement.amount)}
    if state == FAILED:
        fields["problem"] = why
        fields["remedy"] = "look at it on the ledger, then `isthmus settlements reverse`"
        switch.singles.append(("settlement failed", lane.id, settlement.amount, f"settlement {number}: {why}"))
        switch.log("error", "settlement_failed", {"account": lane.id, **fields})
    else:
        switch.tell(lane, f"settlement_{STATES[state]}", fields)


def _problem_of_step(account: Account, event: SettlementStep, wall: int) -> str:
    """Why this step can't be booked; "" if it can."""
    if len(event.moved) + len(event.credits) + len(event.undone) + len(event.kept) > STEP_MAX:
        return f"more than {STEP_MAX} facts in one step"
    settling = settlement_books.settling_of(account)
    moves = dict[int, int]()
    for number, state, _ in event.moved:
        found = settling.open.get(number)
        if found is None or number in moves:
            return f"settlement {number} is not open"
        if state != found.state and state not in _MOVES[found.state]:
            return (
                f"settlement {number} is {STATES[found.state]}, and can't be {STATES.get(state, str(state))} after it"
            )
        moves[number] = state
    new_keys = {key for _, _, key, _ in event.credits if key and key.encode() not in settling.credited}
    if new_keys and settling.keys_at(wall) + len(new_keys) > CREDIT_KEYS_MAX:
        return f"{CREDIT_KEYS_MAX} settlements were credited in a week; ask again later"
    for amount, scale, key, _ in event.credits:
        problem = _problem_of_credit(account, amount, scale, key)
        if problem:
            return problem
    if any(not 0 < amount < _AMOUNT_END for amount, _ in event.undone):
        return "an amount is not above zero, or too large"
    return _problem_of_kept(settling.engine, event.kept)


def _problem_of_credit(account: Account, amount: int, scale: int, key: str) -> str:
    if not 0 <= amount <= QUANTITY_MAX or not 0 <= scale <= QUANTITY_SCALE_MAX:
        return "the amount or its scale is too large"
    if amount * 10 ** max(0, account.asset_scale - scale) >= _AMOUNT_END:
        return "the amount is too large for an account of this scale"
    if len(key.encode()) > CREDIT_KEY_BYTES_MAX:
        return f"the key is longer than {CREDIT_KEY_BYTES_MAX} bytes"
    return ""


def _problem_of_kept(engine: dict[bytes, bytes], kept: list[tuple[bytes, bytes]]) -> str:
    for key, value in kept:
        if not 0 < len(key) <= CREDIT_KEY_BYTES_MAX or len(value) > ENGINE_VALUE_BYTES_MAX:
            return "an engine keeps more in one place than the journal takes"
    if len(engine) + len({key for key, value in kept if value} - set(engine)) > ENGINE_KEYS_MAX:
        return f"an engine keeps more than {ENGINE_KEYS_MAX} things for one account"
    return ""
