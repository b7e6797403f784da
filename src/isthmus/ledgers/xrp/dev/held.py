"""Transactions that may succeed later: kept for a few ledgers, tried again when something changes.

`rippled` holds what ends in `ter` in the same way, so that transactions which overtook each other on their way still
get in.
"""

from typing import Final, NamedTuple

from isthmus.ledgers.xrp.dev.transactions import Transaction

HELD_MAX: Final = 1_000
HELD_PER_ACCOUNT_MAX: Final = 64
LEDGERS_MAX: Final = 10  # how long one is kept; its LastLedgerSequence may end it sooner


class Waiting(NamedTuple):
    """One that waits, and the last ledger in which it does."""

    transaction: Transaction
    until: int


class Held:
    """What waits, by account and sequence number; a full table takes no more."""

    __slots__ = ("_by_account", "_count")

    def __init__(self) -> None:
        self._by_account: dict[str, dict[int, Waiting]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, transaction: Transaction, *, ledger_index: int) -> bool:
        """Keep one that came at an open ledger; whether it is kept now. The first with its number stays."""
        own = self._by_account.get(transaction.account, {})
        there = own.get(transaction.sequence)
        if there is not None:
            return there.transaction.id == transaction.id
        if self._count >= HELD_MAX or len(own) >= HELD_PER_ACCOUNT_MAX:
            return False
        until = ledger_index + LEDGERS_MAX
        if transaction.last_ledger is not None:
            until = min(until, transaction.last_ledger)
        self.put_back(Waiting(transaction, until))
        return True

    def take(self, address: str, sequence: int) -> Waiting | None:
        """Take out the one with this number, if it waits."""
        own = self._by_account.get(address, {})
        waiting = own.pop(sequence, None)
        if waiting is not None:
            self._count -= 1
            if not own:
                del self._by_account[address]
        return waiting

    def put_back(self, waiting: Waiting) -> None:
        """Let it wait on."""
        transaction = waiting.transaction
        self._by_account.setdefault(transaction.account, {})[transaction.sequence] = waiting
        self._count += 1

    def addresses(self, ledger_index: int) -> list[str]:
        """Whose transactions wait in this ledger; those whose time is over are dropped."""
        over = [
            (address, sequence)
            for address, own in self._by_account.items()
            for sequence, waiting in own.items()
            if waiting.until < ledger_index
        ]
        for address, sequence in over:
            self.take(address, sequence)
        return list(self._by_account)

    def first_gap(self, address: str, sequence: int) -> int:
        """The first number from `sequence` on with which none waits."""
        own = self._by_account.get(address, {})
        while sequence in own:
            sequence += 1
        return sequence
