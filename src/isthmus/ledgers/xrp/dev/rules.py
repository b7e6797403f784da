"""What every transactor is given: the ledger's prices, the moment, and the transaction's place in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from isthmus.ledgers.xrp.dev.entries import AccountRoot
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.dev.transactions import Transaction
from isthmus.ledgers.xrp.dev.views import Layer

# The address whose 20 bytes are zeros: nobody's.
NOBODY: Final = "rrrrrrrrrrrrrrrrrrrrrhoLvTp"


@dataclass(frozen=True, slots=True)
class Prices:
    """In drops, as the main net has them since December 2024."""

    base_fee: int = 10
    reserve_base: int = 1_000_000
    reserve_increment: int = 200_000

    def reserve(self, owner_count: int) -> int:
        """What an account that owns so many entries must keep."""
        return self.reserve_base + owner_count * self.reserve_increment


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in the ledger's time a transaction is judged."""

    ledger_index: int  # of the ledger that would hold it
    parent_close_time: int  # of the ledger before that one, seconds since 2000-01-01


@dataclass(slots=True)
class Case:
    """One transaction before its transactor. Changes go into `layer`, fee and sequence are in it already."""

    transaction: Transaction
    layer: Layer
    prices: Prices
    moment: Moment
    prior_balance: int  # before the fee

    def sender(self) -> AccountRoot:
        """The account that sends it."""
        account = self.layer.account(self.transaction.account)
        assert account is not None, "fee and sequence were taken from it"
        return account

    def pay(self, address: str, amount: int) -> None:
        """Add to an account's balance, or take away from it; `amount` in drops, may be negative."""
        account = self.layer.account(address)
        assert account is not None and account.balance + amount >= 0
        self.layer.put(replace(account, balance=account.balance + amount))

    def own(self, address: str, entries: int) -> None:
        """Change the number of entries that an account owns."""
        account = self.layer.account(address)
        assert account is not None and account.owner_count + entries >= 0
        self.layer.put(replace(account, owner_count=account.owner_count + entries))


# Says whether the fields make sense at all (tem), and does what they ask for (tes or tec).
Preflight: TypeAlias = Callable[[Transaction], Result]
Apply: TypeAlias = Callable[[Case], Result]
