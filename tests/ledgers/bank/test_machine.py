"""Whatever is asked of a bank, in whatever order: the books are those of a naive clerk, and sum to zero."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from isthmus.ledgers.bank.values import AMOUNT_MAX, Order, RefusedError
from tests.ledgers.bank.conftest import an_account, open_bank

NAMES = ("issuer", "ann", "bob", "cy", "euro", "euro-issuer")
ASSETS = {name: "EUR" if name.startswith("euro") else "USD" for name in NAMES}
AMOUNTS = st.one_of(st.integers(1, 50), st.integers(1, AMOUNT_MAX), st.sampled_from([AMOUNT_MAX, AMOUNT_MAX - 1]))
OVERDRAFTS = st.one_of(st.none(), st.integers(0, 60), st.just(AMOUNT_MAX))


class Books(RuleBasedStateMachine):
    """A bank on SQLite beside a clerk with a dict and a list."""

    orders: Bundle[Order] = Bundle("orders")

    @initialize(overdrafts=st.tuples(*[OVERDRAFTS for _ in NAMES]))
    def open(self, overdrafts: tuple[int | None, ...]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.place = str(Path(self.folder.name) / "bank.db")
        self.now = 1
        self.bank = open_bank(self.place, lambda: self.now)
        self.limits = dict(zip(NAMES, overdrafts, strict=True))
        for name, overdraft in self.limits.items():
            self.bank.open_account(an_account(name, code=ASSETS[name], overdraft=overdraft))
        self.balances = dict.fromkeys(NAMES, 0)
        self.done: dict[tuple[str, str], Order] = {}
        self.void: set[tuple[str, str]] = set()
        self.lines: dict[str, list[tuple[int, str]]] = {name: [] for name in NAMES}

    def teardown(self) -> None:
        if hasattr(self, "bank"):
            self.bank.close()
            self.folder.cleanup()

    def expected(self, order: Order) -> str:
        """The clerk's verdict, and his books after it."""
        place = (order.payer, order.key)
        if place in self.done:
            return "again" if self.done[place] == order else "key-used"
        if place in self.void:
            return "key-void"
        if order.payer == order.payee:
            return "same-account"
        if ASSETS[order.payer] != ASSETS[order.payee]:
            return "other-asset"
        limit = self.limits[order.payer]
        if self.balances[order.payer] - order.amount < -(AMOUNT_MAX if limit is None else limit):
            return "insufficient-funds"
        if self.balances[order.payee] + order.amount > AMOUNT_MAX:
            return "too-much"
        self.done[place] = order
        self.balances[order.payer] -= order.amount
        self.balances[order.payee] += order.amount
        self.lines[order.payer].append((-order.amount, order.payee))
        self.lines[order.payee].append((order.amount, order.payer))
        return "new"

    @rule(
        target=orders,
        payer=st.sampled_from(NAMES),
        payee=st.sampled_from(NAMES),
        amount=AMOUNTS,
        key=st.sampled_from("abcdefgh"),
        reference=st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), max_size=8),
    )
    def transfer(self, payer: str, payee: str, amount: int, key: str, reference: str) -> Order:
        order = Order(payer=payer, key=key, payee=payee, amount=amount, reference=reference)
        self.again(order)
        return order

    @rule(order=orders)
    def again(self, order: Order) -> None:
        wanted = self.expected(order)
        try:
            made, is_new = self.bank.transfer(order)
        except RefusedError as error:
            assert error.code == wanted
        else:
            assert (made.order, "new" if is_new else "again") == (order, wanted)

    @rule(payer=st.sampled_from(NAMES), key=st.sampled_from("abcdefgh"))
    def void_key(self, payer: str, key: str) -> None:
        try:
            self.bank.void(payer, key)
        except RefusedError as error:
            assert error.code == "key-used" and (payer, key) in self.done
        else:
            assert (payer, key) not in self.done
            self.void.add((payer, key))

    @rule(name=st.sampled_from(NAMES), overdraft=OVERDRAFTS)
    def change(self, name: str, overdraft: int | None) -> None:
        self.bank.change_account(name, {"overdraft": overdraft})
        self.limits[name] = overdraft

    @rule(step=st.integers(-5, 5))
    def clock_moves(self, step: int) -> None:
        self.now = max(0, self.now + step)

    @rule()
    def killed(self) -> None:
        self.bank.close()
        self.bank = open_bank(self.place, lambda: self.now)

    @invariant()
    def the_books_are_the_clerks(self) -> None:
        if not hasattr(self, "bank"):
            return
        found: dict[str, Any] = {each.id: each for each in self.bank.accounts("")}
        assert {name: each.balance for name, each in found.items()} == self.balances
        for code in ("USD", "EUR"):
            assert sum(each.balance for each in found.values() if each.asset_code == code) == 0
        assert self.bank.audit() == []
        for name in NAMES:
            _, entries = self.bank.statement(name, max(0, len(self.lines[name]) - 3))
            assert [(each.amount, each.counterparty) for each in entries] == self.lines[name][-3:]
            assert [each.at_ms for each in entries] == sorted({each.at_ms for each in entries})


Books.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestBooks = Books.TestCase
