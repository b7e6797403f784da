"""`isthmus books write-off`, `adjust` and `give-up` with a stopped node. Beside a running one: tests/node."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli.books_correct import _append
from isthmus.connector.books import Books
from isthmus.connector.events import Summary
from isthmus.connector.kernel import Kernel
from isthmus.connector.legs import EXPIRED
from isthmus.errors import JournalError
from isthmus.journal.interface import Checkpoint, StoredBatch
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


def run(*args: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isthmus", "books", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_a_peer_wont_acknowledge_is_given_up_in_the_journal(journal: Path) -> None:
    """Once for its key, and not while packets are in flight."""
    done = run("give-up", journal, "alice", "--note", "x")
    assert done.returncode == 1 and "packets are in flight on this account" in done.stderr
    with closing(SqliteJournal(journal / "journal.db")) as opened:
        books = replayed(opened).books
        for peer in books.peers.values():
            for sent in list(peer.sent.values()):
                books.void_outgoing(sent, EXPIRED)
            for received in list(peer.received.values()):
                books.void_incoming(received, EXPIRED)
        _append(opened, books, Summary(golden_books.WALL_MS), "unused")
    options = ("give-up", journal, "alice", "--note", "gone for good", "--key", "one")
    for _ in range(2):
        done = run(*options)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "Given up in the journal: alice, 184467440737.09551622 BTC at risk. Key: one\n"
    alice = account(journal, "alice")
    assert (alice["fulfilled_unacknowledged"], alice["unsaid"]) == ("0", "0")
    assert alice["at_risk"] == str(1_500_000 + 2**64 - 1 + 7)
    assert json.loads(run(*options, "--json").stdout)["kind"] == "give-up"
    assert run("verify", journal).returncode == 0
    assert run("export", journal, "--what", "transfers").stdout.count("give-up") == 2  # bob's was another one
    assert "gone for good" in run("show", journal).stdout


@pytest.mark.slow
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
    kernel = replayed(opened)
    opened.close()
    kernel.books.check()
    assert kernel.books.internal["loss:alice"].balance == 5
    assert kernel.digest().hex() == shown(journal)["digest"]
    with JournalReader(journal / "journal.db") as reader:
        periods = [one.totals for one in reader.periods() if one.account == "loss:alice"]
    assert [one.balance for one in periods if one.sequence == opened.last_sequence] == [5]


def replayed(journal: SqliteJournal) -> Kernel:
    kernel = Kernel(bytes(32))
    for batch in journal.read_from(1):
        kernel.replay(batch.sequence, batch.record)
    return kernel


class StuckJournal:
    """Takes a batch and never says what became of it, as with a disk that hangs."""

    journal_id = bytes(16)
    shard_id = 0
    last_sequence = 0
    bytes_since_checkpoint = 0

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[int, str], None]) -> None: ...

    def submit(self, sequence: int, record: bytes, summary: Summary) -> None: ...

    def read_from(self, sequence: int) -> Iterator[StoredBatch]:
        return iter(())

    def save_checkpoint(self, sequence: int, state: bytes) -> None: ...

    def load_checkpoint(self) -> Checkpoint | None:
        return None

    def close(self) -> None: ...


def test_a_journal_that_doesnt_answer_leaves_the_key_to_ask_again() -> None:
    """It may be booked; the key says how to find out."""
    with pytest.raises(JournalError, match="nothing durable within 0 s; it may be booked or not.*--key one "):
        _append(StuckJournal(), Books(), Summary(0), "one", durable_s_max=0)


ANSWERS = {
    "hangs up": b"",
    "breaks off": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "breaks off a refusal": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\n{",
    "is no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "says nothing of it": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
}


@pytest.mark.parametrize("answer", list(ANSWERS.values()), ids=list(ANSWERS))
def test_a_node_that_answers_badly_leaves_the_key_to_ask_again(in_use: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        admin = f"http://127.0.0.1:{server.getsockname()[1]}"
        (in_use / "running.json").write_text(json.dumps({"listening": {"admin": admin}}))

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        environment = {**os.environ, "ISTHMUS_ADMIN_TOKEN": "token"}
        done = run("adjust", in_use, "bob", "1", "--owed", "to-us", "--note", "x", "--key", "k", env=environment)
        thread.join()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "it may be booked or not: the same command with --key k asks again, and books it once" in done.stderr


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
        (["give-up", "alice"], "Missing option '--note'"),
        (["give-up", "zoe", "--note", "x"], "These are in the books: alice"),
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
