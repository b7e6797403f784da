"""`isthmus trace` along three nodes in processes of their own, with a wallet at each end."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Network

ISTHMUS = [sys.executable, "-m", "isthmus"]
WAIT_SECONDS = 60.0
Run = Callable[..., subprocess.CompletedProcess[str]]

# BTC in millionths -> USD in billionths -> whole JPY -> bob's EUR.
ASSETS = {"alice": ("BTC", 6), "one": ("USD", 9), "two": ("JPY", 0), "bob": ("EUR", 9)}


def token(name: str) -> str:
    return f"token-of-{name}-with-enough-length-0123456789"


def account(name: str, asset: str, link: str, relation: str, more: str = "") -> str:
    code, scale = ASSETS[asset]
    return (
        f'[accounts.{name}]\nasset = "{code}"\nscale = {scale}\nrelation = "{relation}"\nlink = {link}\n'
        f'[accounts.{name}.limits]\nreceivable = "unlimited"\npayable = "unlimited"\n{more}\n'
    )


def serves(name: str) -> str:
    return f'{{ type = "btp-server", token = "{token(name)}" }}'


def dials(port: int, name: str) -> str:
    return f'{{ type = "btp-client", url = "btp+ws://127.0.0.1:{port}", token = "{token(name)}" }}'


def node(address: str, routes: str, rates: str, *accounts: str) -> str:
    return (
        f'address = "{address}"\n[listeners.btp]\nlisten = "127.0.0.1:0"\n[routes]\n{routes}\n[rates]\n{rates}\n'
        + "".join(accounts)
    )


@dataclass
class Chain:
    """alice - test.one - test.two - test.three - bob; test.three.dave never connects."""

    folder: Path
    nodes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def start(self, name: str, text: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        config = folder / "node.toml"
        config.write_text(text)
        config.chmod(0o600)
        process = subprocess.Popen([*ISTHMUS, "node", "run", str(config)], stderr=subprocess.PIPE, text=True)
        self.nodes[name] = process
        assert process.stderr is not None
        for line in process.stderr:
            if '"running"' in line:
                break
        listening = json.loads((folder / "data" / "running.json").read_text())["listening"]
        self.ports[name] = int(listening["btp"].rpartition(":")[2])

    def stop(self, name: str) -> None:
        process = self.nodes[name]
        process.terminate()
        process.communicate(timeout=WAIT_SECONDS)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, isthmus_command: Run) -> Iterator[Chain]:
    chain = Chain(tmp_path_factory.mktemp("chain"))
    chain.start(
        "one",
        node(
            "test.one", '"test.two" = "two"\n"test.three" = "two"', '"BTC/USD" = "50000"',
            account("alice", "alice", serves("alice"), "child", 'packet = "1"'),
            account("two", "one", serves("two"), "peer"),
        ),
    )  # fmt: skip
    chain.start(
        "two",
        node(
            "test.two", '"test.three" = "three"\n"test.one" = "one"', '"USD/JPY" = "100"',
            account("one", "one", dials(chain.ports["one"], "two"), "peer", 'packet = "1000"'),
            account("three", "two", serves("three"), "peer"),
        ),
    )  # fmt: skip
    chain.start(
        "three",
        node(
            "test.three", '"test.two" = "two"\n"test.one" = "two"', '"JPY/EUR" = "0.005"',
            account("two", "two", dials(chain.ports["two"], "three"), "peer"),
            account("bob", "bob", serves("bob"), "child", 'packet = "20"'),
            account("dave", "bob", serves("dave"), "child"),
        ),
    )  # fmt: skip
    for name, where in (("alice", "one"), ("bob", "three")):
        url = f"btp+ws://:{token(name)}@127.0.0.1:{chain.ports[where]}"
        made = isthmus_command("wallet", "init", chain.folder / f"{name}-wallet", "--connector", url)
        assert made.returncode == 0, made.stderr
    yield chain
    for name in chain.nodes:
        if chain.nodes[name].poll() is None:
            chain.stop(name)


@pytest.fixture
def alice(chain: Chain) -> Path:
    return chain.folder / "alice-wallet"


@pytest.fixture
def bob(chain: Chain) -> Iterator[str]:
    """Where bob is paid."""
    command = [*ISTHMUS, "receive", "--wallet", str(chain.folder / "bob-wallet"), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().split()[1]
    process.send_signal(2)
    process.communicate(timeout=WAIT_SECONDS)


def traced(completed: subprocess.CompletedProcess[str], status: int) -> Any:
    assert completed.returncode == status, completed.stderr
    return json.loads(completed.stdout)


def test_all_hops_to_a_receiver_with_their_rates(alice: Path, bob: str, isthmus_command: Run) -> None:
    """CONN-9, CONN-11, ILP-15, ILP-21."""
    found = traced(isthmus_command("trace", "--wallet", alice, bob, "--json"), 0)
    assert [hop["address"] for hop in found["hops"]] == ["test.one", "test.two", "test.three", "test.three.bob"]
    assert [hop["code"] for hop in found["hops"]] == ["R02", "R02", "R02", "F06"]
    assert all(hop["ms"] > 0 for hop in found["hops"])
    one, two, three, _ = found["hops"]
    # A millionth of a bitcoin is 5 cents: 50,000,000 billionths of a dollar.
    assert one["rate_after"] == {"rate": "50000000", "from": "F08"}
    assert two["rate_after"] is None or two["rate_after"]["from"] in ("F08", "R01")
    assert int(two["received"]["maximum"]) == 1_000 * 10**9
    assert three["rate_after"] is None
    assert found["ending"]["kind"] == "reached"
    assert found["rate"] == "25000"
    assert found["packets"] <= 256
    # 20 EUR are 4,000 JPY, 40 USD, 0.0008 BTC: a packet of bob's, and no more.
    assert 800 <= int(found["largest"]) <= 1_000


def test_people_see_a_row_for_each_hop(alice: Path, bob: str, isthmus_command: Run) -> None:
    shown = isthmus_command("trace", "--wallet", alice, bob)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["1", "test.one", "R02"], ["2", "test.two", "R02"], ["3", "test.three", "R02"], ["4", "test.three.bob", "F06"],
    ]  # fmt: skip
    assert "Reached: F06" in shown.stdout
    assert "Rate: 25000 EUR for 1 BTC" in shown.stdout


def test_on_a_terminal_the_rows_come_as_they_are_known(network: "Network") -> None:
    shown = network.on_terminal("trace", "--wallet", network.wallet("alice"), "test.hub.bob", "--no-rates", answers={})
    assert shown.status == 1
    # Nobody has opened bob's account.
    assert shown.text.count("test.hub") >= 2
    assert "Not reached: T01 (Peer Unreachable) from test.hub" in shown.text


def test_an_amount_moves_nothing(alice: Path, bob: str, isthmus_command: Run) -> None:
    isthmus_command("trace", "--wallet", alice, bob)
    assert json.loads(isthmus_command("wallet", "show", "--wallet", alice, "--json").stdout)["balance"] == "0"


@pytest.mark.parametrize(
    ("target", "hops", "code", "by"),
    [
        ("test.three.nobody", 3, "F02", "test.three"),
        ("test.nowhere", 1, "F02", "test.one"),
        ("test.three.dave", 3, "T01", "test.three"),
    ],
)
def test_who_cannot_send_on_is_told(
    alice: Path, isthmus_command: Run, target: str, hops: int, code: str, by: str
) -> None:
    """CONN-12."""
    found = traced(isthmus_command("trace", "--wallet", alice, target, "--no-rates", "--json"), 1)
    assert len(found["hops"]) == hops
    assert (found["ending"]["kind"], found["ending"]["code"], found["ending"]["by"]) == ("refused", code, by)
    assert found["hops"][-1]["code"] == code


def test_a_connector_can_be_the_target(alice: Path, isthmus_command: Run) -> None:
    found = traced(isthmus_command("trace", "--wallet", alice, "test.two", "--no-rates", "--json"), 0)
    assert [hop["address"] for hop in found["hops"]] == ["test.one", "test.two"]


@pytest.mark.slow
def test_it_works_through_a_process_that_holds_the_wallet(
    chain: Chain, alice: Path, bob: str, isthmus_command: Run
) -> None:
    """Bob's wallet is held by `isthmus receive`."""
    found = traced(isthmus_command("trace", "--wallet", chain.folder / "bob-wallet", "test.one.x", "--json"), 1)
    assert [hop["address"] for hop in found["hops"]] == ["test.three", "test.two", "test.one"]
    refused = isthmus_command("trace", "--wallet", chain.folder / "bob-wallet", "test.one", "--seconds", "1000")
    assert refused.returncode == 2


@pytest.mark.slow
def test_a_node_that_is_killed_is_missed_by_the_one_before_it(chain: Chain, alice: Path, isthmus_command: Run) -> None:
    """Last: the chain is broken from here on."""
    chain.stop("three")
    found = isthmus_command("trace", "--wallet", alice, "test.three.bob")
    assert found.returncode == 1
    assert "Not reached: T01 (Peer Unreachable) from test.two" in found.stdout
