"""Two engines over a real chain: what one pays is what the other is credited, and what the chain holds."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from isthmus.connector.events import AccountId
from isthmus.errors import LedgerError
from isthmus.ledgers.evm import contract, tokens
from isthmus.ledgers.evm.chain import CLOSED
from isthmus.ledgers.evm.claims import AMOUNT_MAX, ChannelTerms, Domain, sign
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, word
from isthmus.ledgers.evm.transactions import Call
from isthmus.settlement.channels import FUNDS_UNDER_WAY
from isthmus.settlement.evm.incoming import INCOMING_MAX, Fault
from isthmus.settlement.evm.messages import Accepted, Claim, Close, Hello, decode, encode
from isthmus.settlement.evm.outgoing import Outgoing
from isthmus.settlement.port import MessageRefusedError, StepRefusedError
from isthmus.settlement.promises import Phase
from tests.ledgers.evm.anvil import ETHER, Anvil, a_key, mint
from tests.settlement.evm.world import (
    FINNEY,
    PEER,
    POLICY,
    UNTIL_SECONDS,
    Books,
    Party,
    channel_party,
    channels_of,
    join,
    read_beyond,
    until,
)

pytestmark = pytest.mark.ledger

ALICE, BOB, EVE = a_key(1), a_key(2), a_key(3)
NONSENSE = [b"", b"{", b"[]", b'{"type":"claim"}', b'{"type":"agreed","amount":"1"}', b"x" * 5_000]


@pytest.fixture
async def pair(anvil: Anvil, parties: list[Party]) -> tuple[Party, Party]:
    alice, bob = channel_party(anvil, ALICE), channel_party(anvil, BOB)
    join(alice, bob)
    parties += [alice, bob]
    await alice.start()
    await bob.start()
    return alice, bob


def out(party: Party) -> Outgoing:
    return channels_of(party).outgoing(PEER)


def terms_of(party: Party) -> ChannelTerms:
    terms = out(party).terms
    assert terms is not None
    return terms


async def pay(anvil: Anvil, alice: Party, amount: int) -> None:
    number = alice.books.settle(amount)
    await until(lambda: alice.books.state(number) == "confirmed", anvil)


async def on_chain(anvil: Anvil, terms: ChannelTerms, holds: Callable[[tuple[int, int, int]], bool]) -> None:
    """Wait for a channel's state in the contract: deposited, claimed, closing at."""
    async with asyncio.timeout(UNTIL_SECONDS):
        while not holds(await anvil.channel(terms)):
            await anvil.mine()


# --- paying ---


async def test_a_settlement_opens_a_channel_and_those_that_follow_are_claims(
    anvil: Anvil, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await pay(anvil, alice, 300)
    assert bob.books.credited == {PEER: 300}
    state = out(alice)
    assert (state.phase, state.deposited, state.signed) == (Phase.OPEN, 1_000 * FINNEY, 300 * FINNEY)
    height = await anvil.height()
    for amount in (1, 2, 3):
        number = alice.books.settle(amount)
        await until(lambda number=number: alice.books.state(number) == "confirmed")  # type: ignore[misc]
    assert bob.books.credited == {PEER: 306}
    assert await anvil.height() == height  # no transaction, no block


async def test_a_channel_that_is_too_small_is_topped_up(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    for amount in (900, 900, 5_000):
        alice.books.settle(amount)
    await until(lambda: alice.books.confirmed() == 6_800, anvil)
    assert bob.books.credited == {PEER: 6_800}
    assert out(alice).signed == 6_800 * FINNEY <= out(alice).deposited
    assert (await anvil.channel(terms_of(alice)))[0] == out(alice).deposited


async def test_more_is_added_before_the_channel_is_empty(anvil: Anvil, parties: list[Party]) -> None:
    alice = channel_party(anvil, ALICE, policy=replace(POLICY, reserve=500 * FINNEY))
    bob = channel_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await pay(anvil, alice, 600)
    await until(lambda: out(alice).deposited == 2_000 * FINNEY, anvil)


async def test_the_operator_adds_to_an_open_channel_one_amount_at_a_time(
    anvil: Anvil, pair: tuple[Party, Party]
) -> None:
    alice, _ = pair
    assert not await channels_of(alice).add_to_channel(PEER, 5)  # there is none
    assert not await channels_of(alice).close_channel(PEER)
    await pay(anvil, alice, 300)
    assert await channels_of(alice).add_to_channel(PEER, 5 * FINNEY)
    assert not await channels_of(alice).add_to_channel(PEER, 5 * FINNEY)  # it is under way
    await until(lambda: out(alice).deposited == 1_005 * FINNEY, anvil)
    shown = channels_of(alice).describe(PEER)
    assert (shown["outgoing"], shown["outgoing_deposited"]) == ("open", str(1_005 * FINNEY))
    # At the same instant: neither sees the other's transaction before it has its own.
    both = [channels_of(alice).add_to_channel(PEER, 5 * FINNEY) for _ in range(2)]
    ends = await asyncio.gather(*both, return_exceptions=True)
    assert True in ends
    assert [str(end) for end in ends if isinstance(end, StepRefusedError)] == [FUNDS_UNDER_WAY]
    await until(lambda: out(alice).deposited == 1_010 * FINNEY, anvil)


async def test_a_channel_of_more_than_there_is_is_not_begun(anvil: Anvil, parties: list[Party]) -> None:
    """Settlements would wait behind it. Coins, and tokens."""
    token = (await anvil.deploy_test(EVE, "Token")).lower()
    for party in (channel_party(anvil, ALICE), channel_party(anvil, BOB, token=token, decimals=6)):
        parties.append(await party.start())
        with pytest.raises(LedgerError, match="are needed: send it more"):
            await channels_of(party).open_channel(PEER, 1_001 * ETHER)
        assert b"wanted" not in party.books.kept[PEER]


async def test_both_pay_each_other_by_two_channels(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    alice.books.settle(100)
    bob.books.settle(250)
    await until(lambda: alice.books.confirmed() == 100 and bob.books.confirmed() == 250, anvil)
    assert (alice.books.credited, bob.books.credited) == ({PEER: 250}, {PEER: 100})
    assert terms_of(alice).id != terms_of(bob).id


async def test_a_tokens_coarser_units_are_carried(anvil: Anvil, parties: list[Party]) -> None:
    """Six decimal places of the token, nine of the account: 1,500 units are one of the token, and a half."""
    token = (await anvil.deploy_test(EVE, "Token")).lower()
    await anvil.send(EVE, Call(to=token, data=mint(ALICE.address, ETHER), gas=100_000))
    policy = replace(POLICY, deposit=50)
    alice = channel_party(anvil, ALICE, policy=policy, books=Books(scale=9), token=token, decimals=6)
    bob = channel_party(anvil, BOB, policy=policy, books=Books(scale=9), token=token, decimals=6)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    for amount in (1_500, 700, 800, 2_000):
        await pay(anvil, alice, amount)
    assert out(alice).signed == 5
    assert bob.books.credited == {PEER: 5_000}
    assert out(alice).carried == 0
    await pay(anvil, alice, 999)
    assert (bob.books.credited[PEER], out(alice).carried) == (5_000, 999)
    held = int.from_bytes(await anvil.view(token, tokens.balance_of(contract.address())), "big")
    assert held == out(alice).deposited


async def test_two_chains_at_once(anvil: Anvil, parties: list[Party]) -> None:
    """The same keys, the same contract's address: a claim of one chain is worth nothing on the other."""
    other = await Anvil.start(chain_id=84532)
    try:
        await other.fund(ALICE, BOB, EVE)
        await other.deploy_channels(EVE)
        sides: dict[int, tuple[Party, Party]] = {}
        for chain in (anvil, other):
            alice, bob = channel_party(chain, ALICE), channel_party(chain, BOB)
            join(alice, bob)
            parties += [await alice.start(), await bob.start()]
            sides[chain.chain_id] = alice, bob
            alice.books.settle(chain.chain_id % 1_000)
        for chain in (anvil, other):
            alice, bob = sides[chain.chain_id]
            await until(lambda alice=alice: alice.books.confirmed() > 0, chain)  # type: ignore[misc]
            assert bob.books.credited == {PEER: chain.chain_id % 1_000}
        here, there = sides[anvil.chain_id], sides[other.chain_id]
        claim = a_claim(anvil, terms_of(here[0]), 999 * FINNEY)
        with pytest.raises(MessageRefusedError, match=Fault.CHAIN.value):
            await there[1].engine.take_message(PEER, encode(claim))
        await parties[-1].kill()
    finally:
        for one in parties:
            await one.kill()
        await other.stop()


# --- claims that don't count ---


def a_claim(anvil: Anvil, terms: ChannelTerms, amount: int, key: Key = ALICE, **changes: object) -> Claim:
    signature = sign(Domain(anvil.chain_id, contract.address()).claim_digest(terms.id, amount), key.private)
    claim = Claim(chain_id=anvil.chain_id, contract=contract.address(), terms=terms, amount=amount, signature=signature)
    return replace(claim, **changes)  # type: ignore[arg-type]


async def test_each_claim_that_does_not_count_has_its_answer_and_no_credit(
    anvil: Anvil, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await pay(anvil, alice, 300)
    terms = terms_of(alice)
    short = replace(terms, settle_delay=3_599)
    missing = replace(terms, salt=word(77))
    for claim, fault in (
        (a_claim(anvil, terms, 400 * FINNEY, chain_id=1), Fault.CHAIN),
        (a_claim(anvil, terms, 400 * FINNEY, contract=EVE.address), Fault.CONTRACT),
        (a_claim(anvil, replace(terms, receiver=EVE.address), 400), Fault.RECEIVER),
        (a_claim(anvil, replace(terms, token=EVE.address), 400), Fault.TOKEN),
        (a_claim(anvil, short, 400), Fault.DELAY),
        (a_claim(anvil, terms, 400 * FINNEY, EVE), Fault.SIGNATURE),
        (a_claim(anvil, terms, 400 * FINNEY, signature=bytes(64)), Fault.SIGNATURE),
        (a_claim(anvil, missing, 400), Fault.ABSENT),
        (a_claim(anvil, terms, 1_001 * FINNEY), Fault.CAPACITY),
        (a_claim(anvil, terms, AMOUNT_MAX), Fault.CAPACITY),
    ):
        with pytest.raises(MessageRefusedError, match=fault.value.split(",")[0]):
            await bob.engine.take_message(PEER, encode(claim))
    for again in (300, 299, 1, 0):  # replayed, and lower than before
        answer = await bob.engine.take_message(PEER, encode(a_claim(anvil, terms, again * FINNEY)))
        assert decode(answer) == Accepted(300 * FINNEY)
    assert bob.books.credited == {PEER: 300}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"type":"claim"}', b'{"type":"agreed","amount":"1"}', b"x" * 5_000]
)
async def test_nonsense_is_refused(pair: tuple[Party, Party], data: bytes) -> None:
    with pytest.raises(MessageRefusedError, match="F00"):
        await pair[1].engine.take_message(PEER, data)


async def test_a_channel_belongs_to_the_account_that_it_came_over(anvil: Anvil, parties: list[Party]) -> None:
    other = type(PEER)("other")
    alice = channel_party(anvil, ALICE)
    bob = channel_party(anvil, BOB, books=Books((PEER, other)))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await pay(anvil, alice, 300)
    with pytest.raises(MessageRefusedError, match=Fault.ELSEWHERE.value):
        await bob.engine.take_message(other, encode(a_claim(anvil, terms_of(alice), 400 * FINNEY)))
    assert bob.books.credited == {PEER: 300, other: 0}


async def test_claims_on_channels_that_are_not_there_leave_nothing_behind(
    anvil: Anvil, pair: tuple[Party, Party]
) -> None:
    _, bob = pair
    for number in range(5):
        terms = ChannelTerms(ALICE.address, BOB.address, NO_ADDRESS, 3_600, word(number))
        with pytest.raises(MessageRefusedError, match=Fault.ABSENT.value):
            await bob.engine.take_message(PEER, encode(a_claim(anvil, terms, FINNEY)))
    assert not channels_of(bob)._states


async def test_a_claim_that_comes_over_two_accounts_at_once_is_credited_to_one(
    anvil: Anvil, parties: list[Party]
) -> None:
    alice = channel_party(anvil, ALICE)
    bob = channel_party(anvil, BOB, books=Books([PEER, AccountId("other")]))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await channels_of(alice).open_channel(PEER, 500 * FINNEY)
    await until(lambda: out(alice).phase is Phase.OPEN, anvil)
    claim = encode(a_claim(anvil, terms_of(alice), 300 * FINNEY))
    asked = [bob.engine.take_message(account, claim) for account in bob.books.kept]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(bob.books.credited.values()) == [0, 300]
    (refused,) = [one for one in answers if isinstance(one, MessageRefusedError)]
    assert Fault.ELSEWHERE.value in str(refused)


async def test_a_peer_has_so_many_channels_and_no_more(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    _, bob = pair
    for number in range(INCOMING_MAX + 1):
        terms = ChannelTerms(ALICE.address, BOB.address, NO_ADDRESS, 3_600, word(number))
        data, value = contract.open_channel(terms, 5)
        await anvil.send(ALICE, Call(to=contract.address(), data=data, value=value, gas=200_000))
        await anvil.mine(3)
        claim = encode(a_claim(anvil, terms, 5))
        if number < INCOMING_MAX:
            await bob.engine.take_message(PEER, claim)
        else:
            with pytest.raises(MessageRefusedError, match=Fault.MANY.value):
                await bob.engine.take_message(PEER, claim)


async def test_a_channel_of_another_chain_contract_or_token_is_not_opened(anvil: Anvil, parties: list[Party]) -> None:
    alice = channel_party(anvil, ALICE)
    parties.append(await alice.start())

    async def elsewhere(data: bytes) -> bytes:
        assert isinstance(decode(data), Hello)
        hello = Hello(chain_id=1, contract=contract.address(), token=NO_ADDRESS, address=BOB.address)
        return encode(hello)

    alice.port.peers = {PEER: elsewhere}
    alice.books.settle(10)
    await until(lambda: alice.books.events("evm_peer_refused"))
    assert "another chain: 1, not 31337" in str(alice.books.events("evm_peer_refused")[-1]["reason"])
    assert await anvil.balance(contract.address()) == 0


# --- the link ---


async def test_the_highest_claim_is_sent_again_when_the_link_is_up_again(
    anvil: Anvil, pair: tuple[Party, Party]
) -> None:
    """Whether the peer had it or not, once for each time; what it had credits nothing."""
    alice, bob = pair
    await pay(anvil, alice, 300)

    def claims() -> int:
        return sum(1 for data in alice.said if isinstance(decode(data), Claim))

    assert claims() == 1
    alice.engine.link_up(PEER)
    await until(lambda: claims() == 2)
    alice.link_is_up = False
    number = alice.books.settle(5)
    await until(lambda: alice.books.events("evm_claim_not_taken"))
    assert bob.books.credited == {PEER: 300}
    alice.link_is_up = True
    alice.engine.link_up(PEER)
    await until(lambda: alice.books.state(number) == "confirmed")
    before = claims()
    await read_beyond(alice, anvil, turns=4)
    assert (claims(), bob.books.credited) == (before, {PEER: 305})


# --- the end of a channel ---


async def test_both_agree_on_the_end_in_one_transaction(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(anvil, alice, 300)
    terms, before = terms_of(alice), await anvil.balance(BOB.address)
    assert await channels_of(alice).close_channel(PEER)
    await until(lambda: out(alice).phase is Phase.NONE, anvil)
    assert await anvil.channel(terms) == (0, 300 * FINNEY, CLOSED)
    assert await anvil.balance(BOB.address) == before + 300 * FINNEY  # and Bob paid for no gas
    await until(lambda: not channels_of(bob).incoming(PEER), anvil)
    await pay(anvil, alice, 50)  # by a new channel
    assert bob.books.credited == {PEER: 350}
    with pytest.raises(MessageRefusedError, match=Fault.CLOSED.value):
        await bob.engine.take_message(PEER, encode(a_claim(anvil, terms, 900 * FINNEY)))


async def test_without_the_peer_the_end_takes_the_settle_delay(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(anvil, alice, 300)
    terms = terms_of(alice)
    await bob.kill()
    await channels_of(alice).close_channel(PEER)
    # In one reading: while a block is made, anvil may answer as after it, and then as before it.
    await on_chain(anvil, terms, lambda state: state[:2] == (1_000 * FINNEY, 0) and state[2] not in (0, CLOSED))
    await anvil.mine(seconds=3_700)
    await until(lambda: out(alice).phase is Phase.NONE, anvil)
    assert await anvil.channel(terms) == (0, 0, CLOSED)


async def test_the_watcher_redeems_before_a_close_is_through(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    """A dispute: Alice starts to close and hands in an old claim; Bob's engine redeems the highest in time."""
    alice, bob = pair
    await pay(anvil, alice, 100)
    await pay(anvil, alice, 300)
    terms = terms_of(alice)
    await alice.kill()
    domain = Domain(anvil.chain_id, contract.address())
    old = sign(domain.claim_digest(terms.id, 100 * FINNEY), ALICE.private)
    for data in (contract.claim(terms, 100 * FINNEY, old), contract.start_close(terms)):
        await anvil.send(ALICE, Call(to=contract.address(), data=data, gas=200_000))
    await on_chain(anvil, terms, lambda state: state[1] == 400 * FINNEY)
    with pytest.raises(MessageRefusedError, match=Fault.CLOSING.value):
        await bob.engine.take_message(PEER, encode(a_claim(anvil, terms, 900 * FINNEY)))
    await anvil.mine(seconds=3_700)
    await anvil.send(ALICE, Call(to=contract.address(), data=contract.finish(terms), gas=200_000))
    await until(lambda: not channels_of(bob).incoming(PEER), anvil)
    assert bob.books.credited == {PEER: 400}
    assert await anvil.channel(terms) == (0, 400 * FINNEY, CLOSED)
    assert bob.books.events("evm_channel_closing")
    assert ("evm_channel_closing", PEER) in bob.books.overs


async def test_a_watcher_that_was_away_redeems_when_it_is_back(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(anvil, alice, 400)
    terms = terms_of(alice)
    await bob.kill()
    await anvil.send(ALICE, Call(to=contract.address(), data=contract.start_close(terms), gas=200_000))
    await anvil.mine(seconds=3_000)
    await bob.restart()
    await on_chain(anvil, terms, lambda state: state[1] == 400 * FINNEY)
    assert bob.books.credited == {PEER: 400}


async def test_a_claim_that_is_worth_it_is_redeemed_while_the_channel_stays(anvil: Anvil, parties: list[Party]) -> None:
    big = replace(POLICY, deposit=10 * ETHER)
    alice = channel_party(anvil, ALICE, policy=big)
    bob = channel_party(anvil, BOB, policy=replace(big, claim_above=ETHER))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await pay(anvil, alice, ETHER // FINNEY - 1)
    await anvil.mine(4)
    turns = channels_of(bob).turns
    await until(lambda: channels_of(bob).turns > turns + 2)
    assert (await anvil.channel(terms_of(alice)))[1] == 0
    await pay(anvil, alice, 1)
    await on_chain(anvil, terms_of(alice), lambda state: state[1] == ETHER)
    await pay(anvil, alice, 5)
    assert bob.books.credited == {PEER: ETHER // FINNEY + 5}


async def test_the_receiver_redeems_and_ends_channels_itself(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(anvil, alice, 400)
    terms = terms_of(alice)
    assert await channels_of(bob).redeem_channels(PEER, and_end=True) == 1
    assert await channels_of(bob).redeem_channels(PEER, and_end=True) == 0  # it is under way
    await until(lambda: out(alice).phase is Phase.NONE and not channels_of(bob).incoming(PEER), anvil)
    assert await anvil.channel(terms) == (0, 400 * FINNEY, CLOSED)
    assert (alice.books.confirmed(), bob.books.credited[PEER]) == (400, 400)


async def test_what_the_peer_never_acknowledged_is_paid_by_the_next_channel(
    anvil: Anvil, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await pay(anvil, alice, 300)
    bob.link_is_up = alice.link_is_up = False
    number = alice.books.settle(200)
    await until(lambda: out(alice).signed == 500 * FINNEY)
    first = terms_of(alice)
    await channels_of(bob).redeem_channels(PEER, and_end=True)  # at 300: the claim of 500 never came
    await until(lambda: out(alice).phase is Phase.NONE, anvil)
    assert alice.books.state(number) == "taken"
    alice.link_is_up = bob.link_is_up = True
    await until(lambda: alice.books.state(number) == "confirmed", anvil)
    assert terms_of(alice).id != first.id
    assert bob.books.credited == {PEER: 500}


async def test_no_end_is_agreed_on_for_an_unknown_channel(anvil: Anvil, pair: tuple[Party, Party]) -> None:
    terms = ChannelTerms(ALICE.address, BOB.address, NO_ADDRESS, 3_600, word(5))
    with pytest.raises(MessageRefusedError, match="no claim on this channel"):
        await pair[1].engine.take_message(PEER, encode(Close(terms)))


# --- accounts that go ---


async def test_an_account_is_open_until_its_channels_have_ended_and_begins_anew_if_it_comes_back(
    anvil: Anvil, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await channels_of(alice).open_channel(PEER, 5 * FINNEY)
    assert channels_of(alice).unfinished(PEER)[0].startswith("a channel to it is being opened")
    await pay(anvil, alice, 3)
    await until(lambda: not channels_of(alice)._sender.pending(alice.port, PEER), anvil)
    assert channels_of(alice).unfinished(PEER) == ["our channel to it is open: isthmus channels close peer"]
    (left,) = channels_of(bob).unfinished(PEER)
    assert left == "1 of its channels to us are open: isthmus channels redeem peer --end"
    await channels_of(bob).redeem_channels(PEER, and_end=True)
    assert channels_of(bob).unfinished(PEER)[1] == "1 transactions are under way (release): wait"
    await until(lambda: not channels_of(alice).unfinished(PEER) and not channels_of(bob).unfinished(PEER), anvil)
    for party in pair:
        accounts = list(channels_of(party)._accounts.values())
        party.books.kept[PEER].clear()
        await party.engine.accounts_changed([])
        await party.engine.accounts_changed(accounts)
    await pay(anvil, alice, 7)
    assert bob.books.credited == {PEER: 10}


# --- the chain is not what was configured ---


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"chain_id": 1}, "on chain 31337, not on 1"),
        ({"contract": EVE.address}, "doesn't have our contract"),
        ({"token": contract.address(), "decimals": 6}, ""),
    ],
)
async def test_a_node_on_another_chain_or_without_the_contract_keeps_the_engine_from_starting(
    anvil: Anvil, changes: dict[str, object], problem: str
) -> None:
    alice = channel_party(anvil, ALICE, **changes)  # type: ignore[arg-type]
    if problem:
        with pytest.raises(LedgerError, match=problem):
            await alice.start()
    else:
        await alice.start()  # what the node says of the token is a refusal, tried again
        await until(lambda: alice.books.events("evm_ledger_away"))
    await alice.kill()


async def test_a_ledger_that_is_away_is_waited_for(anvil: Anvil, parties: list[Party]) -> None:
    port = anvil.port
    state = await anvil.rpc("anvil_dumpState")
    await anvil.stop()
    alice, bob = channel_party(anvil, ALICE), channel_party(anvil, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    number = alice.books.settle(10)
    await until(lambda: alice.books.events("evm_ledger_away") and alice.books.state(number) == "taken")
    again = await Anvil.start(port=port)
    try:
        await again.rpc("anvil_loadState", state)
        await until(lambda: alice.books.state(number) == "confirmed", again)
        assert bob.books.credited == {PEER: 10}
    finally:
        for one in parties:
            await one.kill()
        await again.stop()
