"""Two nodes that settle what they owe each other on a ledger that both know."""

import asyncio

import pytest

from isthmus.connector.events import Inbound
from isthmus.ilp.ildcp import PEER_CONDITION
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode_prepare, encode_fulfill, encode_prepare
from tests.node.conftest import WAIT_SECONDS, Nodes, Peer, account, dials, toml, wall_ms
from tests.ports import free_port
from tests.settlement.conftest import WRAPPER, engine, settles
from tests.settlement.toy import ToyLedger

USD = 10**9


async def test_from_the_threshold_on_a_peer_is_paid_and_credits_it(nodes: Nodes, ledger: ToyLedger) -> None:
    """SE-10."""
    port = free_port()
    east = await nodes.run(
        toml(
            account("alice"),
            account("west", relation="peer"),
            settles("west", "west", threshold="10"),
            engine(ledger, "east"),
            address="test.east",
            btp=port,
            routes={"test.west": "west"},
        ),
        wrapper=WRAPPER,
    )
    west = await nodes.run(
        toml(
            account("bob"),
            account("east", relation="peer", link=dials(port, "west")),
            settles("east", "east"),
            engine(ledger, "west"),
            address="test.west",
        ),
        wrapper=WRAPPER,
    )
    alice = await Peer("alice").dial(east.port)
    bob = (await Peer("bob").dial(west.port)).fulfil_all()
    await alice.pay_when_linked("test.west.bob", 4 * USD)
    for _ in range(2):
        assert isinstance(await alice.pay("test.west.bob", 4 * USD), Fulfill)
    await east.until("settlement_confirmed", account="west")
    await west.until("settlement_received", account="east")
    assert ledger.sent("east") == 12 * USD
    assert (await east.balances())["west"] == 0
    assert (await west.balances())["east"] == 0
    await alice.close()
    await bob.close()


def lone(ledger: ToyLedger, *, url: str = "", holder: str = "us") -> str:
    """A node with an engine and one account that it settles."""
    table = engine(ledger, holder).replace(ledger.url, url or ledger.url)
    accounts = (account("alice"), account("bob", relation="peer"), settles("bob", "bob", threshold="5"))
    return toml(*accounts, table, routes={"test.bob": "bob"})


@pytest.mark.parametrize(
    "wrong, status, line",
    [
        ({"url": "gold://x"}, 1, "isthmus: gold://x is no URL of a ledger"),
        ({"holder": "nobody"}, 2, "isthmus: settlement.bank.holder: nobody can't hold anything. Name somebody"),
    ],
)
async def test_an_engine_that_cant_be_used_keeps_the_node_from_starting(
    nodes: Nodes, ledger: ToyLedger, wrong: dict[str, str], status: int, line: str
) -> None:
    """In one line, and nothing is left running."""
    node = await nodes.launch(lone(ledger, **wrong), wrapper=WRAPPER)
    assert await node.exit_code() == status
    assert node.lines[-1] == line
    assert not [one for one in node.log if one["event"] == "running"]


async def test_a_ledger_that_is_down_only_delays(nodes: Nodes, ledger: ToyLedger) -> None:
    """The node runs, forwards and stops as ever; what was due is paid in the process that finds the ledger up."""
    ledger.is_down = True
    node = await nodes.run(lone(ledger), wrapper=WRAPPER)
    alice = await Peer("alice").dial(node.port)
    bob = (await Peer("bob").dial(node.port)).fulfil_all()
    assert isinstance(await alice.pay("test.bob.x", 6 * USD), Fulfill)
    await ledger.until(lambda: ledger.attempts)
    assert isinstance(await alice.pay("test.bob.x", 3 * USD), Fulfill)
    await alice.close()
    await bob.close()
    assert await node.stop() == 0
    ledger.is_down = False
    again = await nodes.run(node.file.read_text(), folder=node.folder, wrapper=WRAPPER)
    await again.until("settlement_confirmed", account="bob", number=1)
    assert ledger.sent("us") == 6 * USD
    assert len(set(ledger.attempts)) == 1
    assert (await again.balances())["bob"] == -3 * USD


async def test_a_slow_ledger_keeps_nobody_waiting(nodes: Nodes, ledger: ToyLedger) -> None:
    """Packets pass, and the node stops, while a payment waits for its ledger."""
    ledger.gate.clear()
    node = await nodes.run(lone(ledger), wrapper=WRAPPER)
    alice = await Peer("alice").dial(node.port)
    bob = (await Peer("bob").dial(node.port)).fulfil_all()
    for _ in range(3):
        assert isinstance(await alice.pay("test.bob.x", 4 * USD), Fulfill)
    await ledger.until(lambda: ledger.attempts)
    await alice.close()
    await bob.close()
    assert await node.stop() == 0
    ledger.gate.set()


async def test_the_peer_is_stopped_at_its_limit_while_settlements_fail(nodes: Nodes, ledger: ToyLedger) -> None:
    """CONN-8: nothing but the books is needed for it; here our own limit for what we owe."""
    ledger.refused.add("us")
    limits = '[accounts.bob.limits]\nreceivable = "1000"\npayable = '
    text = lone(ledger).replace(f'{limits}"1000"', f'{limits}"7"')
    node = await nodes.run(text, wrapper=WRAPPER)
    alice = await Peer("alice").dial(node.port)
    bob = (await Peer("bob").dial(node.port)).fulfil_all()
    assert isinstance(await alice.pay("test.bob.x", 6 * USD), Fulfill)
    await node.until("settlement_failed", account="bob")
    assert isinstance(await alice.pay("test.bob.x", 7 * USD), Fulfill)
    refused = await alice.pay("test.bob.x", 1)
    assert isinstance(refused, Reject)
    assert refused.code == "T04"
    await alice.close()
    await bob.close()


async def test_engines_speak_over_the_link_of_their_nodes(nodes: Nodes, ledger: ToyLedger) -> None:
    """SE-12: a peer asks our engine, which asks the peer's; and nonsense is rejected with its code."""
    node = await nodes.run(lone(ledger), wrapper=WRAPPER)
    bob = await Peer("bob").dial(node.port)
    seen: list[bytes] = []

    def neighbour(inbound: Inbound) -> None:
        """What a node like ours would do with a message for its engine."""
        prepare = decode_prepare(inbound.packet)
        if prepare.destination == "peer.settle":
            seen.append(prepare.data)
            bob._reply(inbound, encode_fulfill(Fulfill(bytes(32), b"yes")))

    bob._neighbour = neighbour  # type: ignore[method-assign]
    for data, expected in (
        (b"hello", Fulfill(bytes(32), b"heard hello")),
        (b"ask you there?", Fulfill(bytes(32), b"they say yes")),
        (b"nonsense", Reject("F00", "peer.settle", "that makes no sense")),
        (b"break", Reject("T00", "peer.settle", "the settlement engine failed")),
    ):
        packet = Prepare(0, wall_ms() + 20_000, PEER_CONDITION, "peer.settle", data)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await bob._send(encode_prepare(packet)) == expected
    assert seen == [b"you there?"]
    failed = await node.until("settlement_message_failed", account="bob")
    assert failed["problem"] == "RuntimeError: a defect of the engine"
    await bob.close()
