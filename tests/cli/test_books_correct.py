"""`isthmus books write-off` and `adjust` on the journal of a stopped node. Beside a running one: tests/node."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.connector.kernel import Kernel
from isthmus.journal.reader import JournalReader
from isthmus.journal.sqlite import SqliteJournal
from tests.journal import golden_books


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alice's loss is 9 units of BTC, scale 8."""
    folder = tmp_path_factory.mktemp("books")
    golden_books.write(folder)
    return folder


@pytest.fixture
def journal(untouched: Path, tmp_path: Path) -> Path:
    """A copy of it, to correct."""
    shutil.copy(untouched / "journal.db", tmp_path)
    return tmp_path


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isthmus", "books", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def shown(folder: Path) -> dict[str, Any]:
    loaded = json.loads(run("show", folder, "--json").stdout)
    assert isinstance(loaded, dict)
    return loaded


def account(folder: Path, name: str) -> dict[str, Any]:
    return next(one for one in shown(folder)["accounts"] if one["account"] == name)


def test_a_loss_is_written_off_in_the_journal(journal: Path) -> None:
    done = run("write-off", journal, "alice", "--note", "agreed [bold]by phone[/bold]", "--key", "one")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Written off in the journal: 0.00000009 BTC of alice. Key: one\n"
    assert account(journal, "alice")["loss"] == "0"
    single = shown(journal)["singles"][-1]
    assert (single["kind"], single["amount"], single["text"]) == ("write-off", "9", "agreed [bold]by phone[/bold]")
    assert "agreed [bold]by phone" in run("show", journal).stdout
    assert run("verify", journal).returncode == 0


def test_a_repeated_key_books_once(journal: Path) -> None:
    options = ("--owed", "by-us", "--note", "x", "--key", "k", "--json")
    first = run("adjust", journal, "bob", "1.5", *options)
    assert first.returncode == 0, first.stderr
    last = shown(journal)["last_sequence"]
    assert run("adjust", journal, "bob", "1.5", *options).stdout == first.stdout
    assert json.loads(first.stdout) == {"account": "bob", "kind": "adjust", "amount": str(-15 * 10**8), "key": "k"}
    done = run("adjust", journal, "bob", "1.6", *options)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "used for another correction" in done.stderr
    assert shown(journal)["last_sequence"] == last


def test_without_a_key_each_is_another_one(journal: Path) -> None:
    before = int(account(journal, "bob")["balance"])
    for _ in range(2):
        done = run("adjust", journal, "bob", "0.000000001", "--owed", "to-us", "--note", "x")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Adjusted in the journal: bob, owed to us 0.000000001 USD. Key: ")
    assert int(account(journal, "bob")["balance"]) == before + 2
    assert "owed to us 0.000000001 USD" in run("show", journal).stdout


def test_a_node_that_starts_then_has_the_same_books(journal: Path) -> None:
    """Replay of the batch that the command appended, by a kernel that knows nothing of it."""
    run("write-off", journal, "alice", "--amount", "0.00000004", "--note", "x")
    opened = SqliteJournal(journal / "journal.db")
    kernel = Kernel(bytes(32))
    for batch in opened.read_from(1):
        kernel.replay(batch.sequence, batch.record)
    opened.close()
    kernel.books.check()
    assert kernel.books.internal["loss:alice"].balance == 5
    assert kernel.digest().hex() == shown(journal)["digest"]
    with JournalReader(journal / "journal.db") as reader:
        periods = [one.totals for one in reader.periods() if one.account == "loss:alice"]
    assert [one.balance for one in periods if one.sequence == opened.last_sequence] == [5]


@pytest.fixture
def in_use(journal: Path) -> Iterator[Path]:
    """Another process writes to it, and nobody says where it can be asked."""
    writer = SqliteJournal(journal / "journal.db")
    yield journal
    writer.close()


def test_a_journal_in_use_without_an_admin_api_is_left_alone(in_use: Path) -> None:
    """In use means by the process that is named."""
    done = run("adjust", in_use, "bob", "1", "--owed", "to-us", "--note", "x")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "in use by another process" in done.stderr and "no admin API" in done.stderr


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["write-off", "alice"], "Missing option '--note'"),
        (["write-off", "alice", "--note", ""], "note must say why"),
        (["write-off", "alice", "--note", "x" * 501], "note must say why"),
        (["write-off", "alice", "--note", "x", "--key", "a b"], "key must be 1 to 100 characters"),
        (["write-off", "alice", "--note", "x", "--amount", "0"], "it is nothing"),
        (["write-off", "alice", "--note", "x", "--amount", "-1"], "is not an amount"),
        (["write-off", "alice", "--note", "x", "--amount", "0.000000001"], "the smallest amount is 0.00000001 BTC"),
        (["write-off", "zoe", "--note", "x"], "These are in the books: alice, bob, carol, endpoint, dora"),
        (["adjust", "alice", "1", "--note", "x"], "Missing option '--owed'"),
        (["adjust", "alice", "1", "--note", "x", "--owed", "me"], "'me' is not one of"),
        (["adjust", "alice", "--note", "x", "--owed", "to-us"], "Missing argument 'AMOUNT'"),
    ],
)
def test_misuse_is_one_line_and_status_2(journal: Path, arguments: list[str], says: str) -> None:
    name, *rest = arguments
    done = run(name, journal, *rest)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert says in done.stderr


def test_more_than_the_loss_is_refused(journal: Path) -> None:
    done = run("write-off", journal, "alice", "--note", "x", "--amount", "0.0000001")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "not above the loss of 9" in done.stderr
