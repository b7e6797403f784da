"""A ledger in the test's own loop, and three accounts on it."""

from collections.abc import AsyncIterator

import pytest

from tests.ledgers.xrp.dev.conftest import Serving, serving
from tests.settlement.xrp.world import Party, a_key


@pytest.fixture
async def ledger() -> AsyncIterator[Serving]:
    """It closes on request; the keys 1 to 3 have 1,000 XRP each."""
    async with serving() as ledger:
        for number in (1, 2, 3):
            ledger.service.fund(a_key(number).address, 1_000)
        ledger.service.close_ledger()
        yield ledger


@pytest.fixture
async def parties() -> AsyncIterator[list[Party]]:
    """Whoever is put here is stopped at the end."""
    parties: list[Party] = []
    yield parties
    for one in parties:
        await one.kill()
