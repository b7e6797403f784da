"""The development XRP ledger under the JavaScript clients: npm xrpl, and ilp-plugin-xrp-paychan with its ripple-lib."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientSession
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from bench.js_process import JsError, JsProcess
from isthmus.ledgers.xrp.signatures import SigningKey
from tests.interop.conftest import Peers

SECONDS = 60.0
ALICE_SEED, BOB_SEED = (encode_seed(name * 8, CryptoAlgorithm.SECP256K1) for name in (b"al", b"bo"))
XRP = 1_000_000


@dataclass
class Ledger:
    """`isthmus ledger xrp-dev`, as a process."""

    web_socket: str
    json_rpc: str
    session: ClientSession

    async def ask(self, command: str, **params: Any) -> dict[str, Any]:
        async with self.session.post(self.json_rpc, json={"method": command, "params": [params]}) as response:
            return dict((await response.json())["result"])

    async def fund(self, address: str) -> None:
        async with self.session.post(f"{self.json_rpc}/accounts", json={"destination": address}) as response:
            assert response.status == 200

    async def drops(self, address: str) -> int:
        info = await self.ask("account_info", account=address, ledger_index="validated")
        return int(info["account_data"]["Balance"])


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    command = (sys.executable, "-m", "isthmus", "ledger", "xrp-dev", "--port", "0", "--close-every", "300", "--json")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    facts = json.loads(await asyncio.wait_for(process.stdout.readline(), SECONDS))
    async with ClientSession() as session:
        yield Ledger(facts["web_socket"], facts["json_rpc"], session)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), SECONDS) == 0


@pytest.fixture
async def xrpl(peers: Peers, ledger: Ledger) -> JsProcess:
    process = await peers.start("xrpl")
    connected = await process.call("connect", server=ledger.web_socket)
    assert connected == {"network": 1_000, "version": "2.6.0+isthmus"}
    return process


def faucet(ledger: Ledger) -> str:
    return ledger.json_rpc.removeprefix("http://")


async def test_xrpl_js_pays_with_keys_of_both_kinds(xrpl: JsProcess, ledger: Ledger) -> None:
    alice = await xrpl.call("fund", wallet="alice", faucet=faucet(ledger), algorithm="ed25519")
    bob = await xrpl.call("fund", wallet="bob", faucet=faucet(ledger), algorithm="secp256k1")
    assert alice["balance"] == bob["balance"] == 1_000
    await xrpl.call("request", request={"command": "subscribe", "accounts": [bob["address"]], "streams": ["ledger"]})
    for sender, receiver in (("alice", bob), ("bob", alice)):
        payment = {"TransactionType": "Payment", "Amount": str(20 * XRP), "Destination": receiver["address"]}
        result = await xrpl.call("submit", wallet=sender, transaction={**payment, "DestinationTag": 7})
        assert result["validated"] and result["meta"]["delivered_amount"] == str(20 * XRP)
        pushed = await xrpl.event("transaction", hash=result["hash"])
        assert pushed["validated"]
    await xrpl.event("ledgerClosed")
    balances = await xrpl.call("balances", wallet="alice")
    assert [each["currency"] for each in balances] == ["XRP"]
    assert 999 < float(balances[0]["value"]) < 1_000


async def test_xrpl_js_opens_and_claims_a_channel(xrpl: JsProcess, ledger: Ledger) -> None:
    alice = await xrpl.call("fund", wallet="alice", faucet=faucet(ledger), algorithm="secp256k1")
    bob = await xrpl.call("fund", wallet="bob", faucet=faucet(ledger))
    key = await xrpl.call("publicKey", wallet="alice")
    create = {
        "TransactionType": "PaymentChannelCreate",
        "Destination": bob["address"],
        "Amount": str(10 * XRP),
        "SettleDelay": 3_600,
        "PublicKey": key,
    }
    await xrpl.call("submit", wallet="alice", transaction=create)
    [channel] = (await ledger.ask("account_channels", account=alice["address"]))["channels"]
    claim = await xrpl.call("claim", wallet="alice", channel=channel["channel_id"], drops=str(4 * XRP))
    redeem = {"TransactionType": "PaymentChannelClaim", "Channel": channel["channel_id"], **claim}
    before = await ledger.drops(bob["address"])
    result = await xrpl.call("submit", wallet="bob", transaction={**redeem, "Flags": {"tfClose": True}})
    assert await ledger.drops(bob["address"]) == before + 4 * XRP - int(result["tx_json"]["Fee"])
    assert (await ledger.ask("account_channels", account=alice["address"]))["channels"] == []
    # The state with an account more and a channel that came and went has the hash that the library computes.
    index = result["ledger_index"]
    for at in (index - 1, index):
        hashes = await xrpl.call("recompute", ledger=at)
        assert hashes["computed"] == hashes["told"]
    with pytest.raises(JsError, match="tecNO_TARGET"):
        failed = await xrpl.call("submit", wallet="bob", transaction=redeem)
        raise JsError(failed["meta"]["TransactionResult"])


class Pair:
    """Two plugins on one ledger."""

    def __init__(self, alice: JsProcess, bob: JsProcess, addresses: tuple[str, str]) -> None:
        self.alice = alice
        self.bob = bob
        self.addresses = addresses


@pytest.fixture
async def pair(peers: Peers, ledger: Ledger) -> Pair:
    """Bob listens, Alice dials; both have money, and open a channel to each other."""
    alice, bob = await peers.start("paychan"), await peers.start("paychan")
    shared = {"xrpServer": ledger.web_socket, "channelAmount": str(XRP), "claimInterval": 3_600_000}
    for seed in (ALICE_SEED, BOB_SEED):
        await ledger.fund(SigningKey.from_seed(seed).address)
    listening = {**shared, "secret": BOB_SEED, "listener": {"port": 0, "secret": "s"}}
    bobs = await bob.call("start", options=listening)
    port = (await bob.event("listening"))["port"]
    alices = await alice.call(
        "start", options={**shared, "secret": ALICE_SEED, "server": f"btp+ws://:s@127.0.0.1:{port}"}
    )
    for each in (alice, bob):
        await each.event("connected", seconds=SECONDS)
    return Pair(alice, bob, (alices["address"], bobs["address"]))


async def test_two_plugins_open_channels_and_exchange_claims(pair: Pair, ledger: Ledger) -> None:
    alice, bob = pair.alice, pair.bob
    assert await alice.call("sendData", data="there and back") == "there and back"
    assert await bob.call("sendData", data="and the other way") == "and the other way"
    ours, theirs = await alice.call("channels"), await bob.call("channels")
    assert ours["outgoing"] == theirs["incoming"] and ours["incoming"] == theirs["outgoing"]
    incoming = await bob.call("incoming")
    assert incoming["amount"] == "1" and incoming["settleDelay"] == 3_600
    for sender, receiver in ((alice, bob), (bob, alice), (alice, bob)):
        await sender.call("sendMoney", amount="100000")
        assert (await receiver.event("money"))["amount"] == "100000"
    # Bob hangs up, which redeems what Alice granted him: 200,000 drops, whatever he granted her.
    before = await ledger.drops(pair.addresses[1])
    await bob.call("stop")
    fee = 12  # ripple-lib adds a fifth to the ledger's
    assert await ledger.drops(pair.addresses[1]) == before + 200_000 - fee
    channel = await ledger.ask("ledger_entry", payment_channel=ours["outgoing"], ledger_index="validated")
    assert (channel["node"]["Amount"], channel["node"]["Balance"]) == (str(XRP), "200000")


async def test_a_plugin_tops_up_its_channel_before_it_is_empty(pair: Pair, ledger: Ledger) -> None:
    await pair.alice.call("sendData", data="so that bob knows the channel")
    channel = (await pair.alice.call("channels"))["outgoing"]
    async with ledger.session.ws_connect(ledger.web_socket) as socket:
        await socket.send_json({"id": 1, "command": "subscribe", "accounts": [pair.addresses[1]]})
        await pair.alice.call("sendMoney", amount="600000")
        while True:
            message = await asyncio.wait_for(socket.receive_json(), SECONDS)
            if message.get("transaction", {}).get("TransactionType") == "PaymentChannelFund":
                break
    assert message["meta"]["TransactionResult"] == "tesSUCCESS"
    entry = await ledger.ask("ledger_entry", payment_channel=channel, ledger_index="validated")
    assert entry["node"]["Amount"] == str(2 * XRP)
