"""`isthmus ledger xrp-dev`, as a process: what it prints, how it ends, what it refuses."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ISTHMUS, WAIT_SECONDS, run

ADDRESS = "rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe"


@contextmanager
def ledger(*options: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running ledger and its first line; killed if the test doesn't end it."""
    command = [*ISTHMUS, "ledger", "xrp-dev", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def ask(facts: dict[str, Any], command: str, **params: Any) -> dict[str, Any]:
    body = json.dumps({"method": command, "params": [params]}).encode()
    with urllib.request.urlopen(facts["json_rpc"], body, timeout=WAIT_SECONDS) as response:
        return dict(json.load(response)["result"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_serves_and_ends_in_order(tmp_path: Path, number: int) -> None:
    file = tmp_path / "xrp.db"
    options: list[str | Path] = [
        "--json",
        "--manual",
        "--file",
        file,
        "--fund",
        ADDRESS,
        "--fund",
        ADDRESS,
        "--fund-with",
        "50",
    ]
    with ledger(*options) as (process, line):
        facts = json.loads(line)
        assert facts["network_id"] == 1_000 and facts["ledger_index"] == 2
        assert facts["genesis"]["seed"].startswith("s") and facts["faucet"].endswith("/accounts")
        info = ask(facts, "account_info", account=ADDRESS, ledger_index="validated")
        assert info["account_data"]["Balance"] == "50000000"
        last = ask(facts, "ledger_closed")
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stderr is not None and process.stderr.read() == ""
    # The same command line again: nothing is paid twice, and the ledger is where it was.
    with ledger(*options) as (process, line):
        facts = json.loads(line)
        assert facts["ledger_index"] == 2 and ask(facts, "ledger_closed") == last


def test_people_are_told_what_it_is() -> None:
    with ledger() as (process, line):
        assert "for tests, nothing on it has any value" in line
        assert process.stdout is not None
        text = "".join(process.stdout.readline() for _ in range(10))
        assert "WebSocket  ws://127.0.0.1:" in text and "one every 1000 ms" in text and "Ctrl-C" in text
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 0


def test_its_help_marks_it_as_a_tool_for_developers() -> None:
    shown = run("ledger", "xrp-dev", "--help").stdout
    assert "never for money" in shown and "Examples:" in shown and "--close-every" in shown


@pytest.mark.parametrize(
    "options, status, problem",
    [
        (["--close-every", "299"], 2, "--close-every"),
        (["--close-every", "1000", "--manual"], 2, "--manual"),
        (["--fund", "rubbish"], 2, "no address"),
        (["--fund-with", "5"], 2, "Name whom to fund"),
        (["--fund", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "--fund-with", "0"], 2, "--fund-with"),
        (["--port", "70000"], 2, "--port"),
        (["--history", "5"], 2, "--history"),
        (["--file", "no/such/folder/xrp.db"], 1, "unable to open"),
        (["--host", "203.0.113.7"], 1, "can't listen"),
    ],
)
def test_what_it_can_t_do_is_said_in_one_line(options: list[str], status: int, problem: str) -> None:
    ended = run("ledger", "xrp-dev", *options)
    assert ended.returncode == status
    assert problem in ended.stderr and len(ended.stderr.splitlines()) == 1 and ended.stdout == ""


def test_without_the_extra_it_says_how_to_get_it() -> None:
    program = "import sys; sys.modules['xrpl'] = None; from isthmus.cli.main import main; main(['ledger', 'xrp-dev'])"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert ended.returncode == 2 and "pip install 'isthmus[xrp]'" in ended.stderr


def test_a_file_that_is_in_use_or_has_other_settings(tmp_path: Path) -> None:
    file = tmp_path / "xrp.db"
    with ledger("--json", "--file", file) as (process, _):
        ended = run("ledger", "xrp-dev", "--port", "0", "--file", file)
        assert ended.returncode == 1 and "in use by another process" in ended.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
    ended = run("ledger", "xrp-dev", "--port", "0", "--file", file, "--network-id", "1001")
    assert ended.returncode == 2 and "was made with" in ended.stderr


def test_a_port_that_is_taken() -> None:
    with ledger("--json") as (process, line):
        port = json.loads(line)["web_socket"].rpartition(":")[2]
        ended = run("ledger", "xrp-dev", "--port", port)
        assert ended.returncode == 1 and f"can't listen on 127.0.0.1 port {port}" in ended.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0


def test_a_killed_ledger_has_all_that_it_called_validated(tmp_path: Path) -> None:
    file = tmp_path / "xrp.db"
    options: list[str | Path] = ["--json", "--file", file, "--close-every", "300", "--fund", ADDRESS]
    with ledger(*options) as (process, line):
        facts = json.loads(line)
        before = ask(facts, "ledger", ledger_index="validated")
        process.kill()
        process.wait(WAIT_SECONDS)
    with ledger(*options) as (process, line):
        facts = json.loads(line)
        again = ask(facts, "ledger", ledger_index=before["ledger_index"])
        assert again["ledger_hash"] == before["ledger_hash"]
