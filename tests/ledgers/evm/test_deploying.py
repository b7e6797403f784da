"""The channels' contract, put onto a chain by `isthmus keys deploy`."""

from pathlib import Path

import pytest

from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import checksummed
from tests.cli.test_keys import run
from tests.ledgers.evm.anvil import Anvil


@pytest.mark.ledger
async def test_the_contract_is_put_onto_a_chain_once(anvil: Anvil, tmp_path: Path) -> None:
    file = tmp_path / "key"
    await run("new", "evm", file)
    status, _, err = await run("deploy", file, "--rpc", anvil.url)
    assert (status, err.count("\n")) == (1, 1)  # it has no coins
    await anvil.fund(Key(bytes.fromhex(file.read_text())))
    status, out, err = await run("deploy", file, ISTHMUS_EVM_RPC=anvil.url)
    assert (status, checksummed(contract.address()) in out) == (0, True), err
    code = bytes.fromhex((await anvil.rpc("eth_getCode", contract.address(), "latest"))[2:])
    assert contract.is_ours(code)
    status, out, _ = await run("deploy", file, "--rpc", anvil.url)
    assert (status, "already" in out) == (0, True)
