"""Both engines and both lnds are killed while a payment is under way: it is paid once, and credited once."""

from typing import TYPE_CHECKING

import pytest

from tests.settlement.lightning.ports import PEER

if TYPE_CHECKING:
    from tests.settlement.lightning.conftest import Pair

pytestmark = [pytest.mark.ledger, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize("pair", [{}, {"uses_keysend": True}], indirect=True, ids=["invoice", "keysend"])
async def test_a_kill_of_both_sides_and_their_lnds(pair: "Pair") -> None:
    sent, received = await pair.sent(), await pair.received()
    nodes = (pair.simnet.alice, pair.simnet.bob)
    due = pair.alice.settle(400_000)
    await pair.alice.pay(due)
    for side in (pair.alice, pair.bob):
        await side.killed()
    for node in nodes:
        await node.kill()
    for node in nodes:
        await node.start()
    await pair.simnet.until(pair.simnet._is_open, "the channel is open again")
    for side in (pair.alice, pair.bob):
        await pair.start_engine(side)
    for again in pair.alice.dues:
        await pair.alice.pay(again)
    await pair.alice.until(lambda: not pair.alice.open(PEER))
    await pair.bob.until(lambda: pair.bob.balance == -400_000)
    assert (await pair.sent(), await pair.received()) == ([*sent, 400_000], received + 400_000)
