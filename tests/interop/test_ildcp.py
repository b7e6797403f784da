"""`ilp-protocol-ildcp` 2.2.3 as our child's client, and as our parent's server."""

from typing import Any

PARENTS_WORD = {"clientAddress": "test.parent.us", "assetScale": 9, "assetCode": "XRP"}


async def test_their_client_asks_our_node(nodes: Any, peers: Any, config: Any, port: int) -> None:
    """ILDCP-2, ILDCP-3: the asset of the account, and an address below ours."""
    await nodes.run(config.node(port, config.account("carol", "child")), port)
    carol = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-carol"))
    answer = {"clientAddress": "test.isthmus.carol", "assetScale": 9, "assetCode": "XRP"}
    assert await carol.call("ildcp") == answer


async def test_our_node_asks_their_server(nodes: Any, peers: Any, config: Any, port: int) -> None:
    """ILDCP-1, ILDCP-7: asked again on each connection; our children's addresses follow."""
    parent = await peers.start("endpoint")
    serve = {"handler": "ildcp", "serverAddress": "test.parent", "info": PARENTS_WORD}
    await parent.call("start", plugin=peers.listener(), **serve)
    uplink = config.account("uplink", "parent", dial=(await parent.event("listening"))["port"])
    accounts = (config.without_routes(uplink), config.account("carol", "child"))
    await nodes.run(config.node(port, *accounts, address=None), port)
    await parent.event("ildcp")
    carol = await peers.endpoint(peers.dial(port, token=f"{config.TOKEN}-carol"))
    assert (await carol.call("ildcp"))["clientAddress"] == "test.parent.us.carol"
    up = await carol.call("prepare", destination="test.parent.elsewhere", amount="5")
    assert (up["type"], up["valid"]) == ("fulfill", True)
    assert (await parent.event("prepare"))["amount"] == "5"
