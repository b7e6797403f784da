"""`python -m isthmus.ledgers.evm`, as a person runs it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import checksummed
from tests.ledgers.evm.anvil import Anvil


async def run(*words: str | Path, **environ: str) -> tuple[int | None, str, str]:
    """Exit status, stdout, stderr."""
    command = (sys.executable, "-m", "isthmus.ledgers.evm", *map(str, words))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env={**os.environ, **environ})
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_a_key_is_made_once_and_its_address_told(tmp_path: Path) -> None:
    file = tmp_path / "key"
    status, out, _ = await run("new-key", file)
    assert (status, out.strip()) == (0, checksummed(Key(bytes.fromhex(file.read_text())).address))
    assert await run("address", file) == (0, out, "")
    status, _, err = await run("new-key", file)
    assert (status, err.count("\n")) == (2, 1)
    status, _, err = await run("new-key", tmp_path / "other", "--passphrase-variable", "NOT_SET")
    assert (status, err) == (2, "the environment has no NOT_SET\n")


@pytest.mark.ledger
async def test_the_contract_is_put_onto_a_chain_once(anvil: Anvil, tmp_path: Path) -> None:
    file = tmp_path / "key"
    await run("new-key", file)
    status, _, err = await run("deploy", file, "--rpc", anvil.url)
    assert (status, err.count("\n")) == (2, 1)  # it has no coins
    await anvil.fund(Key(bytes.fromhex(file.read_text())))
    status, out, err = await run("deploy", file, "--rpc", anvil.url)
    assert (status, checksummed(contract.address()) in out) == (0, True), err
    code = bytes.fromhex((await anvil.rpc("eth_getCode", contract.address(), "latest"))[2:])
    assert contract.is_ours(code)
    status, out, _ = await run("deploy", file, "--rpc", anvil.url)
    assert (status, "already" in out) == (0, True)
