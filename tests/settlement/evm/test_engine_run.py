"""`isthmus engine run evm`: two of them settle on a real chain for connectors that know nothing but RFC 38."""

from pathlib import Path

import pytest

from isthmus.ledgers.evm import contract
from tests.ledgers.evm.anvil import ETHER, Anvil
from tests.settlement.engine_run import Connector, pay_each_other_through_kills, two
from tests.settlement.evm.test_nodes import KEYS, WEI, engine, mined

__all__ = ["mined"]

pytestmark = pytest.mark.ledger

UNIT = 10**9


def connector(folder: Path, anvil: Anvil, name: str, method: str) -> Connector:
    """The same options as in a node's file."""
    options = [line for line in engine(folder, anvil, KEYS[name], method).splitlines()[1:] if "type" not in line]
    return Connector(folder / name, "evm", "ETH", 9, "\n".join(options) + "\n")


@pytest.mark.parametrize("method", ["channels", "transfers"])
async def test_two_settle_for_connectors_of_anybody_through_kills(mined: Anvil, tmp_path: Path, method: str) -> None:
    west, east = (connector(tmp_path, mined, name, method) for name in ("west", "east"))
    before = [await mined.balance(KEYS[name].address) for name in ("west", "east")]
    async with two(west, east):
        await pay_each_other_through_kills(west, east, UNIT)
    spent = [
        then - await mined.balance(KEYS[name].address) for name, then in zip(("west", "east"), before, strict=True)
    ]
    if method == "channels":
        assert await mined.balance(contract.address()) == 100 * ETHER
        assert [round(each / ETHER) for each in spent] == [50, 50]
    else:
        assert [round(each / ETHER) for each in spent] == [6 - 4, 4 - 6]
        assert all(abs(each - paid * UNIT * WEI) < ETHER // 100 for each, paid in zip(spent, (2, -2), strict=True))
