"""The driver at its ends: a defect in a turn, a stop, and what is asked of it afterwards."""

import asyncio
from typing import Any

import pytest

from isthmus.connector.events import AccountId, Durable, Log, Now, Outbound
from isthmus.connector.kernel import Kernel
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.errors import JournalError
from isthmus.ilp.asset import Asset
from isthmus.journal.memory import MemoryJournal
from isthmus.runtime.driver import Driver

PEER = AccountId("peer")
TERMS = AccountTerms(id=PEER, asset=Asset("USD", 9), relation="peer")
TABLES = Tables("test.node", {PEER: TERMS}, RouteTable({}), RateTable({}))


class SilentLink:
    """A link that takes everything and tells nothing."""

    def __init__(self, driver: Driver) -> None:
        self.account = PEER
        self.written: list[Outbound] = []
        self._driver = driver

    async def start(self) -> None:
        self._driver.link_up(self.account)

    def write(self, frames: list[Outbound]) -> None:
        self.written += frames

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def reset(self, why: str) -> None: ...

    async def close(self) -> None: ...


class World:
    """A driver on a journal in memory, and what its loop was told of exceptions."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.log: list[Log] = []
        self.exceptions: list[str] = []
        asyncio.get_running_loop().set_exception_handler(self._heard)
        kernel = Kernel(bytes(32))
        kernel.opened(Now(1, 1))
        self.driver = Driver(kernel, self.journal, on_log=self.log.append)
        self.driver.attach(SilentLink(self.driver))
        self.driver.start()
        self.driver.post(TablesChanged(TABLES))

    def _heard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.exceptions.append(type(context["exception"]).__name__)

    async def turn(self) -> None:
        """Let what is due in the loop happen."""
        for _ in range(3):
            await asyncio.sleep(0)


async def test_a_failed_assertion_stops_the_node() -> None:
    """Not only its turn: frames and entries of that turn are gone, and only replay knows where the books stand."""
    world = World()
    await world.turn()
    world.driver.post(Durable(99))
    problem = await asyncio.wait_for(world.driver.halted, 60)
    assert "AssertionError" in problem
    assert world.exceptions == ["AssertionError"]
    submitted = world.driver.kernel.sequence
    world.driver.post(TablesChanged(TABLES))
    await world.turn()
    assert world.driver.kernel.sequence == submitted


async def test_an_effect_that_can_not_be_carried_out_stops_the_node() -> None:
    world = World()
    await world.turn()

    def refuse(log: Log) -> None:
        raise RuntimeError(log.event)

    world.driver._on_log = refuse
    world.driver.post(TablesChanged(Tables("test.node", {}, RouteTable({"test": PEER}), RateTable({}))))
    assert "RuntimeError" in await asyncio.wait_for(world.driver.halted, 60)


async def test_after_a_halt_no_note_is_waited_for() -> None:
    world = World()
    await world.turn()
    waiting = asyncio.ensure_future(world.driver.note(b"first"))
    await world.turn()
    world.driver.post(Durable(99))
    with pytest.raises(JournalError, match="AssertionError"):
        await asyncio.wait_for(waiting, 60)
    with pytest.raises(JournalError, match="AssertionError"):
        await asyncio.wait_for(world.driver.note(b"second"), 60)


async def test_after_a_halt_no_digest_is_waited_for() -> None:
    """It is of a durable batch, and none becomes durable any more."""
    world = World()
    await world.turn()
    waiting = asyncio.ensure_future(world.driver.digest())
    await world.turn()
    world.driver.post(Durable(99))
    with pytest.raises(JournalError, match="AssertionError"):
        await asyncio.wait_for(waiting, 60)
    with pytest.raises(JournalError, match="AssertionError"):
        await asyncio.wait_for(world.driver.digest(), 60)


async def test_what_is_told_after_the_stop_is_left_to_the_next_start() -> None:
    """A closed journal takes no batch, and a frame could not leave any more."""
    world = World()
    await world.turn()
    world.journal.sync()
    await world.turn()
    waiting = asyncio.ensure_future(world.driver.note(b"not durable in time"))
    await world.turn()
    stopping = asyncio.ensure_future(world.driver.stop())
    with pytest.raises(JournalError, match="stopped"):
        await asyncio.wait_for(waiting, 60)
    await stopping
    submitted = world.driver.kernel.sequence
    world.driver.post(TablesChanged(Tables("test.other", TABLES.accounts, TABLES.routes, TABLES.rates)))
    await world.turn()
    assert world.driver.kernel.sequence == submitted
    assert world.exceptions == []
    assert not world.driver.halted.done()
    with pytest.raises(JournalError, match="stopped"):
        await asyncio.wait_for(world.driver.note(b"later"), 60)
