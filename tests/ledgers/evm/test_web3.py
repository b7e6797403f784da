"""The PyPI client web3 reads our contract on a chain, and signs a claim that the contract takes."""

import asyncio
import json
import subprocess
from typing import Any

import pytest

from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.claims import Domain, sign
from isthmus.ledgers.evm.transactions import Call
from tests.ledgers.evm.anvil import HERE, ROOT, Anvil, a_key, some_terms

pytestmark = pytest.mark.ledger

ALICE, BOB = a_key(1), a_key(2)
ARTIFACT = ROOT / "src" / "isthmus" / "ledgers" / "evm" / "contract" / "IsthmusChannels.json"


@pytest.fixture(scope="session")
def its_python() -> str:
    """web3's own environment."""
    done = subprocess.run([ROOT / "tools" / "web3"], capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"web3 isn't installed: {done.stderr.strip()[-200:]}; `make ledgers` installs it")
    return done.stdout.strip()


async def test_web3_reads_channels_and_signs_claims_as_we_do(anvil: Anvil, its_python: str) -> None:
    await anvil.fund(ALICE, BOB)
    at = await anvil.deploy_channels(ALICE)
    terms = some_terms(ALICE, BOB)
    data, value = contract.open_channel(terms, 1_000)
    await anvil.send(ALICE, Call(to=at, data=data, value=value, gas=200_000))
    domain = Domain(anvil.chain_id, at)
    signature = sign(domain.claim_digest(terms.id, 700), ALICE.private)
    await anvil.send(BOB, Call(to=at, data=contract.claim(terms, 700, signature), gas=200_000))
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
    out, _ = await asyncio.wait_for(process.communicate(json.dumps(given).encode()), 60)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    theirs = bytes.fromhex(found.pop("signature").removeprefix("0x"))
    assert found == {
        "chain": anvil.chain_id,
        "channel": terms.id.hex(),
        "state": [1_000, 700, 0],
        "events": ["Opened", "Claimed"],
    }
    compact = theirs[:32] + (int.from_bytes(theirs[32:64], "big") | (theirs[64] - 27) << 255).to_bytes(32, "big")
    assert compact == sign(domain.claim_digest(terms.id, 900), ALICE.private)
    await anvil.send(BOB, Call(to=at, data=contract.claim(terms, 900, compact), gas=200_000))
    assert (await anvil.channel(terms))[1] == 900
