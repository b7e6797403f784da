"""A bank in the test's own loop, and the way to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ledgers.bank.conftest import furnish, open_bank, serving
from tests.node.conftest import nodes  # noqa: F401  (a fixture)
from tests.settlement.bank.world import MONEY, Clock, Way, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """East and West have money, a stranger too; nobody's engine runs before `World.begin`."""
    clock = Clock()
    bank = open_bank(str(tmp_path / "bank.db"), clock)
    furnish(bank, "east", "west", "stranger", money=MONEY)
    async with serving(bank) as server:
        way = await Way(server.url).start()
        world = World(bank, way, clock)
        yield world
        way.gate.set()
        for one in ("east", "west"):
            if hasattr(world, one):
                await getattr(world, one).kill()
        await way.close()
    bank.close()
