"""`ilp-connector` 23.0.2 with ilp-plugin-btp as our parent, as our peer by static routes, and as our child.

At the ends are ilp-protocol-stream's sender and receiver, one at each connector; they pay in both directions.
"""

import asyncio
from typing import Any

AMOUNT = "123456789"
TO_US = {"test.isthmus": "us"}


async def pays(sender: Any, receiver: Any) -> None:
    """A payment arrives to the unit: no rate and no spread lie between."""
    credentials = await receiver.call("listen")
    paid = await sender.call("pay", amount=AMOUNT, address=credentials["address"], secret=credentials["secret"])
    assert (paid["sent"], paid["delivered"]) == (AMOUNT, AMOUNT)
    assert (await receiver.event("end"))["received"] == AMOUNT


async def settles(theirs: Any, account: str) -> None:
    """In its books the account comes to 0; it counts what is in flight, and senders probe until they end."""
    async with asyncio.timeout(90):
        while (await theirs.call("status"))["accounts"][account]["balance"] != "0":
            pass


async def test_it_is_our_parent(nodes: Any, peers: Any, config: Any, port: int) -> None:
    """ILDCP-1, ILDCP-2, CONN-14: we get our address from it, and give our own child one below that."""
    child = peers.account("child", peers.listener())
    theirs, ports = await peers.connector(us=child, alice=child, bob=child)
    uplink = config.account("uplink", "parent", dial=ports["us"])
    carol, dave = config.account("carol", "child"), config.account("dave", "child")
    await nodes.run(config.node(port, uplink, carol, dave, address=None), port)
    await theirs.event("connected", account="us")

    carol = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-carol"))
    dave = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-dave"))
    assert (await carol.call("ildcp"))["clientAddress"] == "test.js.us.carol"
    await pays(await peers.endpoint(peers.dial(ports["alice"])), carol)
    await pays(dave, await peers.endpoint(peers.dial(ports["bob"])))
    await settles(theirs, "us")


async def test_it_is_our_child(nodes: Any, peers: Any, config: Any, port: int) -> None:
    """ILDCP-1, ILDCP-6: it asks us for its address, and its own child's lies below."""
    accounts = [config.account(name, "child") for name in ("them", "carol", "dave")]
    await nodes.run(config.node(port, *accounts), port)
    parent = peers.account("parent", peers.dial(port, token=f"{config.TOKEN}-them"))
    child = peers.account("child", peers.listener())
    theirs, ports = await peers.connector(None, parent=parent, alice=child, bob=child)
    assert (await theirs.event("ready"))["address"] == "test.isthmus.them"

    carol = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-carol"))
    dave = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-dave"))
    alice = await peers.endpoint(peers.dial(ports["alice"]))
    assert (await alice.call("ildcp"))["clientAddress"] == "test.isthmus.them.alice"
    await pays(alice, carol)
    await pays(dave, await peers.endpoint(peers.dial(ports["bob"])))
    await settles(theirs, "parent")


async def test_routes_spread_both_ways_by_ccp(nodes: Any, peers: Any, config: Any, port: int) -> None:
    """CCP-1 to CCP-4, CCP-7, CCP-13, X-10: neither side has a configured route."""
    child = peers.account("child", peers.listener())
    us = peers.account("peer", peers.listener())
    theirs, ports = await peers.connector(us=us, alice=child, bob=child)
    accounts = [
        config.account("them", "peer", dial=ports["us"]),
        config.account("carol", "child"),
        config.account("dave", "child"),
    ]
    await nodes.run(config.node(port, *accounts), port)
    await theirs.event("connected", account="us")
    async with asyncio.timeout(60):
        while (await theirs.call("routes")).get("test.isthmus") != "us":
            pass
    await both_directions(peers, config, port, ports, theirs)


async def test_it_is_our_peer_and_we_dial(nodes: Any, peers: Any, config: Any, port: int) -> None:
    """CONN-13, PEER-5: routes are static on both sides, and told besides."""
    child = peers.account("child", peers.listener())
    us = peers.account("peer", peers.listener())
    theirs, ports = await peers.connector(routes=TO_US, us=us, alice=child, bob=child)
    accounts = [
        config.account("them", "peer", dial=ports["us"]),
        config.account("carol", "child"),
        config.account("dave", "child"),
    ]
    await nodes.run(config.node(port, *accounts, routes={"test.js": "them"}), port)
    await theirs.event("connected", account="us")
    await both_directions(peers, config, port, ports, theirs)


async def test_it_is_our_peer_and_dials_us(nodes: Any, peers: Any, config: Any, port: int) -> None:
    """BTP-5, BTP-6, PEER-5."""
    accounts = [config.account("them", "peer"), config.account("carol", "child"), config.account("dave", "child")]
    await nodes.run(config.node(port, *accounts, routes={"test.js": "them"}), port)
    child = peers.account("child", peers.listener())
    us = peers.account("peer", peers.dial(port, token=f"{config.TOKEN}-them"))
    theirs, ports = await peers.connector(routes=TO_US, us=us, alice=child, bob=child)
    await theirs.event("connected", account="us")
    await both_directions(peers, config, port, ports, theirs)


async def both_directions(peers: Any, config: Any, port: int, ports: Any, theirs: Any) -> None:
    carol = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-carol"))
    dave = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-dave"))
    await pays(dave, await peers.endpoint(peers.dial(ports["bob"])))
    await pays(await peers.endpoint(peers.dial(ports["alice"])), carol)
    await settles(theirs, "us")
