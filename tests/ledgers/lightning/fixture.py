"""A simnet as a fixture, for the tests of the client and of the engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.ledgers.lightning.simnet import Simnet, why_not


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def simnet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simnet]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp("simnet")
    async with Simnet(folder) as net:
        yield net
