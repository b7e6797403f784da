"""Settlements in the books: the entries that they consist of, live and on replay alike.

What is decided, and by whom, is in `settlements.py`. Money moves by transfers alone: of ours from the peer's account
before the engine hears of it, of the peer's once its engine knows that it came in.
"""

from isthmus.connector import record as r
from isthmus.connector.books import (
    SETTLE,
    SETTLE_BACK,
    SETTLED,
    SETTLED_BY_PEER,
    Account,
    Books,
    settled_name,
)
from isthmus.connector.octets import TEXT_BYTES_MAX
from isthmus.connector.settling import (
    OPEN_STATES,
    REVERSED,
    Settlement,
    Settling,
)
from isthmus.ilp.packet import truncate_utf8


def settling_of(account: Account) -> Settling:
    """What is kept of an account's settlements, from the first one on."""
    if account.settling is None:
        account.settling = Settling()
    return account.settling


def settled_account(books: Books, account: Account) -> Account:
    """The account that settlements with this peer stand against; opened with the first."""
    name = settled_name(account.name)
    found = books.internal.get(name)
    return found or books.open_account(SETTLED, name, account.asset_code, account.asset_scale)


def begin(books: Books, account: Account, settlement: Settlement, transfer_key: bytes) -> None:
    """Debit what we owe, and keep the settlement until it is at its end."""
    settled = settled_account(books, account)
    settlement.text = _as_kept(settlement.text)
    is_new = books.transfer(account, settled, settlement.amount, SETTLE, transfer_key, settlement.text)
    assert is_new
    enter_begun(books, account, settlement)


def enter_begun(books: Books, account: Account, settlement: Settlement) -> None:
    settling = settling_of(account)
    assert settlement.number == settling.last + 1
    settling.last = settlement.number
    settling.open[settlement.number] = settlement
    one = settlement
    entry = r.SettlementBegun(account.index, one.number, one.begun_at, one.key, one.amount, one.text)
    books.record.extend(r.encode_begun(entry))


def _as_kept(text: str) -> str:
    """Cut as in the journal, so that replay has the same."""
    return truncate_utf8(text, TEXT_BYTES_MAX).decode()


def reverse(books: Books, account: Account, settlement: Settlement, transfer_key: bytes, text: str) -> None:
    """What was debited is owed again, by the operator's word."""
    settled = settled_account(books, account)
    is_new = books.transfer(settled, account, settlement.amount, SETTLE_BACK, transfer_key, text)
    assert is_new
    move(books, account, settlement, REVERSED, text)


def move(books: Books, account: Account, settlement: Settlement, state: int, text: str) -> None:
    """The settlement is in another state; at its end nothing is kept of it."""
    settlement.state = state
    settlement.text = _as_kept(text)
    if state not in OPEN_STATES:
        del settling_of(account).open[settlement.number]
    books.record.extend(r.encode_moved(r.SettlementMoved(account.index, settlement.number, state, text)))


def credit(
    books: Books, account: Account, amount: int, leftover: tuple[int, int], *, key: bytes, text: str, now: int
) -> None:
    """The peer has paid: its account is credited with whole units, and the rest counts with what comes next.

    With a key the credit is remembered under it for a week after its last use.
    """
    if amount:
        books.transfer(settled_account(books, account), account, amount, SETTLED_BY_PEER, b"", text)
    enter_credit(books, account, r.Credited(account.index, now, key, amount, *leftover))


def enter_credit(books: Books, account: Account, entry: r.Credited) -> None:
    settling = settling_of(account)
    settling.leftover, settling.leftover_scale = entry.leftover, entry.leftover_scale
    if entry.key:
        forget_keys(settling, entry.credited_at)
        settling.credited[entry.key] = (entry.amount, entry.credited_at)
    books.record.extend(r.encode_credited(entry))


def forget_keys(settling: Settling, now: int) -> None:
    """Those whose last use is too long ago."""
    for key in list(settling.old_keys(now)):
        del settling.credited[key]


def use_key(books: Books, account: Account, key: bytes, now: int) -> None:
    """A credit was asked for once more: it is remembered for longer."""
    credited = settling_of(account).credited
    amount, _ = credited.pop(key)
    credited[key] = (amount, now)
    books.record.extend(r.encode_used(r.KeyUsed(account.index, now, key)))


def take_back(books: Books, account: Account, amount: int, text: str) -> None:
    """A ledger undid a settlement of the peer's that we had credited (a reorganisation)."""
    books.transfer(account, settled_account(books, account), amount, SETTLE_BACK, b"", text)


def keep(books: Books, account: Account, key: bytes, value: bytes) -> None:
    """What the engine wants to find again after a restart; an empty value takes it away."""
    engine = settling_of(account).engine
    if value:
        engine[key] = value
    else:
        engine.pop(key, None)
    books.record.extend(r.encode_engine(r.EngineKept(account.index, key, value)))
