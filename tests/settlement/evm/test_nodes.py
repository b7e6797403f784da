"""Two nodes with an EVM engine each, and a real chain: packets make debts, claims pay them, a kill changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.ilp.packet import Fulfill
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.keys import Key
from tests.ledgers.evm.anvil import ETHER, Anvil, a_key
from tests.node.conftest import NodeProcess, Nodes, Peer, account, dials, free_port, toml

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
    async with asyncio.timeout(30):
        while (await east.balances())["west"] or (await west.balances())["east"]:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


async def paid(alice: Peer, amount: int) -> None:
    """Again while the link between the two isn't up yet (T01: nothing was sent)."""
    async with asyncio.timeout(30):
        while not isinstance(answer := await alice.pay("test.west.bob", amount), Fulfill):
            assert answer.code == "T01", answer
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
    await paid(alice, 3 * UNIT)
    await balanced(east, west)
    await paid(alice, 2 * UNIT)
    for node in (east, west):
        await node.kill()
    await alice.close()
    await bob.close()
    east = await nodes.run(texts[0], folder=folders[0])
    west = await nodes.run(texts[1], folder=folders[1])
    alice = await Peer("alice").dial(east.port)
    bob = (await Peer("bob").dial(west.port)).fulfil_all()
    await paid(alice, 4 * UNIT)
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
