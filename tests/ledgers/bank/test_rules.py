"""The books of a bank, on both databases: each transfer whole and once, each limit kept to the unit."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy

from isthmus.errors import ConfigError, LedgerError
from isthmus.ledgers.bank import schema
from isthmus.ledgers.bank.database import Database, database_url
from isthmus.ledgers.bank.rules import Bank, new_operator_token
from isthmus.ledgers.bank.values import AMOUNT_MAX, TOKENS_PER_ACCOUNT_MAX, RefusedError
from tests.ledgers.bank.conftest import START_MS, an_account, an_order, furnish, open_bank


def refused(code: str) -> "pytest.RaisesExc[RefusedError]":
    return pytest.raises(RefusedError, check=lambda error: error.code == code)


def test_a_transfer_writes_both_statements(bank: Bank) -> None:
    furnish(bank, "ann", "bob")
    made, is_new = bank.transfer(an_order("ann", "bob", 250, reference="lunch"))
    assert is_new and made.order.amount == 250
    account, (_, out) = bank.statement("ann", 0)
    assert (account.balance, account.entries) == (750, 2)
    assert (out.number, out.amount, out.balance, out.counterparty, out.reference) == (2, -250, 750, "bob", "lunch")
    _, (last,) = bank.statement("bob", 1)
    assert (last.transfer, last.amount, last.balance, last.counterparty) == (made.id, 250, 1_250, "ann")
    assert last.at_ms == out.at_ms
    assert bank.audit() == []


def test_a_key_happens_once_and_for_ever(bank: Bank, place: str) -> None:
    furnish(bank, "ann", "bob")
    order = an_order("ann", "bob", 10)
    made, _ = bank.transfer(order)
    assert bank.transfer(order) == (made, False)
    for other in (replace(order, amount=11), replace(order, payee="issuer"), replace(order, reference="x")):
        with refused("key-used"):
            bank.transfer(other)
    assert bank.transfer(an_order("bob", "ann", 10))[1], "keys are each payer's own"
    again = open_bank(place)
    assert again.transfer(order) == (made, False)
    assert again.transfer_under("ann", "k") == made
    assert again.account("ann").balance == 1_000
    again.close()


def test_a_key_that_is_void_stays_void(bank: Bank) -> None:
    furnish(bank, "ann", "bob")
    bank.void("ann", "gone")
    bank.void("ann", "gone")
    with refused("key-void"):
        bank.transfer(an_order("ann", "bob", 1, key="gone"))
    with refused("no-such-transfer"):
        bank.transfer_under("ann", "gone")
    bank.transfer(an_order("ann", "bob", 1, key="used"))
    with refused("key-used"):
        bank.void("ann", "used")
    assert bank.account("ann").balance == 999


def test_a_refused_transfer_changes_nothing_and_its_key_is_free(bank: Bank) -> None:
    furnish(bank, "ann", "bob", money=100)
    with refused("insufficient-funds"):
        bank.transfer(an_order("ann", "bob", 101))
    assert (bank.account("ann").balance, bank.account("ann").entries) == (100, 1)
    bank.transfer(an_order("issuer", "ann", 1))
    assert bank.transfer(an_order("ann", "bob", 101))[1]
    assert bank.account("ann").balance == 0


@pytest.mark.parametrize("overdraft", [0, 1, 50, AMOUNT_MAX])
def test_an_overdraft_is_kept_to_the_unit(bank: Bank, overdraft: int) -> None:
    bank.open_account(an_account("ann", overdraft=overdraft))
    bank.open_account(an_account("bob"))
    if overdraft < AMOUNT_MAX:
        with refused("insufficient-funds"):
            bank.transfer(an_order("ann", "bob", overdraft + 1))
    if overdraft:
        bank.transfer(an_order("ann", "bob", overdraft))
        assert bank.account("ann").balance == -overdraft
        with refused("insufficient-funds"):
            bank.transfer(an_order("ann", "bob", 1, key="more"))
    assert bank.audit() == []


def test_who_is_below_a_new_limit_can_only_be_paid(bank: Bank) -> None:
    bank.open_account(an_account("ann", overdraft=50))
    bank.open_account(an_account("bob"))
    bank.transfer(an_order("ann", "bob", 50))
    assert bank.change_account("ann", {"overdraft": 20}).overdraft == 20
    with refused("insufficient-funds"):
        bank.transfer(an_order("ann", "bob", 1, key="2"))
    bank.transfer(an_order("bob", "ann", 40))
    bank.transfer(an_order("ann", "bob", 10, key="3"))
    assert bank.account("ann").balance == -20


def test_the_largest_amounts_are_exact(bank: Bank) -> None:
    """They are beyond the integers of SQLite, and beyond what floats tell apart."""
    furnish(bank, "ann", "bob", money=1)
    bank.open_account(an_account("mint", overdraft=None))
    bank.transfer(an_order("issuer", "ann", AMOUNT_MAX - 2))
    assert bank.account("ann").balance == AMOUNT_MAX - 1
    with refused("too-much"):
        bank.transfer(an_order("mint", "ann", 2))
    assert bank.account("issuer").balance == -AMOUNT_MAX
    with refused("insufficient-funds"):
        bank.transfer(an_order("issuer", "bob", 1, key="z"))
    _, entries = bank.statement("ann", 1, 1)
    assert (entries[0].amount, entries[0].balance) == (AMOUNT_MAX - 2, AMOUNT_MAX - 1)
    assert bank.audit() == []


@pytest.mark.parametrize(
    ("payer", "payee", "code"),
    [
        ("ann", "nobody", "no-such-payee"),
        ("nobody", "ann", "no-such-account"),
        ("ann", "ann", "same-account"),
        ("ann", "euro", "other-asset"),
    ],
)
def test_what_is_no_transfer(bank: Bank, payer: str, payee: str, code: str) -> None:
    furnish(bank, "ann")
    bank.open_account(an_account("euro", code="EUR"))
    with refused(code):
        bank.transfer(an_order(payer, payee, 1))
    assert bank.account("ann").entries == 1


def test_an_account_is_opened_once(bank: Bank) -> None:
    account = an_account("ann", overdraft=5)
    assert bank.open_account(account) == (account, True)
    bank.open_account(an_account("bob"))
    bank.transfer(an_order("ann", "bob", 5))
    opened, is_new = bank.open_account(account)
    assert (opened.balance, is_new) == (-5, False)
    with refused("account-exists"):
        bank.open_account(replace(account, overdraft=6))
    with refused("other-scale"):
        bank.open_account(an_account("cy", scale=3))


def test_pages_follow_each_other_without_a_gap(bank: Bank) -> None:
    furnish(bank, "ann", "bob")
    for number in range(7):
        bank.transfer(an_order("ann", "bob", 1, key=str(number)))
    seen: list[int] = []
    while page := bank.statement("ann", seen[-1] if seen else 0, 3)[1]:
        assert len(page) <= 3
        seen += [each.number for each in page]
    assert seen == list(range(1, 9))
    times = [each.at_ms for each in bank.statement("ann", 0)[1]]
    assert times == sorted(set(times)) and times[0] >= START_MS
    assert [each.id for each in bank.accounts("", 2)] == ["ann", "bob"]
    assert [each.id for each in bank.accounts("bob", 2)] == ["issuer"]


@pytest.mark.parametrize("banks", [1, 2], ids=["one-process", "as-two-processes"])
def test_transfers_at_once_are_as_if_one_came_after_the_other(place: str, banks: int) -> None:
    """Sixteen threads send more than the account has: as much is sent as it has, each key once."""
    all_banks = [open_bank(place) for _ in range(banks)]
    furnish(all_banks[0], "ann", "bob", "cy", money=100)
    start = threading.Barrier(16)

    def pay(number: int) -> int:
        bank = all_banks[number % banks]
        start.wait()
        done = 0
        for turn in range(6):
            payee = ("bob", "cy")[turn % 2]
            try:
                done += 3 * bank.transfer(an_order("ann", payee, 3, key=f"{number // 2}-{turn}"))[1]
            except RefusedError as error:
                assert error.code == "insufficient-funds"
        return done

    with ThreadPoolExecutor(16) as pool:
        sent = sum(pool.map(pay, range(16)))
    assert sent == 99
    balances = {each.id: each.balance for each in all_banks[0].accounts("")}
    assert balances["ann"] == 1 and balances["bob"] + balances["cy"] == 299
    for bank in all_banks:
        assert bank.audit() == []
        bank.close()


def test_a_token_is_known_and_only_its_digest_is_kept(bank: Bank, place: str) -> None:
    furnish(bank, "ann", "bob")
    known, token = bank.new_token("ann", "phone")
    assert bank.holder_of(token) == (True, "ann")
    for wrong in (token[:-1], token + "x", token.upper(), known.id, f"{known.id}.", "", ".", "\0.x", "ü.ü"):
        assert bank.holder_of(wrong) == (False, None), wrong
    assert bank.tokens("ann") == [known] and bank.tokens("bob") == []
    if "://" not in place:
        from pathlib import Path

        kept = b"".join(each.read_bytes() for each in Path(place).parent.iterdir())
        assert token.partition(".")[2].encode() not in kept and known.id.encode() in kept
    with refused("no-such-token"):
        bank.revoke("bob", known.id)
    bank.revoke("ann", known.id)
    assert bank.holder_of(token) == (False, None)


def test_tokens_of_an_account_are_bounded(bank: Bank) -> None:
    furnish(bank, "ann")
    for _ in range(TOKENS_PER_ACCOUNT_MAX):
        bank.new_token("ann", "")
    with refused("too-many-tokens"):
        bank.new_token("ann", "")
    with refused("no-such-account"):
        bank.new_token("nobody", "")


def test_another_operators_token_replaces_the_one_before(bank: Bank) -> None:
    first, second = new_operator_token(), new_operator_token()
    bank.ensure_operator(first, "file")
    bank.ensure_operator(first, "file")
    assert bank.holder_of(first) == (True, None)
    bank.ensure_operator(second, "file")
    assert (bank.holder_of(first), bank.holder_of(second)) == ((False, None), (True, None))
    for wrong in ("", "x", "x.y", first.partition(".")[0] + ".short"):
        with refused("bad-request"):
            bank.ensure_operator(wrong, "file")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (sqlalchemy.update(schema.accounts).where(schema.accounts.c.id == "ann").values(balance=999), "sum to"),
        (sqlalchemy.update(schema.accounts).where(schema.accounts.c.id == "ann").values(balance=999), "its entries"),
        (sqlalchemy.update(schema.entries).where(schema.entries.c.account == "ann").values(amount=7), "transfer says"),
        (sqlalchemy.update(schema.entries).where(schema.entries.c.account == "ann").values(balance=7), "all before"),
        (sqlalchemy.update(schema.entries).where(schema.entries.c.account == "ann").values(number=3), "comes after 0"),
        (sqlalchemy.delete(schema.entries).where(schema.entries.c.account == "ann"), "two entries"),
    ],
)
def test_the_audit_finds_what_somebody_changed(
    bank: Bank, place: str, statement: sqlalchemy.Executable, words: str
) -> None:
    furnish(bank, "ann", "bob")
    assert bank.audit() == []
    database = Database(database_url(place), new_id=lambda: "other")
    database.write(lambda db: db.execute(statement))
    database.close()
    assert words in " ".join(bank.audit())


def test_a_bank_keeps_its_id(bank: Bank, place: str) -> None:
    other = Database(database_url(place), new_id=lambda: "another")
    assert (bank.id, other.id) == ("the-bank", "the-bank")
    other.close()


def test_a_newer_schema_is_refused(bank: Bank, place: str) -> None:
    database = Database(database_url(place), new_id=lambda: "x")
    database.write(lambda db: db.execute(sqlalchemy.update(schema.meta).values(value="2")))
    database.close()
    with pytest.raises(LedgerError, match="has schema 2"):
        open_bank(place)


@pytest.mark.parametrize("text", ["mysql://x@y/z", "sqlite://", "sqlite:///:memory:", "gold://"])
def test_other_databases_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--database"):
        database_url(text)


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    with pytest.raises(LedgerError) as caught:
        open_bank("postgresql://bank:hunter22@127.0.0.1:1/bank")
    assert "hunter22" not in str(caught.value) and "\n" not in str(caught.value)
