"""What goes wrong on chains and in nodes: kills at every step, reorganisations, fees, nodes that lie or are away."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web

from isthmus.connector.events import AccountId
from isthmus.connector.settling import REVERSED
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.claims import ChannelTerms, Domain, sign
from isthmus.ledgers.evm.fees import GWEI, Fee, FeePolicy
from isthmus.ledgers.evm.octets import NO_ADDRESS
from isthmus.ledgers.evm.transactions import Call, sign_call
from isthmus.settlement.evm.arrivals import UNDO_BLOCKS
from isthmus.settlement.evm.channels import IN
from isthmus.settlement.evm.messages import Accepted, Claim, decode, encode
from isthmus.settlement.evm.outgoing import Outgoing
from isthmus.settlement.evm.pending import ENDED_BLOCKS
from isthmus.settlement.evm.sending import LAG_MS_MAX
from isthmus.settlement.port import MessageRefusedError
from isthmus.settlement.promises import Phase
from tests.ledgers.evm.anvil import ETHER, Anvil, a_key
from tests.settlement.evm.world import (
    FINNEY,
    PEER,
    Books,
    Clock,
    Party,
    channel_party,
    channels_of,
    join,
    looked,
    read_beyond,
    transfer_party,
    until,
)

pytestmark = pytest.mark.ledger

ALICE, BOB, EVE = a_key(1), a_key(2), a_key(3)
KILLS = 14


def out(party: Party) -> Outgoing:
    return channels_of(party).outgoing(PEER)


@pytest.mark.parametrize("booked", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("kind", ["channels", "transfers"])
@pytest.mark.parametrize("victim", ["payer", "payee"])
async def test_a_kill_at_any_step_pays_nothing_twice_and_loses_nothing(
    anvil: Anvil, parties: list[Party], victim: str, kind: str, booked: bool
) -> None:
    """The process ends at its first step, the next one at its first but one, and so on."""
    make: Any = channel_party if kind == "channels" else transfer_party
    alice: Party = make(anvil, ALICE)
    bob: Party = make(anvil, BOB)
    join(alice, bob)
    parties += [alice, bob]
    killed = alice if victim == "payer" else bob
    for one in (alice, bob):
        await one.start()
    kills = 0
    before = await anvil.balance(BOB.address)

    def is_paid() -> bool:
        return alice.books.confirmed() == sum(one.amount for one in alice.books.settlements[PEER].values())

    while kills < KILLS:
        if killed.port.kill_at is None:
            killed.port.kill_at = killed.books.steps + 1 + kills % 3
            killed.port.kill_before = not booked
        alice.books.settle(700)
        await until(lambda: killed.port.is_dead or is_paid(), anvil)
        if killed.port.is_dead:
            kills += 1
            await killed.restart()
        await until(is_paid, anvil)
    total = alice.books.confirmed()
    await until(lambda: bob.books.credited[PEER] == total, anvil)
    await read_beyond(bob, anvil)
    assert bob.books.credited[PEER] == total
    if kind == "channels":
        assert out(alice).signed == total * FINNEY
        terms = out(alice).terms
        assert terms is not None
        assert (await anvil.channel(terms))[0] == out(alice).deposited
    else:
        assert await anvil.balance(BOB.address) == before + total * FINNEY  # Bob has paid for no gas


async def test_nothing_goes_to_the_chain_before_it_is_durable(anvil: Anvil, parties: list[Party]) -> None:
    """A look at what is under way comes while the disk is slow. A power cut then would have it paid anew."""
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: b"to" in alice.books.kept[PEER], anvil)
    await anvil.rpc("evm_setAutomine", False)
    alice.port.disk.clear()
    number = alice.books.settle(300)
    await until(alice.pending)
    (one,) = alice.pending()

    async with asyncio.timeout(60):
        while alice.port.waiting < 2:  # the payment's step, and whoever would give its bytes to the chain
            assert await anvil.rpc("eth_getTransactionByHash", "0x" + one.hashes[0].hex()) is None
    alice.port.disk.set()
    await until(lambda: alice.books.state(number) == "confirmed" and bob.books.credited[PEER] == 300, anvil)


# --- reorganisations ---


async def channel_pair(anvil: Anvil, parties: list[Party]) -> tuple[Party, Party]:
    alice, bob = channel_party(anvil, ALICE), channel_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    return alice, bob


async def paid(anvil: Anvil, alice: Party, amount: int) -> None:
    number = alice.books.settle(amount)
    await until(lambda: alice.books.state(number) == "confirmed", anvil)


async def claimed(anvil: Anvil, parties: list[Party]) -> tuple[Party, Party, ChannelTerms]:
    """Alice has paid Bob 300 by a channel of hers, and this is it."""
    alice, bob = await channel_pair(anvil, parties)
    await paid(anvil, alice, 300)
    terms = out(alice).terms
    assert terms is not None
    return alice, bob, terms


async def test_a_reorganisation_that_removes_the_channel_takes_the_credit_until_it_is_back(
    anvil: Anvil, parties: list[Party]
) -> None:
    """Deeper than the confirmations. Alice's engine submits its opening again, with the same bytes."""
    before = await anvil.rpc("evm_snapshot")
    alice, bob, terms = await claimed(anvil, parties)
    await alice.stop()
    assert await anvil.rpc("evm_revert", before)
    await until(lambda: bob.books.credited[PEER] == 0, anvil)
    assert bob.books.events("evm_credit_undone")
    await alice.restart()
    await until(lambda: bob.books.credited[PEER] == 300, anvil)
    assert alice.books.events("evm_channel_reorganised")
    assert (await anvil.channel(terms))[0] == 1_000 * FINNEY
    await paid(anvil, alice, 50)
    assert bob.books.credited[PEER] == 350


async def test_a_reorganisation_that_removes_a_top_up_takes_what_it_held(anvil: Anvil, parties: list[Party]) -> None:
    alice, bob = await channel_pair(anvil, parties)
    await paid(anvil, alice, 900)
    before = await anvil.rpc("evm_snapshot")
    await paid(anvil, alice, 500)
    assert bob.books.credited[PEER] == 1_400
    await alice.stop()
    assert await anvil.rpc("evm_revert", before)
    await until(lambda: bob.books.credited[PEER] == 1_000, anvil)
    await alice.restart()
    await until(lambda: bob.books.credited[PEER] == 1_400, anvil)


async def test_a_reorganisation_that_removes_a_redemption_has_it_redeemed_again(
    anvil: Anvil, parties: list[Party]
) -> None:
    _, bob, terms = await claimed(anvil, parties)
    before = await anvil.rpc("evm_snapshot")
    await channels_of(bob).redeem_channels(PEER, and_end=False)
    async with asyncio.timeout(60):
        while (await anvil.channel(terms))[1] == 0:
            await looked(bob, turns=1)
    await anvil.rpc("evm_revert", before)
    assert (await anvil.channel(terms))[1] == 0
    async with asyncio.timeout(60):
        while (await anvil.channel(terms))[1] != 300 * FINNEY:
            await anvil.mine()
    assert bob.books.credited[PEER] == 300


async def test_a_channel_that_a_reorganisation_brings_back_has_its_claim_credited_once(
    anvil: Anvil, parties: list[Party]
) -> None:
    """Its end was deep enough. The peer, or a node that is behind, shows the channel as it was."""
    alice, bob, terms = await claimed(anvil, parties)
    before = await anvil.rpc("evm_snapshot")
    await channels_of(bob).redeem_channels(PEER, and_end=True)
    await until(lambda: not channels_of(bob).incoming(PEER), anvil)
    await alice.kill()
    await anvil.rpc("evm_setAutomine", False)
    assert await anvil.rpc("evm_revert", before)
    assert await anvil.channel(terms) == (1_000 * FINNEY, 0, 0)
    claim = next(data for data in alice.said if isinstance(decode(data), Claim))
    assert decode(await bob.engine.take_message(PEER, claim)) == Accepted(300 * FINNEY)
    assert bob.books.credited[PEER] == 300
    await anvil.rpc("evm_setAutomine", True)
    async with asyncio.timeout(20):
        while (await anvil.channel(terms))[:2] != (0, 300 * FINNEY):
            await anvil.mine()
    await until(lambda: not channels_of(bob).incoming(PEER), anvil)
    assert bob.books.credited[PEER] == 300
    async with asyncio.timeout(20):
        while any(key.startswith(IN) for key in bob.books.kept[PEER]):
            await anvil.mine(ENDED_BLOCKS)
            await looked(bob)
    assert bob.books.credited[PEER] == 300


async def test_a_channel_that_ends_with_less_than_a_unit_unredeemed_is_at_its_end(
    anvil: Anvil, parties: list[Party]
) -> None:
    """Claims may have fractions of the account's unit. What isn't a whole one can't be taken back."""
    alice, bob, terms = await claimed(anvil, parties)
    await channels_of(bob).redeem_channels(PEER, and_end=False)
    async with asyncio.timeout(20):
        while (await anvil.channel(terms))[1] == 0:
            await anvil.mine()
    await alice.kill()
    total = 300 * FINNEY + 5
    digest = Domain(anvil.chain_id, contract.address()).claim_digest(terms.id, total)
    claim = Claim(
        chain_id=anvil.chain_id,
        contract=contract.address(),
        terms=terms,
        amount=total,
        signature=sign(digest, ALICE.private),
    )
    assert decode(await bob.engine.take_message(PEER, encode(claim))) == Accepted(total)
    for data in (contract.start_close(terms), contract.finish(terms)):
        await anvil.send(ALICE, Call(to=contract.address(), data=data, gas=200_000))
        await anvil.mine(seconds=3_700)
    await until(lambda: not channels_of(bob).incoming(PEER) or bob.books.events("evm_step_refused"), anvil)
    assert not bob.books.events("evm_step_refused")
    assert bob.books.credited[PEER] == 300


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_transfer_that_a_reorganisation_removes_is_taken_back(
    anvil: Anvil, parties: list[Party], comes_back: bool
) -> None:
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await paid(anvil, alice, 100)
    await until(lambda: bob.books.credited[PEER] == 100, anvil)
    before = await anvil.rpc("evm_snapshot")
    number = alice.books.settle(300)
    await until(lambda: bob.books.credited[PEER] == 400, anvil)
    raw = await anvil.raw_of(ALICE.address, 1) if comes_back else b""
    await alice.kill()
    assert alice.books.state(number) in ("taken", "confirmed")
    assert await anvil.rpc("evm_revert", before)
    await until(lambda: bob.books.credited[PEER] == 100, anvil)
    assert bob.books.events("evm_credit_undone")
    if comes_back:
        await anvil.rpc("eth_sendRawTransaction", "0x" + raw.hex())
        await until(lambda: bob.books.credited[PEER] == 400, anvil)
    else:
        await anvil.mine(70)
        await read_beyond(bob, anvil)
        assert bob.books.credited[PEER] == 100


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_payments_that_were_final_are_given_to_the_chain_again_if_a_reorganisation_takes_them(
    anvil: Anvil, parties: list[Party], is_restarted: bool
) -> None:
    """Deeper than the confirmations, and nodes forget them: those that follow have higher nonces, and would wait."""
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    before = await anvil.rpc("evm_snapshot")
    for amount in (100, 200):
        await paid(anvil, alice, amount)
    await until(lambda: bob.books.credited[PEER] == 300, anvil)
    assert alice.pending() == []
    height = await anvil.height()
    await alice.stop()
    assert await anvil.rpc("evm_revert", before)
    await anvil.mine(height - await anvil.height())
    await until(lambda: bob.books.credited[PEER] == 0, anvil)
    if is_restarted:
        await alice.restart()
    else:
        await alice.start()
    alice.books.settle(50)
    await until(lambda: alice.books.confirmed() == 350 and bob.books.credited[PEER] == 350, anvil)
    assert len(alice.books.events("evm_transaction_reorganised")) == 2
    assert await anvil.rpc("eth_getTransactionCount", ALICE.address, "latest") == "0x3"


# --- fees ---


async def test_a_fee_spike_is_followed_with_the_same_nonce(anvil: Anvil, parties: list[Party]) -> None:
    clock = Clock()
    fees = FeePolicy(tip=GWEI, most=500 * GWEI, urgent=1_000 * GWEI, wait_ms=60_000)
    alice = transfer_party(anvil, ALICE, clock=clock, fees=fees)
    bob = transfer_party(anvil, BOB, clock=clock)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: b"to" in alice.books.kept[PEER], anvil)
    await anvil.rpc("evm_setAutomine", False)
    before = await anvil.balance(BOB.address)
    number = alice.books.settle(300)
    await until(lambda: alice.books.state(number) == "taken")
    await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(100 * GWEI))
    await anvil.mine()
    pending = alice.pending()[0]
    assert (len(pending.raws), await anvil.balance(BOB.address)) == (1, before)
    for _ in range(40):
        clock.now += 61_000
        await looked(alice)
        await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(100 * GWEI))
        await anvil.mine()
        if await anvil.balance(BOB.address) != before:
            break
    await until(lambda: alice.books.state(number) == "confirmed", anvil)
    assert await anvil.balance(BOB.address) == before + 300 * FINNEY
    await until(lambda: bob.books.credited[PEER] == 300, anvil)


async def test_offers_stop_at_the_bound_and_the_transaction_waits(anvil: Anvil, parties: list[Party]) -> None:
    clock = Clock()
    fees = FeePolicy(tip=1, most=4 * GWEI, urgent=8 * GWEI, wait_ms=60_000)
    alice, bob = transfer_party(anvil, ALICE, clock=clock, fees=fees), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: b"to" in alice.books.kept[PEER], anvil)
    await anvil.rpc("evm_setAutomine", False)
    number = alice.books.settle(300)
    await until(lambda: alice.books.state(number) == "taken")
    for _ in range(30):
        clock.now += 61_000
        await looked(alice)
        await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
        await anvil.mine()
    (pending,) = alice.pending()
    assert pending.fee.most <= 4 * GWEI
    assert alice.books.state(number) == "taken"
    for _ in range(60):  # the spike passes
        await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI // 10))
        await anvil.mine()
        if alice.books.state(number) == "confirmed":
            break
        await looked(alice)
    assert alice.books.state(number) == "confirmed"


# --- keys and coins ---


async def test_a_channel_without_coins_for_it_waits_and_says_so(anvil: Anvil, parties: list[Party]) -> None:
    await anvil.rpc("anvil_setBalance", ALICE.address, hex(FINNEY))
    alice, bob = await channel_pair(anvil, parties)
    number = alice.books.settle(300)
    await until(lambda: alice.books.events("evm_refused"), anvil)
    assert (alice.books.state(number), out(alice).phase) == ("taken", Phase.NONE)
    await anvil.fund(ALICE)
    await until(lambda: alice.books.state(number) == "confirmed", anvil)
    assert bob.books.credited[PEER] == 300


async def test_a_nonce_that_another_program_took_is_a_failure_and_nothing_is_paid_again(
    anvil: Anvil, parties: list[Party]
) -> None:
    clock = Clock()
    alice, bob = transfer_party(anvil, ALICE, clock=clock), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: b"to" in alice.books.kept[PEER], anvil)
    await anvil.rpc("evm_setAutomine", False)
    number = alice.books.settle(300)
    await until(alice.pending)
    await alice.kill()
    await anvil.rpc("anvil_dropAllTransactions")
    await anvil.rpc("evm_setAutomine", True)
    await anvil.send(ALICE, Call(to=EVE.address, value=1))
    await alice.restart()
    await read_beyond(alice, anvil, turns=5)
    assert alice.books.state(number) == "taken"  # a node that is behind might not have it yet
    clock.now += LAG_MS_MAX
    await until(lambda: alice.books.state(number) == "failed", anvil)
    assert alice.books.events("evm_nonce_taken")
    assert bob.books.credited[PEER] == 0


async def test_a_transfer_that_the_chain_has_as_failed_is_a_failure(anvil: Anvil, parties: list[Party]) -> None:
    """The peer's address is a contract that takes coins when it is asked, and none when its turn comes."""
    picky = (await anvil.deploy_test(EVE, "Token")).lower()
    alice = transfer_party(anvil, ALICE, peer_address=picky)
    parties.append(alice)
    await anvil.rpc("anvil_setCode", picky, "0x")
    await alice.start()
    await anvil.rpc("evm_setAutomine", False)
    number = alice.books.settle(300)
    await until(alice.pending)
    await anvil.rpc("anvil_setCode", picky, "0xfe")
    await until(lambda: alice.books.state(number) == "failed", anvil)
    assert "failed in block" in alice.books.settlements[PEER][number].text


async def test_a_transfer_that_was_reversed_and_comes_all_the_same_is_told_and_followed_no_more(
    anvil: Anvil, parties: list[Party]
) -> None:
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: b"to" in alice.books.kept[PEER], anvil)
    await anvil.rpc("evm_setAutomine", False)
    number = alice.books.settle(300)
    await until(alice.pending)
    alice.books.settlements[PEER][number].state = REVERSED
    await until(lambda: not alice.pending(), anvil)
    assert alice.books.events("evm_paid_and_reversed")
    await paid(anvil, alice, 50)
    await until(lambda: bob.books.credited[PEER] == 350, anvil)


# --- addresses of transfers ---


async def test_an_address_is_one_accounts_only_and_others_transfers_are_nobodys(
    anvil: Anvil, parties: list[Party]
) -> None:
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: bob.books.kept[PEER].get(b"from") == ALICE.address.encode(), anvil)
    await anvil.send(EVE, Call(to=BOB.address, value=5 * FINNEY))
    await until(lambda: bob.books.events("evm_unmatched"), anvil)
    await paid(anvil, alice, 7)
    await until(lambda: bob.books.credited[PEER] == 7, anvil)


async def test_transfers_of_both_in_one_block_are_each_credited_once(anvil: Anvil, parties: list[Party]) -> None:
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    for amount in (1, 2, 3):
        alice.books.settle(amount)
        bob.books.settle(amount * 10)
    await until(lambda: alice.books.confirmed() == 6 and bob.books.confirmed() == 60, anvil)
    await until(lambda: (alice.books.credited[PEER], bob.books.credited[PEER]) == (60, 6), anvil)


async def test_an_account_is_open_while_the_chain_may_take_a_transfer_back(anvil: Anvil, parties: list[Party]) -> None:
    """On both sides; and if it comes back, nothing is credited that was before."""
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    number = alice.books.settle(5)
    await until(lambda: alice.engine.unfinished(PEER))
    assert alice.engine.unfinished(PEER) == ["1 transactions are under way (pay): wait"]
    await until(lambda: alice.books.state(number) == "confirmed" and bob.books.credited[PEER] == 5, anvil)
    assert alice.engine.unfinished(PEER) == []
    (left,) = bob.engine.unfinished(PEER)
    assert "wait for block" in left
    await anvil.mine(UNDO_BLOCKS + 3)
    await until(lambda: not bob.engine.unfinished(PEER), anvil)
    accounts = list(bob.transfers._accounts.values())
    bob.books.kept[PEER].clear()
    await bob.engine.accounts_changed([])
    await bob.engine.accounts_changed(accounts)
    alice.engine.link_up(PEER)  # it was down while there was no account
    number = alice.books.settle(6)
    await until(lambda: alice.books.state(number) == "confirmed" and bob.books.credited[PEER] == 11, anvil)
    await read_beyond(bob, anvil)
    assert bob.books.credited == {PEER: 11}


async def test_a_transfer_from_an_address_of_two_accounts_is_credited_to_one(
    anvil: Anvil, parties: list[Party]
) -> None:
    """An address in the settings of two accounts, or of one while another's peer has registered it before."""
    first = AccountId("ann")  # before PEER
    alice = transfer_party(anvil, ALICE, peer_address=BOB.address)
    bob = transfer_party(anvil, BOB, books=Books([first, PEER]), peer_address=ALICE.address)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await paid(anvil, alice, 7)
    await until(lambda: any(bob.books.credited.values()), anvil)
    await read_beyond(bob, anvil)
    assert bob.books.credited == {first: 7, PEER: 0}
    assert bob.books.events("evm_address_claimed_twice")[0]["account"] == PEER


async def test_a_credit_that_the_books_refuse_keeps_no_other_account_waiting(
    anvil: Anvil, parties: list[Party]
) -> None:
    """It is given once they take it."""
    first = AccountId("ann")  # before PEER
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB, books=Books([first, PEER]))
    join(alice, bob)
    bob.books.kept[first][b"from"] = EVE.address.encode()
    bob.books.refused.add(first)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: b"since" in bob.books.kept[first] and b"from" in bob.books.kept[PEER], anvil)
    await anvil.send(EVE, Call(to=BOB.address, value=5 * FINNEY))
    await until(lambda: bob.books.events("evm_step_refused"), anvil)
    await paid(anvil, alice, 7)
    bob.books.settle(3)
    await until(lambda: bob.books.credited[PEER] == 7 and bob.books.confirmed() == 3, anvil)
    bob.books.refused.clear()
    await until(lambda: bob.books.credited == {first: 5, PEER: 7}, anvil)


@pytest.mark.slow
async def test_a_peer_that_pays_in_a_thousand_transfers_keeps_nobody_waiting(
    anvil: Anvil, parties: list[Party]
) -> None:
    """Each was kept by itself, and at a bound the engine did nothing any more, for any of its accounts."""
    alice, bob = transfer_party(anvil, ALICE), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: b"from" in bob.books.kept[PEER] and b"to" in bob.books.kept[PEER], anvil)
    await alice.kill()
    await anvil.rpc("evm_setAutomine", False)
    nonce = int(await anvil.rpc("eth_getTransactionCount", ALICE.address, "latest"), 16)
    call, fee = Call(to=BOB.address, value=FINNEY), Fee(10 * GWEI, GWEI)
    for number in range(1_000):
        signed = sign_call(call, chain_id=anvil.chain_id, nonce=nonce + number, fee=fee, secret=ALICE.secret)
        await anvil.rpc("eth_sendRawTransaction", "0x" + signed.raw.hex())
    await until(lambda: bob.books.credited[PEER] == 1_000, anvil, seconds=60)
    number = bob.books.settle(5)
    await until(lambda: bob.books.state(number) == "confirmed", anvil)


async def test_a_token_is_transferred_and_found_by_its_events(anvil: Anvil, parties: list[Party]) -> None:
    token = (await anvil.deploy_test(EVE, "Token")).lower()
    await anvil.send(EVE, Call(to=token, data=minted(ALICE.address), gas=100_000))
    alice = transfer_party(anvil, ALICE, token=token, decimals=6)
    bob = transfer_party(anvil, BOB, token=token, decimals=6)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    for amount in (5, 8):
        await paid(anvil, alice, amount)
    await until(lambda: bob.books.credited[PEER] == 13, anvil)
    await anvil.mine(5)
    assert bob.books.credited[PEER] == 13


def minted(to: str) -> bytes:
    from tests.ledgers.evm.anvil import mint

    return mint(to, 10**12)


# --- a node that lies ---


class Liar:
    """Passes questions on to a chain's node, and answers some of them otherwise."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: dict[str, Any] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> "Liar":
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        question = await request.json()
        if question["method"] in self.answers:
            lie = self.answers[question["method"]]
            return web.json_response({"jsonrpc": "2.0", "id": question["id"], "result": lie})
        async with ClientSession() as session, session.post(self._url, json=question) as response:
            return web.json_response(await response.json())


@pytest.fixture
async def liar(anvil: Anvil) -> AsyncIterator[Liar]:
    liar = await Liar(anvil.url).start()
    yield liar
    await liar.close()


async def test_a_node_that_invents_a_channel_is_not_believed_if_another_is_asked_too(
    anvil: Anvil, parties: list[Party], liar: Liar
) -> None:
    """Alice gives a claim on a channel that she never opened; the liar says that it holds a thousand coins."""
    alice = channel_party(anvil, ALICE)
    bob = channel_party(anvil, BOB, urls=(liar.url, anvil.url))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await paid(anvil, alice, 10)
    held = bob.books.credited[PEER]
    liar.answers["eth_call"] = "0x" + (10**21).to_bytes(32, "big").hex() + "00" * 64
    await until(lambda: bob.books.events("evm_nodes_disagree"))
    ((level, told),) = [(level, one) for level, event, one in bob.books.log if event == "evm_nodes_disagree"]
    assert level == "error" and "disagree" in str(told["reason"]) and "nothing is credited" in str(told["remedy"])
    invented = ChannelTerms(ALICE.address, BOB.address, NO_ADDRESS, 3_600, bytes(32))
    domain = Domain(anvil.chain_id, contract.address())
    claim = Claim(
        chain_id=anvil.chain_id,
        contract=contract.address(),
        terms=invented,
        amount=ETHER,
        signature=sign(domain.claim_digest(invented.id, ETHER), ALICE.private),
    )
    with pytest.raises(MessageRefusedError, match="T00"):
        await bob.engine.take_message(PEER, encode(claim))
    assert bob.books.events("evm_nodes_disagree")[-1]["account"] == PEER
    alice.books.settle(2_000)  # more than the channel holds: its top-up is what Bob must look at
    await until(lambda: out(alice).signed == 2_010 * FINNEY, anvil)
    assert bob.books.credited[PEER] == held
    liar.answers.clear()
    await until(lambda: bob.books.credited[PEER] == 2_010, anvil)


async def test_a_payment_that_one_node_does_not_have_is_no_failure(
    anvil: Anvil, parties: list[Party], liar: Liar
) -> None:
    """Its nonce is used, and one of two nodes has no receipt for it: the operator would reverse what was paid."""
    clock = Clock()
    alice = transfer_party(anvil, ALICE, urls=(liar.url, anvil.url), clock=clock)
    bob = transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await until(lambda: b"to" in alice.books.kept[PEER], anvil)
    liar.answers["eth_getTransactionReceipt"] = None
    number = alice.books.settle(300)
    await until(lambda: bob.books.credited[PEER] == 300, anvil)
    clock.now += LAG_MS_MAX
    await until(lambda: alice.books.events("evm_nodes_disagree") or alice.books.state(number) == "failed", anvil)
    assert alice.books.state(number) == "taken"
    liar.answers.clear()
    await until(lambda: alice.books.state(number) == "confirmed", anvil)


@pytest.mark.parametrize(
    "method, lie",
    [
        ("eth_blockNumber", "nonsense"),
        ("eth_blockNumber", None),
        ("eth_getBlockByNumber", {"number": "0x1"}),
        ("eth_getBlockByNumber", []),
        ("eth_call", "0x12"),
        ("eth_getTransactionReceipt", {"status": "0x1"}),
        ("eth_chainId", "0x1"),
    ],
)
async def test_whatever_a_node_answers_the_engine_goes_on(
    anvil: Anvil, parties: list[Party], liar: Liar, method: str, lie: Any
) -> None:
    alice = channel_party(anvil, ALICE, urls=(liar.url,))
    bob = channel_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await paid(anvil, alice, 10)
    liar.answers[method] = lie
    number = alice.books.settle(5_000)
    await until(lambda: alice.books.state(number) != "begun")
    await anvil.mine(5)
    await looked(bob, turns=3)
    assert (method == "eth_chainId") or alice.books.state(number) == "taken"
    assert not alice.books.events("evm_engine_defect")
    liar.answers.clear()
    await until(lambda: alice.books.state(number) == "confirmed", anvil)
    assert bob.books.credited[PEER] == 5_010
    assert contract.address() == channels_of(bob).settings.contract
