"""A driver with money in it: a journal in memory that fails in every way, peers in process, and a clock set by hand."""

import asyncio
from hashlib import sha256
from typing import Any

import pytest

from isthmus.connector.events import AccountId, Inbound, LinkUp, Log, Now, Outbound, Undelivered
from isthmus.connector.kernel import APPEND_SLOW_MS
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.outcomes import OUTCOMES_DESTINATION
from isthmus.ilp.packet import (
    PREPARE,
    Fulfill,
    Prepare,
    Reject,
    decode,
    decode_prepare,
    encode_fulfill,
    encode_prepare,
)
from isthmus.journal.memory import Fault, MemoryDisk, MemoryJournal
from isthmus.links.inprocess import MemoryLink, memory_pair
from isthmus.runtime.driver import Driver
from isthmus.runtime.opening import open_kernel

ALICE, BOB = AccountId("alice"), AccountId("bob")
WALL = 1_800_000_000_000
DAY_MS = 86_400_000
SEED = bytes(range(32))


def terms(name: AccountId) -> AccountTerms:
    return AccountTerms(id=name, asset=Asset("USD", 9), relation="peer", receivable_max=10**6, payable_max=10**6)


TABLES = Tables("test.node", {name: terms(name) for name in (ALICE, BOB)}, RouteTable({"test.bob": BOB}), RateTable({}))


class Peer:
    """The other end of an account: a link owner that remembers. Its replies come when the test says so."""

    def __init__(self, world: "World", name: AccountId) -> None:
        self.name = name
        self.got: list[Inbound] = []
        self.link: MemoryLink | None = None
        self._world = world
        self._last_id = 0

    def inbound(self, packets: list[Inbound]) -> None:
        self.got += packets

    def undelivered(self, failures: list[Undelivered]) -> None:
        raise AssertionError(failures)

    def link_up(self, account: AccountId) -> None: ...

    def link_down(self, account: AccountId, why: str) -> None: ...

    def blocked(self, account: AccountId) -> None: ...

    def writable(self, account: AccountId) -> None: ...

    def mono_ms(self) -> int:
        return self._world.mono

    def prepare(self, amount: int, *, left_ms: int = 20_000) -> None:
        assert self.link is not None
        self._last_id += 1
        packet = Prepare(amount, self._world.wall + left_ms, sha256(SEED).digest(), "test.bob.x", SEED)
        self.link.write([Outbound(b"session of peers", self._last_id, encode_prepare(packet))])

    def fulfil(self, request: Inbound) -> None:
        assert self.link is not None
        self.link.write([Outbound(request.session, request.request_id, encode_fulfill(Fulfill(SEED)))])

    def take(self) -> list[tuple[int, Any]]:
        """Ids and packets that came since it was asked last."""
        got, self.got = self.got, []
        return [(each.request_id, decode(each.packet)) for each in got]


class World:
    """One process on a disk: `crash` and a second world are its next."""

    def __init__(self, disk: MemoryDisk | None = None, *, wall: int = WALL, mono: int = 5_000) -> None:
        self.wall = wall
        self.mono = mono
        self.journal = MemoryJournal(disk)
        self.log: list[Log] = []
        kernel = open_kernel(self.journal, TABLES, entropy=sha256(bytes([mono % 256])).digest(), now=self.now())
        self.driver = Driver(kernel, self.journal, on_log=self.log.append, now=self.now)
        self.alice, self.bob = Peer(self, ALICE), Peer(self, BOB)

    def now(self) -> Now:
        return Now(self.wall, self.mono)

    async def start(self) -> "World":
        self.driver.start()
        self.driver.post(TablesChanged(TABLES))
        for peer in (self.alice, self.bob):
            ours, peer.link = memory_pair(peer.name, self.driver, peer.name, peer)
            self.driver.attach(ours)
            await ours.start()
            await peer.link.start()
        await self.turns()
        self.journal.sync()
        await self.turns()
        return self

    async def turns(self) -> None:
        """Let what is due in the loop happen; nothing here takes real time."""
        for _ in range(6):
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """As `turns`, with a disk that keeps up."""
        for _ in range(6):
            await self.turns()
            self.journal.sync()
        await self.turns()

    async def wait(self, ms: int) -> None:
        """Both clocks go on, and the timer fires."""
        self.wall += ms
        self.mono += ms
        await self.wake()

    async def wake(self) -> None:
        self.driver.post(LinkUp(ALICE))  # any event: the driver's own timer runs on real time
        await self.settle()

    def balances(self) -> tuple[int, int]:
        peers = self.driver.kernel.books.peers
        return peers[ALICE].balance, peers[BOB].balance

    def reserved(self) -> tuple[int, int]:
        peers = self.driver.kernel.books.peers
        return peers[ALICE].reserved_incoming, peers[BOB].reserved_outgoing


@pytest.fixture
async def world() -> World:
    return await World().start()


async def forwarded(world: World, amount: int = 100, **more: int) -> Inbound:
    """A packet of alice's that bob has got."""
    world.alice.prepare(amount, **more)
    await world.settle()
    (request,) = world.bob.got
    world.bob.got = []
    return request


async def test_no_frame_leaves_before_its_batch_is_durable(world: World) -> None:
    """CONN-3: neither the Prepare nor the Fulfill."""
    world.alice.prepare(100)
    await world.turns()
    assert world.bob.got == []
    world.journal.sync()
    await world.turns()
    (request,) = world.bob.got
    assert request.packet[0] == PREPARE and decode_prepare(request.packet).amount == 100
    world.bob.fulfil(request)
    await world.turns()
    assert world.alice.got == []
    world.journal.sync()
    await world.turns()
    assert world.alice.take() == [(1, Fulfill(SEED))]
    assert world.balances() == (100, -100)


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.UNKNOWN, Fault.TORN])
@pytest.mark.parametrize("step", ["prepare", "fulfil"])
async def test_after_a_failed_append_nothing_leaves_and_the_disk_says_what_happened(
    world: World, fault: Fault, step: str
) -> None:
    request = await forwarded(world) if step == "fulfil" else None
    world.journal.fault = fault
    if request is None:
        world.alice.prepare(100)
    else:
        world.bob.fulfil(request)
    await world.turns()
    world.journal.sync()
    problem = await asyncio.wait_for(world.driver.halted, 60)
    assert "nothing from batch" in problem
    await world.settle()
    assert world.alice.got == [] and world.bob.got == []
    assert not await world.driver.drain(1)

    again = await World(world.journal.crash(), wall=world.wall, mono=77).start()
    happened = fault is Fault.UNKNOWN
    if step == "prepare":
        assert again.reserved() == ((100, 100) if happened else (0, 0))
    else:
        assert again.reserved() == ((0, 0) if happened else (100, 100))
        assert again.balances() == ((100, -100) if happened else (0, 0))


async def test_a_slow_disk_stops_new_prepares_and_they_come_in_again(world: World) -> None:
    """T03 without books or journal; what waits for the disk leaves when it is back."""
    world.journal.fault = Fault.SLOW
    world.alice.prepare(1)
    await world.turns()
    world.mono += APPEND_SLOW_MS + 1
    world.wall += APPEND_SLOW_MS + 1
    world.driver.post(LinkUp(ALICE))
    world.alice.prepare(2)
    await world.turns()
    ((refused_id, refused),) = world.alice.take()
    assert refused_id == 2 and isinstance(refused, Reject) and refused.code == "T03"
    assert [fact.event for fact in world.log if "journal" in fact.event] == ["journal_slow"]
    world.journal.fault = None
    await world.settle()
    packet, question = [decode_prepare(each.packet) for each in world.bob.got]
    assert packet.amount == 1
    assert (question.destination, question.amount) == (OUTCOMES_DESTINATION, 0)  # whether he takes reports
    assert world.log[-1].event == "journal_recovered"
    world.bob.got = []
    assert decode_prepare((await forwarded(world, 3)).packet).amount == 3


async def test_a_crash_between_prepare_and_fulfill_keeps_both_legs(world: World) -> None:
    """BTP-18: the next process takes the answer to the old request, or lets it expire."""
    request = await forwarded(world)
    again = await World(world.journal.crash(), wall=world.wall + 3_000, mono=77).start()
    assert again.reserved() == (100, 100)
    again.bob.fulfil(request)
    await again.settle()
    assert again.alice.take() == [(1, Fulfill(SEED))]
    assert again.balances() == (100, -100)


async def test_a_crash_and_no_answer_ends_in_r00_at_the_expiry(world: World) -> None:
    """ILP-10: alice hears of it under her old request id."""
    await forwarded(world, left_ms=5_000)
    again = await World(world.journal.crash(), wall=world.wall + 3_000, mono=77).start()
    await again.wait(500)
    assert again.reserved() == (100, 100)
    await again.wait(500)  # 4 s: the expiry less the margin
    ((request_id, reject),) = again.alice.take()
    assert request_id == 1 and isinstance(reject, Reject) and reject.code == "R00"
    assert again.reserved() == again.balances() == (0, 0)


@pytest.mark.parametrize("jump_ms", [DAY_MS, -DAY_MS])
async def test_a_wall_clock_that_jumps_ends_nothing_that_is_in_flight(world: World, jump_ms: int) -> None:
    """CONN-16, P-6: deadlines are monotonic once a packet is taken."""
    request = await forwarded(world)
    world.wall += jump_ms
    await world.wake()
    assert world.reserved() == (100, 100)
    world.bob.fulfil(request)
    await world.settle()
    assert world.alice.take() == [(1, Fulfill(SEED))]
    assert world.balances() == (100, -100)


@pytest.mark.parametrize("jump_ms", [DAY_MS, -DAY_MS])
async def test_a_packet_in_flight_expires_on_time_although_the_wall_clock_jumps(world: World, jump_ms: int) -> None:
    await forwarded(world, left_ms=5_000)
    world.wall += jump_ms
    await world.wait(3_999)
    assert world.alice.got == []
    await world.wait(1)
    ((_, reject),) = world.alice.take()
    assert isinstance(reject, Reject) and reject.code == "R00"
    assert world.balances() == (0, 0)


async def test_new_packets_are_judged_by_the_clock_as_it_is(world: World) -> None:
    """CONN-9, CONN-10: after a jump ahead theirs have expired; after a jump back they are held no longer than ever."""
    world.wall += DAY_MS
    world.alice.prepare(1, left_ms=20_000 - DAY_MS)
    await world.settle()
    ((_, reject),) = world.alice.take()
    assert isinstance(reject, Reject) and reject.code == "R02"
    world.wall -= 2 * DAY_MS
    sent = decode_prepare((await forwarded(world, 2, left_ms=20_000 + DAY_MS)).packet)
    assert sent.expires_at == world.wall + terms(ALICE).hold_ms_max
    await world.wait(terms(ALICE).hold_ms_max)
    ((_, reject),) = world.alice.take()
    assert isinstance(reject, Reject) and reject.code == "R00"


@pytest.mark.parametrize("jump_ms", [DAY_MS, -DAY_MS])
async def test_a_wall_clock_that_jumped_while_we_were_down_holds_no_money_for_ever(world: World, jump_ms: int) -> None:
    """After a restart only the wall clock is left to judge by; a wrong one can't hold a leg beyond the longest hold."""
    await forwarded(world)
    again = await World(world.journal.crash(), wall=world.wall + jump_ms, mono=77).start()
    await again.wait(1 if jump_ms > 0 else 600_000)
    ((_, reject),) = again.alice.take()
    assert isinstance(reject, Reject) and reject.code == "R00"
    assert again.reserved() == again.balances() == (0, 0)


async def test_a_drain_ends_once_the_last_answer_is_durable_and_out(world: World) -> None:
    request = await forwarded(world)
    draining = asyncio.ensure_future(world.driver.drain(10_000))
    await world.turns()
    world.alice.prepare(5)
    await world.settle()
    ((_, refused),) = world.alice.take()
    assert isinstance(refused, Reject) and refused.code == "T03"
    assert not draining.done()
    world.bob.fulfil(request)
    await world.turns()
    assert not draining.done() and world.alice.got == []
    world.journal.sync()
    await world.turns()
    assert await draining
    assert world.alice.take() == [(1, Fulfill(SEED))]
    await world.driver.stop()
