"""`ilp-plugin-http` 1.6.1 as a peer of our node: synchronous ILP over HTTP with bearer tokens."""

from typing import Any


async def forwarded(peer: Any) -> Any:
    """The next packet that isn't between us two: a node tells each new neighbour of outcomes, too."""
    while True:
        prepare = await peer.event("prepare")
        if not prepare["destination"].startswith("peer."):
            return prepare


async def test_packets_go_both_ways_between_http_and_btp(
    nodes: Any, peers: Any, config: Any, port: int, http_port: int
) -> None:
    """HTTP-1, HTTP-10, ILP-6."""
    them = await peers.start("endpoint")
    ours = f"http://127.0.0.1:{http_port}/ilp"
    plugin = peers.http(ours, incoming="their-token", outgoing=f"{config.TOKEN}-them")
    await them.call("start", plugin=plugin, handler="fulfill")
    theirs = f"http://127.0.0.1:{(await them.event('listening'))['port']}/"
    account = config.without_routes(config.http_account("them", "peer", theirs, outgoing="their-token"))
    carol_account = config.account("carol", "child")
    routes = {"test.them": "them"}
    await nodes.run(config.node(port, account, carol_account, routes=routes, http_port=http_port), port)
    carol = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-carol"), handler="fulfill")

    there = await carol.call("prepare", destination="test.them.someone", amount="1000")
    assert (there["type"], there["valid"], bytes.fromhex(there["data"])) == ("fulfill", True, b"thanks")
    assert (await forwarded(them))["destination"] == "test.them.someone"
    back = await them.call("prepare", destination="test.isthmus.carol", amount="2000")
    assert (back["type"], back["valid"]) == ("fulfill", True)
    assert (await carol.event("prepare"))["amount"] == "2000"
    nowhere = await them.call("prepare", destination="test.nowhere", amount="1")
    assert (nowhere["type"], nowhere["code"], nowhere["triggeredBy"]) == ("reject", "F02", "test.isthmus")
