"""What is kept of payments and of statements that were read, and the rules of both. Pure.

A transfer is credited once: by its id, for as long as that is remembered, and by the place in the statement up to which
the account has been credited. A transfer of which neither tells whether it was there before waits for the operator.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from isthmus.ledgers.bank.client import WrongAnswerError
from isthmus.ledgers.bank.values import Entry, Order
from isthmus.settlement.conversion import carried_of, carry

REFERENCE: Final = b"reference"  # that transfers of this peer to us must carry
TO: Final = b"to"  # the peer's account, and the reference that it wants
CURSOR: Final = b"cursor"
OUT: Final = b"out/"
UNMATCHED: Final = b"unmatched/"
ASSIGNED: Final = b"assigned/"
_PLACES: Final = 18
# Keys of credits are remembered for a week after their last use; a day of it is left for clocks that differ.
REMEMBERED_MS: Final = 6 * 86_400_000


def place(prefix: bytes, number: int) -> bytes:
    """Where it is kept; places sort as their numbers do."""
    return prefix + str(number).rjust(_PLACES, "0").encode()


def numbers(kept: Mapping[bytes, bytes], prefix: bytes) -> list[int]:
    return sorted(int(key[len(prefix) :]) for key in kept if key.startswith(prefix))


def credit_key(transfer: str) -> str:
    return f"bank/{transfer}"


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Payment:
    """One that was begun: the very bytes that go to the bank."""

    key: str
    body: bytes
    carried: int  # by how much this payment changed what is carried, in units of the account

    def encode(self) -> bytes:
        return json.dumps([self.key, self.body.decode(), str(self.carried)]).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Payment":
        key, body, carried = json.loads(data)
        return cls(key=key, body=body.encode(), carried=int(carried))

    @classmethod
    def of(cls, order: Order, carried: int) -> "Payment":
        fields = {"to": order.payee, "amount": str(order.amount), "reference": order.reference}
        return cls(key=order.key, body=json.dumps(fields).encode(), carried=carried)

    def order(self, payer: str) -> Order:
        """What the bank must have done, if it says that it has."""
        fields = json.loads(self.body)
        return Order(
            payer=payer,
            key=self.key,
            payee=fields["to"],
            amount=int(fields["amount"]),
            reference=fields["reference"],
        )


@final
@dataclass(slots=True, frozen=True)
class Cursor:
    """Up to where the statement was read for one account, and the latest time that it had until there."""

    number: int
    at_ms: int

    def encode(self) -> bytes:
        return json.dumps([self.number, self.at_ms]).encode()

    @classmethod
    def of(cls, kept: Mapping[bytes, bytes]) -> "Cursor | None":
        found = kept.get(CURSOR)
        return None if found is None else cls(*json.loads(found))

    def after(self, page: Sequence[Entry]) -> "Cursor":
        """Once this page was read."""
        return Cursor(max(self.number, page[-1].number), max(self.at_ms, *(each.at_ms for each in page)))

    def is_new(self, entry: Entry, now: int) -> bool:
        """Whether it can't have been credited before under an id that nobody remembers any more."""
        return entry.at_ms > self.at_ms or entry.at_ms >= now - REMEMBERED_MS


@final
@dataclass(slots=True, frozen=True)
class Waiting:
    """A transfer that the operator must assign."""

    entry: Entry
    why: str

    def encode(self) -> bytes:
        one = self.entry
        fields = [one.number, one.transfer, one.at_ms, str(one.amount), str(one.balance), one.counterparty]
        return json.dumps([*fields, one.reference, self.why]).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Waiting":
        number, transfer, at_ms, amount, balance, counterparty, reference, why = json.loads(data)
        entry = Entry(
            number=number,
            transfer=transfer,
            at_ms=at_ms,
            amount=int(amount),
            balance=int(balance),
            counterparty=counterparty,
            reference=reference,
        )
        return cls(entry, why)


def checked_page(entries: Sequence[Entry], after: int, balance: int | None) -> list[Entry]:
    """The entries that follow this one, in order. `balance` is what that one left, if it is known.

    What was read before is passed over. WrongAnswerError for a statement that has a gap or doesn't add up: nothing of
    such a page is believed.
    """
    page: list[Entry] = []
    for entry in sorted(entries, key=lambda each: each.number):
        if entry.number <= after or entry in page:
            continue
        expected = page[-1].number + 1 if page else after + 1
        if entry.number != expected:
            raise WrongAnswerError(f"the bank's statement has entry {entry.number} where {expected} is due")
        before = page[-1].balance if page else balance
        if before is not None and before + entry.amount != entry.balance:
            raise WrongAnswerError(f"the balance in entry {entry.number} of the bank's statement is wrong")
        page.append(entry)
    return page


def uncarried(payment: Payment, kept: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """What is carried once this payment is known never to happen: its amount is owed again, whole."""
    return carry(carried_of(kept) - payment.carried)
