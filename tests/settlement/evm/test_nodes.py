"""Two nodes with an EVM engine each, and a real chain: packets make debts, claims pay them, a kill changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.keys import Key
from tests.ledgers.evm.anvil import ETHER, Anvil, a_key
from tests.node.conftest import NodeProcess, Nodes, Peer, account, dials, toml
from tests.ports import free_port
from tests.settlement.conftest import isthmus

pytestmark = pytest.mark.ledger

UNIT = 10**9  # of the accounts, which have nine decimal places
WEI = 10**9  # for one of the accounts' base units
KEYS = {"east": a_key(1), "west": a_key(2)}


@pytest.fixture
async def mined(anvil: Anvil) -> AsyncIterator[Anvil]:
    """Blocks come by themselves."""
    done = asyncio.Event()

    async def mine() -> None:
        while not done.is_set():
            await anvil.mine()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(mine())
    yield anvil
    done.set()
    await task


def engine(folder: Path, anvil: Anvil, key: Key, method: str) -> str:
    file = folder / f"{key.address}.key"
    file.write_text(key.secret.hex())
    file.chmod(0o600)
    return (
        f'[settlement.chain]\ntype = "evm"\nmethod = "{method}"\nchain_id = {anvil.chain_id}\nrpc = "{anvil.url}"\n'
        f'key_file = "{file}"\nconfirmations = 3\npoll = "100 ms"\ndeposit = "50"\n'
    )


def settled(name: str, threshold: str) -> str:
    return f'[accounts.{name}.settlement]\nengine = "chain"\nthreshold = "{threshold}"\n'


def east_of(folder: Path, anvil: Anvil, port: int, method: str) -> str:
    return toml(
        account("alice", asset="ETH"),
        account("west", asset="ETH", relation="peer"),
        settled("west", "1"),
        engine(folder, anvil, KEYS["east"], method),
        address="test.east",
        btp=port,
        routes={"test.west": "west"},
    )


def west_of(folder: Path, anvil: Anvil, port: int, method: str) -> str:
    return toml(
        account("bob", asset="ETH"),
        account("east", asset="ETH", relation="peer", link=dials(port, "west")),
        settled("east", "1000"),
        engine(folder, anvil, KEYS["west"], method),
        address="test.west",
    )


async def balanced(east: NodeProcess, west: NodeProcess) -> None:
    async with asyncio.timeout(60):
        while (await east.balances())["west"] or (await west.balances())["east"]:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("method", ["channels", "transfers"])
async def test_what_packets_owe_is_paid_on_the_chain_through_kills_of_both(
    mined: Anvil, nodes: Nodes, tmp_path: Path, method: str
) -> None:
    port = free_port()
    texts = east_of(tmp_path, mined, port, method), west_of(tmp_path, mined, port, method)
    folders = tmp_path / "east", tmp_path / "west"
    before = await mined.balance(KEYS["west"].address)
    east = await nodes.run(texts[0], folder=folders[0])
    west = await nodes.run(texts[1], folder=folders[1])
    alice = await Peer("alice").dial(east.port)
    bob = (await Peer("bob").dial(west.port)).fulfil_all()
    await alice.pay_when_linked("test.west.bob", 3 * UNIT)
    await balanced(east, west)
    await alice.pay_when_linked("test.west.bob", 2 * UNIT)
    for node in (east, west):
        await node.kill()
    await alice.close()
    await bob.close()
    east = await nodes.run(texts[0], folder=folders[0])
    west = await nodes.run(texts[1], folder=folders[1])
    alice = await Peer("alice").dial(east.port)
    bob = (await Peer("bob").dial(west.port)).fulfil_all()
    await alice.pay_when_linked("test.west.bob", 4 * UNIT)
    await balanced(east, west)
    await alice.close()
    await bob.close()
    if method == "transfers":
        assert await mined.balance(KEYS["west"].address) == before + 9 * UNIT * WEI
    else:
        assert await mined.balance(contract.address()) == 50 * ETHER
    for node in (east, west):
        text = "\n".join(map(str, [*node.log, *node.lines]))
        assert not [one for one in KEYS.values() if one.secret.hex() in text]
        assert [one for one in node.log if one["event"] == "evm_engine"]


# --- the operator's view ---------------------------------------------------------------------------------------------


async def channels(node: NodeProcess, *arguments: str) -> Any:
    """What `isthmus channels … --json` says, or the one line with which it refuses."""
    done = await isthmus("channels", *arguments, "--json", "--data", node.folder / "data")
    if done.returncode:
        assert done.stderr.count("\n") == 1, done.stderr
        return done.returncode, done.stderr
    return json.loads(done.stdout)


async def until(node: NodeProcess, **wanted: str) -> dict[str, Any]:
    """The first channel of a node, once it is so."""
    async with asyncio.timeout(60):
        while True:
            found = (await channels(node, "list"))["channels"]
            if found and wanted.items() <= found[0].items():
                return dict(found[0])
            if not found and not wanted:
                return {}
            await asyncio.sleep(0.1)


async def test_an_operator_opens_funds_redeems_and_closes_a_channel(mined: Anvil, nodes: Nodes, tmp_path: Path) -> None:
    port = free_port()
    before = await mined.balance(KEYS["west"].address)
    east = await nodes.run(east_of(tmp_path, mined, port, "channels"), folder=tmp_path / "east")
    west = await nodes.run(west_of(tmp_path, mined, port, "channels"), folder=tmp_path / "west")
    alice = await Peer("alice").dial(east.port)
    bob = (await Peer("bob").dial(west.port)).fulfil_all()
    # below the threshold: nothing is settled, and both links are up
    await alice.pay_when_linked("test.west.bob", UNIT // 2)
    assert (await channels(east, "list"))["channels"] == []
    for refused in (("fund", "west", "1"), ("close", "west"), ("redeem", "west")):
        status, text = await channels(east, *refused)
        assert status == 1 and ("No channel of ours" in text or "nothing to redeem" in text)
    assert "being opened" in (await channels(east, "open", "west", "2.5"))["text"]
    await until(east, state="open", capacity=str(5 * ETHER // 2), claimed="0", direction="out")
    status, text = await channels(east, "open", "west", "1")
    assert (status, "There is a channel" in text) == (1, True)
    await alice.pay_when_linked("test.west.bob", 2 * UNIT)
    await balanced(east, west)
    owed = str(5 * ETHER // 2)
    seen = await until(west, direction="in", unredeemed=owed)
    assert (seen["account"], seen["unit_code"], seen["unit_scale"], seen["can_receive"]) == ("east", "ETH", 18, "0")
    metrics = (await west.get("/metrics"))[2].decode()
    samples = [one for family in text_string_to_metric_families(metrics) for one in family.samples]
    (unredeemed,) = (one for one in samples if one.name == "isthmus_channels_unredeemed")
    assert unredeemed.value == 2.5e18
    assert unredeemed.labels == {
        "account": "east", "direction": "in", "engine": "chain", "scale": "18", "unit": "ETH"
    }  # fmt: skip
    assert "under way" in (await channels(east, "fund", "west", "0.5"))["text"]
    await until(east, capacity=str(3 * ETHER), can_send=str(ETHER // 2))
    await channels(west, "redeem", "east")
    await until(west, redeemed=owed, unredeemed="0")
    shown = await isthmus("channels", "show", "west", "--data", east.folder / "data")
    assert (
        shown.returncode == 0 and "can send       0.5 ETH" in shown.stdout and "claimed        2.5 ETH" in shown.stdout
    )
    table = await isthmus("channels", "list", "--data", west.folder / "data")
    assert "to us" in table.stdout and "2.5 ETH" in table.stdout
    assert "being closed" in (await channels(east, "close", "west"))["text"]
    await until(east)
    await until(west)
    gained = await mined.balance(KEYS["west"].address) - before
    assert 0 < 5 * ETHER // 2 - gained < ETHER // 100  # all but the fee of the redemption
    await alice.close()
    await bob.close()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("open", "west", "0"), 2, "it is zero"),
        (("open", "west", "1.0000000000000000001"), 2, "decimals"),
        (("open", "west", "much"), 2, "is not an amount"),
        (("open", "nobody", "1"), 2, "no settlement engine with channels"),
        (("close", "nobody"), 2, "no such account"),
        (("close", "alice"), 2, "no such account, or it has no settlement engine"),
    ],
)
async def test_mistakes_are_refused_in_a_line(
    mined: Anvil, nodes: Nodes, tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    east = await nodes.run(east_of(tmp_path, mined, free_port(), "channels"), folder=tmp_path / "east")
    found = await channels(east, *arguments)
    assert found[0] == status and words in found[1], found


async def test_an_engine_without_channels_says_so(mined: Anvil, nodes: Nodes, tmp_path: Path) -> None:
    east = await nodes.run(east_of(tmp_path, mined, free_port(), "transfers"), folder=tmp_path / "east")
    assert await channels(east, "list") == {"channels": [], "accounts": []}
    status, text = await channels(east, "close", "west")
    assert status == 1 and "its ledger only transfers" in text
