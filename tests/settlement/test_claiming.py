"""What peers have of our claims is kept with the settlements that follow, and nothing depends on it."""

import asyncio

from isthmus.connector.settling import TAKEN
from isthmus.settlement.claiming import NOTE_S
from tests.ledgers.xrp.dev.conftest import Serving
from tests.settlement.lightning.ports import PEER
from tests.settlement.xrp.conftest import ledger, parties
from tests.settlement.xrp.world import XRP, Party, a_key, channel_party, join, until

__all__ = ["ledger", "parties"]


async def a_pair(ledger: Serving, parties: list[Party]) -> tuple[Party, Party]:
    """With a channel that is open, and nothing to be noted."""
    alice, bob = channel_party(ledger, a_key(1)), channel_party(ledger, a_key(2))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    alice.owe(XRP)
    await until(lambda: alice.is_paid, ledger)
    return alice, bob


async def pay_fast(alice: Party, bob: Party, times: int) -> None:
    """Each as soon as the engine has the one before."""
    for number in range(times):
        alice.owe(1)
        wanted = -XRP - number - 1
        await until(lambda wanted=wanted: bob.balance == wanted)  # type: ignore[misc]


async def test_settlements_that_come_fast_take_one_step_each(ledger: Serving, parties: list[Party]) -> None:
    alice, bob = await a_pair(ledger, parties)
    before, begun = alice.steps, asyncio.get_running_loop().time()
    await pay_fast(alice, bob, 20)
    await until(lambda: alice.is_paid)
    took_s = asyncio.get_running_loop().time() - begun
    assert alice.steps - before <= 20 + took_s / NOTE_S + 2  # one each, and one in each `NOTE_S`
    assert (alice.out.signed, alice.out.acknowledged) == (XRP + 20, XRP + 20)


async def test_what_was_not_noted_before_a_kill_is_found_again(ledger: Serving, parties: list[Party]) -> None:
    alice, bob = await a_pair(ledger, parties)
    await pay_fast(alice, bob, 5)
    await alice.restart()  # by a kill
    await until(lambda: alice.is_paid, ledger)
    assert (alice.out.signed, alice.out.acknowledged, bob.balance) == (XRP + 5, XRP + 5, -XRP - 5)


async def test_a_stop_notes_what_the_peer_has(ledger: Serving, parties: list[Party]) -> None:
    alice, bob = await a_pair(ledger, parties)
    await pay_fast(alice, bob, 5)
    await alice.stop()
    assert alice.is_paid
    assert alice.out.acknowledged == XRP + 5


async def test_a_channel_that_ends_before_the_note_pays_nothing_twice(ledger: Serving, parties: list[Party]) -> None:
    alice, bob = await a_pair(ledger, parties)
    await pay_fast(alice, bob, 5)
    assert await alice.channels.close_channel(PEER)
    await until(lambda: not alice.out.channel, ledger)
    assert alice.is_paid
    assert (alice.out.needed, bob.balance) == (0, -XRP - 5)


async def test_nothing_waits_for_a_note(ledger: Serving, parties: list[Party]) -> None:
    alice, bob = await a_pair(ledger, parties)
    bob.link_is_up = alice.link_is_up = False
    alice.owe(1)
    await until(lambda: alice.is_taken)
    assert [one.state for one in alice.process.open(PEER)] == [TAKEN]
    bob.link_is_up = alice.link_is_up = True
    alice.engine.link_up(PEER)
    await until(lambda: alice.is_paid)
    assert bob.balance == -XRP - 1
