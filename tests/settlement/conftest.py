"""Nodes that settle: the fixtures of the node tests, and a ledger in the test's process."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.node.conftest import ADMIN_TOKEN, nodes  # noqa: F401  (a fixture)
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


async def isthmus(
    *arguments: str | Path, token: str | None = ADMIN_TOKEN, timeout_s: int = 60
) -> subprocess.CompletedProcess[str]:
    """`isthmus …` with the toy among its engines; what it prints."""
    clean = {name: value for name, value in os.environ.items() if name != "ISTHMUS_ADMIN_TOKEN"}
    if token is not None:
        clean["ISTHMUS_ADMIN_TOKEN"] = token
    return await asyncio.to_thread(
        subprocess.run,
        [*WRAPPER, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=clean,
    )
