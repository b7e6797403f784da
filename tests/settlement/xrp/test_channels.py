"""Two engines over a ledger: what one pays is what the other is credited, and what the ledger holds."""

import asyncio
from dataclasses import replace

import pytest

from isthmus.connector.events import ReverseSettlement
from isthmus.errors import LedgerError
from isthmus.ledgers.xrp import transactions as tx
from isthmus.ledgers.xrp.hashes import claim_message
from isthmus.ledgers.xrp.signatures import SigningKey
from isthmus.ledgers.xrp.transactions import DROPS_MAX
from isthmus.settlement.channels import FUNDS_UNDER_WAY
from isthmus.settlement.port import MessageRefusedError, Step, StepRefusedError
from isthmus.settlement.promises import Phase
from isthmus.settlement.xrp.incoming import INCOMING_MAX, Fault
from isthmus.settlement.xrp.messages import (
    Accepted,
    Address,
    ChannelTold,
    Claim,
    Close,
    Info,
    InfoAsked,
    Message,
    decode_answer,
    encode,
)
from tests.ledgers.xrp.dev.conftest import Serving
from tests.settlement.lightning.ports import PEER
from tests.settlement.xrp.world import (
    POLICY,
    XRP,
    Party,
    a_key,
    channel_on,
    channel_party,
    drops_of,
    join,
    looked,
    open_channel,
    send,
    until,
)

ALICE, BOB, EVE = a_key(1), a_key(2), a_key(3)
NONSENSE = [b"", b"{", b"[]", b'{"btp":"claim"}', b'{"btp":"ilp","contentType":0,"data":""}', b"x" * 5_000]


@pytest.fixture
async def pair(ledger: Serving, parties: list[Party]) -> tuple[Party, Party]:
    alice, bob = channel_party(ledger, ALICE), channel_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    return alice, bob


async def pay(ledger: Serving, alice: Party, amount: int) -> None:
    alice.owe(amount)
    await until(lambda: alice.is_paid, ledger)


async def say(party: Party, message: Message) -> Message:
    """As the peer's engine would."""
    return decode_answer(await party.engine.take_message(PEER, encode(message)))


# --- paying ---


async def test_a_settlement_opens_a_channel_and_those_that_follow_are_claims(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await pay(ledger, alice, 3 * XRP)
    assert (alice.balance, bob.balance) == (3 * XRP, -3 * XRP)
    assert (alice.out.phase, alice.out.deposited, alice.out.signed) == (Phase.OPEN, 10 * XRP, 3 * XRP)
    at = ledger.service.last_index
    for amount in (1, 2, 3):
        alice.owe(amount)
        await until(lambda: alice.is_paid)
    assert bob.balance == -3 * XRP - 6
    assert ledger.service.last_index == at  # no transaction, no ledger


async def test_keys_of_both_kinds_sign_claims(ledger: Serving, parties: list[Party]) -> None:
    other = a_key(4, secp256k1=True)
    ledger.service.fund(other.address, 100)
    ledger.service.close_ledger()
    alice, bob = channel_party(ledger, other), channel_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await pay(ledger, alice, 5)
    await pay(ledger, bob, 7)
    assert (alice.balance, bob.balance) == (-2, 2)
    assert await alice.channels.redeem_channels(PEER, and_end=False) == 1
    assert await bob.channels.redeem_channels(PEER, and_end=False) == 1
    await until(lambda: not alice.events("xrp_transaction_failed") and all_redeemed(alice, bob), ledger)


def all_redeemed(*parties: Party) -> bool:
    found = [one for party in parties for one in party.channels.channels(PEER) if one.is_to_us]
    return len(found) == len(parties) and all(one.unredeemed == 0 for one in found)


async def test_a_channel_that_is_too_small_is_topped_up(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    for amount in (9, 9, 50):
        alice.owe(amount * XRP)
        await until(lambda: alice.is_taken)
    await until(lambda: alice.is_paid, ledger)
    assert bob.balance == -68 * XRP
    assert alice.out.signed == 68 * XRP <= alice.out.deposited
    entry = await channel_on(ledger, alice.out.channel)
    assert entry is not None and int(entry["Amount"]) == alice.out.deposited


async def test_more_is_added_before_the_channel_is_empty(ledger: Serving, parties: list[Party]) -> None:
    alice = channel_party(ledger, ALICE, policy=replace(POLICY, reserve=5 * XRP))
    bob = channel_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await pay(ledger, alice, 6 * XRP)
    await until(lambda: alice.out.deposited == 20 * XRP, ledger)
    await until(lambda: bob.channels.incoming(PEER)[0].capacity == 20 * XRP)  # Bob was told


async def test_the_operator_opens_and_adds_one_amount_at_a_time(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    assert not await alice.channels.add_to_channel(PEER, 5)  # there is none
    assert not await alice.channels.close_channel(PEER)
    assert await alice.channels.open_channel(PEER, 20 * XRP)
    await until(lambda: alice.out.phase is Phase.OPEN, ledger)
    assert not await alice.channels.open_channel(PEER, 20 * XRP)
    assert await alice.channels.add_to_channel(PEER, 5 * XRP)
    assert not await alice.channels.add_to_channel(PEER, 5 * XRP)  # it is under way
    await until(lambda: alice.out.deposited == 25 * XRP, ledger)
    shown = alice.engine.describe(PEER)
    assert (shown["outgoing"], shown["outgoing_deposited"]) == ("open", str(25 * XRP))
    with pytest.raises(LedgerError, match="a channel holds"):
        await alice.channels.add_to_channel(PEER, DROPS_MAX)
    (channel,) = alice.channels.channels(PEER)
    assert (channel.direction, channel.state, channel.can_send, channel.unit.scale) == ("out", "open", 25 * XRP, 6)
    # At the same instant: neither sees the other's transaction before it has its own.
    both = [alice.channels.add_to_channel(PEER, 5 * XRP) for _ in range(2)]
    ends = await asyncio.gather(*both, return_exceptions=True)
    assert True in ends
    assert [str(end) for end in ends if isinstance(end, StepRefusedError)] == [FUNDS_UNDER_WAY]
    await until(lambda: alice.out.deposited == 30 * XRP, ledger)
    await until(lambda: len(bob.channels.channels(PEER)) == 1)
    assert bob.channels.channels(PEER)[0].can_receive > 0


async def test_a_channel_of_more_than_there_is_is_not_begun(ledger: Serving, pair: tuple[Party, Party]) -> None:
    """Settlements would wait behind it."""
    alice, _ = pair
    with pytest.raises(LedgerError, match="are needed: send it more"):
        await alice.channels.open_channel(PEER, 1_000 * XRP)
    assert b"wanted" not in alice.kept(PEER)
    await pay(ledger, alice, 5)


async def test_both_pay_each_other_by_two_channels(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    alice.owe(100)
    bob.owe(250)
    await until(lambda: alice.is_paid and bob.is_paid, ledger)
    assert (alice.balance, bob.balance) == (-150, 150)
    assert alice.out.channel != bob.out.channel


async def test_less_than_a_drop_is_carried(ledger: Serving, parties: list[Party]) -> None:
    """Nine decimal places of the account: 1,500 units are one drop, and a half."""
    alice, bob = channel_party(ledger, ALICE, scale=9), channel_party(ledger, BOB, scale=9)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    for amount in (1_500, 700, 800, 2_000):
        await pay(ledger, alice, amount)
    assert alice.out.signed == 5
    assert (bob.balance, alice.out.carried) == (-5_000, 0)
    await pay(ledger, alice, 999)
    assert (bob.balance, alice.out.carried) == (-5_000, 999)


async def test_units_may_be_finer_than_any_amount_on_the_link(ledger: Serving, parties: list[Party]) -> None:
    """At 18 decimal places a claim grows by more than a Transfer can name."""
    alice, bob = channel_party(ledger, ALICE, scale=18), channel_party(ledger, BOB, scale=18)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await pay(ledger, alice, 50 * 10**18)
    assert bob.balance == -50 * 10**18


async def test_accounts_of_different_scales_settle_in_drops(ledger: Serving, parties: list[Party]) -> None:
    """Cents of XRP on one side, a thousandth of a drop on the other."""
    alice, bob = channel_party(ledger, ALICE, scale=2), channel_party(ledger, BOB, scale=9)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await pay(ledger, alice, 7)
    assert bob.balance == -70_000_000
    await pay(ledger, bob, 9_999_000)
    assert alice.balance == 7  # the rest of a cent is kept until it is a whole one
    await pay(ledger, bob, 1_000)
    assert alice.balance == 6


async def test_a_fixed_address_is_the_only_one(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    bob.settings["peer_address"] = EVE.address
    with pytest.raises(MessageRefusedError, match="another address was agreed on"):
        await say(bob, Address(ALICE.address))
    alice.owe(5)
    await until(lambda: alice.events("xrp_peer_refused"), ledger)
    assert bob.balance == 0
    bob.settings["peer_address"] = ALICE.address
    await until(lambda: alice.is_paid, ledger)


# --- claims that don't count ---


def a_claim(channel: str, total: int, key: SigningKey = ALICE, *, named: str | None = None, **changes: object) -> Claim:
    signature = key.sign(claim_message(channel, total))
    claim = Claim(amount=total, signature=signature, added=1, channel=named or channel, drops=total)
    return replace(claim, **changes)  # type: ignore[arg-type]


async def test_each_claim_that_does_not_count_has_its_answer_and_no_credit(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await pay(ledger, alice, 300)
    own = alice.out.channel
    to_eve = await open_channel(ledger, ALICE, EVE, XRP)
    short = await open_channel(ledger, ALICE, BOB, XRP, settle_delay=3_599)
    soon = ledger.service._desk.ledger.last.close_time + 3_000
    ending = await open_channel(ledger, ALICE, BOB, XRP, CancelAfter=soon)
    keyed = await open_channel(ledger, ALICE, BOB, XRP, PublicKey=EVE.public_key.hex().upper())
    for claim, fault in (
        (a_claim(to_eve, 400), Fault.RECEIVER),
        (a_claim(short, 400), Fault.DELAY),
        (a_claim(ending, 400), Fault.CANCELLED),
        (a_claim(keyed, 400), Fault.SIGNATURE),
        (a_claim(own, 400, EVE), Fault.SIGNATURE),
        (a_claim(own, 400, signature=bytes(64)), Fault.SIGNATURE),
        (a_claim(to_eve, 400, named=own), Fault.SIGNATURE),  # signed for another channel
        (a_claim(own, 400, drops=401), Fault.SIGNATURE),  # signed for another amount
        (a_claim("AB" * 32, 400), Fault.ABSENT),
        (a_claim(own, 10 * XRP + 1), Fault.CAPACITY),
        (a_claim(own, DROPS_MAX), Fault.CAPACITY),
        (a_claim(own, 299), Fault.LOWER),
        (a_claim(own, 0), Fault.LOWER),
    ):
        with pytest.raises(MessageRefusedError, match=fault.value):
            await say(bob, claim)
    assert await say(bob, a_claim(own, 300)) == Accepted(300)  # replayed
    assert bob.balance == -300
    assert await say(bob, a_claim(keyed, 400, EVE)) == Accepted(400)  # whoever the channel names may sign


async def test_the_amount_beside_a_claim_credits_nothing(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(ledger, alice, 300)
    await say(bob, a_claim(alice.out.channel, 301, added=10**9, amount=10**15))
    assert bob.balance == -301


@pytest.mark.parametrize("data", NONSENSE)
async def test_nonsense_is_refused(pair: tuple[Party, Party], data: bytes) -> None:
    with pytest.raises(MessageRefusedError, match="F00"):
        await pair[1].engine.take_message(PEER, data)


async def test_a_peer_has_so_many_channels_and_no_more(ledger: Serving, pair: tuple[Party, Party]) -> None:
    _, bob = pair
    for number in range(INCOMING_MAX + 1):
        channel = await open_channel(ledger, ALICE, BOB, 5)
        if number < INCOMING_MAX:
            await say(bob, a_claim(channel, 5))
        else:
            with pytest.raises(MessageRefusedError, match=Fault.MANY.value):
                await say(bob, a_claim(channel, 5))
    assert bob.balance == -5 * INCOMING_MAX


async def test_what_was_paid_out_before_we_knew_a_channel_is_no_credit(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    _, bob = pair
    channel = await open_channel(ledger, ALICE, BOB, XRP)
    signature = ALICE.sign(claim_message(channel, 400))
    await send(ledger, BOB, tx.claim_channel(channel, 400, signature, ALICE.public_key, and_end=False))
    await say(bob, a_claim(channel, 450))
    assert bob.balance == -50


async def test_what_a_source_pays_out_itself_is_credited(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(ledger, alice, 300)
    fields = {"TransactionType": "PaymentChannelClaim", "Channel": alice.out.channel, "Balance": "1000"}
    await alice.kill()
    await send(ledger, ALICE, fields)
    await until(lambda: bob.balance == -1_000)
    assert await say(bob, a_claim(alice.out.channel, 1_001)) == Accepted(1_001)
    assert bob.balance == -1_001


# --- what a plugin says ---


async def test_claims_without_a_channel_are_those_of_the_key_that_signed(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    """As ilp-plugin-xrp-paychan sends them: the total in the account's units, for the channel that was told last."""
    _, bob = pair
    first, second = await open_channel(ledger, ALICE, BOB, XRP), await open_channel(ledger, ALICE, BOB, XRP)

    def bare(channel: str, drops: int) -> Claim:
        return replace(a_claim(channel, drops), channel=None, drops=None)

    with pytest.raises(MessageRefusedError, match=Fault.UNKNOWN.value):
        await say(bob, bare(first, 5))
    assert await say(bob, Address(ALICE.address)) == Address(BOB.address)
    assert await say(bob, bare(second, 5)) == Accepted(5)  # found on the ledger, by its key
    with pytest.raises(MessageRefusedError, match="there is no channel to you yet"):
        await say(bob, ChannelTold(first))
    assert await say(bob, bare(first, 7)) == Accepted(7)
    assert bob.balance == -12
    assert await say(bob, InfoAsked()) == Info(6, knows_drops=True)


async def test_a_top_up_that_is_told_is_answered_even_without_a_channel_of_ours(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    _, bob = pair
    channel = await open_channel(ledger, ALICE, BOB, XRP)
    with pytest.raises(MessageRefusedError):
        await say(bob, ChannelTold(channel))
    await send(ledger, ALICE, tx.fund_channel(channel, XRP))
    assert await say(bob, ChannelTold(channel)) == ChannelTold("")
    assert await say(bob, a_claim(channel, 2 * XRP)) == Accepted(2 * XRP)


async def test_the_highest_claim_is_sent_again_when_the_peer_tells_its_channel(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    """As a plugin does that has started anew; and by each new process of ours."""
    alice, bob = pair
    await pay(ledger, alice, 300)

    def claims() -> int:
        return sum(1 for data in alice.said if b"claim" in data)

    assert claims() == 1
    theirs = await open_channel(ledger, BOB, ALICE, XRP)
    assert await say(alice, ChannelTold(theirs)) == ChannelTold(alice.out.channel)
    await until(lambda: claims() == 2)
    await alice.restart()
    await until(lambda: claims() == 3)
    await looked(alice, ledger, turns=4)
    assert (claims(), bob.balance) == (3, -300)


# --- the link ---


async def test_the_highest_claim_is_sent_again_when_the_link_is_up_again(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    """Whether the peer had it or not, once for each time; what it had credits nothing."""
    alice, bob = pair
    await pay(ledger, alice, 300)

    def claims() -> int:
        return sum(1 for data in alice.said if b"claim" in data)

    assert claims() == 1
    alice.engine.link_up(PEER)
    await until(lambda: claims() == 2)
    alice.link_is_up = False
    alice.owe(5)
    await until(lambda: alice.events("xrp_claim_not_taken"))
    assert bob.balance == -300
    alice.link_is_up = True
    alice.engine.link_up(PEER)
    await until(lambda: alice.is_paid)
    before = claims()
    await looked(alice, ledger, turns=4)
    assert (claims(), bob.balance) == (before, -305)


async def test_a_peer_without_a_claim_gets_none(pair: tuple[Party, Party]) -> None:
    alice, _ = pair
    alice.engine.link_up(PEER)
    await looked(alice)
    assert not [data for data in alice.said if b"claim" in data]


# --- the end of a channel ---


async def test_a_channel_whose_fixed_end_comes_near_is_redeemed(ledger: Serving, pair: tuple[Party, Party]) -> None:
    _, bob = pair
    now = ledger.service._desk.ledger.last.close_time
    channel = await open_channel(ledger, ALICE, BOB, XRP, CancelAfter=now + 7_200)
    assert await say(bob, a_claim(channel, 500_000)) == Accepted(500_000)
    await looked(bob, ledger, turns=3)
    assert not bob.events("xrp_transaction")
    ledger.service.close_ledger(advance=3_700)
    await until(lambda: all_redeemed(bob), ledger)
    with pytest.raises(MessageRefusedError, match=Fault.CLOSING.value):
        await say(bob, a_claim(channel, 600_000))
    assert bob.balance == -500_000


async def test_the_peer_ends_a_channel_at_once_if_it_is_asked(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(ledger, alice, 3 * XRP)
    channel, before = alice.out.channel, await drops_of(ledger, BOB)
    assert await alice.channels.close_channel(PEER)
    await until(lambda: alice.out.phase is Phase.NONE and not bob.channels.incoming(PEER), ledger)
    assert await channel_on(ledger, channel) is None
    assert await drops_of(ledger, BOB) == before + 3 * XRP - 10
    await pay(ledger, alice, 50)  # by a new channel
    assert bob.balance == -3 * XRP - 50
    with pytest.raises(MessageRefusedError, match=Fault.ABSENT.value):
        await say(bob, a_claim(channel, 9 * XRP))


async def test_without_the_peer_the_end_takes_the_settle_delay(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(ledger, alice, 300)
    channel = alice.out.channel
    await bob.kill()
    await alice.channels.close_channel(PEER)
    await until(lambda: alice.events("xrp_close_not_agreed"), ledger)
    await until(lambda: alice.channels.channels(PEER)[0].ends_at is not None, ledger)
    assert await channel_on(ledger, channel) is not None
    ledger.service.close_ledger(advance=3_700)
    await until(lambda: alice.out.phase is Phase.NONE, ledger)
    assert await channel_on(ledger, channel) is None
    assert alice.balance == 300  # Bob has the claim, and didn't redeem it: it is paid


async def test_a_peer_that_agrees_and_does_nothing_is_not_waited_for(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await pay(ledger, alice, 300)
    await bob.engine.close()  # it takes messages, and does nothing
    await alice.channels.close_channel(PEER)
    await looked(alice, ledger, turns=5)
    entry = await channel_on(ledger, alice.out.channel)
    assert entry is not None and "Expiration" not in entry
    clock = alice.engine._now  # type: ignore[attr-defined]
    clock.now += 301_000
    await until(lambda: alice.channels.channels(PEER)[0].ends_at is not None, ledger)


async def test_the_watcher_redeems_before_a_close_is_through(ledger: Serving, pair: tuple[Party, Party]) -> None:
    """A dispute: Alice pays out an old claim and starts to close; Bob's engine redeems the highest in time."""
    alice, bob = pair
    await pay(ledger, alice, 100 * 1_000)
    await pay(ledger, alice, 300 * 1_000)
    channel = alice.out.channel
    await alice.kill()
    old = {"TransactionType": "PaymentChannelClaim", "Channel": channel, "Balance": "100000"}
    await send(ledger, ALICE, old)
    await send(ledger, ALICE, tx.end_channel(channel))
    await until(lambda: all_redeemed(bob), ledger)
    entry = await channel_on(ledger, channel)
    assert entry is not None and entry["Balance"] == "400000"
    with pytest.raises(MessageRefusedError, match=Fault.CLOSING.value):
        await say(bob, a_claim(channel, 900 * 1_000))
    ledger.service.close_ledger(advance=3_700)
    await send(ledger, ALICE, tx.end_channel(channel))
    await until(lambda: not bob.channels.incoming(PEER), ledger)
    assert bob.balance == -400_000
    assert bob.events("xrp_channel_closing")
    assert ("xrp_channel_closing", PEER) in bob.overs


async def test_a_watcher_that_was_away_redeems_when_it_is_back(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(ledger, alice, 400_000)
    channel = alice.out.channel
    await bob.kill()
    await alice.kill()
    await send(ledger, ALICE, tx.end_channel(channel))
    ledger.service.close_ledger(advance=3_000)
    await bob.restart()
    await until(lambda: all_redeemed(bob), ledger)
    assert bob.balance == -400_000


async def test_what_was_not_redeemed_in_time_is_owed_again(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(ledger, alice, 400_000)
    channel = alice.out.channel
    await bob.kill()
    await alice.kill()
    await send(ledger, ALICE, tx.end_channel(channel))
    ledger.service.close_ledger(advance=3_700)
    await send(ledger, ALICE, tx.end_channel(channel))
    await bob.restart()
    await until(lambda: not bob.channels.incoming(PEER), ledger)
    assert bob.balance == 0
    assert bob.events("xrp_credit_undone")


async def test_a_claim_that_is_worth_less_than_the_fee_is_left(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(ledger, alice, 10)
    await alice.kill()
    await send(ledger, ALICE, tx.end_channel(alice.out.channel))
    await looked(bob, ledger, turns=4)
    assert not bob.events("xrp_transaction")
    ledger.service.close_ledger(advance=3_700)
    await send(ledger, ALICE, tx.end_channel(alice.out.channel))
    await until(lambda: not bob.channels.incoming(PEER), ledger)
    assert bob.balance == 0


async def test_a_claim_that_is_worth_it_is_redeemed_while_the_channel_stays(
    ledger: Serving, parties: list[Party]
) -> None:
    alice = channel_party(ledger, ALICE)
    bob = channel_party(ledger, BOB, policy=replace(POLICY, claim_above=XRP))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await pay(ledger, alice, XRP - 1)
    await looked(bob, ledger, turns=4)
    assert not bob.events("xrp_transaction")
    await pay(ledger, alice, 1)
    await until(lambda: all_redeemed(bob), ledger)
    await pay(ledger, alice, 5)
    assert bob.balance == -XRP - 5


async def test_the_receiver_redeems_and_ends_channels_itself(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    await pay(ledger, alice, 400)
    assert await bob.channels.redemption_fee(PEER) == 10
    assert await bob.channels.redeem_channels(PEER, and_end=True) == 1
    assert await bob.channels.redeem_channels(PEER, and_end=True) == 0  # it is under way
    await until(lambda: alice.out.phase is Phase.NONE and not bob.channels.incoming(PEER), ledger)
    assert (alice.balance, bob.balance) == (400, -400)


async def test_what_the_peer_never_acknowledged_is_paid_by_the_next_channel(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await pay(ledger, alice, 300)
    first = alice.out.channel
    bob.link_is_up = alice.link_is_up = False
    alice.owe(200)
    await until(lambda: alice.out.signed == 500)
    await bob.channels.redeem_channels(PEER, and_end=True)  # at 300: the claim of 500 never came
    await until(lambda: alice.out.phase is Phase.NONE, ledger)
    assert not alice.is_paid
    alice.link_is_up = bob.link_is_up = True
    await until(lambda: alice.is_paid, ledger)
    assert alice.out.channel != first
    assert bob.balance == -500


async def test_a_claim_whose_answer_was_lost_is_paid_once_though_the_channel_ended(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    """Bob has the claim and redeems it; Alice learns it from the ledger alone."""
    alice, bob = pair
    await pay(ledger, alice, 300)
    alice.link_is_up = False
    alice.owe(200)
    await until(lambda: alice.out.signed == 500)
    await say(bob, a_claim(alice.out.channel, 500))
    await bob.channels.redeem_channels(PEER, and_end=True)
    await until(lambda: alice.out.phase is Phase.NONE, ledger)
    assert alice.is_paid
    assert (alice.balance, bob.balance) == (500, -500)


def reverse(party: Party, number: int) -> None:
    party.tell(ReverseSettlement(PEER, number, f"reverse {number}", "by hand", 1, is_certain=True))
    assert number not in {one.number for one in party.process.open(PEER)}


async def test_what_waits_for_a_channel_and_is_reversed_is_never_signed(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    alice.link_is_up = False
    alice.owe(500)
    await until(lambda: alice.is_taken)
    reverse(alice, 1)
    alice.owe(40)
    await until(lambda: alice.is_taken)
    alice.link_is_up = True
    await until(lambda: alice.is_paid and bob.balance == -40, ledger)
    alice.owe(2)
    await until(lambda: alice.is_paid and bob.balance == -42, ledger)
    assert alice.out.signed == 42


async def test_a_claim_whose_settlement_was_reversed_is_told_and_keeps_no_other_waiting(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    alice.owe(500)
    await until(lambda: alice.is_paid and bob.balance == -500, ledger)
    alice.link_is_up = False
    alice.owe(60)
    await until(lambda: alice.out.signed == 560)
    reverse(alice, 2)
    alice.link_is_up = True
    alice.engine.link_up(PEER)
    await until(lambda: bob.balance == -560, ledger)
    alice.owe(7)
    await until(lambda: alice.is_paid and bob.balance == -567, ledger)
    assert alice.events("xrp_paid_and_reversed")


async def test_no_end_is_agreed_on_for_an_unknown_channel(pair: tuple[Party, Party]) -> None:
    with pytest.raises(MessageRefusedError, match="no channel of this account"):
        await say(pair[1], Close("AB" * 32))


# --- accounts that go ---


async def test_an_account_is_open_until_its_channels_have_ended_and_begins_anew_if_it_comes_back(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    await alice.channels.open_channel(PEER, XRP)
    assert alice.engine.unfinished(PEER)[0].startswith("a channel to it is being opened")
    await pay(ledger, alice, 3)
    await until(lambda: not alice.channels._sender.pending(alice.process, PEER), ledger)
    assert alice.engine.unfinished(PEER) == ["our channel to it is open: isthmus channels close peer"]
    (left,) = bob.engine.unfinished(PEER)
    assert left == "1 of its channels to us are open: isthmus channels redeem peer --end"
    await bob.channels.redeem_channels(PEER, and_end=True)
    assert bob.engine.unfinished(PEER)[1] == "1 transactions are under way (release): wait"
    await until(lambda: not alice.engine.unfinished(PEER) and not bob.engine.unfinished(PEER), ledger)
    for party in pair:
        gone = [(key, b"") for key in party.kept(PEER)]
        await party.step(PEER, Step(kept=gone))
        await party.engine.accounts_changed([])
        await party.engine.accounts_changed(party.accounts)
    await pay(ledger, alice, 7)
    assert bob.balance == -10


# --- the ledger is not what was configured ---


async def test_a_server_of_another_network_keeps_the_engine_from_starting(
    ledger: Serving, parties: list[Party]
) -> None:
    alice = channel_party(ledger, ALICE, network_id=1)
    parties.append(alice)
    with pytest.raises(LedgerError, match="of the network 1000, not 1"):
        await alice.start()
