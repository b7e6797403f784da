"""`isthmus ledger bank`: a person runs a bank and uses it."""

import json
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.cli.conftest import ISTHMUS, run

Bank: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def running(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [*ISTHMUS, "ledger", "bank", "run", "--port", "0", "--json", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    with running(tmp_path) as (_, facts):

        def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
            where = {"ISTHMUS_BANK_URL": facts["url"]}
            return run("ledger", "bank", *arguments, "--token-file", tmp_path / facts["token_file"], **where)

        yield ask


def test_an_evening_at_the_club(bank: Bank) -> None:
    assert "is open" in bank("open", "till", "USD", "--overdraft", "unlimited").stdout
    assert "0 USD" in bank("open", "ann", "USD", "--name", "Ann").stdout
    bank("transfer", "till", "ann", "100", "--reference", "welcome")
    for _ in range(2):
        done = bank("transfer", "ann", "till", "12.34", "--reference", "two beers", "--key", "k")
        assert (done.returncode, done.stdout) == (0, "ann paid till 12.34 USD. Key: k\n")
    accounts = json.loads(bank("accounts", "--json").stdout)["accounts"]
    assert [(each["id"], each["balance"]) for each in accounts] == [("ann", "8766"), ("till", "-8766")]
    table = bank("accounts").stdout
    assert "87.66 USD" in table and "unlimited" in table
    statement = bank("statement", "ann")
    assert "two beers" in statement.stdout and "-12.34" in statement.stdout
    assert statement.stdout.endswith("Balance: 87.66 USD\n")
    last = json.loads(bank("statement", "ann", "--last", "1", "--json").stdout)
    assert [each["reference"] for each in last["entries"]] == ["two beers"]
    token = bank("token", "new", "ann", "--label", "phone").stdout.strip()
    assert len(token) > 50 and "phone" in bank("token", "list", "ann").stdout
    assert "good for nothing" in bank("token", "revoke", "ann", token.partition(".")[0]).stdout
    assert "is changed" in bank("change", "ann", "--overdraft", "5", "--name", "Anna").stdout
    assert bank("audit").stdout == "The books are right: each asset sums to zero.\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("transfer", "ann", "bob", "1"), 2, "There is no such account"),
        (("open", "ann", "USD", "--overdraft", "much"), 2, "not an amount"),
        (("open", "Ann", "USD"), 2, "id: use 1 to 64"),
        (("change", "ann"), 2, "nothing to change"),
        (("statement", "ann", "--url", "http://example.com"), 2, "in the clear"),
        (("accounts", "--url", "http://127.0.0.1:1"), 1, "didn't answer"),
        (("run", "--host", "0.0.0.0"), 2, "tokens would travel in the clear"),
        (("run", "--database", "mysql://x/y"), 2, "is not supported"),
        (("run", "--cert-file", "x"), 2, "Give both"),
        (("audit", "--database", "nowhere/bank.db"), 1, "isn't there"),
    ],
)
def test_mistakes_end_in_one_line(bank: Bank, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = bank(*arguments) if arguments[0] != "run" else run("ledger", "bank", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert words in done.stderr


def test_files_are_their_owners_and_survive_a_kill(tmp_path: Path) -> None:
    with running(tmp_path) as (process, facts):
        token = (tmp_path / "bank.token").read_text().strip()
        done = run("ledger", "bank", "open", "ann", "USD", "--url", facts["url"], ISTHMUS_BANK_TOKEN=token)
        assert done.returncode == 0, done.stderr
        assert stat.S_IMODE((tmp_path / "bank.db").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "bank.token").stat().st_mode) == 0o600
        process.kill()
    with running(tmp_path) as (process, again):
        assert again["bank"] == facts["bank"]
        found = run("ledger", "bank", "accounts", "--json", "--url", again["url"], ISTHMUS_BANK_TOKEN=token)
        assert [each["id"] for each in json.loads(found.stdout)["accounts"]] == ["ann"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None and process.stderr.read() == ""


def test_a_file_that_holds_no_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bank.token").write_text("password")
    done = run(
        "ledger", "bank", "run", "--database", tmp_path / "b.db", "--token-file", tmp_path / "bank.token", "--port", "0"
    )
    assert done.returncode == 2 and "has no token of a bank" in done.stderr and "password" not in done.stderr


def test_every_command_has_an_example() -> None:
    for command in ("run", "open", "change", "accounts", "transfer", "statement", "audit", "token new", "token list"):
        shown = run("ledger", "bank", *command.split(), "--help").stdout
        assert f"isthmus ledger bank {command}" in shown.partition("Example")[2], command


def test_who_doesnt_know_whether_it_is_done_is_told_the_key(bank: Bank, tmp_path: Path) -> None:
    """The bank's database fails in the middle: repeated without the key, it would be paid twice."""
    bank("open", "till", "USD", "--overdraft", "unlimited")
    bank("open", "ann", "USD")
    with sqlite3.connect(tmp_path / "bank.db", isolation_level=None) as database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        failed = bank("transfer", "till", "ann", "5")
        assert failed.returncode == 1 and "disk is full" in failed.stderr
        key = failed.stderr.strip().rpartition("--key ")[2]
        database.execute("DROP TRIGGER full")
    database.close()
    for _ in range(2):
        assert bank("transfer", "till", "ann", "5", "--key", key).returncode == 0
    assert bank("statement", "ann").stdout.endswith("Balance: 5 USD\n")
