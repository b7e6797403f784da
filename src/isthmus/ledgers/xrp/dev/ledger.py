"""The development ledger itself: an open ledger that takes transactions, and closed ones that follow each other.

Pure: the time is passed in, closed ledgers come out as values for the shell to keep. Transactions are judged once, when
they come: what `submit` answers is what the closed ledger will say, since nothing else decides here, no consensus and
no order but that of arrival.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from xrpl.core.binarycodec import encode

from isthmus.ledgers.xrp.dev import engine
from isthmus.ledgers.xrp.dev.entries import AccountRoot, Entry, Fields
from isthmus.ledgers.xrp.dev.held import Held
from isthmus.ledgers.xrp.dev.metadata import affected, metadata, thread
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.dev.rules import Moment, Prices
from isthmus.ledgers.xrp.dev.transactions import DROPS_MAX, Transaction
from isthmus.ledgers.xrp.dev.views import Layer, State
from isthmus.ledgers.xrp.hashes import LEDGER_PREFIX, sha512_half
from isthmus.ledgers.xrp.shamap import TRANSACTION_LEAF, HashTree

EPOCH_UNIX: Final = 946_684_800  # 2000-01-01T00:00:00Z, where the ledger's time begins
TIME_MAX: Final = 2**32 - 1  # in the year 2136, where it ends
GENESIS_ADDRESS: Final = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"
# Everybody knows it: it is made of the words "masterpassphrase", on every network that starts anew.
GENESIS_SEED: Final = "snoPBrXtMeMyMHUVTgbuqAfg1SUTb"
FIRST_LEDGER: Final = 1
CLOSE_RESOLUTION: Final = 1  # seconds; rippled rounds to 10 and more
OPEN_TRANSACTIONS_MAX: Final = 10_000  # in one ledger; beyond it telCAN_NOT_QUEUE_FULL
_NO_HASH: Final = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One closed ledger's header. Hashes are 32 bytes, times seconds since 2000-01-01, `drops` all XRP there is."""

    index: int
    hash: bytes
    parent_hash: bytes
    transaction_hash: bytes
    account_hash: bytes
    drops: int
    close_time: int
    parent_close_time: int

    @classmethod
    def of(
        cls,
        *,
        index: int,
        parent_hash: bytes,
        transaction_hash: bytes,
        account_hash: bytes,
        drops: int,
        close_time: int,
        parent_close_time: int,
    ) -> "Header":
        """With the hash that all other fields have (xrpl.org "Ledger Header")."""
        header = cls(
            index=index,
            hash=_NO_HASH,
            parent_hash=parent_hash,
            transaction_hash=transaction_hash,
            account_hash=account_hash,
            drops=drops,
            close_time=close_time,
            parent_close_time=parent_close_time,
        )
        return header.recomputed()

    def recomputed(self) -> "Header":
        """The same with the hash of its fields, which is its own unless something was changed."""
        return replace(self, hash=sha512_half(LEDGER_PREFIX, self.serialised()))

    def serialised(self) -> bytes:
        """The bytes of which the hash is made."""
        return b"".join(
            (
                self.index.to_bytes(4, "big"),
                self.drops.to_bytes(8, "big"),
                self.parent_hash,
                self.transaction_hash,
                self.account_hash,
                self.parent_close_time.to_bytes(4, "big"),
                self.close_time.to_bytes(4, "big"),
                CLOSE_RESOLUTION.to_bytes(1, "big"),
                b"\0",
            )
        )


@dataclass(frozen=True, slots=True)
class Included:
    """A transaction in a ledger, with what it did."""

    transaction: Transaction
    result: Result
    meta: Fields = field(repr=False)
    affected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Closed:
    """One closed ledger: all that has to be kept of it. `changes` has None for entries that went."""

    header: Header
    transactions: tuple[Included, ...]
    changes: dict[str, Entry | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submission. `included` if it is in the open ledger; `kept` if it will be tried again."""

    transaction: Transaction
    result: Result
    included: Included | None = None
    kept: bool = False


class DevLedger:
    """The open ledger over the last closed one."""

    def __init__(self, state: State, last: Header, *, prices: Prices, network_id: int) -> None:
        self.closed = state
        self.last = last
        self.prices = prices
        self.network_id = network_id
        self.included: list[Included] = []
        self._burnt = 0
        self._held = Held()
        self.open = Layer(state)

    @classmethod
    def genesis(cls, *, now: int, prices: Prices, network_id: int) -> tuple["DevLedger", Closed]:
        """A new ledger at `now` (seconds since 2000-01-01): all XRP there is lies in the genesis account."""
        account = AccountRoot(address=GENESIS_ADDRESS, balance=DROPS_MAX, sequence=1)
        state = State([account])
        header = Header.of(
            index=FIRST_LEDGER,
            parent_hash=_NO_HASH,
            transaction_hash=_NO_HASH,
            account_hash=state.root(),
            drops=DROPS_MAX,
            close_time=now,
            parent_close_time=0,
        )
        ledger = cls(state, header, prices=prices, network_id=network_id)
        return ledger, Closed(header, (), {account.index: account})

    @property
    def index(self) -> int:
        """Of the open ledger."""
        return self.last.index + 1

    @property
    def moment(self) -> Moment:
        """When transactions that come now are judged."""
        return Moment(self.index, self.last.close_time)

    def next_sequence(self, address: str) -> int | None:
        """After everything in the open ledger; None for an account that isn't there."""
        account = self.open.account(address)
        return None if account is None else account.sequence

    def next_free_sequence(self, address: str) -> int | None:
        """After those that are held, too."""
        following = self.next_sequence(address)
        return None if following is None else self._held.first_gap(address, following)

    @property
    def held(self) -> int:
        """How many transactions wait for something."""
        return len(self._held)

    def submit(self, transaction: Transaction, *, fail_hard: bool = False) -> Submitted:
        """Judge a transaction whose signature was checked. What it lets follow is tried at once."""
        result = engine.preflight(transaction, network_id=self.network_id)
        if not result.is_success:
            return Submitted(transaction, result)
        submitted = self._judge(transaction, fail_hard=fail_hard)
        if submitted.included is not None:
            self._retry(submitted.included.affected)
        elif submitted.result.may_succeed_later and not fail_hard and self._may_wait(transaction):
            return Submitted(transaction, submitted.result, kept=self._held.add(transaction, ledger_index=self.index))
        return submitted

    @staticmethod
    def _may_wait(transaction: Transaction) -> bool:
        # Nobody may take up room in another account's name, and what asks for a ticket would wait for ever.
        return engine.is_by_its_account(transaction) and transaction.sequence > 0

    def _judge(self, transaction: Transaction, *, fail_hard: bool = False) -> Submitted:
        outcome = engine.apply(transaction, self.open, prices=self.prices, moment=self.moment, fail_hard=fail_hard)
        if outcome.layer is None:
            return Submitted(transaction, outcome.result)
        if len(self.included) >= OPEN_TRANSACTIONS_MAX:
            return Submitted(transaction, Result.TEL_CAN_NOT_QUEUE_FULL)
        thread(self.open, outcome.layer, transaction.id, self.index)
        meta = metadata(self.open, outcome.layer, outcome.result, len(self.included))
        included = Included(transaction, outcome.result, meta, tuple(affected(transaction, meta)))
        self.open.merge(outcome.layer)
        self.included.append(included)
        self._burnt += transaction.fee
        return Submitted(transaction, outcome.result, included)

    def _retry(self, addresses: Iterable[str]) -> None:
        """Try held transactions of these accounts, in order, as long as one after the other gets in."""
        waiting = list(addresses)
        while waiting:
            address = waiting.pop()
            account = self.open.account(address)
            held = None if account is None else self._held.take(address, account.sequence)
            if held is None:
                continue
            submitted = self._judge(held.transaction)
            if submitted.included is not None:
                waiting += submitted.included.affected
            elif submitted.result.may_succeed_later:
                self._held.put_back(held)

    def close(self, now: int) -> Closed:
        """Close the open ledger at `now` (seconds since 2000-01-01) and open the next one."""
        tree = HashTree(TRANSACTION_LEAF)
        for each in self.included:
            data = _prefixed(each.transaction.blob) + _prefixed(bytes.fromhex(encode(each.meta)))
            tree.put(bytes.fromhex(each.transaction.id), data)
        changes = self.open.changes
        self.closed.apply(changes)
        header = Header.of(
            index=self.index,
            parent_hash=self.last.hash,
            transaction_hash=tree.root(),
            account_hash=self.closed.root(),
            drops=self.last.drops - self._burnt,
            # Ledgers may close faster than once a second, so two may share a time; no ledger goes back in time.
            close_time=max(now, self.last.close_time),
            parent_close_time=self.last.close_time,
        )
        closed = Closed(header, tuple(self.included), changes)
        self.last = header
        self.open = Layer(self.closed)
        self.included = []
        self._burnt = 0
        self._retry(self._held.addresses(self.index))
        return closed


def _prefixed(data: bytes) -> bytes:
    """With its length before it, as the binary format writes blobs (xrpl.org "Length Prefixing")."""
    size = len(data)
    if size <= 192:
        return bytes([size]) + data
    if size <= 12_480:
        rest = size - 193
        return bytes([193 + (rest >> 8), rest & 255]) + data
    rest = size - 12_481
    assert rest < 906_264
    return bytes([241 + (rest >> 16), (rest >> 8) & 255, rest & 255]) + data
