"""A node that dies and comes back: the books replay, and what was in flight ends as it must (BTP-18)."""

import asyncio
import os
from hashlib import sha256
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode, decode_prepare, encode_fulfill, encode_prepare
from isthmus.links.btp import codec
from tests.node.conftest import WAIT_SECONDS, wall_ms

SEED = bytes(range(32))


def a_prepare(left_ms: int, *, amount: int = 900) -> bytes:
    """It lives from now on: a busy machine takes seconds to start a node."""
    return encode_prepare(Prepare(amount, wall_ms() + left_ms, sha256(SEED).digest(), "test.node.bob.x", SEED))


async def reply(raw: Any) -> tuple[int, Any]:
    """The id and the ILP packet of the next frame."""
    packet = await raw.read_btp()
    return packet.request_id, decode(packet.protocol_data[0].data)


async def settled(node: Any) -> dict[str, Any]:
    """The accounts once nothing is in flight."""
    async with asyncio.timeout(60):
        while True:
            accounts = await node.accounts()
            if not any(each["packets_in_flight"] for each in accounts.values()):
                return dict(accounts)


async def ignored(node: Any) -> dict[str, float]:
    families = text_string_to_metric_families((await node.get("/metrics"))[2].decode())
    return {
        sample.labels["why"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "isthmus_ignored_packets_total"
    }


async def interrupted(nodes: Any, text: str, raw: Any, left_ms: int) -> tuple[Any, int]:
    """A node killed with a packet on its way from alice (her request 5) to bob; it runs again. Gives bob's request."""
    node = await nodes.run(text)
    alice, bob = await raw(node, "alice"), await raw(node, "bob")
    alice.send_ilp(5, a_prepare(left_ms))
    request_id, prepare = await reply(bob)
    assert prepare.amount == 900
    await node.kill()
    await alice.close()
    await bob.close()
    return await nodes.run(text, folder=node.folder), request_id


async def test_an_answer_that_comes_after_the_restart_counts(nodes: Any, two: str, raw: Any) -> None:
    """BTP-18, CONN-1: both legs are open again, and both old request ids are good."""
    node, request_id = await interrupted(nodes, two, raw, 25_000)
    accounts = await node.accounts()
    assert (accounts["alice"]["reserved_incoming"], accounts["bob"]["reserved_outgoing"]) == ("900", "900")
    alice, bob = await raw(node, "alice"), await raw(node, "bob")
    bob.send_ilp(request_id, encode_fulfill(Fulfill(SEED)), codec.RESPONSE)
    assert await reply(alice) == (5, Fulfill(SEED))
    assert await node.balances() == {"alice": 900, "bob": -900}
    # Again: the leg is decided, and nothing moves.
    bob.send_ilp(request_id, encode_fulfill(Fulfill(SEED)), codec.RESPONSE)
    alice.send_ilp(6, a_prepare(25_000, amount=1))
    again, _ = await reply(bob)
    assert again > request_id
    assert await node.balances() == {"alice": 900, "bob": -900}
    bob.send_ilp(again, encode_fulfill(Fulfill(SEED)), codec.RESPONSE)
    assert await reply(alice) == (6, Fulfill(SEED))
    assert await node.balances() == {"alice": 901, "bob": -901}


@pytest.mark.slow
@pytest.mark.parametrize("alice_waits", [True, False])
async def test_without_an_answer_the_expiry_ends_it_and_the_sender_is_told(
    nodes: Any, two: str, raw: Any, alice_waits: bool
) -> None:
    """ILP-10, BTP-18: R00 under the old request id, also if it fell due before she came back. A late answer is late."""
    quick = two.replace('payable = "1000"\n', 'payable = "1000"\nmargin = "100 ms"\n')
    node, request_id = await interrupted(nodes, quick, raw, 6_000)
    alice = await raw(node, "alice") if alice_waits else None
    accounts = await settled(node)
    alice = alice or await raw(node, "alice")
    got_id, got = await reply(alice)
    assert got_id == 5 and isinstance(got, Reject)
    assert (got.code, got.triggered_by) == ("R00", "test.node")
    bob = await raw(node, "bob")
    bob.send_ilp(request_id, encode_fulfill(Fulfill(SEED)), codec.RESPONSE)
    await node.until("late_fulfill", account="bob", amount="900")
    assert (await ignored(node))["late"] == 1
    assert await node.balances() == {"alice": 0, "bob": 0}
    assert accounts["alice"]["reserved_incoming"] == accounts["bob"]["reserved_outgoing"] == "0"


async def test_killed_under_load_both_neighbours_agree_to_the_unit(nodes: Any, config: Any, peer: Any) -> None:
    """CONN-3, BTP-18: what bob fulfilled he is paid for, and alice owes it, whichever process it fell to."""
    port = config.free_port()
    text = config.toml(config.account("alice"), config.account("bob"), btp=port)
    node = await nodes.run(text)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    fulfilled: list[int] = []
    held: list[Any] = []

    def fulfil(inbound: Any) -> None:
        fulfilled.append(decode_prepare(inbound.packet).amount)
        bob.fulfil(inbound)

    def fulfil_half(inbound: Any) -> None:
        if inbound.request_id % 2:
            fulfil(inbound)
        else:
            held.append(inbound)

    bob.answer = fulfil_half
    answers = [alice.prepare("test.node.bob", 1 + number) for number in range(400)]
    await alice.until(lambda: len(alice.packets) >= 50)
    await node.kill()
    await alice.until(lambda: not alice.is_up)
    await bob.until(lambda: not bob.is_up)
    node = await nodes.run(text, folder=node.folder)
    await alice.until(lambda: alice.is_up)
    await bob.until(lambda: bob.is_up)
    assert held
    bob.answer = fulfil
    for inbound in held:
        fulfil(inbound)  # under the session of the process that died
    await settled(node)
    assert await node.balances() == {"alice": sum(fulfilled), "bob": -sum(fulfilled)}
    # What bob fulfilled after the restart reaches alice; of what was written just before the kill the wire lost some.
    late = [decode_prepare(inbound.packet).amount for inbound in held]
    await alice.until(lambda: all(answers[amount - 1].done() for amount in late))
    paid = [
        1 + number for number, answer in enumerate(answers) if answer.done() and isinstance(answer.result(), Fulfill)
    ]
    assert set(late) <= set(paid) <= set(fulfilled)
    assert isinstance(await alice.pay("test.node.bob", 1), Fulfill)


@pytest.mark.slow
async def test_an_http_answer_that_comes_after_the_restart_counts(
    nodes: Any, config: Any, raw: Any, http_peer: Any
) -> None:
    """HTTP-4: asynchronous, by the Request-Id of the Prepare that the process before had sent."""
    them = await http_peer()
    link = (
        f'{{ type = "http", url = "{them.url}", mode = "async", callback_url = "http://127.0.0.1:1/ilp", '
        f'outgoing = {{ auth = "bearer", token = "{config.token_of("us")}" }}, '
        f'incoming = {{ auth = "bearer", token = "{config.token_of("bob")}" }} }}'
    )
    text = config.toml(config.account("alice"), config.account("bob", link=link), http=0)
    node = await nodes.run(text)
    async with asyncio.timeout(WAIT_SECONDS):
        while (await node.accounts())["bob"]["link"] != "up":
            pass  # each question is answered by the node
    alice = await raw(node, "alice")
    alice.send_ilp(5, a_prepare(25_000))
    while decode_prepare((asked := await them.request())[1]).amount != 900:
        pass  # of the node's own
    request_id = asked[0]
    await node.kill()
    await alice.close()
    node = await nodes.run(text, folder=node.folder)
    alice = await raw(node, "alice")
    fulfil = encode_fulfill(Fulfill(SEED))
    statuses = [await them.post(node.listening["http"], fulfil, request_id, config.token_of("bob")) for _ in range(2)]
    assert statuses == [200, 400]  # HTTP-5: the second is of no effect
    assert await reply(alice) == (5, Fulfill(SEED))
    assert await node.balances() == {"alice": 900, "bob": -900}


@pytest.mark.slow
async def test_checkpoints_are_taken_verified_and_pruned_while_packets_pass(
    nodes: Any, two: str, peer: Any, config: Any
) -> None:
    """The next start replays from the newest; the archive holds what went."""
    from isthmus.journal.reader import JournalReader

    text = two.replace("[rates]", '[journal]\ncheckpoint_every = 100\narchive = "archive"\n[rates]')
    node = await nodes.run(text)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    paid = 0
    async with asyncio.timeout(60):
        while not any(line["event"] == "checkpoint" and line["pruned"] for line in node.log):
            assert isinstance(await alice.pay("test.node.bob", 7), Fulfill)
            paid += 7
    await node.kill()
    assert not any(line["event"] == "checkpoint failed" for line in node.log)
    with JournalReader(str(node.folder / "data" / "journal.db")) as reader:
        assert reader.first_sequence > 1
        checkpoint = reader.load_checkpoint()
        assert checkpoint is not None and checkpoint.sequence > reader.first_sequence
    assert os.listdir(node.folder / "archive")
    again = await nodes.run(text, folder=node.folder)
    balances = await again.balances()
    assert balances == {"alice": paid, "bob": -paid}
