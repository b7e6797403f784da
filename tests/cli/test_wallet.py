"""`isthmus wallet`."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Network

Run = Callable[..., CompletedProcess[str]]


def test_init_makes_a_wallet_with_the_connector_s_word_for_address_and_asset(
    network: "Network", isthmus_command: Run, tmp_path: Path
) -> None:
    """ILDCP-7, AUTH-2: secrets are in files that nobody else can read."""
    folder = tmp_path / "wallet"
    made = isthmus_command("wallet", "init", folder, "--connector", network.url("alice"))
    assert made.returncode == 0, made.stderr
    assert "test.hub.alice" in made.stdout
    assert "BTC, 8 decimal places" in made.stdout
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("wallet.toml", "token", "secret"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert "token-of" not in (folder / "wallet.toml").read_text()
    assert "token-of" not in made.stdout + made.stderr


def test_the_token_may_come_from_a_file_or_the_environment(
    network: "Network", isthmus_command: Run, tmp_path: Path
) -> None:
    token = network.url("alice").partition("://:")[2].partition("@")[0]
    (tmp_path / "token").write_text(token + "\n")
    place = network.url("alice", token=False)
    by_file = isthmus_command(
        "wallet", "init", tmp_path / "one", "--connector", place, "--token-file", tmp_path / "token", "--json"
    )
    by_environment = isthmus_command(
        "wallet", "init", tmp_path / "two", "--connector", place, "--json", ISTHMUS_TOKEN=token
    )
    for made in (by_file, by_environment):
        assert json.loads(made.stdout)["address"] == "test.hub.alice"
        assert json.loads(made.stdout)["asset"] == {"code": "BTC", "scale": 8}


def test_a_wallet_is_never_overwritten(network: "Network", isthmus_command: Run) -> None:
    folder = network.wallet("alice")
    before = (folder / "secret").read_text()
    again = isthmus_command("wallet", "init", folder, "--connector", network.url("bob"))
    assert again.returncode == 2
    assert "there is a wallet already" in again.stderr
    assert (folder / "secret").read_text() == before


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("btp+ws://:wrong@127.0.0.1:{port}", 1, ""),
        ("btp+ws://:x@127.0.0.1:1", 1, "can't connect"),
        ("btp+ws://:x@connector.example", 2, "btp\\+wss"),
        ("https://connector.example", 2, "BTP URL"),
    ],
)
def test_init_says_in_one_line_what_is_wrong(
    network: "Network", isthmus_command: Run, tmp_path: Path, url: str, status: int, words: str
) -> None:
    failed = isthmus_command("wallet", "init", tmp_path / "w", "--connector", url.format(port=network.port))
    assert failed.returncode == status
    assert failed.stderr.count("\n") == 1
    assert words.replace("\\", "") in failed.stderr
    assert not (tmp_path / "w").exists()


def test_show_tells_address_balance_and_link(network: "Network", isthmus_command: Run) -> None:
    shown = isthmus_command("wallet", "show", "--wallet", network.wallet("bob"))
    assert shown.returncode == 0, shown.stderr
    assert "test.hub.bob" in shown.stdout
    assert "settled" in shown.stdout
    found = json.loads(isthmus_command("wallet", "show", "--wallet", network.wallet("bob"), "--json").stdout)
    assert (found["address"], found["balance"], found["up"]) == ("test.hub.bob", "0", False)


def test_the_folder_may_come_from_the_environment(network: "Network", isthmus_command: Run) -> None:
    shown = isthmus_command("wallet", "show", "--json", ISTHMUS_WALLET=str(network.wallet("bob")))
    assert json.loads(shown.stdout)["address"] == "test.hub.bob"


def test_without_a_wallet_the_remedy_is_named(isthmus_command: Run, tmp_path: Path) -> None:
    missing = isthmus_command("wallet", "show", "--wallet", tmp_path / "none")
    assert missing.returncode == 2
    assert "isthmus wallet init" in missing.stderr
    assert missing.stderr.count("\n") == 1
