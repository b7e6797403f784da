"""Our wallet against `ilp-protocol-stream` 2.7.2-alpha.3, over our connector, over `ilp-connector`, and over both.

At one end is the library (`isthmus.connect`), at the other an endpoint of npm; all books must agree to the unit.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import isthmus
from isthmus.client.hops import EndKind
from isthmus.client.wallet import Wallet

AMOUNT = 123_456_789
SECONDS = 60.0
PATHS = ("ours", "theirs", "both")


@dataclass
class Way:
    """Where our wallet and their endpoint connect, and the npm connector between, if there is one."""

    url: str  # of our wallet's account
    plugin: Any  # of their endpoint
    connector: Any = None

    async def settles(self, *, them: int) -> None:
        """`ilp-connector` comes to this balance of their endpoint (positive: it owes the connector), and to 0 in all.

        It counts what is in flight, and their endpoint probes our address when it hears of it.
        """
        while self.connector is not None:
            status = await self.connector.call("status")
            balances = {name: int(each["balance"] or 0) for name, each in status["accounts"].items()}
            if balances["them"] == them and sum(balances.values()) == 0:
                return


@pytest.fixture(params=PATHS)
async def path(request: Any, nodes: Any, peers: Any, config: Any, port: int) -> Way:
    """`both`: our node is a child of theirs; our wallet is at ours, and their endpoint at theirs."""
    ours = f"btp+ws://:{config.TOKEN}-wallet@127.0.0.1:{port}"
    wallet = config.account("wallet", "child")
    child = peers.account("child", peers.listener())
    if request.param == "ours":
        await nodes.run(config.node(port, wallet, config.account("them", "child")), port)
        return Way(ours, peers.dial(port, token=f"{config.TOKEN}-them"))
    if request.param == "theirs":
        connector, ports = await peers.connector(wallet=child, them=child)
        return Way(f"btp+ws://:s@127.0.0.1:{ports['wallet']}", peers.dial(ports["them"]), connector)
    connector, ports = await peers.connector(us=child, them=child)
    uplink = config.account("uplink", "parent", dial=ports["us"])
    await nodes.run(config.node(port, uplink, wallet, address=None), port)
    await connector.event("connected", account="us")
    return Way(ours, peers.dial(ports["them"]), connector)


@asynccontextmanager
async def at(path: Way) -> AsyncIterator[Wallet]:
    async with asyncio.timeout(SECONDS), isthmus.connect(path.url) as wallet:
        assert (wallet.asset.code, wallet.asset.scale) == ("XRP", 9)
        yield wallet


async def test_our_wallet_pays_them(path: Way, peers: Any) -> None:
    """STREAM-11, STREAM-13: a fixed source amount, then a fixed destination amount."""
    them = await peers.endpoint(path.plugin)
    first = await them.call("listen")
    second = await them.call("credentials")
    async with at(path) as wallet:
        paid = await wallet.pay(first["address"], AMOUNT, secret=bytes.fromhex(first["secret"]), min_rate=1)
        assert (paid.status, paid.sent, paid.delivered) == ("completed", AMOUNT, AMOUNT)
        fixed = await wallet.pay(
            second["address"], 1_000, deliver=True, secret=bytes.fromhex(second["secret"]), min_rate="0.99"
        )
        assert (fixed.status, fixed.delivered) == ("completed", 1_000)
        assert wallet.balance == -(AMOUNT + fixed.sent)
        received = [int((await them.event("end"))["received"]) for _ in range(2)]
        assert received == [AMOUNT, 1_000]
        await path.settles(them=-(AMOUNT + 1_000))


async def test_they_pay_our_wallet(path: Way, peers: Any) -> None:
    them = await peers.endpoint(path.plugin)
    async with at(path) as wallet:
        invitation = wallet.listen().invite()
        paid = await them.call(
            "pay", amount=str(AMOUNT), address=invitation.address, secret=invitation.shared_secret.hex()
        )
        assert (paid["sent"], paid["delivered"]) == (str(AMOUNT), str(AMOUNT))
        assert (paid["destinationAssetCode"], paid["destinationAssetScale"]) == ("XRP", 9)
        assert wallet.balance == AMOUNT
        (receipts,) = wallet.received().values()
        assert receipts.total == AMOUNT
        await path.settles(them=AMOUNT)


async def test_money_and_data_both_ways_on_our_connection(path: Way, peers: Any) -> None:
    """STREAM-19, STREAM-22: they answer our first bytes, and send money back on the same stream."""
    them = await peers.endpoint(path.plugin)
    credentials = await them.call("listen", giveBack="50", answer="pong")
    async with (
        at(path) as wallet,
        await wallet.open(credentials["address"], bytes.fromhex(credentials["secret"]), min_rate=1) as connection,
    ):
        stream = connection.stream()
        stream.limit(None)
        await stream.write(b"ping")
        sent = await stream.send(1_000)
        assert (sent.sent, sent.delivered) == (1_000, 1_000)
        heard = b""
        while len(heard) < 4:
            heard += await stream.read()
        money = await anext(stream)
        assert (heard, money.amount) == (b"pong", 50)
        assert (await them.event("data"))["text"] == "ping"
        assert wallet.balance == -950


async def test_money_and_data_both_ways_on_theirs(path: Way, peers: Any) -> None:
    """The library's `listen`: iterate connections, streams, money; write and send back."""
    them = await peers.endpoint(path.plugin)
    got: dict[str, Any] = {}

    async def serve(listener: Any) -> None:
        async for connection in listener:
            async for stream in connection:
                got["money"] = (await anext(stream)).amount
                got["text"] = await stream.read()
                await stream.write(b"pong")
                await connection.require_rate(1)
                got["back"] = (await stream.send(50)).delivered
                return

    async with asyncio.timeout(SECONDS), isthmus.listen(path.url) as listener:
        serving = asyncio.create_task(serve(listener))
        talk = {"text": "ping", "amount": "1000", "expectText": "pong", "expectMoney": "50"}
        heard, _ = await asyncio.gather(
            them.call("exchange", **talk, address=listener.address, secret=listener.secret.hex()), serving
        )
    assert (heard["heard"], heard["sent"], heard["received"]) == ("pong", "1000", "50")
    assert (got["text"], got["back"]) == (b"ping", 50) and 0 < got["money"] <= 1_000


# --- the command line and SPSP ---------------------------------------------------------------------------------------


async def isthmus_command(*arguments: str, **environment: str) -> Any:
    """A process of the command line; its standard output is read by the test."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "isthmus",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )


async def output(*arguments: str, **environment: str) -> Any:
    """What a command with --json printed."""
    process = await isthmus_command(*arguments, **environment)
    async with asyncio.timeout(SECONDS):
        out, _ = await process.communicate()
    assert process.returncode == 0, out
    return json.loads(out)


async def make_wallet(path: Way, folder: Path) -> None:
    scheme, _, rest = path.url.partition("://:")
    token, _, place = rest.partition("@")
    made = await output(
        "wallet", "init", str(folder), "--connector", f"{scheme}://{place}", "--json", ISTHMUS_TOKEN=token
    )
    assert made["asset"]["code"] == "XRP"


async def test_isthmus_pay_pays_the_npm_spsp_server(path: Way, peers: Any, tmp_path: Path) -> None:
    """SPSP-1, SPSP-8."""
    them = await peers.endpoint(path.plugin)
    url = (await them.call("spspListen", amount="7770"))["url"]
    folder = tmp_path / "wallet"
    await make_wallet(path, folder)
    paid = await output("pay", url, "0.00000777", "--min-rate", "1", "--yes", "--json", "--wallet", str(folder))
    assert (paid["status"], paid["sent"], paid["delivered"]) == ("completed", "7770", "7770")


async def test_the_npm_spsp_client_pays_isthmus_receive(path: Way, peers: Any, tmp_path: Path) -> None:
    """SPSP-2, SPSP-8."""
    folder = tmp_path / "wallet"
    await make_wallet(path, folder)
    # Not ended by --until: their client says goodbye on the connection, and would wait for somebody to hear it.
    process = await isthmus_command("receive", "--listen", "127.0.0.1:0", "--json", "--wallet", str(folder))
    async with asyncio.timeout(SECONDS):
        announced = json.loads(await process.stdout.readline())
        them = await peers.endpoint(path.plugin)
        paid = await them.call("spspPay", url=announced["receiving"]["url"], amount="777")
        assert paid == {"totalSent": "777"}
        came = 0
        while came < 777:
            came += int(json.loads(await process.stdout.readline())["money"]["amount"])
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert came == 777


async def test_a_trace_shows_their_connector_and_their_receiver(path: Way, peers: Any, request: Any) -> None:
    """CONN-9, CONN-12, ILP-15: what they answer to packets with little time, large ones, and ones without a route."""
    them = await peers.endpoint(path.plugin)
    credentials = await them.call("listen")
    connectors = {"ours": ["test.isthmus"], "theirs": ["test.js"], "both": ["test.js.us", "test.js"]}
    between = connectors[request.node.callspec.params["path"]]
    async with at(path) as wallet:
        found = await wallet.trace(credentials["address"], secret=bytes.fromhex(credentials["secret"]))
        assert [hop.address for hop in found.hops][:-1] == between
        assert found.ending.kind is EndKind.REACHED
        assert found.rate == 1
        lost = await wallet.trace("test.elsewhere")
        assert (lost.ending.kind, lost.ending.code, lost.ending.by) == (EndKind.REFUSED, "F02", between[-1])
        assert [hop.address for hop in lost.hops] == between
