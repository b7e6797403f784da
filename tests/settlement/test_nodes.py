"""Two nodes that settle what they owe each other on a ledger that both know."""

from tests.node.conftest import Nodes, Peer, account, dials, free_port, toml
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
    for _ in range(3):
        await alice.pay("test.west.bob", 4 * USD)
    await east.until("settlement_confirmed", account="west")
    await west.until("settlement_received", account="east")
    assert ledger.sent("east") == 12 * USD
    assert (await east.balances())["west"] == 0
    assert (await west.balances())["east"] == 0
    await alice.close()
    await bob.close()
