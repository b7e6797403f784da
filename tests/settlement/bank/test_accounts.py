"""One engine with two peers: each is credited what is its own, and none is held up by the other's books."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import pytest

from isthmus.connector.events import AccountId, LinkUp, Settle, SettlementDue
from isthmus.connector.settling import SettleTerms
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.settlement.bank import records
from isthmus.settlement.bank.engine import LAG_MAX
from isthmus.settlement.bank.messages import Hello, encode
from isthmus.settlement.port import SettlingAccount, Step, StepRefusedError
from tests.settlement.bank.world import Party, World, until
from tests.settlement.lightning.ports import PEER, WALL

ZOE: Final = AccountId("zoe")  # after PEER, who keeps what waits


class TwoPeers(Party):
    """A node with two accounts; nobody answers its messages."""

    refuses: AccountId | None = None  # steps of this account's are not booked

    def begin(self) -> None:
        terms = SettleTerms(engine="bank", ahead_max=10**20)
        both = {name: AccountTerms(id=name, asset=self.asset, relation="peer", settle=terms) for name in (PEER, ZOE)}
        tables = Tables(f"test.{self.name}", both, RouteTable({}), RateTable({}))
        self.tell(TablesChanged(tables), LinkUp(PEER), LinkUp(ZOE))

    @property
    def accounts(self) -> list[SettlingAccount]:
        return [SettlingAccount(name, self.asset, self.settings) for name in (PEER, ZOE)]

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        if account == self.refuses and step.credits:
            raise StepRefusedError("10000 settlements were credited in a week; ask again later")
        return super().book(account, step)

    def owed(self) -> tuple[int, int]:
        """What was credited to each."""
        peers = self.kernel.books.peers
        return -peers[PEER].balance, -peers[ZOE].balance

    def reference(self, account: AccountId) -> str:
        return self.kept(account)[records.REFERENCE].decode()


@pytest.fixture
async def west(world: World) -> TwoPeers:
    world.west = west = TwoPeers("west", world, 2)
    world.east = Party("east", world, 2)
    west.other, world.east.other = world.east, west
    west.is_deaf = True
    await west.start()
    await until(lambda: all(records.REFERENCE in west.kept(one) for one in (PEER, ZOE)))
    return west


async def test_each_is_credited_by_its_reference(world: World, west: TwoPeers) -> None:
    world.pay("stranger", "west", 5, west.reference(PEER), key="1")
    world.pay("stranger", "west", 7, west.reference(ZOE), key="2")
    await until(lambda: west.owed() == (5, 7))
    await west.restart()
    world.pay("stranger", "west", 1, west.reference(ZOE), key="3")
    await until(lambda: west.owed() == (5, 8))
    assert west.engine.unmatched() == []


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("ahead", [1, 2, 3])
async def test_a_kill_while_one_is_assigned_to_the_other_account(
    world: World, west: TwoPeers, ahead: int, before: bool
) -> None:
    """It is listed by one account and credited to the other: three steps."""
    world.pay("stranger", "west", 40, "which?")
    await until(lambda: len(west.engine.unmatched()) == 1)
    (one,) = west.engine.unmatched()
    west.process.kill_before = before
    west.process.kill_at = west.steps + ahead
    with pytest.raises(Exception, match="killed|stopped"):
        await west.engine.assign(one.id, ZOE, "the mail")
    await west.restart()
    if ahead == 1 and before:
        assert west.owed() == (0, 0)
        await west.engine.assign(one.id, ZOE, "the mail")
    await until(lambda: west.engine.unmatched() == [])
    await west.looked()
    assert west.owed() == (0, 40)
    assert not records.numbers(west.kept(ZOE), records.ASSIGNED)


async def test_two_operators_assign_it_once(world: World, west: TwoPeers) -> None:
    world.pay("stranger", "west", 40, "which?")
    await until(lambda: len(west.engine.unmatched()) == 1)
    (one,) = west.engine.unmatched()
    done = await asyncio.gather(
        west.engine.assign(one.id, ZOE, "mine"), west.engine.assign(one.id, PEER, "no, mine"), return_exceptions=True
    )
    assert sorted(isinstance(each, Exception) for each in done) == [False, True]
    assert sum(west.owed()) == 40


@pytest.mark.parametrize("refuses", [PEER, ZOE])
async def test_books_that_take_no_credit_hold_up_nobody_else(world: World, west: TwoPeers, refuses: AccountId) -> None:
    """Nor is anything forgotten, or credited twice, once they do again."""
    west.refuses = refuses
    for number in range(3):
        world.pay("stranger", "west", 5, west.reference(PEER), key=f"p{number}")
        world.pay("stranger", "west", 7, west.reference(ZOE), key=f"z{number}")
        world.pay("stranger", "west", 1, "nobody's", key=f"n{number}")
    wanted = (0, 21) if refuses == PEER else (15, 0)
    await until(lambda: west.owed() == wanted and len(west.engine.unmatched()) == 3)
    await until(lambda: "bank_credit_not_booked" in west.events())
    await west.restart()
    await west.looked(6)
    assert west.owed() == wanted and len(west.engine.unmatched()) == 3
    west.refuses = None
    await until(lambda: west.owed() == (15, 21))
    await west.restart()
    await west.looked()
    assert west.owed() == (15, 21) and len(west.engine.unmatched()) == 3


async def test_an_account_that_is_paid_nothing_follows_from_afar(world: World, west: TwoPeers) -> None:
    """So that a restart reads no more than some pages."""
    for number in range(LAG_MAX + 110):
        world.pay("stranger", "west", 1, west.reference(ZOE), key=str(number))
    await until(lambda: west.owed() == (0, LAG_MAX + 110))
    cursor = records.Cursor.of(west.kept(PEER))
    assert cursor is not None and cursor.number >= LAG_MAX
    await west.restart()
    await west.looked()
    assert west.owed() == (0, LAG_MAX + 110)


async def test_an_old_one_that_was_dismissed_stays_dismissed(world: World, west: TwoPeers) -> None:
    """Also if its account has been paid nothing since, and is read again from long before."""

    def old(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        if path != "/accounts/west/entries":
            return found
        return {**found, "entries": [{**each, "at_ms": WALL - 9 * 86_400_000} for each in found["entries"]]}

    world.pay("stranger", "west", 7, west.reference(ZOE), key="1")
    await until(lambda: west.owed() == (0, 7))
    world.way.tamper = old
    world.pay("stranger", "west", 8, west.reference(ZOE), key="2")
    await until(lambda: len(west.engine.unmatched()) == 1)
    await west.engine.dismiss(west.engine.unmatched()[0].id, "seen before")
    await west.restart()
    await west.looked(6)
    assert (west.owed(), west.engine.unmatched()) == ((0, 7), [])


# --- a request that hangs -------------------------------------------------------------------------------------------


def begin(west: TwoPeers, account: AccountId, amount: int) -> SettlementDue:
    west.tell(Settle(account, amount, f"{account} {amount}", "", 5))
    return west.dues[-1]


async def test_a_request_that_hangs_keeps_no_other_account_waiting(world: World, west: TwoPeers) -> None:
    """They are paid, and credited, while it hangs for as long as the engine waits; it comes to its end after that."""
    bank = (await west.engine._client.bank())[0]
    for account in (PEER, ZOE):
        await west.engine.take_message(account, encode(Hello(bank, "east", f"isthmus-{account}")))
    world.way.hanging = {500}
    due = begin(west, PEER, 500)
    await west.engine.pay(due.account, due.number, due.amount, due.key)
    await until(lambda: len(world.way.sent) == 1)
    for amount in (7, 8):
        due = begin(west, ZOE, amount)
        await west.engine.pay(due.account, due.number, due.amount, due.key)
        await until(lambda: not west.open(ZOE))
    world.pay("stranger", "west", 40, west.reference(ZOE))
    await until(lambda: west.owed()[1] == 40 - 15)
    assert len(west.open(PEER)) == 1
    assert len([body for _, body in world.way.sent if b'"500"' in body]) == 1, "and it is asked once"
    world.way.hanging = set()
    await until(lambda: not west.open(PEER))
    assert world.bank.audit() == []


async def test_a_peer_that_is_silent_is_paid_all_the_same(world: World, west: TwoPeers) -> None:
    """It has told us where, and doesn't answer what we asked before that."""
    await west.kill()
    west.silence = asyncio.Event()
    await west.restart()
    await until(lambda: {PEER, ZOE} <= set(west.asked))
    bank = (await west.engine._client.bank())[0]
    await west.engine.take_message(PEER, encode(Hello(bank, "east", "isthmus-x")))
    due = begin(west, PEER, 500)
    await west.engine.pay(due.account, due.number, due.amount, due.key)
    await until(lambda: not west.open(PEER))
    assert sorted(west.asked) == [PEER, ZOE], "each is asked once"
    west.silence.set()
    await until(lambda: len(west.asked) > 2)


async def test_an_engine_stops_while_a_request_hangs(world: World, west: TwoPeers) -> None:
    bank = (await west.engine._client.bank())[0]
    await west.engine.take_message(PEER, encode(Hello(bank, "east", "isthmus-x")))
    world.way.hanging = {500}
    due = begin(west, PEER, 500)
    await west.engine.pay(due.account, due.number, due.amount, due.key)
    await until(lambda: len(world.way.sent) == 1)
    async with asyncio.timeout(2):
        await west.kill()
    world.way.hanging = set()
