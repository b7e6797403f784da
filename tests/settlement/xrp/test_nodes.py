"""Two nodes with an XRP engine each, and a ledger that closes by itself: packets make debts, claims pay them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from isthmus.ilp.packet import Fulfill
from isthmus.ledgers.xrp.signatures import SigningKey
from tests.ledgers.xrp.dev.conftest import Serving, serving
from tests.node.conftest import NodeProcess, Nodes, Peer, account, dials, token_of, toml
from tests.ports import free_port
from tests.settlement.conftest import isthmus
from tests.settlement.relay import relay
from tests.settlement.xrp.world import ask

pytestmark = pytest.mark.slow

UNIT = 10**9  # of the accounts, which have nine decimal places
XRP = 10**6
SEEDS = {
    "east": encode_seed(b"east" * 4, CryptoAlgorithm.ED25519),
    "west": encode_seed(b"west" * 4, CryptoAlgorithm.SECP256K1),
}


def address(name: str) -> str:
    return SigningKey.from_seed(SEEDS[name]).address


@pytest.fixture
async def closing() -> AsyncIterator[Serving]:
    async with serving(close_every_ms=300) as ledger:
        for name in SEEDS:
            ledger.service.fund(address(name), 1_000)
        ledger.service.close_ledger()
        yield ledger


def engine(folder: Path, ledger: Serving, name: str, kind: str = "xrp") -> str:
    file = folder / f"{name}.seed"
    file.write_text(SEEDS[name])
    file.chmod(0o600)
    deposit = 'deposit = "50"\n' if kind == "xrp" else ""
    return (
        f'[settlement.xrp]\ntype = "{kind}"\nnetwork_id = 1000\nrpc = "{ledger.json_rpc}"\n'
        f'key_file = "{file}"\npoll = "100 ms"\n{deposit}'
    )


def settled(name: str, threshold: str) -> str:
    return f'[accounts.{name}.settlement]\nengine = "xrp"\nthreshold = "{threshold}"\n'


def east_of(folder: Path, ledger: Serving, port: int, kind: str = "xrp") -> str:
    return toml(
        account("alice", asset="XRP"),
        account("west", asset="XRP", relation="peer"),
        settled("west", "1"),
        engine(folder, ledger, "east", kind),
        address="test.east",
        btp=port,
        routes={"test.west": "west"},
    )


def west_of(folder: Path, ledger: Serving, port: int, kind: str = "xrp") -> str:
    return toml(
        account("bob", asset="XRP"),
        account("east", asset="XRP", relation="peer", link=dials(port, "west")),
        settled("east", "1000"),
        engine(folder, ledger, "west", kind),
        address="test.west",
    )


async def balanced(east: NodeProcess, west: NodeProcess) -> None:
    async with asyncio.timeout(60):
        while (await east.balances())["west"] or (await west.balances())["east"]:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


async def drops(ledger: Serving, name: str) -> int:
    found = await ask(ledger, "account_info", account=address(name), ledger_index="validated")
    return int(found["account_data"]["Balance"])


async def test_what_packets_owe_is_paid_by_claims_through_kills_of_both(
    closing: Serving, nodes: Nodes, tmp_path: Path
) -> None:
    port = free_port()
    texts = east_of(tmp_path, closing, port), west_of(tmp_path, closing, port)
    folders = tmp_path / "east", tmp_path / "west"
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
    (channel,) = (await ask(closing, "account_channels", account=address("east")))["channels"]
    assert (channel["amount"], channel["balance"]) == (str(50 * XRP), "0")
    before = await drops(closing, "west")
    assert (await channels(west, "redeem", "east", "--end"))["account"] == "east"
    async with asyncio.timeout(60):
        while (await channels(west, "list"))["channels"]:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.1)
    assert await drops(closing, "west") == before + 9 * XRP - 10
    for node in (east, west):
        text = "\n".join(map(str, [*node.log, *node.lines]))
        assert not [seed for seed in SEEDS.values() if seed in text]
        assert [one for one in node.log if one["event"] == "xrp_engine"]


async def test_what_packets_owe_is_paid_by_payments_through_a_kill_of_the_payer(
    closing: Serving, nodes: Nodes, tmp_path: Path
) -> None:
    port = free_port()
    texts = east_of(tmp_path, closing, port, "xrp-payment"), west_of(tmp_path, closing, port, "xrp-payment")
    before = await drops(closing, "west")
    east = await nodes.run(texts[0], folder=tmp_path / "east")
    west = await nodes.run(texts[1], folder=tmp_path / "west")
    alice = await Peer("alice").dial(east.port)
    bob = (await Peer("bob").dial(west.port)).fulfil_all()
    await alice.pay_when_linked("test.west.bob", 3 * UNIT)
    await east.kill()
    await alice.close()
    east = await nodes.run(texts[0], folder=tmp_path / "east")
    alice = await Peer("alice").dial(east.port)
    await alice.pay_when_linked("test.west.bob", 4 * UNIT)
    await balanced(east, west)
    await alice.close()
    await bob.close()
    assert await drops(closing, "west") == before + 7 * XRP


async def test_a_claim_that_a_broken_link_kept_back_leaves_when_it_is_whole(
    closing: Serving, nodes: Nodes, tmp_path: Path
) -> None:
    """At once: the next look at the ledger, at which claims go again too, is ten minutes away here."""
    port = free_port()
    text = east_of(tmp_path, closing, port).replace('threshold = "1"', 'threshold = "1"\nahead_max = "1"')
    async with relay(port) as wire:
        east = await nodes.run(text, folder=tmp_path / "east")
        west = await nodes.run(west_of(tmp_path, closing, wire.port), folder=tmp_path / "west")
        alice = await Peer("alice").dial(east.port)
        bob = (await Peer("bob").dial(west.port)).fulfil_all()
        await alice.pay_when_linked("test.west.bob", 3 * UNIT)  # opens the channel
        await balanced(east, west)
        await alice.close()
        assert await east.stop() == 0
        east = await nodes.run(text.replace("100 ms", "600 s"), folder=tmp_path / "east")
        alice = await Peer("alice").dial(east.port)
        await alice.pay_when_linked("test.west.bob", 2 * UNIT)
        await balanced(east, west)
        wire.cut()
        async with asyncio.timeout(60):
            while (await east.accounts())["west"]["link"] != "down":  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.05)
        done = await isthmus("settle", "west", "1", "--data", east.folder / "data")
        assert done.returncode == 0, done.stderr
        await east.until("xrp_claim_not_taken", account="west")
        wire.heal()
        await west.until("settlement_received", account="east", amount=str(UNIT))
        await east.until("settlement_confirmed", account="west", number=3)
        await alice.close()
        await bob.close()
        assert (await west.balances())["east"] == -UNIT
        for node in (west, east):
            assert await node.stop() == 0


def posts_to(port: int, name: str, us: str) -> str:
    """A link by ILP over HTTP: each side POSTs to the other."""
    outgoing, incoming = (f'{{ auth = "bearer", token = "{token_of(one)}" }}' for one in (us, name))
    return f'{{ type = "http", url = "http://127.0.0.1:{port}/ilp", outgoing = {outgoing}, incoming = {incoming} }}'


async def test_claims_go_over_http_links_too_through_a_kill_of_who_is_paid(
    closing: Serving, nodes: Nodes, tmp_path: Path
) -> None:
    """Both engines' messages are Prepares to `peer.settle`."""
    east_port, west_port = free_port(), free_port()
    texts = [
        toml(
            account(wallet, asset="XRP"),
            account(peer, asset="XRP", relation="peer", link=posts_to(theirs, peer, us)),
            settled(peer, "1"),
            engine(tmp_path, closing, us),
            address=f"test.{us}",
            http=ours,
            routes={f"test.{peer}": peer},
        )
        for us, peer, wallet, ours, theirs in (
            ("east", "west", "alice", east_port, west_port),
            ("west", "east", "bob", west_port, east_port),
        )
    ]
    east = await nodes.run(texts[0], folder=tmp_path / "east")
    west = await nodes.run(texts[1], folder=tmp_path / "west")
    alice = (await Peer("alice").dial(east.port)).fulfil_all()
    bob = (await Peer("bob").dial(west.port)).fulfil_all()
    await alice.pay_when_linked("test.west.bob", 3 * UNIT)
    await balanced(east, west)
    assert isinstance(await bob.pay("test.east.alice", 2 * UNIT), Fulfill)
    await balanced(east, west)
    await bob.close()
    await west.kill()
    west = await nodes.run(texts[1], folder=tmp_path / "west")
    bob = (await Peer("bob").dial(west.port)).fulfil_all()
    await alice.pay_when_linked("test.west.bob", 4 * UNIT)
    await balanced(east, west)
    await alice.close()
    await bob.close()
    found = [(one["direction"], one["claimed"]) for one in (await channels(west, "list"))["channels"]]
    assert found == [("out", str(2 * XRP)), ("in", str(7 * XRP))]


async def channels(node: NodeProcess, *arguments: str) -> Any:
    """What `isthmus channels … --json` says."""
    done = await isthmus("channels", *arguments, "--json", "--data", node.folder / "data")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
