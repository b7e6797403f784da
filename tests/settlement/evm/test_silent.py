"""One engine with two peers, one of whom doesn't answer: the other one waits for nothing."""

import asyncio
from typing import Final

import pytest

from isthmus.connector.events import AccountId
from tests.ledgers.evm.anvil import Anvil, a_key
from tests.settlement.evm.world import PEER, Books, Party, channel_party, channels_of, join, transfer_party, until

pytestmark = pytest.mark.ledger

ALICE, BOB = a_key(1), a_key(2)
SILENT: Final = AccountId("ann")  # before PEER


async def silence(party: Party) -> asyncio.Event:
    """From the start on this peer says nothing. It is set when it is asked."""
    asked = asyncio.Event()

    async def never(data: bytes) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    await party.start()
    party.port.peers[SILENT] = never
    return asked


async def test_a_peer_that_is_silent_keeps_no_other_channel_waiting(anvil: Anvil, parties: list[Party]) -> None:
    alice, bob = channel_party(anvil, ALICE, books=Books([SILENT, PEER])), channel_party(anvil, BOB)
    join(alice, bob)
    parties += [alice, await bob.start()]
    asked = await silence(alice)
    alice.books.settle(50, SILENT)
    await asyncio.wait_for(asked.wait(), 60)
    for amount in (5, 6):
        number = alice.books.settle(amount)
        await until(lambda number=number: alice.books.state(number) == "confirmed", anvil)  # type: ignore[misc]
    bob.books.settle(7)  # and the other way: Bob's channel is watched, and redeemed when it closes
    await until(lambda: alice.books.credited[PEER] == 7, anvil)
    bob.link_is_up = False
    await channels_of(bob).close_channel(PEER)
    await until(lambda: alice.books.events("evm_channel_closing"), anvil)
    assert alice.books.state(1, SILENT) == "taken"


async def test_a_peer_that_is_silent_keeps_no_other_transfer_waiting(anvil: Anvil, parties: list[Party]) -> None:
    """Neither those that leave, nor those that come."""
    alice, bob = transfer_party(anvil, ALICE, books=Books([SILENT, PEER])), transfer_party(anvil, BOB)
    join(alice, bob)
    parties += [alice, await bob.start()]
    asked = await silence(alice)
    await asyncio.wait_for(asked.wait(), 60)
    alice.books.settle(5)
    bob.books.settle(7)
    await until(lambda: (alice.books.confirmed(), alice.books.credited[PEER]) == (5, 7), anvil)
    await until(lambda: (bob.books.confirmed(), bob.books.credited[PEER]) == (7, 5), anvil)
