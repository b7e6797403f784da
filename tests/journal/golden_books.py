"""Writes a journal with every kind of entry, for `tests/journal/golden`: `python -m tests.journal.golden_books FOLDER`.

The folder gets `journal.db`, and `expected.json` with what it holds: records, digests, a checkpoint. Run it for a new
folder when a version adds kinds of entries; a folder that was released is never written again. It draws nothing and
reads no clock, so the same code writes the same records (the database's other bytes are SQLite's business).
"""

import json
import sqlite3
import sys
from contextlib import closing
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from isthmus.connector import settlement_books
from isthmus.connector.books import (
    ADJUST,
    BOOK_LOSS,
    DEAF,
    GIVE_UP,
    HEARS,
    SETTLE_BY_HAND,
    WRITE_OFF,
    Account,
    Books,
)
from isthmus.connector.doubts import list_doubts
from isthmus.connector.events import AccountId, AccountMovement, Summary
from isthmus.connector.kernel import Kernel
from isthmus.connector.legs import (
    EXPIRED,
    NEVER_SENT,
    REJECTED,
    UNDELIVERED,
    WRONG_FULFILLMENT,
    IncomingLeg,
    OutgoingLeg,
)
from isthmus.connector.settling import BEGUN, CONFIRMED, FAILED, TAKEN, Settlement
from isthmus.connector.tables import LOCAL, PEER, AccountTerms, RateTable, RouteTable, Tables
from isthmus.ilp.asset import Asset
from isthmus.journal.reader import JournalReader
from isthmus.journal.sqlite import SqliteJournal

JOURNAL_ID: Final = b"a golden journal"
WALL_MS: Final = 1_800_000_000_000
THEIRS: Final = b"session of alice"
OTHER: Final = b"a later session "
OURS: Final = b"session with bob"
OURS_ENDED: Final = b"an ended session"
OURS_BEFORE: Final = b"an older session"
HUGE: Final = 2**64 - 1
BTC, USD = Asset("BTC", 8), Asset("USD", 9)
ACCOUNTS: Final = {"alice": (BTC, PEER), "bob": (USD, PEER), "carol": (USD, PEER), "endpoint": (USD, LOCAL)}


def preimage(number: int) -> bytes:
    return sha256(b"preimage %d" % number).digest()


class Golden:
    """Real books and a real journal, without a kernel that decides: each batch is what the calls before it wrote."""

    def __init__(self, folder: Path) -> None:
        self.books = Books()
        self.mirror = Kernel(bytes(32))
        self.reports: SimpleQueue[int] = SimpleQueue()
        self.journal = SqliteJournal(folder / "journal.db", journal_id=JOURNAL_ID)
        self.journal.start(self.reports.put, lambda sequence, problem: self.reports.put(-sequence))
        self.batches: list[dict[str, Any]] = []
        self.checkpoint: dict[str, Any] = {}
        self.requests = 0

    def peer(self, name: str) -> Account:
        return self.books.peers[AccountId(name)]

    def commit(self, *singles: tuple[str, AccountId, int, str]) -> None:
        sequence = len(self.batches) + 1
        movements = [
            AccountMovement(AccountId(one.name), 1, 2, 1, 1, 0, one.balance)
            for one in self.books.changed
            if one.clearing is not one
        ]
        for account in self.books.changed:
            account.dirty = False
        self.books.changed.clear()
        internal = [(name, account.balance) for name, account in self.books.internal.items()]
        record = self.books.take_record()
        self.mirror.replay(sequence, record)
        summary = Summary(WALL_MS + sequence * 20_000, movements, list(singles), internal)
        self.journal.submit(sequence, record, summary)
        while self.reports.get(timeout=120) != sequence:
            pass
        digest = self.mirror.digest().hex()
        self.batches.append({"sequence": sequence, "record": record.hex(), "books": digest})

    def reserve(
        self,
        source: str,
        destination: str,
        incoming: int,
        outgoing: int,
        *,
        theirs: bytes = THEIRS,
        ours: bytes = OURS,
        spread: int = 0,
        rounding: int = 0,
        apart: bool = False,
    ) -> OutgoingLeg:
        """Both legs of a packet, by one call or by two."""
        self.requests += 1
        number = self.requests
        condition = sha256(preimage(number)).digest()
        expires_at = WALL_MS + 30_000 + number
        first = IncomingLeg(
            self.books.last_leg + 1, self.peer(source), incoming, expires_at, condition, theirs, number, 0
        )
        second = OutgoingLeg(
            first.id + 1,
            self.peer(destination),
            outgoing,
            spread,
            rounding,
            expires_at - 1_000,
            condition,
            ours,
            number,
            first,
            0,
            0,
        )
        if apart:
            self.books.reserve_incoming(first)
            self.books.reserve_outgoing(second)
        else:
            self.books.reserve(first, second)
        return second

    def fulfil(self, leg: OutgoingLeg) -> IncomingLeg:
        self.books.post(leg, preimage(leg.request_id))
        return leg.incoming

    def void(self, leg: OutgoingLeg, reason: int) -> None:
        self.books.void_outgoing(leg, reason)
        self.books.void_incoming(leg.incoming, reason)

    def save_checkpoint(self) -> None:
        sequence = len(self.batches)
        state = self.mirror.state()
        self.journal.save_checkpoint(sequence, state)
        self.checkpoint = {"sequence": sequence, "state": state.hex()}


def write(folder: Path) -> None:
    """The whole story, with a checkpoint in its middle."""
    folder.mkdir(parents=True, exist_ok=True)
    golden = Golden(folder)
    _open(golden)
    _decide(golden)
    _remember(golden)
    golden.books.doubts.tell_time(WALL_MS)
    golden.books.post(golden.reserve("carol", "bob", 33, 32))
    golden.commit()
    for reason in (EXPIRED, UNDELIVERED, WRONG_FULFILLMENT):
        golden.void(golden.reserve("alice", "bob", 50, 49), reason)
    open_legs = [
        golden.reserve("alice", "bob", 7, 420, theirs=OTHER),
        golden.reserve("bob", "alice", 500, 5, apart=True),
        golden.reserve("carol", "bob", 0, 0),
    ]
    golden.commit()
    _set(golden)
    _settle(golden)
    golden.save_checkpoint()
    _after_the_checkpoint(golden, open_legs)
    golden.journal.close()
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, without a log beside it
    (folder / "journal.db.lock").unlink()
    with JournalReader(folder / "journal.db") as reader:
        for batch in golden.batches:
            batch["chain"] = reader.digest_at(batch["sequence"]).hex()
    expected = {"journal_id": JOURNAL_ID.hex(), "batches": golden.batches, "checkpoint": golden.checkpoint}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def _open(golden: Golden) -> None:
    """Opened accounts and terms; later others."""
    books = golden.books
    terms = {}
    for name, (asset, relation) in ACCOUNTS.items():
        books.open_peer(AccountId(name), asset.code, asset.scale)
        terms[AccountId(name)] = AccountTerms(
            id=AccountId(name), asset=asset, relation=relation, receivable_max=HUGE, payable_max=10**12
        )
    books.set_hearing(golden.peer("endpoint"), DEAF)
    golden.peer("endpoint").is_local = True
    routes = RouteTable({f"test.golden.{name}": AccountId(name) for name in ACCOUNTS})
    rates = RateTable({("BTC", "USD"): Fraction(60_000)}, spread=Fraction(2, 1_000))
    books.change_terms(Tables("test.golden", terms, routes, rates).encode())
    golden.commit()
    stopped = RateTable({("BTC", "USD"): Fraction(61_000)}, stopped={("BTC", "USD"): "too old"})
    books.change_rates(stopped.encode())
    golden.commit()


def _decide(golden: Golden) -> None:
    """Posts with and without a fulfillment, in one entry and in two; voids for each reason."""
    books = golden.books
    for amount in (0, 1, 1_500_000, HUGE):
        leg = golden.reserve("alice", "bob", amount, amount, spread=3 if amount else 0, rounding=1 if amount else 0)
        golden.commit()
        golden.fulfil(leg)
        golden.commit()
    to_endpoint = golden.reserve("bob", "endpoint", 40, 39, spread=1, apart=True)
    from_endpoint = golden.reserve("endpoint", "bob", 12, 12)
    books.post(from_endpoint)
    books.post_outgoing(to_endpoint)
    books.post_incoming(to_endpoint.incoming, preimage(to_endpoint.request_id))
    golden.commit()
    for reason in (REJECTED, EXPIRED, WRONG_FULFILLMENT, UNDELIVERED, NEVER_SENT):
        leg = golden.reserve("alice", "bob", 10 * reason, 9 * reason, ours=OURS_ENDED)
        golden.commit()
        golden.void(leg, reason)
        golden.commit()
    golden.void(golden.reserve("alice", "bob", 3, 3, ours=OURS_BEFORE), REJECTED)
    golden.commit()


def _remember(golden: Golden) -> None:
    """Late, at risk, transfers of each kind, a note, and outcomes between neighbours of each kind."""
    books = golden.books
    alice, bob, carol = golden.peer("alice"), golden.peer("bob"), golden.peer("carol")
    books.late_fulfill(bob, OURS, 77, 900, 12)
    books.put_at_risk(alice, 1, 1_500_000, 2**40)
    golden.commit(("at risk", AccountId("alice"), 1_500_000, "fulfilled late"))
    books.note(b"an application's entry")
    books.note(b"")
    books.transfer(alice, books.internal["adjustment:BTC:8"], 2**70, ADJUST, b"a key", "agreed with Ålice ☎")
    books.transfer(books.internal["adjustment:USD:9"], carol, 5, ADJUST, b"", "")
    books.transfer(alice.loss, alice, 500, BOOK_LOSS, b"k" * 255, "refused")
    golden.commit(("adjustment", AccountId("alice"), 2**70, "agreed"))
    lost = next(leg for leg in alice.fulfilled.values() if leg.amount == 1)
    books.lose(alice, lost)
    golden.commit(("loss", AccountId("alice"), 1, "void at the peer"))
    books.transfer(books.internal["written-off:BTC:8"], alice.loss, 501, WRITE_OFF, b"write-off 1", "written off")
    books.acknowledge(alice, THEIRS, 3)
    books.acknowledge(alice, OTHER, 0)
    books.set_hearing(bob, HEARS)
    books.confirm(bob, OURS_ENDED, HUGE % 2**32, ended=True)
    books.confirm(bob, OURS, 2, ended=False)
    golden.commit()
    for number in range(3):
        golden.fulfil(golden.reserve("carol", "bob", 20 + number, 20))
    books.pass_ranges(carol, THEIRS, [(1, 1)])
    books.forget_fulfilled(carol, 1, named=True)
    books.set_hearing(carol, HEARS)
    golden.commit()
    books.set_hearing(carol, DEAF)
    books.drained()
    golden.commit()


def _set(golden: Golden) -> None:
    """Settings of the operator, and the end of one."""
    for key, value in ((b"account:dora", b"{}"), (b"k" * 255, b"v"), (b"route:test.dora", "ü".encode() * 300)):
        golden.books.change_setting(key, value)
    golden.commit(("setting", AccountId("dora"), 0, "dora set"))
    golden.books.change_setting(b"account:dora", b"")
    golden.commit()


def _settle(golden: Golden) -> None:
    """Settlements of ours in each state that is kept, and one at its end; the peer's, a fraction, a key used again."""
    books, bob, alice = golden.books, golden.peer("bob"), golden.peer("alice")
    for number, state in enumerate((BEGUN, TAKEN, FAILED, CONFIRMED), 1):
        one = Settlement(number, 2**60 * number, b"settlement key%2d" % number, WALL_MS, BEGUN, "weekly ☎")
        settlement_books.begin(books, bob, one, b"monday" if number == 1 else b"")
        if state != BEGUN:
            settlement_books.move(books, bob, one, state, "no funds" if state == FAILED else "")
        golden.commit(("settlement", AccountId("bob"), -one.amount, "settlement"))
    assert bob.settling is not None
    settlement_books.reverse(books, bob, bob.settling.open[3], b"reversal", "the ledger says so")
    books.transfer(bob, books.internal["settled:bob"], 12, SETTLE_BY_HAND, b"by hand", "bank transfer of 3 May")
    failed = Settlement(5, 1, b"settlement key 5", WALL_MS, BEGUN)
    settlement_books.begin(books, bob, failed, b"")
    settlement_books.move(books, bob, failed, FAILED, "no such account")
    golden.commit()
    settlement_books.credit(books, alice, 2**70, (7, 18), key=b"wire 1", text="wire", now=WALL_MS)
    settlement_books.credit(books, alice, 0, (8, 18), key=b"", text="", now=WALL_MS)
    settlement_books.use_key(books, alice, b"wire 1", WALL_MS + 86_400_000)
    settlement_books.take_back(books, alice, 5, "a block was replaced")
    settlement_books.keep(books, alice, b"channel", b"state")
    settlement_books.keep(books, alice, b"claim", b"x" * 300)
    settlement_books.keep(books, alice, b"channel", b"")
    golden.commit()


def _after_the_checkpoint(golden: Golden, open_legs: list[OutgoingLeg]) -> None:
    """What was open there is decided; at the end something of each kind is undecided."""
    list_doubts(golden.books)
    golden.fulfil(open_legs[0])
    golden.void(open_legs[1], EXPIRED)
    golden.commit()
    golden.books.open_peer(AccountId("dora"), "ETH", 18)
    golden.books.change_terms(b"terms of another time")
    golden.books.change_setting(b"account:dora", b'{"again": true}')
    carol = golden.peer("carol")
    golden.books.transfer(carol, carol, carol.fulfilled_amount, GIVE_UP, b"give-up 1", "gone for good")
    golden.books.give_up(carol)
    golden.commit()
    golden.void(golden.reserve("alice", "bob", 31, 30, theirs=OTHER), UNDELIVERED)
    lost = golden.fulfil(golden.reserve("alice", "bob", 9, 8, theirs=OTHER))
    golden.books.lose(golden.peer("alice"), lost)
    golden.reserve("alice", "bob", 12, 11, theirs=OTHER)
    golden.commit(("loss", AccountId("alice"), 9, "void at the peer"))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
