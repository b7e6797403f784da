"""`isthmus books` on journals that the connector's books wrote: running, stopped, damaged, pruned."""

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue

import click
import pytest

from isthmus.cli.books import books
from isthmus.cli.books_replay import BooksAt
from isthmus.client.ledger import WalletLedger, credit
from isthmus.connector.books import ADJUST, BOOK_LOSS, HEARS, Account, Books
from isthmus.connector.events import AccountId, AccountMovement, Summary
from isthmus.connector.kernel import Kernel
from isthmus.connector.legs import REJECTED, IncomingLeg, OutgoingLeg
from isthmus.connector.replay import Application
from isthmus.connector.state import digest
from isthmus.connector.tables import PEER, AccountTerms, RateTable, RouteTable, Tables
from isthmus.ilp.asset import Asset
from isthmus.journal.reader import JournalReader
from isthmus.journal.sqlite import SqliteJournal
from isthmus.journal.verify import verify_and_prune

BTC, USD = Asset("BTC", 8), Asset("USD", 9)
ALICE, BOB = AccountId("alice"), AccountId("bob")
WALL_MS = 1_700_000_000_000
HUGE = 2**64 - 1


class Writer:
    """A small node: real books and a real journal, without links. One batch a call."""

    def __init__(self, folder: Path, application: Application | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.books = Books()
        self.mirror = Kernel(bytes(32), application)  # makes the checkpoints as a node does
        self.reports: SimpleQueue[int] = SimpleQueue()
        self.journal = SqliteJournal(folder / "journal.db")
        self.journal.start(self.reports.put, lambda sequence, problem: self.reports.put(-sequence))
        self.sequence = 0
        self.requests = 0
        self.alice = self.books.open_peer(ALICE, *_named(BTC))
        self.bob = self.books.open_peer(BOB, *_named(USD))
        terms = {
            ALICE: AccountTerms(id=ALICE, asset=BTC, relation=PEER, receivable_max=5_000_000, payable_max=None),
            BOB: AccountTerms(id=BOB, asset=USD, relation=PEER, receivable_max=HUGE, payable_max=0),
        }
        tables = Tables("test.node", terms, RouteTable({}), RateTable({("BTC", "USD"): Fraction(60_000)}))
        self.books.change_terms(tables.encode())
        self.commit([])

    def commit(
        self, movements: list[AccountMovement], singles: list[tuple[str, AccountId, int, str]] | None = None
    ) -> None:
        self.sequence += 1
        self.books.changed.clear()
        for account in self.books.accounts:
            account.dirty = False
        internal = [(name, account.balance) for name, account in self.books.internal.items()]
        summary = Summary(WALL_MS + self.sequence * 30_000, movements, singles or [], internal)
        record = self.books.take_record()
        self.mirror.replay(self.sequence, record)
        self.journal.submit(self.sequence, record, summary)
        while self.reports.get(timeout=120) != self.sequence:
            pass

    def reserve(self, incoming: int, outgoing: int, spread: int = 0, rounding: int = 0) -> OutgoingLeg:
        self.requests += 1
        condition, session = bytes(32), b"s" * 16
        first = IncomingLeg(
            self.books.last_leg + 1, self.alice, incoming, WALL_MS, condition, session, self.requests, 0
        )
        second = OutgoingLeg(
            first.id + 1, self.bob, outgoing, spread, rounding, WALL_MS, condition, session, self.requests, first, 0, 0
        )
        self.books.reserve(first, second)
        self.commit([])
        return second

    def forward(self, incoming: int, outgoing: int, spread: int = 0, rounding: int = 0) -> None:
        leg = self.reserve(incoming, outgoing, spread, rounding)
        self.books.post(leg)
        self.commit([_moved(self.alice, incoming, 0), _moved(self.bob, 0, outgoing)])

    def reject(self, incoming: int, outgoing: int) -> None:
        leg = self.reserve(incoming, outgoing)
        self.books.void_outgoing(leg, REJECTED)
        self.books.void_incoming(leg.incoming, REJECTED)
        self.commit([])

    def checkpoint(self) -> None:
        self.journal.save_checkpoint(self.sequence, self.mirror.state())
        with JournalReader(self.folder / "journal.db") as reader:
            newest = reader.checkpoints()[-1]
        self.journal.mark_verified(newest.sequence, newest.checksum)
        self.journal.prune()


def _named(asset: Asset) -> tuple[str, int]:
    return asset.code, asset.scale


def _moved(account: Account, incoming: int, outgoing: int) -> AccountMovement:
    return AccountMovement(
        AccountId(account.name), incoming, outgoing, int(incoming > 0), int(outgoing > 0), 0, account.balance
    )


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "data")
    yield made
    made.journal.close()


@pytest.fixture
def a_day(writer: Writer) -> Writer:
    """Two forwarded packets, a rejected one, and one still open."""
    writer.forward(1_500_000, 897_000_000_000, 2_999_999_999, 1)
    writer.forward(500, 299_000, 1_000)
    writer.reject(7, 9)
    writer.reserve(40, 24_000_000)
    return writer


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m isthmus books …` in a process of its own, as a user runs it beside a node."""
    command = [sys.executable, "-m", "isthmus", "books", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ}, check=False)


def shown(*args: str | Path) -> dict[str, object]:
    done = run(*args, "--json")
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


# --- show ------------------------------------------------------------------------------------------------------------


def test_show_says_balances_in_words_on_a_running_node(a_day: Writer) -> None:
    done = run("show", a_day.folder)
    assert done.returncode == 0, done.stderr
    alice = next(line for line in done.stdout.splitlines() if "alice" in line)
    bob = next(line for line in done.stdout.splitlines() if "bob" in line)
    assert "owed to us 0.015005 BTC" in alice
    assert "0.0000004 BTC" in alice  # reserved
    assert "0.05 BTC" in alice  # may owe us
    assert "no limit" in alice
    assert "owed by us 897.000299 USD" in bob
    assert "0 USD" in bob
    assert "-" not in alice + bob


def test_show_tells_position_and_earnings_apart(a_day: Writer) -> None:
    done = run("show", a_day.folder)
    lines = done.stdout.splitlines()
    usd = [line for line in lines if "USD, scale 9" in line][-1]
    assert "owed by us 900.0003 USD" in usd
    assert "3.000000999 USD" in usd  # spread
    assert "0.000000001 USD" in usd  # rounding


def test_show_has_columns_for_troubles_only_where_there_are_some(a_day: Writer) -> None:
    before = run("show", a_day.folder).stdout
    a_day.books.transfer(a_day.alice.loss, a_day.alice, 500, BOOK_LOSS, b"", "refused")
    a_day.books.put_at_risk(a_day.alice, 1, 70, 2)
    a_day.commit([])
    after = run("show", a_day.folder).stdout
    for word in ("loss", "at risk"):
        assert word not in before
        assert word in after
    heads = next(line for line in after.splitlines() if "balance" in line)
    columns = [head for head in heads.split() if head.isalpha()]
    assert columns.index("loss") == columns.index("balance") + 1  # to be subtracted from what we owe
    assert "0.000005 BTC" in next(line for line in after.splitlines() if "alice" in line)
    assert "lost 0.000005 BTC" in after


def test_show_is_the_same_on_a_stopped_node(a_day: Writer) -> None:
    running = shown("show", a_day.folder)
    a_day.journal.close()
    assert shown("show", a_day.folder) == running
    assert shown("show", a_day.folder / "journal.db") == running


def test_show_as_json_has_amounts_as_strings_and_the_books_own_digest(a_day: Writer) -> None:
    """P-1."""
    a_day.forward(HUGE, HUGE)
    a_day.forward(HUGE, HUGE)
    got = shown("show", a_day.folder)
    accounts = got["accounts"]
    assert isinstance(accounts, list)
    by_name = {one["account"]: one for one in accounts}
    assert by_name["alice"]["balance"] == str(2 * HUGE + 1_500_500)
    assert by_name["bob"]["receivable_max"] == str(HUGE)
    assert by_name["alice"]["payable_max"] is None
    assert by_name["alice"]["reserved_incoming"] == "40"
    assert got["digest"] == digest(a_day.books).hex()
    assert got["last_sequence"] == a_day.sequence
    assert not [value for one in accounts for value in one.values() if isinstance(value, float)]


def test_show_replays_from_the_checkpoint(a_day: Writer) -> None:
    a_day.checkpoint()
    a_day.forward(1, 2)
    a_day.checkpoint()
    a_day.forward(3, 4)
    got = shown("show", a_day.folder)
    assert got["digest"] == digest(a_day.books).hex()
    assert got["checkpoint"] == a_day.sequence - 2
    assert isinstance(got["first_sequence"], int)
    assert got["first_sequence"] > 1


def test_the_statement_of_an_account(a_day: Writer) -> None:
    a_day.commit([], [("at-risk", BOB, 5_000_000_000, "relayed late [bold]x[/bold]\x1b[2J")])
    done = run("show", a_day.folder, "--account", "bob")
    assert done.returncode == 0, done.stderr
    assert "Statement of bob (UTC)" in done.stdout
    assert "alice" not in done.stdout
    assert "897 USD" in done.stdout
    assert "2023-11-14T22:14:00Z" in done.stdout
    # What peers wrote is text: no markup, no control characters.
    assert "relayed late [bold]x[/bold]?[2J" in done.stdout
    got = shown("show", a_day.folder, "--account", "bob", "--since", "2023-11-14T22:15:00")
    statement = got["statement"]
    assert isinstance(statement, list)
    assert [one["from"] for one in statement] == ["2023-11-14T22:15:00Z"]
    assert statement[0]["outgoing"] == "299000"
    assert shown("show", a_day.folder, "--account", "bob", "--since", "1d")["statement"] == []


# --- verify ----------------------------------------------------------------------------------------------------------


def test_verify_says_what_it_verified(a_day: Writer) -> None:
    a_day.checkpoint()
    a_day.forward(3, 4)
    done = run("verify", a_day.folder)
    assert done.returncode == 0, done.stderr
    assert f"{a_day.sequence} batches, 1 to {a_day.sequence}: checksums" in done.stdout
    assert f"replay gives the checkpoints after {a_day.sequence - 2} byte by byte" in done.stdout
    assert "the books sum to zero in BTC:8, USD:9" in done.stdout
    assert f"digest of the books there: {digest(a_day.books).hex()}" in done.stdout
    assert shown("verify", a_day.folder)["digest"] == digest(a_day.books).hex()


def test_verify_works_on_a_pruned_journal(a_day: Writer) -> None:
    for amount in (3, 4, 5):
        a_day.checkpoint()
        a_day.forward(amount, 4)
    got = shown("verify", a_day.folder)
    assert got["digest"] == digest(a_day.books).hex()
    assert got["checkpoints"] == [a_day.sequence - 4, a_day.sequence - 2]
    assert got["reproduced"] == [a_day.sequence - 2]


def test_verify_of_an_empty_journal_holds(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "journal.db").close()
    done = run("verify", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no batches" in done.stdout


def test_verify_names_the_damaged_row(a_day: Writer) -> None:
    a_day.journal.close()
    with closing(sqlite3.connect(a_day.folder / "journal.db")) as other, other:
        (stored,) = other.execute("SELECT envelope FROM batches WHERE sequence = 3").fetchone()
        other.execute(
            "UPDATE batches SET envelope = ? WHERE sequence = 3",
            (stored[:-6] + bytes((stored[-6] ^ 1,)) + stored[-5:],),
        )
    done = run("verify", a_day.folder)
    assert done.returncode == 1
    assert "batch 3 is damaged" in done.stderr
    assert done.stderr.count("\n") == 1
    assert run("show", a_day.folder).returncode == 1


def test_a_connectors_checkpoint_is_verified_and_the_journal_pruned(a_day: Writer) -> None:
    """With the replayer that a node uses, in a process of its own."""
    deleted = []
    for amount in (3, 4, 5):
        a_day.journal.save_checkpoint(a_day.sequence, a_day.mirror.state())
        deleted.append(verify_and_prune(a_day.journal))
        a_day.forward(amount, 4)
    assert deleted == [0, a_day.sequence - 6, 2]
    assert shown("verify", a_day.folder)["digest"] == digest(a_day.books).hex()


def sequence_changed(state: bytes, sequence: int) -> bytes:
    """A kernel's state that says it stands elsewhere."""
    return sequence.to_bytes(8, "big") + state[8:]


def test_a_checkpoint_of_another_batch_is_refused(a_day: Writer) -> None:
    a_day.journal.save_checkpoint(a_day.sequence, sequence_changed(a_day.mirror.state(), 3))
    done = run("show", a_day.folder)
    assert done.returncode == 1
    assert f"the checkpoint after batch {a_day.sequence} holds the state after batch 3" in done.stderr


def test_verify_reproduces_a_wallets_checkpoint_with_its_notes(tmp_path: Path) -> None:
    wallet = Writer(tmp_path / "wallet", WalletLedger())
    for sequence in range(1, 4):
        wallet.books.note(credit(b"c" * 16, at=WALL_MS, sequence=sequence, amount=5, totals=[(1, 5 * sequence)]))
        wallet.forward(5, 5)
        wallet.checkpoint()
    got = shown("verify", wallet.folder)
    assert got["reproduced"] == [wallet.sequence]
    assert shown("show", wallet.folder)["digest"] == got["digest"]
    wallet.journal.close()


def test_verify_finds_a_checkpoint_that_replay_doesnt_give(a_day: Writer) -> None:
    state = sequence_changed(a_day.mirror.state(), a_day.sequence + 2)
    a_day.forward(3, 4)
    a_day.journal.save_checkpoint(a_day.sequence, state)
    done = run("verify", a_day.folder)
    assert done.returncode == 1
    assert f"replay doesn't give the checkpoint after batch {a_day.sequence}" in done.stderr


def version_changed(state: bytes, version: int) -> bytes:
    """A kernel's state whose books say that they are of another format."""
    return state[:16] + bytes([version]) + state[17:]


@pytest.mark.parametrize("version, age, way_out", [(1, "an older", "--drop-checkpoint"), (9, "a newer", "Use that")])
def test_a_checkpoint_of_another_version_is_called_that(a_day: Writer, version: int, age: str, way_out: str) -> None:
    """Not corruption: no batch is doubted, and it is said what to do."""
    a_day.journal.save_checkpoint(a_day.sequence, version_changed(a_day.mirror.state(), version))
    for name in ("verify", "undecided", "show"):
        done = run(name, a_day.folder)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert f"the checkpoint after batch {a_day.sequence} is of {age} version of isthmus" in done.stderr
        assert way_out in done.stderr
    a_day.journal.close()
    drop = ["--drop-checkpoint", str(a_day.sequence)]
    command = [sys.executable, "-m", "isthmus.journal.verify", str(a_day.folder / "journal.db"), *drop]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert run("verify", a_day.folder).returncode == 0


def test_verify_finds_entries_that_no_books_wrote(a_day: Writer) -> None:
    a_day.sequence += 1
    a_day.journal.submit(a_day.sequence, b"\x01\x04" + bytes(8), Summary(WALL_MS))
    a_day.journal.close()
    done = run("verify", a_day.folder)
    assert done.returncode == 1
    assert f"batch {a_day.sequence} can't be replayed: post at byte 0: leg 0 is not open" in done.stderr


def test_books_that_dont_sum_to_zero_are_refused(tmp_path: Path) -> None:
    at = BooksAt("journal.db", 0, None)
    at.books.open_peer(ALICE, *_named(BTC)).balance = 1
    with pytest.raises(Exception, match="don't sum to zero"):
        at.check()


# --- export ----------------------------------------------------------------------------------------------------------


def test_export_of_balances_goes_to_standard_output(a_day: Writer) -> None:
    done = run("export", a_day.folder)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["account"], row["balance"], row["balance_decimal"]) for row in rows] == [
        ("alice", "1500500", "0.015005"),
        ("bob", "-897000299000", "-897.000299"),
    ]


def test_export_of_transfers_has_every_entry_and_adds_up(a_day: Writer) -> None:
    adjustment = a_day.books.internal["adjustment:BTC:8"]
    a_day.books.transfer(a_day.alice, adjustment, 2**70, ADJUST, b"key", "=cmd()")
    a_day.books.late_fulfill(a_day.bob, b"s" * 16, 3, 9, 12)
    a_day.books.put_at_risk(a_day.alice, 1, 5, 2)
    a_day.books.note(b"note")
    a_day.commit([])
    done = run("export", a_day.folder, "--what", "transfers", "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [row["entry"] for row in rows]
    assert kinds.count("reserve") == 8
    assert kinds.count("post") == 4
    assert kinds.count("void") == 2
    assert kinds[-4:] == ["adjustment", "late fulfill", "at risk", "note"]
    posted = {"incoming": 1, "outgoing": -1}
    balance = sum(
        posted[row["direction"]] * int(row["amount"])
        for row in rows
        if row["entry"] == "post" and row["account"] == "alice"
    )
    assert balance + 2**70 == a_day.alice.balance
    as_csv = run("export", a_day.folder, "--what", "transfers").stdout
    table = list(csv.DictReader(io.StringIO(as_csv)))
    assert len(table) == len(rows)
    # A text that a spreadsheet would run as a formula is quoted.
    assert [row["text"] for row in table if row["entry"] == "adjustment"] == ["'=cmd()"]


def test_export_shows_what_neighbours_told_each_other(a_day: Writer) -> None:
    """A loss names the leg, also where it was fulfilled in the same batch; what a peer posted is acknowledged."""
    first, second, third = a_day.reserve(30, 31), a_day.reserve(40, 41), a_day.reserve(50, 51)
    books, alice = a_day.books, a_day.alice
    books.post(first, b"f" * 32)
    a_day.commit([])
    books.lose(alice, first.incoming)
    books.post(second, b"f" * 32)
    books.lose(alice, second.incoming)
    books.post(third, b"f" * 32)
    books.acknowledge(alice, b"s" * 16, third.request_id)
    books.set_hearing(a_day.bob, HEARS)
    books.confirm(a_day.bob, b"s" * 16, third.request_id, ended=True)
    a_day.commit([])
    done = run("export", a_day.folder, "--what", "transfers", "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = [row for row in map(json.loads, done.stdout.splitlines()) if row["sequence"] >= a_day.sequence - 1]
    kinds = [row["entry"] for row in rows]
    assert kinds == [*["post"] * 2, "loss", *["post"] * 2, "loss", *["post"] * 2, *["outcomes"] * 3]
    losses = [row for row in rows if row["entry"] == "loss"]
    shown = ("account", "counter_account", "amount", "leg", "session", "request_id")
    assert [tuple(row[key] for key in shown) for row in losses] == [
        ("alice", "loss:alice", str(leg.incoming.amount), leg.incoming.id, (b"s" * 16).hex(), leg.incoming.request_id)
        for leg in (first, second)
    ]
    assert [row["request_id"] for row in rows if row["entry"] == "outcomes"] == [
        third.request_id,
        None,
        third.request_id,
    ]


def test_export_of_a_pruned_journal_knows_the_legs_that_were_open(a_day: Writer) -> None:
    leg = a_day.reserve(11, 12)
    a_day.checkpoint()
    a_day.forward(1, 1)
    a_day.checkpoint()
    a_day.books.post(leg)
    a_day.commit([])
    done = run("export", a_day.folder, "--what", "transfers", "--format", "json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["entry"], row["account"], row["amount"]) for row in rows[-2:]] == [
        ("post", "bob", "12"),
        ("post", "alice", "11"),
    ]


def test_export_to_a_folder_writes_all_tables(a_day: Writer, tmp_path: Path) -> None:
    done = run("export", a_day.folder, "--output", tmp_path / "out", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "balances.jsonl",
        "minutes.jsonl",
        "transfers.jsonl",
    ]
    minutes = [json.loads(line) for line in (tmp_path / "out" / "minutes.jsonl").read_text().splitlines()]
    assert sum(int(row["incoming"]) for row in minutes if row["account"] == "alice") == 1_500_500
    assert {row["account"] for row in minutes if row["internal"]} >= {"clearing:USD:9", "revenue:spread:USD:9"}


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda folder: ["show", folder / "none"], "there is no journal"),
        (lambda folder: ["show", folder], "there is no journal"),
        (lambda folder: ["verify", folder], "there is no journal"),
        (lambda folder: ["export", folder], "there is no journal"),
        (lambda folder: ["show"], "Missing argument 'DIR'"),
        (lambda folder: ["export", folder, "--what", "everything"], "'everything' is not one of"),
        (lambda folder: ["export", folder, "--format", "xml"], "'xml' is not one of"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, make: Callable[[Path], list[str | Path]], says: str
) -> None:
    done = run(*make(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.mark.parametrize(
    "options, says",
    [
        (["--account", "carol"], "there is no such account. These are in the books: alice, bob"),
        (["--since", "yesterday"], "this is no time"),
        (["--since", "99999-01-01"], "this is no time"),
    ],
)
def test_bad_options_say_what_is_there(a_day: Writer, options: list[str], says: str) -> None:
    done = run("show", a_day.folder, *options)
    assert done.returncode == 2
    assert says in done.stderr


def test_two_tables_dont_fit_into_one_stream(a_day: Writer) -> None:
    done = run("export", a_day.folder, "--what", "balances", "--what", "minutes")
    assert done.returncode == 2
    assert "Give --output FOLDER" in done.stderr


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text("something else, and long enough to be looked at " * 30)
    done = run("verify", tmp_path)
    assert done.returncode == 1
    assert "no journal" in done.stderr


def test_every_command_has_help_with_examples() -> None:
    for name, command in [("books", books), *books.commands.items()]:
        assert "Examples:" in command.get_help(click.Context(command, info_name=name))
