"""SIGHUP: new rates, routes and limits between two packets; everything else is refused, and the old tables stay."""

import asyncio
from typing import Any

from isthmus.ilp.packet import Fulfill, Reject, decode_prepare


def text(config: Any, *, rate: str = "0.5", packet: str = "unlimited", routes: dict[str, str] | None = None) -> str:
    bob = config.account("bob", asset="EUR")
    alice = config.account("alice", packet=packet)
    return str(config.toml(alice, bob, rates=f'"USD/EUR" = "{rate}"', routes=routes))


async def test_new_rates_routes_and_limits_hold_from_the_next_packet_on(nodes: Any, config: Any, peer: Any) -> None:
    node = await nodes.run(text(config))
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    in_flight = alice.prepare("test.node.bob", 1000)
    old = await bob.request()
    assert decode_prepare(old.packet).amount == 500
    line = await node.reload(text(config, rate="0.25", packet="0.000002", routes={"test.far": "bob"}))
    assert line["event"] == "configuration reloaded", line
    answered = alice.prepare("test.far.away", 2000)
    new = await bob.request()
    assert decode_prepare(new.packet).amount == 500
    large = await alice.pay("test.node.bob", 2001)
    assert isinstance(large, Reject) and large.code == "F08"
    bob.fulfil(new)
    bob.fulfil(old)
    assert isinstance(await answered, Fulfill) and isinstance(await in_flight, Fulfill)
    assert await node.balances() == {"alice": 3000, "bob": -1000}


async def test_no_packet_is_dropped_while_tables_change(nodes: Any, config: Any, peer: Any) -> None:
    """A stream of packets over ten reloads: each is answered, at the old rate or the new."""
    node = await nodes.run(text(config))
    alice, bob = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    answers = []
    for turn in range(10):
        answers += [alice.prepare("test.node.bob", 1000) for _ in range(30)]
        assert (await node.reload(text(config, rate=("0.25", "0.5")[turn % 2])))["event"] == "configuration reloaded"
    async with asyncio.timeout(60):
        assert all(isinstance(each, Fulfill) for each in await asyncio.gather(*answers))
    got = [decode_prepare(each.packet).amount for each in bob.packets]
    assert len(got) == 300 and set(got) == {250, 500}
    assert await node.balances() == {"alice": 300_000, "bob": -sum(got)}


# What is changed in the file, and the key that the refusal names.
REFUSED = [
    ('address = "test.node"', 'address = "test.other"', "address"),
    ("token-of-bob-", "token-of-somebody-else-", "accounts"),
    ('relation = "child"', 'relation = "peer"', "accounts"),
    ("scale = 9\n", "scale = 8\n", "accounts"),
    ("[accounts.bob]", '[accounts.bob]\nsegment = "robert"', "accounts"),
    ("[accounts.bob", "[accounts.carol", "accounts"),
    ('[admin]\nlisten = "127.0.0.1:0"', '[admin]\nlisten = "127.0.0.1:1"', "admin"),
    ('[listeners.btp]\nlisten = "127.0.0.1:0"', '[listeners.btp]\nlisten = "127.0.0.1:1"', "listeners"),
    ("[rates]", "[log]\nlevel = 'debug'\n[rates]", "log"),
    ("[rates]", "[journal]\ncheckpoint_every = 100\n[rates]", "journal"),
    ('address = "test.node"', 'address = "test.node"\ndata = "elsewhere"', "data"),
    ("[rates]", "[rates]\nspraed = 1", "rates.spraed"),
    ("[rates]", "[rates", "syntax"),
]


async def test_other_changes_and_bad_files_are_refused(nodes: Any, config: Any, peer: Any) -> None:
    """The old tables stay, and packets pass."""
    good = text(config)
    node = await nodes.run(good)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    for old, new, key in REFUSED:
        assert old in good
        line = await node.reload(good.replace(old, new))
        assert line["event"] == "configuration not reloaded" and key in line["problem"], line
        assert isinstance(await alice.pay("test.node.bob", 10), Fulfill)
    assert (await node.reload(good))["event"] == "configuration reloaded"
    assert await node.balances() == {"alice": 10 * len(REFUSED), "bob": -5 * len(REFUSED)}


async def test_a_restart_keeps_what_was_reloaded(nodes: Any, config: Any, peer: Any) -> None:
    """The terms are in the journal as they changed; `books verify` replays over the change."""
    node = await nodes.run(text(config))
    assert (await node.reload(text(config, rate="0.25")))["event"] == "configuration reloaded"
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob", 1000), Fulfill)
    await node.kill()
    again = await nodes.run(text(config, rate="0.25"), folder=node.folder)
    assert await again.balances() == {"alice": 1000, "bob": -250}
