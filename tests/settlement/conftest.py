"""Nodes that settle: the fixtures of the node tests, and a ledger in the test's process."""

import sys
from collections.abc import AsyncIterator
from typing import Final

import pytest

from tests.node.conftest import Nodes, nodes  # noqa: F401  (a fixture)
from tests.settlement.toy import ToyLedger

# What runs a node with the toy among its kinds of engines.
WRAPPER: Final = (sys.executable, "-m", "tests.settlement.toy")


@pytest.fixture
async def ledger() -> AsyncIterator[ToyLedger]:
    ledger = await ToyLedger().start()
    yield ledger
    await ledger.close()


def engine(ledger: ToyLedger, holder: str) -> str:
    """The table of a node's engine, who is `holder` on the ledger."""
    return f'[settlement.bank]\ntype = "toy"\nurl = "{ledger.url}"\nholder = "{holder}"\n'


def settles(name: str, holder: str, **terms: str) -> str:
    """What follows an account: its peer is `holder` on the ledger."""
    keys = "".join(f'{key} = "{value}"\n' for key, value in terms.items())
    return f'[accounts.{name}.settlement]\nengine = "bank"\nholder = "{holder}"\n{keys}'
