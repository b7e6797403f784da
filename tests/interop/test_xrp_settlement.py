"""A node of ours and an unmodified ilp-plugin-xrp-paychan 2.4.1 as its peer: both open channels, and pay by claims."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from bench.js_process import JsProcess
from isthmus.ledgers.xrp.signatures import SigningKey
from tests.interop.conftest import Config, Peers
from tests.ledgers.xrp.dev.conftest import Serving, serving
from tests.node.conftest import NodeProcess, Nodes, account, token_of, toml
from tests.ports import free_port
from tests.settlement.conftest import isthmus
from tests.settlement.xrp.world import ask

SECONDS = 60.0
XRP = 10**6
OURS, THEIRS = (
    encode_seed(name * 4, kind)
    for name, kind in ((b"ours", CryptoAlgorithm.ED25519), (b"them", CryptoAlgorithm.SECP256K1))
)
OUR_ADDRESS, THEIR_ADDRESS = (SigningKey.from_seed(seed).address for seed in (OURS, THEIRS))


@dataclass
class World:
    """The node, the plugin, and a ledger that closes by itself. `unit`: of the account, for one drop."""

    ledger: Serving
    nodes: Nodes
    node: NodeProcess
    text: str
    plugin: JsProcess
    unit: int

    async def settle(self, xrp: str) -> None:
        done = await isthmus("settle", "plugin", xrp, "--data", self.node.folder / "data")
        assert done.returncode == 0, done.stderr

    async def channels(self, *arguments: str) -> None:
        done = await isthmus("channels", *arguments, "--data", self.node.folder / "data")
        assert done.returncode == 0, done.stderr

    async def balance(self) -> int:
        """In drops: what the plugin owes us."""
        return (await self.node.balances())["plugin"] // self.unit

    async def channel(self, source: str) -> dict[str, Any]:
        (found,) = (await ask(self.ledger, "account_channels", account=source))["channels"]
        return dict(found)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110 - over HTTP, and of other processes
            await asyncio.sleep(0.1)


def node_text(folder: Path, ledger: Serving, port: int, link: str | None, scale: int) -> str:
    file = folder / "our.seed"
    file.write_text(OURS)
    file.chmod(0o600)
    engine = (
        f'[settlement.xrp]\ntype = "xrp"\nnetwork_id = 1000\nrpc = "{ledger.json_rpc}"\nkey_file = "{file}"\n'
        'poll = "100 ms"\ndeposit = "2"\n[accounts.plugin.settlement]\nengine = "xrp"\nahead_max = "100"\n'
    )
    peer = account("plugin", asset="XRP", relation="peer", link=link).replace("scale = 9", f"scale = {scale}")
    return toml(Config.without_routes(peer), engine, address="test.us", btp=port)


@pytest.fixture(params=[("they dial", 6), ("we dial", 9)], ids=lambda one: one[0].replace(" ", "-"))
async def world(request: pytest.FixtureRequest, tmp_path: Path, peers: Peers) -> AsyncIterator[World]:
    who, scale = request.param
    nodes, port = Nodes(tmp_path), free_port()
    async with serving(close_every_ms=300) as ledger:
        for address in (OUR_ADDRESS, THEIR_ADDRESS):
            ledger.service.fund(address, 1_000)
        ledger.service.close_ledger()
        plugin = await peers.start("paychan")
        options: dict[str, Any] = {
            "xrpServer": ledger.web_socket,
            "secret": THEIRS,
            "assetScale": scale,
            "channelAmount": str(10**scale),
            "claimInterval": 3_600_000,
        }
        if who == "they dial":
            text = node_text(tmp_path, ledger, port, None, scale)
            node = await nodes.run(text)
            options["server"] = f"btp+ws://:{token_of('plugin')}@127.0.0.1:{port}"
            await plugin.call("start", options=options)
        else:
            await plugin.call("start", options={**options, "listener": {"port": 0, "secret": "s"}})
            theirs = (await plugin.event("listening"))["port"]
            link = f'{{ type = "btp-client", url = "btp+ws://127.0.0.1:{theirs}", token = "s" }}'
            text = node_text(tmp_path, ledger, port, link, scale)
            node = await nodes.run(text)
        await plugin.event("connected", seconds=SECONDS)
        yield World(ledger, nodes, node, text, plugin, 10 ** (scale - 6))
        await nodes.close()


async def test_claims_go_both_ways_and_are_paid_once_through_a_kill_of_our_node(world: World) -> None:
    plugin, unit = world.plugin, world.unit
    for amount in (100_000, 250_000):
        await plugin.call("sendMoney", amount=str(amount * unit))
    assert await world.balance() == -350_000
    await world.settle("0.35")
    assert (await plugin.event("money", seconds=SECONDS))["amount"] == str(350_000 * unit)
    await until(lambda: is_settled(world))
    assert await world.balance() == 0
    await world.node.kill()
    world.node = await world.nodes.run(world.text, folder=world.node.folder)
    await world.settle("0.5")
    assert (await plugin.event("money", seconds=SECONDS))["amount"] == str(500_000 * unit)
    await until(lambda: sends(plugin, 7 * unit))
    assert await world.balance() == 500_000 - 7
    # Their plugin redeems what it has when it hangs up, and ours when it is told to.
    await world.channels("redeem", "plugin")
    await until(lambda: is_redeemed(world, THEIR_ADDRESS, 350_007))
    await plugin.call("stop")
    await until(lambda: is_redeemed(world, OUR_ADDRESS, 850_000))


async def is_settled(world: World) -> bool:
    done = await isthmus("settlements", "list", "--json", "--data", world.node.folder / "data")
    assert done.returncode == 0, done.stderr
    return '"taken"' not in done.stdout and '"begun"' not in done.stdout


async def sends(plugin: JsProcess, amount: int) -> bool:
    """Once the link is up again."""
    try:
        await plugin.call("sendMoney", amount=str(amount))
    except Exception:  # noqa: BLE001 - not connected
        return False
    return True


async def is_redeemed(world: World, source: str, drops: int) -> bool:
    return bool((await world.channel(source))["balance"] == str(drops))


async def test_channels_of_both_grow_while_they_are_used(world: World) -> None:
    """Ours holds 2 XRP at first and theirs 1; each is told of the other's top-ups."""
    plugin, unit = world.plugin, world.unit
    got = 0
    for xrp in ("1.5", "1.25", "3"):
        await world.settle(xrp)
        got += int((await plugin.event("money", seconds=SECONDS))["amount"])
        assert got <= 5_750_000 * unit
        await until(lambda: is_settled(world))
    assert got == 5_750_000 * unit
    assert int((await world.channel(OUR_ADDRESS))["amount"]) >= 5_750_000
    await plugin.call("sendMoney", amount=str(600_000 * unit))  # more than half: it funds its channel

    async def has_grown() -> bool:
        return bool((await world.channel(THEIR_ADDRESS))["amount"] == str(2 * XRP))

    await until(has_grown)
    await until(lambda: sends(plugin, 900_000 * unit))
    assert await world.balance() == 5_750_000 - 1_500_000
