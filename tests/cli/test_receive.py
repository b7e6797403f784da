"""`isthmus receive`."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Network

Run = Callable[..., CompletedProcess[str]]


def pay(network: "Network", isthmus_command: Run, url: str, amount: str = "0.0004") -> None:
    paid = isthmus_command("pay", "--wallet", network.wallet("alice"), url, amount, "--min-rate", "24")
    assert paid.returncode == 0, paid.stderr


def test_what_comes_in_is_printed_and_kept(network: "Network", isthmus_command: Run) -> None:
    receiving = network.receive("bob")
    pay(network, isthmus_command, receiving.url)
    assert receiving.end() == 0
    text = "\n".join(receiving.lines)
    assert "+0.01 ETH" in text or "0.01 ETH from this payer" in text
    assert "Received 0.01 ETH in all." in text
    kept = isthmus_command("history", "--wallet", network.wallet("bob"))
    assert "+0.01 ETH" in kept.stdout


def test_with_json_each_line_is_an_object(network: "Network", isthmus_command: Run) -> None:
    receiving = network.receive("bob", "--json")
    pay(network, isthmus_command, receiving.url)
    assert receiving.end() == 0
    money = [json.loads(line)["money"] for line in receiving.lines]
    assert sum(int(one["amount"]) for one in money) == 10_000_000
    assert {one["asset"]["code"] for one in money} == {"ETH"}


def test_until_ends_it(network: "Network", isthmus_command: Run) -> None:
    receiving = network.receive("bob", "--until", "0.01")
    pay(network, isthmus_command, receiving.url)
    out, _ = receiving.process.communicate(timeout=120)
    assert receiving.process.returncode == 0
    assert "Received 0.01 ETH in all." in out


@pytest.mark.slow
def test_two_receivers_of_one_wallet_share_it(network: "Network", isthmus_command: Run) -> None:
    """The second works through the first, and takes over when that ends."""
    first = network.receive("bob", "--json")
    second = network.receive("bob", "--json")
    pay(network, isthmus_command, second.url)
    assert first.end() == 0
    pay(network, isthmus_command, second.url)
    assert second.end() == 0
    heard = [
        sum(int(json.loads(line)["money"]["amount"]) for line in one.lines if "money" in line)
        for one in (first, second)
    ]
    assert heard == [10_000_000, 20_000_000]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--listen", "0.0.0.0:8080"], "--allow-insecure"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--until", "0.0000000001"], "decimals"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    network: "Network", isthmus_command: Run, options: list[str], words: str
) -> None:
    refused = isthmus_command("receive", "--wallet", network.wallet("bob"), *options)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert words in refused.stderr


def test_a_port_that_is_taken_is_told(network: "Network", isthmus_command: Run, tmp_path: Path) -> None:
    refused = isthmus_command("receive", "--wallet", network.wallet("bob"), "--listen", f"127.0.0.1:{network.port}")
    assert refused.returncode == 1
    assert "--listen" in refused.stderr
