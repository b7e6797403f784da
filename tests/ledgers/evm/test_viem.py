"""An Ethereum client by others reads our contract, and signs claims that it takes."""

import asyncio
import json
from typing import Any

import pytest

from tests.ledgers.evm.anvil import HERE, Anvil
from tests.ledgers.evm.clients import ALICE, ARTIFACT, a_claimed_channel, check_claim

pytestmark = pytest.mark.ledger


async def test_viem_reads_channels_and_signs_claims_as_we_do(anvil: Anvil) -> None:
    at, terms = await a_claimed_channel(anvil)
    fields = {
        "sender": terms.sender,
        "receiver": terms.receiver,
        "token": terms.token,
        "settleDelay": terms.settle_delay,
        "salt": "0x" + terms.salt.hex(),
    }
    arguments = (
        anvil.url,
        str(anvil.chain_id),
        at,
        str(ARTIFACT),
        json.dumps(fields),
        "0x" + ALICE.secret.hex(),
        "900",
    )
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("node", str(HERE / "read.mjs"), *arguments, stdout=pipe, cwd=HERE)
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    theirs = bytes.fromhex(found.pop("signature")[2:])
    assert found == {
        "channel": "0x" + terms.id.hex(),
        "deposited": "1000",
        "claimed": "700",
        "closingAt": 0,
        "events": ["Opened", "Claimed"],
    }
    await check_claim(anvil, at, terms, 900, theirs)
