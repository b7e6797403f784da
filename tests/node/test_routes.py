"""Real nodes without a configured route: they find each other by CCP, and again after one was gone."""

from typing import Any

import pytest

from isthmus.ilp.packet import Reject


@pytest.mark.slow
async def test_three_peers_in_a_row_find_their_routes(nodes: Any, config: Any, peer: Any) -> None:
    """CCP-13, CCP-16, CCP-20."""
    port, far_port = config.free_port(), config.free_port()
    near = config.account("a", relation="peer")
    far = config.account("c", relation="peer", link=config.dials(far_port, "b"))
    middle_text = config.toml(near, far, address="test.b", btp=port)
    middle = await nodes.run(middle_text)
    first = config.account("b", relation="peer", link=config.dials(port, "a"))
    one = await nodes.run(config.toml(first, config.account("alice"), address="test.a"))
    three = await nodes.run(
        config.toml(config.account("b", relation="peer"), config.account("carl"), address="test.c", btp=far_port)
    )
    alice = await peer(one, "alice", fulfils=True)
    carl = await peer(three, "carl", fulfils=True)
    await alice.pay_when_linked("test.c.carl", 40, also="F02")
    await carl.pay_when_linked("test.a.alice", 15, also="F02")
    assert await middle.balances() == {"a": 25, "c": -25}
    await one.until("routes_learned", account="b")
    metrics = (await one.get("/metrics"))[2].decode().splitlines()
    assert {'isthmus_routes{account="b"} 2.0', "isthmus_learned_prefixes 2.0"} < set(metrics)

    assert await middle.stop() == 0
    reply = await alice.pay("test.c.carl", 1)
    assert isinstance(reply, Reject)
    middle = await nodes.run(middle_text, folder=middle.folder)
    await alice.pay_when_linked("test.c.carl", 2, also="F02")
    assert await middle.balances() == {"a": 27, "c": -27}
