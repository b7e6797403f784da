"""`isthmus engine run lightning`: two of them settle on two real lnds for connectors that know nothing but RFC 38."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.settlement.engine_run import Connector, pay_each_other_through_kills, two

if TYPE_CHECKING:
    from tests.ledgers.lightning.simnet import Node, Simnet

pytestmark = [pytest.mark.ledger, pytest.mark.asyncio(loop_scope="session")]

UNIT = 1_000_000  # millisatoshi


def connector(folder: Path, node: "Node", mode: str) -> Connector:
    settings = node.settings
    options = (
        f'url = "{settings.url}"\ncertificate = "{settings.certificate}"\nmacaroon = "{settings.macaroon}"\n'
        f'mode = "{mode}"\n'
    )
    return Connector(folder / node.name, "lightning", "BTC", 11, options)


async def local_msat(simnet: "Simnet", node: "Node") -> int:
    """What this lnd's side of its channels holds, once nothing is on its way: a payment ends before its HTLC does."""

    async def is_at_rest() -> bool:
        channels = [
            one for each in (simnet.alice, simnet.bob) for one in (await each.api.get("/v1/channels"))["channels"]
        ]
        return not any(one["pending_htlcs"] for one in channels)

    await simnet.until(is_at_rest, "no HTLC is pending")
    return int((await node.api.get("/v1/balance/channels"))["local_balance"]["msat"])


@pytest.mark.parametrize("mode", ["invoice", "keysend"])
async def test_two_settle_for_connectors_of_anybody_through_kills(simnet: "Simnet", tmp_path: Path, mode: str) -> None:
    """Bob's lnd gains to the millisatoshi; the channel's own fees are Alice's, who opened it."""
    alice, bob = (connector(tmp_path, node, mode) for node in (simnet.alice, simnet.bob))
    before = await local_msat(simnet, simnet.bob)
    async with two(alice, bob):
        await pay_each_other_through_kills(alice, bob, UNIT)
    assert await local_msat(simnet, simnet.bob) == before + (6 - 4) * UNIT
