"""RFC 38 with an engine on npm's ilp-settlement-core 0.1.1. No client of an engine is in the registries any more."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.js_process import JsProcess
from tests.interop.conftest import Peers
from tests.node.conftest import NodeProcess, Nodes, Peer, account, dials, toml
from tests.ports import free_port

USD = 10**9


def settled(name: str, engine: int, listen: int, threshold: str) -> str:
    """What a node's file says of its engine, and of the account that it settles."""
    return (
        f'[settlement.js]\ntype = "rfc38"\nurl = "http://127.0.0.1:{engine}"\nlisten = "127.0.0.1:{listen}"\n'
        f'[accounts.{name}.settlement]\nengine = "js"\nthreshold = "{threshold}"\n'
    )


class Pair:
    """Two nodes of ours, each with an engine of theirs; Alice is a wallet of east, Bob one of west."""

    east: NodeProcess
    west: NodeProcess
    engines: dict[str, JsProcess]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    nodes, peers, pair = Nodes(tmp_path), Peers(tmp_path), Pair()
    port = free_port()
    pair.engines = {}
    for us, them, link in (("east", "west", None), ("west", "east", dials(port, "west"))):
        engine, listen = free_port(), free_port()
        pair.engines[us] = await peers.start("settlement")
        await pair.engines[us].call("start", port=engine, connectorUrl=f"http://127.0.0.1:{listen}")
        text = toml(
            account(f"{us}-wallet"),
            account(them, relation="peer", link=link),
            settled(them, engine, listen, "10"),
            address=f"test.{us}",
            btp=port if us == "east" else 0,
            routes={f"test.{them}": them},
        )
        setattr(pair, us, await nodes.run(text))
    yield pair
    await nodes.close()
    await peers.close()


async def pay(pair: Pair, amount: int) -> None:
    alice = await Peer("east-wallet").dial(pair.east.port)
    bob = (await Peer("west-wallet").dial(pair.west.port)).fulfil_all()
    await alice.pay_when_linked("test.west.west-wallet", amount)
    await alice.close()
    await bob.close()


async def test_an_engine_of_theirs_pays_and_credits_for_our_nodes(pair: Pair) -> None:
    """SE-2, SE-3, SE-5, SE-1: by the node's threshold; the amount is exact in both."""
    for us, them in (("east", "west"), ("west", "east")):
        await pair.engines[us].event("account", account=them)
    await pay(pair, 12 * USD + 345)
    told = await pair.engines["east"].event("settle", account="west")
    assert told["amount"] == "12.000000345"
    await pair.east.until("settlement_ended", account="west")
    assert (await pair.east.balances())["west"] == 0
    for _ in range(2):
        await pair.engines["west"].call("credit", account="east", amount="12.000000345", id="transfer-1")
    assert (await pair.west.balances())["east"] == 0


async def test_fractions_are_ours_to_keep(pair: Pair) -> None:
    """SE-11: what we answer tells their engine that we have all of it, so that it doesn't send the rest again."""
    await pay(pair, USD)
    credit: Any = pair.engines["west"].call
    await credit("credit", account="east", amount="0.0000000006", id="a")
    assert (await pair.west.balances())["east"] == USD
    await credit("credit", account="east", amount="0.0000000006", id="b")
    assert (await pair.west.balances())["east"] == USD - 1


async def test_their_engines_messages_pass_through_our_nodes(pair: Pair) -> None:
    """SE-4, SE-12."""
    await pair.west.until("engine_knows_account")
    await pay(pair, 1)  # the link between the two is up
    answer = await pair.engines["east"].call("message", account="west", message={"address": "r123"})
    assert answer == {"heard": {"address": "r123"}}
    await pair.engines["west"].event("message", account="east", message={"address": "r123"})
