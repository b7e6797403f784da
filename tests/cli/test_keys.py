"""`isthmus keys`, as a person runs it."""

import asyncio
import json
import os
import sys
from pathlib import Path

from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import checksummed


async def run(*words: str | Path, **environ: str) -> tuple[int | None, str, str]:
    """Exit status, stdout, stderr."""
    command = (sys.executable, "-m", "isthmus", "keys", *map(str, words))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env={**os.environ, **environ})
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, out.decode(), err.decode()


async def test_a_key_is_made_once_and_its_address_told(tmp_path: Path) -> None:
    file = tmp_path / "key"
    status, out, _ = await run("new", "evm", file)
    assert (status, out.strip()) == (0, checksummed(Key(bytes.fromhex(file.read_text())).address))
    assert file.stat().st_mode & 0o777 == 0o600
    assert await run("address", "evm", file) == (0, out, "")
    before = file.read_bytes()
    status, _, err = await run("new", "evm", file)
    assert (status, err.count("\n"), "Name another file" in err) == (2, 1, True)
    assert file.read_bytes() == before


async def test_a_sealed_key_of_xrp(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    sealed = ("--passphrase-variable", "PASSPHRASE")
    status, out, _ = await run("new", "xrp", file, *sealed, "--json", PASSPHRASE="correct horse")
    assert status == 0
    found = json.loads(out)["address"]
    assert found.startswith("r")
    assert await run("address", "xrp", file, *sealed, PASSPHRASE="correct horse") == (0, f"{found}\n", "")
    status, _, err = await run("address", "xrp", file, *sealed, PASSPHRASE="wrong")
    assert (status, err.count("\n"), "wrong" in err.removeprefix("isthmus: ").split("assphrase")[0]) == (2, 1, False)
    status, _, err = await run("new", "xrp", tmp_path / "other", "--passphrase-variable", "NOT_SET")
    assert (status, err.count("\n"), "the environment has no NOT_SET" in err) == (2, 1, True)
    assert not (tmp_path / "other").exists()
