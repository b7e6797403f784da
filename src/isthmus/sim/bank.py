"""A bank on virtual time: accounts, transfers with keys, statements. What `settlement.bank` asks is answered by it.

It has faults of its own: it books a transfer twice in a statement and puts it right later, and it voids keys of which
it has done nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final, final

from isthmus.ilp.asset import Asset
from isthmus.ledgers.bank.client import BankAwayError, BankRefusedError
from isthmus.ledgers.bank.values import ENTRIES_PAGE_MAX, Account, Entry, Order, Transfer
from isthmus.sim import plan as p
from isthmus.sim.agenda import Agenda
from isthmus.sim.ledgers import Ledger, Way

if TYPE_CHECKING:
    from isthmus.sim.loop import AgendaLoop

# What everybody begins with: more than a run can move.
FUNDS: Final = 10**17
CORRECTED_MS: Final = 4_000  # from an entry that is there twice to the entry that takes it back


@final
class SimBank(Ledger):
    """All accounts are in one asset."""

    def __init__(self, agenda: Agenda, name: str, rng: Random, asset: Asset) -> None:
        super().__init__(agenda, name, rng)
        self.asset: Final = asset
        self.doubles = 0  # of the next transfers, so many stand in the payee's statement twice
        self.voids = 0  # of the next keys, so many are voided
        self.transfers: Final[dict[tuple[str, str], Transfer]] = {}  # by payer and key; all that ever happened
        self.voided: Final[set[tuple[str, str]]] = set()
        self._entries: Final[dict[str, list[Entry]]] = {}

    def open(self, account: str) -> None:
        self._entries.setdefault(account, [])

    def calm(self) -> None:
        self.doubles = self.voids = 0

    def balance(self, account: str) -> int:
        entries = self._entries[account]
        return entries[-1].balance if entries else FUNDS

    def show(self, account: str) -> Account:
        entries = self._entries[account]
        return Account(
            id=account,
            name=account,
            asset_code=self.asset.code,
            asset_scale=self.asset.scale,
            balance=self.balance(account),
            overdraft=0,
            entries=len(entries),
            last_at_ms=entries[-1].at_ms if entries else 0,
        )

    def statement(self, account: str, after: int, limit: int) -> tuple[Account, Sequence[Entry]]:
        return self.show(account), self._entries[account][after : after + limit]

    def transfer(self, order: Order) -> Transfer:
        """Once for a payer's key. BankRefusedError."""
        name = (order.payer, order.key)
        known = self.transfers.get(name)
        if known is not None:
            if known.order != order:
                raise BankRefusedError(409, "key-used", "this key was used for another transfer")
            return known
        if self.voids and name not in self.voided:
            self.voids -= 1
            self.on_hit(p.VOIDED)
            self.voided.add(name)
        if name in self.voided:
            raise BankRefusedError(409, "key-void", "this key was voided")
        if order.payee not in self._entries:
            raise BankRefusedError(404, "no-such-payee", "there is no such account")
        if order.amount > self.balance(order.payer):
            raise BankRefusedError(409, "no-funds", "there is not so much in the account")
        done = Transfer(id=f"t{len(self.transfers) + 1}", order=order, at_ms=self.now_ms)
        self.transfers[name] = done
        self._enter(order.payer, done.id, -order.amount, order.payee, order.reference)
        self._enter(order.payee, done.id, order.amount, order.payer, order.reference)
        if self.doubles:
            self.doubles -= 1
            self.on_hit(p.SHOWN_TWICE)
            self._enter(order.payee, done.id, order.amount, order.payer, order.reference)
            self.agenda.after(
                CORRECTED_MS,
                lambda: self._enter(order.payee, f"{done.id}-correction", -order.amount, "the bank", "booked twice"),
            )
        return done

    def void(self, payer: str, key: str) -> None:
        if (payer, key) in self.transfers:
            raise BankRefusedError(409, "key-used", "this key was used")
        self.voided.add((payer, key))

    def _enter(self, account: str, transfer: str, amount: int, counterparty: str, reference: str) -> None:
        entries = self._entries[account]
        entry = Entry(
            number=len(entries) + 1,
            transfer=transfer,
            at_ms=self.now_ms,
            amount=amount,
            balance=self.balance(account) + amount,
            counterparty=counterparty,
            reference=reference,
        )
        entries.append(entry)

    def moved(self, payer: str, payee: str, reference: str) -> int:
        """What was ever transferred from one account to another with this reference."""
        orders = [one.order for one in self.transfers.values()]
        return sum(one.amount for one in orders if (one.payer, one.payee, one.reference) == (payer, payee, reference))


class BankHolder:
    """One account's holder in one process: `ledgers.bank.client.Holder` on a way to the bank."""

    def __init__(self, bank: SimBank, account: str, loop: "AgendaLoop") -> None:
        self.account: Final = account
        self.ledger: Final = bank
        self._way: Final = Way(bank, loop, BankAwayError)

    async def close(self) -> None:
        """There is nothing to close."""

    async def bank(self) -> tuple[str, str | None]:
        return await self._way.ask(lambda: (self.ledger.name, self.account))

    async def show(self) -> Account:
        return await self._way.ask(lambda: self.ledger.show(self.account))

    async def statement(self, after: int, limit: int = ENTRIES_PAGE_MAX) -> tuple[Account, Sequence[Entry]]:
        return await self._way.ask(lambda: self.ledger.statement(self.account, after, limit))

    async def transfer(self, key: str, body: bytes) -> Transfer:
        order = self.order(key, body)
        return await self._way.ask(lambda: self.ledger.transfer(order))

    async def void(self, key: str) -> None:
        await self._way.ask(lambda: self.ledger.void(self.account, key))

    def order(self, key: str, body: bytes) -> Order:
        """What a request asks for."""
        fields = json.loads(body)
        return Order(
            payer=self.account,
            key=key,
            payee=fields["to"],
            amount=int(fields["amount"]),
            reference=fields["reference"],
        )

    def changed(self, order: Order, amount: int) -> Order:
        """The same for another amount."""
        return replace(order, amount=amount)
