"""What clients of others are shown of our contract, and what it must take from them."""

from typing import Final

from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.claims import ChannelTerms, Domain, sign
from isthmus.ledgers.evm.transactions import Call
from tests.ledgers.evm.anvil import ROOT, Anvil, a_key, some_terms

ALICE, BOB = a_key(1), a_key(2)
ARTIFACT: Final = ROOT / "src" / "isthmus" / "ledgers" / "evm" / "contract" / "IsthmusChannels.json"


async def a_claimed_channel(anvil: Anvil) -> tuple[str, ChannelTerms]:
    """Where the contract is, and a channel of 1,000 from Alice to Bob, of which Bob has claimed 700."""
    await anvil.fund(ALICE, BOB)
    at = await anvil.deploy_channels(ALICE)
    terms = some_terms(ALICE, BOB)
    data, value = contract.open_channel(terms, 1_000)
    await anvil.send(ALICE, Call(to=at, data=data, value=value, gas=200_000))
    await _claim(anvil, at, terms, 700, sign(Domain(anvil.chain_id, at).claim_digest(terms.id, 700), ALICE.private))
    return at, terms


async def check_claim(anvil: Anvil, at: str, terms: ChannelTerms, amount: int, theirs: bytes) -> None:
    """Their signature (r, s, v) is ours in its short form, and the contract takes it."""
    compact = theirs[:32] + (int.from_bytes(theirs[32:64], "big") | (theirs[64] - 27) << 255).to_bytes(32, "big")
    assert compact == sign(Domain(anvil.chain_id, at).claim_digest(terms.id, amount), ALICE.private)
    await _claim(anvil, at, terms, amount, compact)
    assert (await anvil.channel(terms))[1] == amount


async def _claim(anvil: Anvil, at: str, terms: ChannelTerms, amount: int, signature: bytes) -> None:
    await anvil.send(BOB, Call(to=at, data=contract.claim(terms, amount, signature), gas=200_000))
