"""`isthmus quote`, `pay`, `history` and `ping`, against a connector and a receiver in processes of their own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Network

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def target(network: "Network") -> Iterator[str]:
    receiving = network.receive("bob")
    yield receiving.url
    assert receiving.end() == 0


@pytest.fixture
def alice(network: "Network") -> Path:
    return network.wallet("alice")


def result_of(completed: CompletedProcess[str]) -> Any:
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


# --- quote -----------------------------------------------------------------------------------------------------------


def test_a_quote_is_in_the_assets_own_units(alice: Path, target: str, isthmus_command: Run) -> None:
    shown = isthmus_command("quote", "--wallet", alice, target, "0.01")
    assert shown.returncode == 0, shown.stderr
    for text in ("0.01 BTC", "about 0.25 ETH", "25 ETH for 1 BTC"):
        assert text in shown.stdout


def test_a_quote_of_what_is_to_arrive(alice: Path, target: str, isthmus_command: Run) -> None:
    found = result_of(isthmus_command("quote", "--wallet", alice, target, "0.25", "--deliver", "--json"))
    assert (found["source_amount"], found["destination_amount"]) == ("1000000", "250000000")
    assert found["minimum"] is None


def test_a_quote_below_the_minimum_has_status_1(alice: Path, target: str, isthmus_command: Run) -> None:
    found = isthmus_command("quote", "--wallet", alice, target, "0.01", "--min-rate", "26", "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["enough"] is False


# --- pay -------------------------------------------------------------------------------------------------------------


def test_a_script_pays_with_a_minimum_rate(alice: Path, target: str, isthmus_command: Run) -> None:
    paid = isthmus_command("pay", "--wallet", alice, target, "0.001", "--min-rate", "24.9")
    assert paid.returncode == 0, paid.stderr
    for text in ("completed", "0.001 BTC sent", "0.025 ETH delivered", "25 ETH for 1 BTC"):
        assert text in paid.stdout


def test_a_script_delivers_an_amount(alice: Path, target: str, isthmus_command: Run) -> None:
    paid = result_of(
        isthmus_command("pay", "--wallet", alice, target, "0.01 ETH", "--deliver", "--min-rate", "24.9", "--json")
    )
    assert (paid["status"], paid["delivered"], paid["sent"]) == ("completed", "10000000", "40000")
    assert paid["destination_asset"] == {"code": "ETH", "scale": 9}


@pytest.mark.parametrize(
    ("price", "slippage", "status"), [("25", "1%", 0), ("25.2", "1%", 0), ("25.2", "0.5%", 1), ("FILE", "0.01", 0)]
)
def test_a_script_pays_by_a_price_source(
    alice: Path, target: str, isthmus_command: Run, tmp_path: Path, price: str, slippage: str, status: int
) -> None:
    """The minimum is the price less the slippage, from outside the path."""
    if price == "FILE":
        (tmp_path / "prices.json").write_text('{"BTC": "97500.5", "ETH": 3900.02, "XRP": 2}')
        price = str(tmp_path / "prices.json")
    paid = isthmus_command(
        "pay", "--wallet", alice, target, "0.0001", "--price", price, "--slippage", slippage, "--yes"
    )
    assert paid.returncode == status, paid.stderr
    if status:
        assert "below the minimum" in paid.stderr


@pytest.mark.parametrize("options", [[], ["--yes"]])
def test_a_script_without_a_minimum_is_told_the_options(
    alice: Path, target: str, isthmus_command: Run, options: list[str]
) -> None:
    refused = isthmus_command("pay", "--wallet", alice, target, "0.001", *options)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    for option in ("--min-rate", "--price", "--yes"):
        assert option in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0.123456789", "--min-rate", "1"], "decimals"),
        (["1 ETH", "--min-rate", "1"], "ETH"),
        (["zero", "--min-rate", "1"], "not an amount"),
        (["0", "--min-rate", "1"], "zero"),
        (["1", "--min-rate", "fast"], "not a number"),
        (["1", "--min-rate", "1", "--price", "2"], "not both"),
        (["1", "--price", "/nowhere"], "neither a number nor a file"),
        (["1", "--price", "1", "--slippage", "100%"], "below 100%"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    alice: Path, target: str, isthmus_command: Run, arguments: list[str], words: str
) -> None:
    refused = isthmus_command("pay", "--wallet", alice, target, *arguments)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert words in refused.stderr


@pytest.mark.parametrize("pointer", ["$127.0.0.1:1", "bob", "$bob.example/../x", "http://bob.example/"])
def test_tricks_in_a_pointer_are_refused(alice: Path, isthmus_command: Run, pointer: str) -> None:
    """PTR-3, SPSP-9: before anybody is asked."""
    refused = isthmus_command("pay", "--wallet", alice, pointer, "0.001", "--min-rate", "1")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def test_the_same_key_pays_once(alice: Path, target: str, isthmus_command: Run) -> None:
    command = ["pay", "--wallet", alice, target, "0.0002", "--min-rate", "24", "--key", "rent", "--json"]
    first, again = result_of(isthmus_command(*command)), result_of(isthmus_command(*command))
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert first["id"] == again["id"]
    other = isthmus_command("pay", "--wallet", alice, target, "0.0003", "--min-rate", "24", "--key", "rent")
    assert other.returncode == 2
    assert "used before, to send 0.0002 to" in other.stderr


# --- on a terminal ---------------------------------------------------------------------------------------------------


def test_a_person_is_shown_the_quote_beside_the_minimum_and_asked(network: "Network", alice: Path, target: str) -> None:
    shown = network.on_terminal("pay", "--wallet", alice, target, "0.001", answers={"[y/N]": b"y\n"})
    assert shown.status == 0
    for text in ("25 ETH for 1 BTC", "24.75 ETH for 1 BTC", "0.025 ETH delivered", "completed"):
        assert text in shown.text


@pytest.mark.slow
@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"\x03", b"\x04"])
def test_any_other_answer_moves_no_money(
    network: "Network", alice: Path, target: str, isthmus_command: Run, answer: bytes
) -> None:
    before = result_of(isthmus_command("wallet", "show", "--wallet", alice, "--json"))
    shown = network.on_terminal("pay", "--wallet", alice, target, "0.001", answers={"[y/N]": answer})
    assert shown.status == 1
    assert "nothing was paid" in shown.text
    after = result_of(isthmus_command("wallet", "show", "--wallet", alice, "--json"))
    assert before["balance"] == after["balance"]


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_says_what_was_delivered(
    network: "Network", alice: Path, target: str, isthmus_command: Run
) -> None:
    before = result_of(isthmus_command("wallet", "show", "--wallet", alice, "--json"))
    shown = network.on_terminal(
        "pay", "--wallet", alice, target, "2", "--min-rate", "24", "--yes", answers={" ETH delivered": b"\x03"}
    )
    assert shown.status == 130
    assert "stopped" in shown.text
    after = result_of(isthmus_command("wallet", "show", "--wallet", alice, "--json"))
    (entry,) = result_of(isthmus_command("history", "--wallet", alice, "--limit", "1", "--json"))["entries"]
    assert entry["status"] == "stopped"
    assert int(entry["sent"]) == int(before["balance"]) - int(after["balance"])
    assert int(entry["delivered"]) == int(entry["sent"]) * 250


# --- history and ping ------------------------------------------------------------------------------------------------


def test_history_shows_the_newest_first(network: "Network", alice: Path, target: str, isthmus_command: Run) -> None:
    isthmus_command("pay", "--wallet", alice, target, "0.0007", "--min-rate", "24")
    shown = isthmus_command("history", "--wallet", alice, "--limit", "1")
    assert shown.returncode == 0, shown.stderr
    for text in ("paid", "-0.0007 BTC", "0.0175 ETH", target, "completed"):
        assert text in shown.stdout
    received = isthmus_command("history", "--wallet", network.wallet("bob"), "--limit", "1")
    assert "+0.0175 ETH" in received.stdout


def test_ping_of_a_url_tells_round_trip_and_rate(alice: Path, target: str, isthmus_command: Run) -> None:
    shown = isthmus_command("ping", "--wallet", alice, target, "--count", "2", "--interval", "0")
    assert shown.returncode == 0, shown.stderr
    assert "min/avg/max" in shown.stdout
    assert "Rate: 25 ETH for 1 BTC" in shown.stdout


def test_ping_of_an_address(alice: Path, isthmus_command: Run) -> None:
    found = result_of(isthmus_command("ping", "--wallet", alice, "test.hub", "--count", "1", "--json"))
    assert found["ms"]["min"] > 0
    assert found["rate"] is None
    lost = isthmus_command("ping", "--wallet", alice, "test.hub.nobody", "--count", "1")
    assert lost.returncode == 1
    assert "not reached" in lost.stdout


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_a_connector_that_is_down_is_one_line_and_history_still_works(
    network: "Network", alice: Path, isthmus_command: Run, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(alice, copy)
    text = (copy / "wallet.toml").read_text()
    (copy / "wallet.toml").write_text(text.replace(str(network.port), "1"))
    failed = isthmus_command("ping", "--wallet", copy, "test.hub")
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "can't connect" in failed.stderr
    assert isthmus_command("history", "--wallet", copy).returncode == 0
