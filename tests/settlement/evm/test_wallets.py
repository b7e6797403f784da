"""A wallet that is paid by a channel on a real chain: what it redeems before it closes, and what it says if not."""

import asyncio
import json
from pathlib import Path

import pytest

from isthmus.ledgers.evm import contract
from tests.ledgers.evm.anvil import ETHER, Anvil
from tests.node.conftest import NodeProcess, Nodes, account, token_of, toml
from tests.settlement.conftest import isthmus
from tests.settlement.evm.test_nodes import KEYS, engine, mined, settled
from tests.settlement.test_wallets import Receiver

__all__ = ["mined"]

pytestmark = pytest.mark.ledger


async def hub(nodes: Nodes, folder: Path, anvil: Anvil, threshold: str) -> NodeProcess:
    """Pays Bob by a channel from this much on."""
    text = toml(
        account("alice", asset="ETH"),
        account("bob", asset="ETH", receivable="0"),
        settled("bob", threshold),
        engine(folder, anvil, KEYS["east"], "channels"),
    )
    return await nodes.run(text)


async def wallet(node: NodeProcess, folder: Path, anvil: Anvil, more: str = "") -> Path:
    place = folder / "bob"
    url = f"btp+ws://:{token_of('bob')}@127.0.0.1:{node.port}"
    made = await isthmus("wallet", "init", place, "--connector", url)
    assert made.returncode == 0, made.stderr
    key = folder / "bob.key"
    key.write_text(KEYS["west"].secret.hex())
    key.chmod(0o600)
    (place / "settlement.toml").write_text(
        f'type = "evm"\nreceivable = "100"\n[engine]\nchain_id = {anvil.chain_id}\nrpc = "{anvil.url}"\n'
        f'key_file = "{key}"\nconfirmations = 3\npoll = "100 ms"\ndeposit = "1"\n{more}'
    )
    return place


async def paid_to(node: NodeProcess, receiver: Receiver, amount: str, folder: Path) -> None:
    """Alice's plain wallet pays; she has credit."""
    place = folder / "alice"
    if not place.exists():
        url = f"btp+ws://:{token_of('alice')}@127.0.0.1:{node.port}"
        assert (await isthmus("wallet", "init", place, "--connector", url)).returncode == 0
    done = await isthmus("pay", "--wallet", place, receiver.url, amount, "--min-rate", "1")
    assert done.returncode == 0, done.stderr


async def claimed(node: NodeProcess, amount: int) -> None:
    """Until the connector's channel has signed so much for Bob."""
    async with asyncio.timeout(60):
        while True:
            done = await isthmus("channels", "list", "--json", "--data", node.folder / "data")
            found = json.loads(done.stdout)["channels"]
            if found and int(found[0]["claimed"]) == amount and not (await node.balances())["bob"]:
                return
            await asyncio.sleep(0.1)


async def test_what_a_channel_owes_is_redeemed_before_the_wallet_closes(
    mined: Anvil, nodes: Nodes, tmp_path: Path
) -> None:
    before = await mined.balance(KEYS["west"].address)
    node = await hub(nodes, tmp_path, mined, "1")
    bob = await wallet(node, tmp_path, mined)
    receiving = await asyncio.to_thread(Receiver, bob)
    await paid_to(node, receiving, "2.5", tmp_path)
    await claimed(node, 5 * ETHER // 2)
    status, _, err = await asyncio.to_thread(receiving.end)
    assert status == 0 and "Redeemed 2.5 ETH on the ledger." in err, err
    gained = await mined.balance(KEYS["west"].address) - before
    assert 0 < 5 * ETHER // 2 - gained < ETHER // 100
    ended = await isthmus("wallet", "redeem", "--end", "--wallet", bob)
    assert ended.returncode == 0, ended.stderr
    assert await mined.balance(contract.address()) == 0


async def test_what_is_worth_less_than_the_fee_is_left_and_said(mined: Anvil, nodes: Nodes, tmp_path: Path) -> None:
    """Less than the gas of a redemption, at the chain's price; `wallet redeem` takes it whatever it costs."""
    node = await hub(nodes, tmp_path, mined, "0.000001")
    bob = await wallet(node, tmp_path, mined)
    receiving = await asyncio.to_thread(Receiver, bob)
    await paid_to(node, receiving, "0.000002", tmp_path)
    await claimed(node, 2_000 * 10**9)
    status, _, err = await asyncio.to_thread(receiving.end)
    assert status == 0 and "Not redeemed: 0.000002 ETH" in err and "24 h" in err, err
    shown = await isthmus("wallet", "show", "--wallet", bob)
    assert "evm: not running now" in shown.stdout
    all_the_same = await isthmus("wallet", "redeem", "--wallet", bob)
    assert (all_the_same.returncode, all_the_same.stdout) == (0, "Redeemed 0.000002 ETH on the ledger.\n")


async def test_a_channel_that_could_end_while_the_wallet_is_closed_is_refused(
    mined: Anvil, nodes: Nodes, tmp_path: Path
) -> None:
    """The wallet asks for a delay as long as it may be away; a claim on a channel with less pays nothing."""
    node = await hub(nodes, tmp_path, mined, "1")
    bob = await wallet(node, tmp_path, mined, 'settle_delay_min = "720 h"\nsettle_delay_max = "720 h"\n')
    receiving = await asyncio.to_thread(Receiver, bob)
    await paid_to(node, receiving, "2", tmp_path)
    line = await node.until("evm_settle_delay_too_long")
    assert line["account"] == "bob"
    status, _, err = await asyncio.to_thread(receiving.end)
    assert status == 0 and "Redeemed" not in err
