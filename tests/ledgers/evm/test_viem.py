"""An Ethereum client by others reads our contract, and signs claims that it takes."""

import asyncio
import json
from typing import Any

import pytest

from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.claims import Domain, sign
from isthmus.ledgers.evm.transactions import Call
from tests.ledgers.evm.anvil import HERE, ROOT, Anvil, a_key, some_terms

pytestmark = pytest.mark.ledger

ALICE, BOB = a_key(1), a_key(2)
ARTIFACT = ROOT / "src" / "isthmus" / "ledgers" / "evm" / "contract" / "IsthmusChannels.json"


async def test_viem_reads_channels_and_signs_claims_as_we_do(anvil: Anvil) -> None:
    await anvil.fund(ALICE, BOB)
    at = await anvil.deploy_channels(ALICE)
    terms = some_terms(ALICE, BOB)
    data, value = contract.open_channel(terms, 1_000)
    await anvil.send(ALICE, Call(to=at, data=data, value=value, gas=200_000))
    signature = sign(Domain(anvil.chain_id, at).claim_digest(terms.id, 700), ALICE.private)
    await anvil.send(BOB, Call(to=at, data=contract.claim(terms, 700, signature), gas=200_000))
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
    out, _ = await asyncio.wait_for(process.communicate(), 60)
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
    compact = theirs[:32] + (int.from_bytes(theirs[32:64], "big") | (theirs[64] - 27) << 255).to_bytes(32, "big")
    assert compact == sign(Domain(anvil.chain_id, at).claim_digest(terms.id, 900), ALICE.private)
    await anvil.send(BOB, Call(to=at, data=contract.claim(terms, 900, compact), gas=200_000))
    assert (await anvil.channel(terms))[1] == 900
