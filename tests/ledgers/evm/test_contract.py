"""The contract on a real EVM: who may do what, tokens that misbehave, callers that come back."""

from typing import Any

import pytest

from isthmus.ledgers.evm import contract, tokens
from isthmus.ledgers.evm.claims import ChannelTerms, Domain, sign
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, checksummed, keccak256, word
from isthmus.ledgers.evm.rpc import NodeRefusedError
from isthmus.ledgers.evm.transactions import Call
from tests.ledgers.evm.anvil import ETHER, Anvil, a_key, mint, some_terms

pytestmark = pytest.mark.ledger

ALICE, BOB, EVE = a_key(1), a_key(2), a_key(3)
GAS = 1_000_000
CLOSED = 2**32 - 1


class World:
    def __init__(self, anvil: Anvil) -> None:
        self.anvil = anvil
        self.at = contract.address()
        self.domain = Domain(anvil.chain_id, self.at)

    async def do(self, key: Key, data: bytes, value: int = 0, to: str | None = None) -> dict[str, Any]:
        return await self.anvil.send(key, Call(to=to or self.at, data=data, value=value, gas=GAS))

    async def refused(self, key: Key, data: bytes, value: int = 0) -> None:
        before = await self.anvil.balance(self.at)
        with pytest.raises(NodeRefusedError):
            await self.do(key, data, value)
        assert await self.anvil.balance(self.at) == before

    async def open(self, terms: ChannelTerms, amount: int = 1_000) -> None:
        await self.do(ALICE, *contract.open_channel(terms, amount))

    def claim(self, terms: ChannelTerms, amount: int, key: Key = ALICE, domain: Domain | None = None) -> bytes:
        signature = sign((domain or self.domain).claim_digest(terms.id, amount), key.private)
        return contract.claim(terms, amount, signature)

    def release(self, terms: ChannelTerms, amount: int, key: Key = ALICE) -> bytes:
        return contract.release(terms, amount, sign(self.domain.claim_digest(terms.id, amount), key.private))

    def close(self, terms: ChannelTerms, amount: int, key: Key = BOB) -> bytes:
        return contract.close(terms, amount, sign(self.domain.close_digest(terms.id, amount), key.private))


@pytest.fixture
async def world(anvil: Anvil) -> World:
    await anvil.fund(ALICE, BOB, EVE)
    await anvil.deploy_channels(EVE)
    return World(anvil)


async def test_the_chain_has_the_contract_that_was_committed(world: World) -> None:
    code = await world.anvil.rpc("eth_getCode", world.at, "latest")
    assert contract.is_ours(bytes.fromhex(code[2:]))
    separator = await world.anvil.view(world.at, contract.selector("domainSeparator()"))
    assert separator == world.domain.separator
    terms = some_terms(ALICE, BOB)
    data = contract.selector("channelId((address,address,address,uint32,bytes32))") + terms.words
    assert await world.anvil.view(world.at, data) == terms.id


async def test_claims_pay_their_growth_and_leave_the_channel_open(world: World) -> None:
    terms = some_terms(ALICE, BOB)
    await world.open(terms)
    before = await world.anvil.balance(BOB.address)
    for total in (10, 400):
        await world.do(EVE, world.claim(terms, total))  # whoever hands it in, Bob is paid
    await world.do(ALICE, *contract.top_up(terms, 100))
    assert await world.anvil.balance(BOB.address) == before + 400
    assert await world.anvil.channel(terms) == (1_100, 400, 0)
    for refused in (400, 399, 0):
        await world.refused(BOB, world.claim(terms, refused))  # replayed, lower


async def test_a_claim_above_the_deposit_pays_the_deposit_and_the_rest_after_a_top_up(world: World) -> None:
    terms = some_terms(ALICE, BOB)
    await world.open(terms)
    await world.do(BOB, world.claim(terms, 5_000))
    assert await world.anvil.channel(terms) == (1_000, 1_000, 0)
    await world.refused(BOB, world.claim(terms, 5_000))
    await world.do(ALICE, *contract.top_up(terms, 70))
    await world.do(BOB, world.claim(terms, 5_000))
    assert await world.anvil.channel(terms) == (1_070, 1_070, 0)


async def test_a_signature_counts_once_for_one_channel_key_chain_contract_and_kind(world: World) -> None:
    terms, other = some_terms(ALICE, BOB), some_terms(ALICE, BOB, salt=2)
    await world.open(terms)
    await world.open(other)
    wrong_chain, wrong_contract = Domain(1, world.at), Domain(world.anvil.chain_id, BOB.address)
    for data in (
        world.claim(terms, 10, EVE),
        world.claim(terms, 10, BOB),
        world.claim(terms, 10, domain=wrong_chain),
        world.claim(terms, 10, domain=wrong_contract),
        contract.claim(terms, 10, sign(world.domain.close_digest(terms.id, 10), ALICE.private)),
        contract.claim(terms, 10, sign(world.domain.claim_digest(other.id, 10), ALICE.private)),
        contract.claim(terms, 10, bytes(64)),
        world.close(terms, 10, ALICE),
    ):
        await world.refused(BOB, data)


async def test_only_its_parties_open_fund_and_end_a_channel(world: World) -> None:
    terms = some_terms(ALICE, BOB)
    opening = contract.open_channel(terms, 1_000)
    await world.refused(EVE, *opening)
    await world.refused(ALICE, opening[0], 999)
    await world.refused(ALICE, *contract.open_channel(terms, 0))
    await world.refused(ALICE, *contract.open_channel(some_terms(ALICE, BOB, delay=366 * 86_400), 5))
    nobody = ChannelTerms(ALICE.address, NO_ADDRESS, NO_ADDRESS, 60, word(1))
    await world.refused(ALICE, *contract.open_channel(nobody, 5))
    await world.refused(ALICE, *contract.top_up(terms, 5))  # not there yet
    await world.open(terms)
    await world.refused(ALICE, *opening)
    await world.refused(EVE, *contract.top_up(terms, 5))
    for key, data in (
        (EVE, contract.start_close(terms)),
        (BOB, contract.start_close(terms)),
        (EVE, world.release(terms, 10)),
        (ALICE, world.release(terms, 10)),
        (EVE, world.close(terms, 10)),
        (ALICE, world.close(terms, 1_001)),
        (EVE, contract.finish(terms)),
    ):
        await world.refused(key, data)


async def test_both_end_it_in_one_transaction(world: World) -> None:
    for salt, (key, data) in enumerate([(BOB, world.release), (ALICE, world.close)], start=1):
        terms = some_terms(ALICE, BOB, salt=salt)
        await world.open(terms)
        await world.do(BOB, world.claim(terms, 100))
        balances = await world.anvil.balance(BOB.address), await world.anvil.balance(world.at)
        receipt = await world.do(key, data(terms, 700))
        cost = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16) if key is BOB else 0
        assert await world.anvil.balance(BOB.address) == balances[0] + 600 - cost
        assert await world.anvil.balance(world.at) == balances[1] - 900
        assert await world.anvil.channel(terms) == (0, 700, CLOSED)
        # Its id is used up, so that an old claim never meets new coins.
        await world.refused(ALICE, *contract.open_channel(terms, 1_000))
        await world.refused(ALICE, *contract.top_up(terms, 1_000))
        await world.refused(BOB, world.claim(terms, 800))
        await world.refused(EVE, contract.finish(terms))


async def test_a_receiver_gives_a_channel_back_without_a_claim(world: World) -> None:
    terms = some_terms(ALICE, BOB)
    await world.open(terms)
    await world.do(BOB, contract.release(terms, 0, bytes(64)))
    assert await world.anvil.channel(terms) == (0, 0, CLOSED)


async def test_the_receiver_claims_until_the_sender_has_his_rest(world: World) -> None:
    terms = some_terms(ALICE, BOB, delay=600)
    await world.open(terms)
    await world.do(ALICE, contract.start_close(terms))
    await world.refused(ALICE, contract.start_close(terms))
    await world.refused(ALICE, *contract.top_up(terms, 5))
    await world.refused(ALICE, contract.finish(terms))
    await world.do(ALICE, world.claim(terms, 10))  # an old one: Bob's highest counts all the same
    await world.anvil.mine(seconds=700)
    await world.do(BOB, world.claim(terms, 900))
    before = await world.anvil.balance(ALICE.address)
    await world.do(EVE, contract.finish(terms))
    assert await world.anvil.balance(ALICE.address) == before + 100
    assert await world.anvil.channel(terms) == (0, 900, CLOSED)


@pytest.mark.parametrize("name", ["Token", "SilentToken"])
async def test_tokens_by_the_book_and_those_that_answer_nothing(world: World, name: str) -> None:
    token = await world.anvil.deploy_test(EVE, name)
    await world.do(EVE, mint(ALICE.address, 5_000), to=token)
    terms = some_terms(ALICE, BOB, token=token)
    await world.refused(ALICE, *contract.open_channel(terms, 1_000))  # not approved
    await world.do(ALICE, tokens.approve(world.at, 1_500), to=token)
    await world.refused(ALICE, contract.open_channel(terms, 1_000)[0], 1)  # coins beside tokens
    await world.open(terms)
    await world.do(ALICE, *contract.top_up(terms, 500))
    await world.do(BOB, world.claim(terms, 200))
    await world.do(BOB, world.release(terms, 300))
    held = [
        int.from_bytes(await world.anvil.view(token, tokens.balance_of(one)), "big")
        for one in (ALICE.address, BOB.address, world.at)
    ]
    assert held == [4_700, 300, 0]


@pytest.mark.parametrize("name", ["FeeToken", "RefusingToken", None])
async def test_tokens_with_a_fee_that_refuse_or_are_none_are_refused(world: World, name: str | None) -> None:
    token = BOB.address if name is None else await world.anvil.deploy_test(EVE, name)
    if name == "FeeToken":
        await world.do(EVE, mint(ALICE.address, 5_000), to=token)
        await world.do(ALICE, tokens.approve(world.at, 5_000), to=token)
    await world.refused(ALICE, *contract.open_channel(some_terms(ALICE, BOB, token=token), 1_000))


def arm(target: str, data: bytes) -> bytes:
    return contract.selector("arm(address,bytes)") + word(target) + word(64) + padded(data)


def forward(to: str, data: bytes) -> bytes:
    return contract.selector("forward(address,bytes)") + word(to) + word(64) + padded(data)


def padded(data: bytes) -> bytes:
    return word(len(data)) + data + bytes(-len(data) % 32)


async def test_a_receiver_that_calls_back_gets_nothing_twice(world: World) -> None:
    """It is paid, and tries to claim a higher total and to end the channel while it is."""
    caller = (await world.anvil.deploy_test(EVE, "Reenterer")).lower()
    terms = ChannelTerms(ALICE.address, caller, NO_ADDRESS, 60, word(1))
    await world.open(terms)
    for total, again in ((100, world.claim(terms, 900)), (200, world.release(terms, 900))):
        await world.do(EVE, arm(world.at, again), to=caller)
        await world.do(BOB, world.claim(terms, total))
        assert await world.anvil.channel(terms) == (1_000, total, 0)
        assert await world.anvil.view(caller, contract.selector("succeeded()")) == word(0)
        assert await world.anvil.balance(caller) == total


async def test_a_token_that_calls_back_opens_nothing_with_the_same_coins(world: World) -> None:
    token = (await world.anvil.deploy_test(EVE, "CallbackToken")).lower()
    await world.do(EVE, mint(token, 5_000), to=token)
    await world.do(EVE, mint(ALICE.address, 5_000), to=token)
    await world.do(ALICE, tokens.approve(world.at, 5_000), to=token)
    inner = ChannelTerms(token, BOB.address, token, 60, word(9))
    await world.do(EVE, arm(world.at, contract.open_channel(inner, 500)[0]), to=token)
    terms = some_terms(ALICE, BOB, token=token)
    await world.open(terms)
    assert await world.anvil.view(token, contract.selector("succeeded()")) == word(0)
    assert await world.anvil.channel(terms) == (1_000, 0, 0)
    assert await world.anvil.channel(inner) == (0, 0, 0)


async def test_a_sender_that_takes_no_coins_does_not_hold_up_claims(world: World) -> None:
    """Its rest can't be paid out; the receiver's part can."""
    silent = await world.anvil.deploy_test(EVE, "CallbackToken")  # takes no coins
    await world.anvil.rpc("anvil_setBalance", silent, hex(ETHER))
    terms = ChannelTerms(silent.lower(), BOB.address, NO_ADDRESS, 60, word(1))
    data, value = contract.open_channel(terms, 1_000)
    await world.anvil.rpc("anvil_impersonateAccount", silent)
    question = {"from": silent, "to": world.at, "data": "0x" + data.hex(), "value": hex(value), "gas": hex(GAS)}
    sent = await world.anvil.receipt(await world.anvil.rpc("eth_sendTransaction", question))
    assert int(sent["status"], 16) == 1
    await world.refused(BOB, contract.release(terms, 0, bytes(64)))
    assert await world.anvil.channel(terms) == (1_000, 0, 0)


async def test_events_tell_all_that_happens(world: World) -> None:
    terms = some_terms(ALICE, BOB, delay=60)
    signatures = {
        contract.open_channel(terms, 1_000): "Opened(bytes32,address,address,address,uint256,uint256)",
        contract.top_up(terms, 5): "ToppedUp(bytes32,uint256)",
        (world.claim(terms, 7), 0): "Claimed(bytes32,uint256)",
        (contract.start_close(terms), 0): "Closing(bytes32,uint256)",
        (world.close(terms, 8), 0): "Closed(bytes32,uint256)",
    }
    for (data, value), signature in signatures.items():
        (log,) = (await world.do(ALICE, data, value))["logs"]
        assert log["topics"][:2] == ["0x" + keccak256(signature.encode()).hex(), "0x" + terms.id.hex()]
    assert checksummed(world.at)
