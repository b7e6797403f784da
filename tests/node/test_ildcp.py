"""ILDCP over three nodes: a child of a child gets its address through its parent's, and again when that changes."""

from typing import Any

import pytest

from isthmus.ilp.ildcp import decode_response, encode_request
from isthmus.ilp.packet import Fulfill, Reject, decode
from tests.node.commands import command


async def ask(raw: Any, wall_ms: int, request_id: int = 1) -> Fulfill | Reject:
    """What a child is told."""
    raw.send_ilp(request_id, encode_request(wall_ms + 60_000))
    reply = await raw.read_btp()
    assert reply.request_id == request_id
    packet = decode(reply.protocol_data[0].data)
    assert isinstance(packet, Fulfill | Reject)
    return packet


@pytest.mark.slow
async def test_an_address_goes_down_three_nodes_and_changes_with_its_root(
    nodes: Any, config: Any, raw: Any, peer: Any, wall_ms: int
) -> None:
    """ILDCP-6, ILDCP-7, CONN-14, ADDR-11."""
    top_port, middle_port = config.free_port(), config.free_port()
    from_parent = "from parent"

    def top_text(address: str) -> str:
        return str(config.toml(config.account("middle"), config.account("bob"), address=address, btp=top_port))

    def child_text(name: str, parent_port: int, child: str, btp: int) -> str:
        up = config.account("up", relation="parent", link=config.dials(parent_port, name))
        return str(config.toml(up, config.account(child), address=from_parent, btp=btp))

    # The root last: the others have no address yet, and ask until they get one.
    middle = await nodes.run(child_text("middle", top_port, "leaf", middle_port))
    leaf = await nodes.run(child_text("leaf", middle_port, "alice", 0))
    alice = await raw(leaf, "alice")
    refused = await ask(alice, wall_ms)
    assert isinstance(refused, Reject) and refused.code == "F00"
    await leaf.until("address_not_learned", account="up")
    top = await nodes.run(top_text("test.top"))
    await middle.until("address learned", address="test.top.middle")
    await leaf.until("address learned", address="test.top.middle.leaf")
    bob = await peer(top, "bob", fulfils=True)

    again = await raw(leaf, "alice")
    told = await ask(again, wall_ms)
    assert isinstance(told, Fulfill)
    response = decode_response(told.data)
    assert (response.address, response.asset_code, response.asset_scale) == ("test.top.middle.leaf.alice", "USD", 9)
    payer = await peer(leaf, "alice", fulfils=True)
    assert isinstance(await payer.pay("test.top.bob", 40), Fulfill)
    assert isinstance(await bob.pay("test.top.middle.leaf.alice.invoice", 15), Fulfill)
    assert await leaf.balances() == {"up": -25, "alice": 25}
    assert await middle.balances() == {"up": -25, "leaf": 25}
    assert await top.balances() == {"middle": 25, "bob": -25}

    assert await top.stop() == 0
    await bob.until(lambda: not bob.is_up)
    top = await nodes.run(top_text("test.summit"), folder=top.folder)
    await middle.until("address learned", address="test.summit.middle")
    await leaf.until("address learned", address="test.summit.middle.leaf")
    await bob.until(lambda: bob.is_up)
    await leaf.until("btp.up", account="alice")  # she was sent to ask anew
    assert isinstance(await bob.pay("test.summit.middle.leaf.alice", 1), Fulfill)
    # Below: the old address is nobody's any more.
    old = await bob.pay("test.top.middle.leaf.alice", 1)
    assert isinstance(old, Reject) and old.code == "F02"


async def test_a_parent_with_another_asset_is_told_and_gives_no_address(nodes: Any, config: Any) -> None:
    parent = await nodes.run(config.toml(config.account("us", asset="EUR")))
    up = config.account("up", relation="parent", link=config.dials(parent.port, "us"))
    node = await nodes.run(config.toml(up, address="from parent", btp=None))
    line = await node.until("the parent counts in another asset", account="up")
    assert (line["ours"], line["theirs"]) == ("USD scale 9", "EUR scale 9")
    pinged = await command("accounts", "ping", "up", "--config", node.file)
    assert "counts in EUR with scale 9" in pinged.stdout
    assert pinged.returncode == 1 and "our account is in USD with scale 9" in pinged.stderr
    assert (await node.get("/health"))[0] == 200


async def test_an_address_that_leaves_no_room_for_our_children_is_not_taken(nodes: Any, config: Any) -> None:
    """ADDR-2, ADDR-11, ILDCP-5: what a parent says stops no node."""
    parent = await nodes.run(config.toml(config.account("us"), address="test." + "a" * 1_000))
    up = config.account("up", relation="parent", link=config.dials(parent.port, "us"))
    node = await nodes.run(config.toml(up, config.account("our_child_with_a_long_name"), address="from parent"))
    line = await node.until("the parent's address can't be used", parent="up")
    assert "1023" in line["problem"]
    assert (await node.get("/health"))[0] == 200
    assert await node.stop() == 0


@pytest.mark.slow
async def test_a_restarted_node_goes_by_its_last_address_until_it_is_told_again(
    nodes: Any, config: Any, peer: Any
) -> None:
    """ILDCP-7: without one, packets to its children would fail for good (F02)."""
    parent = await nodes.run(config.toml(config.account("us"), address="test.top"))
    up = config.account("up", relation="parent", link=config.dials(parent.port, "us"))
    text = config.toml(up, config.account("alice"), config.account("bob"), address="from parent")
    node = await nodes.run(text)
    await node.until("address learned", address="test.top.us")
    assert await node.stop() == 0
    assert await parent.stop() == 0
    again = await nodes.run(text, folder=node.folder)
    alice, _ = await peer(again, "alice"), await peer(again, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.top.us.bob", 3), Fulfill)
