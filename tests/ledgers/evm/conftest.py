"""Tests marked `ledger` here need anvil: `make ledgers` installs it, and runs them."""

from collections.abc import AsyncIterator

import pytest

from tests.ledgers.evm.anvil import Anvil, missing


@pytest.fixture
async def anvil() -> AsyncIterator[Anvil]:
    """A chain of its own."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    anvil = await Anvil.start()
    yield anvil
    await anvil.stop()
