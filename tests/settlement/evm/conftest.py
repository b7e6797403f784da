"""Tests marked `ledger` here need anvil: `make ledgers` installs it, and runs them."""

from collections.abc import AsyncIterator

import pytest

from tests.ledgers.evm.anvil import Anvil, a_key, missing
from tests.settlement.evm.world import Party


@pytest.fixture
async def anvil() -> AsyncIterator[Anvil]:
    """A chain of its own with the channels' contract, and coins for three keys."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    anvil = await Anvil.start()
    await anvil.fund(a_key(1), a_key(2), a_key(3))
    await anvil.deploy_channels(a_key(3))
    yield anvil
    await anvil.stop()


@pytest.fixture
async def parties() -> AsyncIterator[list[Party]]:
    """Whoever is put here is stopped at the end."""
    parties: list[Party] = []
    yield parties
    for one in parties:
        await one.kill()
