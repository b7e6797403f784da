"""`isthmus books undecided`, on a journal where something of each kind is undecided, and beside a running node."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isthmus.connector.events import AccountId
from tests.journal import golden_books


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("books")
    golden_books.write(folder)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Accounts, and nothing on them."""
    golden = golden_books.Golden(tmp_path)
    for name in ("alice", "bob"):
        golden.books.open_peer(AccountId(name), "USD", 9)
    golden.commit()
    golden.journal.close()
    return tmp_path


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isthmus", "books", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def undecided(folder: Path, *options: str) -> dict[str, Any]:
    done = run("undecided", folder, *options, "--json")
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


def test_each_account_has_a_line_with_what_is_undecided(journal: Path) -> None:
    """Our open Prepares, the peer's, what we fulfilled, what we voided, losses: with unit and count."""
    done = run("undecided", journal)
    assert done.returncode == 0, done.stderr
    lines = {name: next(line for line in done.stdout.splitlines() if f" {name} " in line) for name in ("alice", "bob")}
    assert "unknown" in lines["alice"] and "yes" in lines["bob"]
    assert "0.00000012 BTC in 1" in lines["alice"]  # its open Prepare
    assert "184467440737.09551622 BTC in 2" in lines["alice"]  # fulfilled, not acknowledged
    assert "0.00000009 BTC" in lines["alice"]  # loss
    assert "0.000000011 USD in 2" in lines["bob"]  # our open Prepares: 11 and 0
    assert "At risk: 184467440737.09551622 BTC, 0.00000004 USD." in done.stdout
    for words in ("fulfilled: by us, and not acknowledged", "loss: fulfilled by us and void at the peer"):
        assert words in done.stdout
    sums = [line for line in done.stdout.splitlines() if "in sum" in line]
    assert len(sums) == 1 and "0.00000004 USD in 1" in sums[0]  # BTC has one account only


def test_json_has_every_leg_and_the_sums_add_up(journal: Path) -> None:
    """P-1: amounts are strings."""
    found = undecided(journal)
    for account in found["accounts"]:
        for kind in ("ours", "theirs", "fulfilled", "unsaid"):
            legs = [leg for leg in account["legs"] if leg["kind"] == kind]
            assert account[kind] == {"count": len(legs), "amount": str(sum(int(leg["amount"]) for leg in legs))}
    for asset in found["assets"]:
        rows = [row for row in found["accounts"] if row["asset_code"] == asset["asset_code"]]
        for name in ("at_risk", "loss", "put_at_risk"):
            assert int(asset[name]) == sum(int(row[name]) for row in rows)
        assert int(asset["ours"]["amount"]) == sum(int(row["ours"]["amount"]) for row in rows)
    alice, bob, carol, *_ = found["accounts"]
    assert [one["takes_reports"] for one in (alice, bob, carol)] == ["unknown", "yes", "no"]
    assert alice["loss"] == "9" and alice["at_risk"] == str(2**64 + 6)
    fulfilled = {(leg["request_id"], leg["amount"]) for leg in alice["legs"] if leg["kind"] == "fulfilled"}
    assert (4, str(2**64 - 1)) in fulfilled
    assert {leg["session"] for leg in bob["legs"] if leg["kind"] == "ours"} == {golden_books.OURS.hex()}


def test_one_account_is_shown_with_each_of_its_prepares(journal: Path) -> None:
    done = run("undecided", journal, "--account", "alice")
    assert done.returncode == 0, done.stderr
    assert "Undecided Prepares of alice (UTC)" in done.stdout
    assert "theirs, fulfilled, not acknowledged" in done.stdout
    assert "bob" not in done.stdout
    assert [one["account"] for one in undecided(journal, "--account", "bob")["accounts"]] == ["bob"]


def test_where_nothing_is_undecided_it_says_so(empty: Path) -> None:
    done = run("undecided", empty)
    assert (done.returncode, done.stdout) == (0, "Nothing is undecided on 2 accounts.\n")


def test_show_has_columns_for_what_is_not_acknowledged(journal: Path) -> None:
    done = run("show", journal)
    assert done.returncode == 0, done.stderr
    head = next(line for line in done.stdout.splitlines() if "reserved in" in line)
    assert "unacknowledged" in head and "unsaid" in head and "loss" in head
    shown = {one["account"]: one for one in json.loads(run("show", journal, "--json").stdout)["accounts"]}
    assert shown["alice"]["fulfilled_unacknowledged"] == str(2**64 + 6)
    assert int(shown["bob"]["unsaid"]) > 0


def test_misuse_is_one_line_and_status_2(journal: Path, tmp_path: Path) -> None:
    for arguments, says in (
        (["undecided", journal, "--account", "nobody"], "These are in the books: alice, bob, carol, endpoint, dora"),
        (["undecided", tmp_path / "none"], "there is no journal"),
        (["undecided"], "Missing argument 'DIR'"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert says in done.stderr


def test_the_shell_completes_it() -> None:
    environment = {
        **os.environ,
        "_ISTHMUS_COMPLETE": "bash_complete",
        "COMP_WORDS": "isthmus books und",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "isthmus"], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert "undecided" in done.stdout
