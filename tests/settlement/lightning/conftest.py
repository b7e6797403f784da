"""Two sides with an engine each, on two real lnds."""

import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from isthmus.ledgers.lightning.lnd import Lnd
from isthmus.settlement.lightning.engine import LightningEngine
from tests.ledgers.lightning.fixture import simnet
from tests.ledgers.lightning.simnet import Node, Simnet
from tests.settlement.lightning.ports import Side

__all__ = ["simnet"]


def make_engine(node: Node, **changes: Any) -> LightningEngine:
    settings: dict[str, Any] = {
        "uses_keysend": False,
        "fee_ppm_max": 5_000,
        "fee_msat_min": 10_000,
        "now_s": lambda: time.time_ns() // 10**9,
        "random_bytes": os.urandom,
        "retry_s_min": 0.05,
    }
    return LightningEngine(Lnd(node.settings), **(settings | changes))


class Pair:
    """Alice and Bob, who settle with each other."""

    def __init__(self, simnet: Simnet, **changes: Any) -> None:
        self.simnet = simnet
        self.changes = changes
        self.alice = Side("alice")
        self.bob = Side("bob")
        self.alice.other, self.bob.other = self.bob, self.alice

    async def start(self) -> None:
        for side in (self.alice, self.bob):
            side.begin()
            await self.start_engine(side)

    async def start_engine(self, side: Side) -> None:
        node = self.simnet.alice if side is self.alice else self.simnet.bob
        side.engine = make_engine(node, **self.changes)
        await side.engine.start(side, side.accounts)

    async def close(self) -> None:
        for side in (self.alice, self.bob):
            await side.engine.close()

    async def received(self) -> int:
        """What Bob's lnd has in settled invoices, in all."""
        page = await self.simnet.bob.api.get("/v1/invoices?num_max_invoices=1000")
        return sum(int(one["amt_paid_msat"]) for one in page["invoices"] if one["state"] == "SETTLED")

    async def sent(self) -> list[int]:
        """Payments of Alice's lnd that succeeded."""
        page = await self.simnet.alice.api.get("/v1/payments?include_incomplete=true&max_payments=1000")
        return [int(one["value_msat"]) for one in page["payments"] if one["status"] == "SUCCEEDED"]


@pytest_asyncio.fixture(loop_scope="session")
async def pair(simnet: Simnet, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    pair = Pair(simnet, **getattr(request, "param", {}))
    await pair.start()
    yield pair
    await pair.close()
