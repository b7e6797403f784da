"""One engine with two peers, one of whom doesn't answer: the other one waits for nothing."""

import asyncio
from typing import Final

import pytest

from isthmus.connector.events import AccountId, LinkUp, Settle, SettlementAnswered
from isthmus.connector.settling import SettleTerms
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.settlement.port import SettlingAccount
from isthmus.settlement.xrp.channels import ChannelEngine
from isthmus.settlement.xrp.details import Details
from isthmus.settlement.xrp.payments import PaymentEngine
from isthmus.settlement.xrp.pending import PREFIX, Pending
from tests.ledgers.xrp.dev.conftest import Serving
from tests.settlement.lightning.ports import PEER
from tests.settlement.xrp.world import (
    POLICY,
    XRP,
    Clock,
    Party,
    a_key,
    channel_party,
    drops_of,
    join,
    let_expire,
    no_jitter,
    payment_party,
    settings_for,
    until,
)

ALICE, BOB, ZOE = a_key(1), a_key(2), a_key(3)
SILENT: Final = AccountId("ann")  # before PEER


class TwoPeers(Party):
    """A node with two accounts. One of the peers says nothing, or only where it wants to be paid."""

    details: Details | None = None
    asked = 0

    def begin(self) -> None:
        terms = SettleTerms(engine="xrp", ahead_max=10**20)
        both = {one: AccountTerms(id=one, asset=self.asset, relation="peer", settle=terms) for one in (SILENT, PEER)}
        tables = Tables(f"test.{self.name}", both, RouteTable({}), RateTable({}))
        self.tell(TablesChanged(tables), LinkUp(SILENT), LinkUp(PEER))

    @property
    def accounts(self) -> list[SettlingAccount]:
        return [SettlingAccount(one, self.asset, self.settings) for one in (SILENT, PEER)]

    async def carry(self, account: AccountId, data: bytes) -> bytes:
        if account != SILENT:
            return await super().carry(account, data)
        self.asked += 1
        while self.details is None:  # noqa: ASYNC110 - until a test says so
            await asyncio.sleep(0.005)
        return self.details.encode()

    async def pay_silent(self, amount: int) -> None:
        (answer,) = [
            one
            for one in self.tell(Settle(SILENT, amount, f"ann {amount}", "", 9))
            if isinstance(one, SettlementAnswered)
        ]
        assert not answer.problem
        due = self.dues[-1]
        await self.engine.pay(due.account, due.number, due.amount, due.key)

    def pending_of_silent(self) -> list[Pending]:
        kept = self.kept(SILENT)
        return [Pending.decode(kept[key]) for key in kept if key.startswith(PREFIX)]


async def test_a_peer_that_is_silent_keeps_no_other_channel_waiting(ledger: Serving, parties: list[Party]) -> None:
    """Its own is opened once it answers."""
    settings, clock = settings_for(ledger), Clock()
    alice = TwoPeers(ALICE.address, lambda: ChannelEngine(settings, POLICY, ALICE, now=clock, random=no_jitter))
    bob = channel_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    await alice.pay_silent(50)
    await until(lambda: alice.asked)
    for amount in (5, 6):
        alice.owe(amount)
        await until(lambda: alice.is_paid, ledger)
    bob.owe(7)  # and the other way: Bob's channel is watched, and redeemed when it closes
    await until(lambda: bob.is_paid and alice.balance == 4, ledger)
    bob.link_is_up = False
    await bob.channels.close_channel(PEER)
    await until(lambda: alice.events("xrp_channel_closing"), ledger)
    assert alice.asked == 1 and alice.open(SILENT)


async def test_a_payment_that_no_ledger_took_and_whose_peer_is_silent_keeps_no_other_waiting(
    ledger: Serving, parties: list[Party]
) -> None:
    """Its number goes to others; it is signed anew once its peer says where to pay."""
    settings, clock = settings_for(ledger), Clock()
    alice = TwoPeers(ALICE.address, lambda: PaymentEngine(settings, ALICE, now=clock, random=no_jitter))
    bob = payment_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    before = await drops_of(ledger, ZOE)
    alice.details = Details(ZOE.address, 7)
    alice.process.kill_sending = True
    with pytest.raises(Exception, match="killed"):
        await alice.pay_silent(XRP)
    (old,) = alice.pending_of_silent()
    let_expire(ledger)
    alice.details = None
    alice.asked = 0
    await alice.restart()
    await until(lambda: alice.asked, ledger)
    for amount in (5, 6):
        alice.owe(amount)
        await until(lambda: alice.is_paid, ledger)
    await until(lambda: bob.balance == -11, ledger)
    (dead,) = alice.pending_of_silent()
    assert (dead.is_dead, dead.sequence) == (True, old.sequence)
    await alice.restart()
    alice.details = Details(ZOE.address, 8)
    await until(lambda: not alice.open(SILENT), ledger)
    assert await drops_of(ledger, ZOE) == before + XRP
    assert not alice.events("xrp_sequence_taken")
