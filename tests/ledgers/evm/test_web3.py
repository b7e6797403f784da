"""The PyPI client web3 reads our contract on a chain, and signs a claim that the contract takes."""

import asyncio
import json
import subprocess
from typing import Any

import pytest

from tests.ledgers.evm.anvil import HERE, ROOT, Anvil
from tests.ledgers.evm.clients import ALICE, ARTIFACT, a_claimed_channel, check_claim

pytestmark = pytest.mark.ledger


@pytest.fixture(scope="session")
def its_python() -> str:
    """web3's own environment."""
    done = subprocess.run([ROOT / "tools" / "web3"], capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"web3 isn't installed: {done.stderr.strip()[-200:]}; `make ledgers` installs it")
    return done.stdout.strip()


async def test_web3_reads_channels_and_signs_claims_as_we_do(anvil: Anvil, its_python: str) -> None:
    at, terms = await a_claimed_channel(anvil)
    fields = {
        "sender": terms.sender,
        "receiver": terms.receiver,
        "token": terms.token,
        "settleDelay": terms.settle_delay,
        "salt": terms.salt.hex(),
    }
    given = {
        "url": anvil.url,
        "chain": anvil.chain_id,
        "contract": at,
        "abi": json.loads(ARTIFACT.read_text())["abi"],
        "terms": fields,
        "key": ALICE.secret.hex(),
        "amount": 900,
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(its_python, str(HERE / "read_web3.py"), stdin=pipe, stdout=pipe)
    out, _ = await asyncio.wait_for(process.communicate(json.dumps(given).encode()), 120)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    theirs = bytes.fromhex(found.pop("signature").removeprefix("0x"))
    assert found == {
        "chain": anvil.chain_id,
        "channel": terms.id.hex(),
        "state": [1_000, 700, 0],
        "events": ["Opened", "Claimed"],
    }
    await check_claim(anvil, at, terms, 900, theirs)
