"""The audit of the demo: whoever's books say something else than a neighbour's is named."""

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from isthmus.cli.demo.audit import NodeBooks, Tally, disagreements, read_books
from isthmus.cli.demo.network import Pair
from isthmus.connector.books import ADJUST, Books
from isthmus.connector.events import AccountId, Summary
from isthmus.connector.legs import REJECTED, IncomingLeg, OutgoingLeg
from isthmus.connector.state import encode_state
from isthmus.ilp.asset import Asset
from isthmus.journal.reader import JournalReader
from isthmus.journal.sqlite import SqliteJournal

BTC, USD = Asset("BTC", 8), Asset("USD", 9)
PAIR = Pair("one", "two", "two", "one", "btp")


class Keeper:
    """Real books in a real journal."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.books = Books()
        self.sequence = 0
        self.requests = 0
        self._reports: SimpleQueue[int] = SimpleQueue()
        self.journal = SqliteJournal(folder / "journal.db")
        self.journal.start(self._reports.put, lambda sequence, _: self._reports.put(-sequence))
        self.left = self.books.open_peer(AccountId("left"), BTC.code, BTC.scale)
        self.right = self.books.open_peer(AccountId("right"), USD.code, USD.scale)

    def leg(self, incoming: int, outgoing: int, spread: int = 0, rounding: int = 0) -> OutgoingLeg:
        self.requests += 1
        first = IncomingLeg(self.books.last_leg + 1, self.left, incoming, 1, bytes(32), b"s" * 16, self.requests, 0)
        second = OutgoingLeg(
            first.id + 1, self.right, outgoing, spread, rounding, 1, bytes(32), b"s" * 16, self.requests, first, 0, 0
        )
        self.books.reserve(first, second)
        return second

    def read(self) -> NodeBooks:
        self.sequence += 1
        self.books.changed.clear()
        self.journal.submit(self.sequence, self.books.take_record(), Summary(0, [], [], []))
        assert self._reports.get(timeout=120) == self.sequence
        return read_books("one", self.folder)

    def checkpoint(self) -> None:
        books = encode_state(self.books)
        # As the kernel lays it out: sequence, books, and the state of an application that isn't there.
        parts = (self.sequence.to_bytes(8, "big"), len(books).to_bytes(8, "big"), books, bytes(8))
        self.journal.save_checkpoint(self.sequence, b"".join(parts))
        with JournalReader(self.folder / "journal.db") as reader:
            newest = reader.checkpoints()[-1]
        self.journal.mark_verified(newest.sequence, newest.checksum)
        self.journal.prune()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path / "data")
    yield made
    made.journal.close()


def test_what_was_posted_adds_up_to_what_replay_gives(keeper: Keeper) -> None:
    keeper.books.post(keeper.leg(2**64 - 1, 7, 2, 1))
    keeper.books.post(keeper.leg(5, 11, 3))
    refused = keeper.leg(100, 200, 4)
    keeper.books.void_outgoing(refused, REJECTED)
    keeper.books.void_incoming(refused.incoming, REJECTED)
    found = keeper.read()
    assert found.problems == []
    assert (found.balance("left"), found.balance("right")) == (2**64 + 4, -18)
    assert found.tally.incoming == {"left": 2**64 + 4}
    assert found.tally.outgoing == {"right": 18}
    assert found.tally.earned == {USD: {"spread": 5, "rounding": 1}}
    assert (found.tally.packets, found.tally.refused, found.tally.open_legs) == (2, 1, 0)


def test_a_pruned_journal_is_added_up_from_its_checkpoint(keeper: Keeper) -> None:
    keeper.books.post(keeper.leg(100, 7, 2, 1))
    still_open = keeper.leg(30, 5, 1)
    keeper.read()
    for _ in range(2):
        keeper.checkpoint()
        keeper.books.post(keeper.leg(1, 1))
        keeper.read()
    keeper.books.post(still_open)
    found = keeper.read()
    with JournalReader(keeper.folder / "journal.db") as reader:
        assert reader.first_sequence > 1
    assert found.problems == []
    assert (found.balance("left"), found.balance("right")) == (132, -14)
    assert found.tally.outgoing == {"left": 0, "right": 14}
    assert found.tally.earned[USD] == {"spread": 3, "rounding": 1}
    assert (found.tally.packets, found.tally.open_legs) == (4, 0)


def test_transfers_count(keeper: Keeper) -> None:
    adjustment = keeper.books.internal["adjustment:BTC:8"]
    keeper.books.transfer(keeper.left, adjustment, 12, ADJUST, b"key", "a gift")
    found = keeper.read()
    assert found.problems == []
    assert found.balance("left") == 12


def test_an_open_packet_is_no_agreement(keeper: Keeper) -> None:
    keeper.leg(5, 4)
    assert disagreements([], {"one": keeper.read()}) == ["one still has 2 packets without an outcome"]


def with_balance(name: str, account: str, balance: int) -> NodeBooks:
    tally = Tally(balances={account: balance})
    return NodeBooks(name=name, folder=Path(), tally=tally, batches=1, digest=b"", problems=[])


@pytest.mark.parametrize(
    "left, right, count", [(5, -5, 0), (0, 0, 0), (5, -4, 1), (5, 5, 1), (2**70, -(2**70), 0), (2**70, 1 - 2**70, 1)]
)
def test_neighbours_agree_to_the_unit_or_not_at_all(left: int, right: int, count: int) -> None:
    found = disagreements([PAIR], {"one": with_balance("one", "two", left), "two": with_balance("two", "one", right)})
    assert len(found) == count
    if found:
        assert found == [f"one has {left} with two, but two has {right} with one (base units)"]
