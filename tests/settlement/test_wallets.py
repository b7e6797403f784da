"""Wallets that settle with their connector: one pays ahead and has no credit, one is paid and gives little."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.node.engines.kinds import KINDS
from isthmus.node.wallet_settlement import load_wallet_settlement
from tests.node.conftest import NodeProcess, Nodes, account, token_of, toml
from tests.settlement.conftest import WRAPPER, engine, isthmus, settles
from tests.settlement.toy import KIND, KIND_NAME, ToyLedger

USD = 10**9
PRICE = ("--min-rate", "1")


@pytest.fixture
async def node(nodes: Nodes, ledger: ToyLedger) -> NodeProcess:
    """Alice gets no credit; Bob is paid as soon as he is owed one USD."""
    text = toml(
        account("alice", receivable="0", payable="100", packet="0.5"),
        account("bob", receivable="0", payable="100", packet="0.5"),
        settles("alice", "alice", threshold="50"),
        settles("bob", "bob", threshold="1"),
        engine(ledger, "hub"),
    )
    return await nodes.run(text, wrapper=WRAPPER)


async def wallet(node: NodeProcess, folder: Path, name: str, ledger: ToyLedger, settlement: str) -> Path:
    """A wallet that is `name` on the ledger, where the connector is `hub`."""
    place = folder / name
    url = f"btp+ws://:{token_of(name)}@127.0.0.1:{node.port}"
    made = await isthmus("wallet", "init", place, "--connector", url)
    assert made.returncode == 0, made.stderr
    own = f'[engine]\nurl = "{ledger.url}"\nholder = "{name}"\n'
    (place / "settlement.toml").write_text(f'type = "toy"\nholder = "hub"\n{settlement}{own}')
    return place


class Receiver:
    """`isthmus receive` of a wallet."""

    def __init__(self, folder: Path) -> None:
        command = [*WRAPPER, "receive", "--wallet", str(folder), "--listen", "127.0.0.1:0", "--json"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=dict(os.environ))
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["receiving"]["url"]

    def end(self) -> tuple[int, str, str]:
        self.process.send_signal(2)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@pytest.fixture
async def receivers() -> AsyncIterator[list[Receiver]]:
    running: list[Receiver] = []
    yield running
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


async def shown(folder: Path) -> dict[str, Any]:
    done = await isthmus("wallet", "show", "--wallet", folder, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
async def test_a_payer_pays_ahead_and_its_receiver_is_paid_on_the_ledger(
    node: NodeProcess, tmp_path: Path, ledger: ToyLedger, receivers: list[Receiver]
) -> None:
    """Not a unit is owed that was not agreed: at most one USD to Bob, and nothing by Alice."""
    alice = await wallet(node, tmp_path, "alice", ledger, 'threshold = "-2"\ntarget = "-5"\n')
    bob = await wallet(node, tmp_path, "bob", ledger, 'receivable = "2"\n')
    receiving = await asyncio.to_thread(Receiver, bob)
    receivers.append(receiving)
    paid = await isthmus("pay", "--wallet", alice, receiving.url, "12", *PRICE, "--json")
    assert paid.returncode == 0, paid.stderr + paid.stdout
    assert json.loads(paid.stdout.splitlines()[-1])["delivered"] == str(12 * USD)
    balances = await node.balances()
    sent = ledger.sent("alice")
    assert balances["alice"] == 12 * USD - sent  # what is left of what she paid ahead: we owe it to her
    assert -5 * USD <= balances["alice"] <= -2 * USD
    status, out, err = receiving.end()
    assert status == 0, err
    assert sum(int(json.loads(one)["money"]["amount"]) for one in out.splitlines() if "money" in one) == 12 * USD
    assert ledger.sent("hub") + -(await node.balances())["bob"] == 12 * USD
    assert -(await node.balances())["bob"] < USD
    found = await shown(alice)
    assert int(found["balance"]) == -balances["alice"]


@pytest.mark.slow
async def test_an_operator_of_a_wallet_settles_by_hand(node: NodeProcess, tmp_path: Path, ledger: ToyLedger) -> None:
    alice = await wallet(node, tmp_path, "alice", ledger, 'ahead_max = "3"\n')
    done = await isthmus("wallet", "settle", "2.5", "--wallet", alice, "--key", "k")
    assert (done.returncode, done.stdout) == (0, "Settled 2.5 USD.\n"), done.stderr
    again = await isthmus("wallet", "settle", "2.5", "--wallet", alice, "--key", "k", "--json")
    assert json.loads(again.stdout)["amount"] == str(5 * USD // 2)
    assert ledger.sent("alice") == 5 * USD // 2
    refused = await isthmus("wallet", "settle", "1", "--wallet", alice)
    assert refused.returncode == 1 and "ahead_max" in refused.stderr and refused.stderr.count("\n") == 1
    for words, text in (("0", "zero"), ("much", "not an amount"), ("0.0000000001", "decimals")):
        wrong = await isthmus("wallet", "settle", words, "--wallet", alice)
        assert wrong.returncode == 2 and text in wrong.stderr and wrong.stderr.count("\n") == 1
    nothing = await isthmus("wallet", "redeem", "--wallet", alice)
    assert (nothing.returncode, nothing.stdout) == (0, "There is nothing to redeem.\n")
    assert int((await shown(alice))["balance"]) == 5 * USD // 2


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["asked", "done"])
async def test_a_wallet_that_is_killed_in_a_settlement_pays_it_once(
    node: NodeProcess, tmp_path: Path, ledger: ToyLedger, moment: str
) -> None:
    """SE-9: whether the ledger had done it or not, the next process goes on with the same transfer."""
    alice = await wallet(node, tmp_path, "alice", ledger, 'ahead_max = "3"\n')
    if moment == "asked":
        ledger.gate.clear()
    else:
        ledger.loses_answers = 1_000_000
    command = [*WRAPPER, "wallet", "settle", "2", "--wallet", str(alice)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await ledger.until(lambda: ledger.attempts and (moment == "asked" or ledger.transfers))
    process.kill()
    await process.wait()
    ledger.loses_answers = 0
    ledger.gate.set()
    again = await isthmus("wallet", "settle", "1", "--wallet", alice)
    assert again.returncode == 0, again.stderr
    assert [int(one["amount"]) for one in ledger.transfers if one["source"] == "alice"] == [2 * USD, USD]
    assert (await node.balances())["alice"] == -3 * USD
    assert int((await shown(alice))["balance"]) == 3 * USD


@pytest.mark.slow
async def test_a_connector_that_does_not_settle_is_stopped_at_the_limit(
    nodes: Nodes, tmp_path: Path, ledger: ToyLedger, receivers: list[Receiver]
) -> None:
    """Bob gives two USD of credit and no more, whatever the payer sends."""
    text = toml(
        account("alice", receivable="100", payable="100", packet="0.5"),
        account("bob", receivable="0", payable="100", packet="0.5"),
        settles("bob", "bob"),  # only when the operator says so
        engine(ledger, "hub"),
    )
    node = await nodes.run(text, wrapper=WRAPPER)
    alice = tmp_path / "plain"
    url = f"btp+ws://:{token_of('alice')}@127.0.0.1:{node.port}"
    assert (await isthmus("wallet", "init", alice, "--connector", url)).returncode == 0
    bob = await wallet(node, tmp_path, "bob", ledger, 'receivable = "2"\n')
    receiving = await asyncio.to_thread(Receiver, bob)
    receivers.append(receiving)
    paying = asyncio.create_task(isthmus("pay", "--wallet", alice, receiving.url, "6", *PRICE, "--json"))
    async with asyncio.timeout(60):
        while (await node.balances())["bob"] > -2 * USD:  # noqa: ASYNC110  (over HTTP)
            await asyncio.sleep(0.05)
    data = node.folder / "data"
    for _ in range(3):
        assert (await node.balances())["bob"] >= -2 * USD
        settled = await isthmus("settle", "bob", "--data", data)
        assert settled.returncode == 0, settled.stderr
        async with asyncio.timeout(60):
            while (await node.balances())["bob"] > -2 * USD and not paying.done():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    paid = await paying
    assert paid.returncode == 0, paid.stderr
    assert receiving.end()[0] == 0


HEAD = 'type = "toy"\nholder = "hub"\n'
ENGINE = '[engine]\nurl = "http://x"\nholder = "a"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "settlement.toml: type: missing"),
        ('type = "rfc38"\n', "settlement.toml, line 1: type"),
        (HEAD + 'threshold = "1"\n', "settlement.toml: engine: missing"),
        (HEAD + 'colour = "red"\n' + ENGINE, "colour"),
        (HEAD + 'threshold = "-1"\n' + ENGINE, "line 3: threshold: -1000000000 is not above the target"),
        (HEAD + 'receivable = "0.0000000001"\n' + ENGINE, "line 3: receivable: "),
        ("type = ", "settlement.toml: not TOML"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setitem(KINDS, KIND_NAME, KIND)
    (tmp_path / "settlement.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_wallet_settlement(tmp_path, Asset("USD", 9), {})
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_what_the_file_says_is_what_the_wallet_settles_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, KIND_NAME, KIND)
    assert load_wallet_settlement(tmp_path, Asset("USD", 9), {}) is None
    terms = 'threshold = "-2"\ntarget = "-5"\nreceivable = "3"\ncolor = "red"\n'
    (tmp_path / "settlement.toml").write_text(HEAD + terms + ENGINE)
    found = load_wallet_settlement(tmp_path, Asset("USD", 9), {})
    assert found is not None
    assert (found.terms.threshold, found.terms.target, found.terms.ahead_max) == (-2 * USD, -5 * USD, 5 * USD)
    assert (found.receivable_max, found.kind) == (3 * USD, "toy")
    assert found.settings == {"holder": "hub", "color": "red"}


@pytest.mark.slow
async def test_a_wallet_without_the_file_says_what_to_do(node: NodeProcess, tmp_path: Path, ledger: ToyLedger) -> None:
    alice = await wallet(node, tmp_path, "alice", ledger, "")
    (alice / "settlement.toml").unlink()
    for command in ("settle", "redeem"):
        done = await isthmus("wallet", command, "--wallet", alice)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "settlement.toml" in done.stderr
