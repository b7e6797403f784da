"""A driver on a journal in memory with one peer, and an engine beside it: what the tests of engines run in."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from isthmus.connector.events import AccountId, Inbound, LinkUp, Log, Now, Outbound, Settle
from isthmus.connector.kernel import Kernel
from isthmus.connector.settling import TAKEN, SettleTerms
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.ildcp import PEER_CONDITION
from isthmus.ilp.outcomes import OUTCOMES_DESTINATION
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode, encode_prepare
from isthmus.journal.memory import MemoryDisk, MemoryJournal
from isthmus.runtime import clock
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner
from isthmus.runtime.kernel_desk import KernelDesk
from isthmus.settlement.port import Engine, Port, SettlingAccount, Step

PEER = AccountId("peer")
USD = Asset("USD", 9)
TERMS = AccountTerms(
    id=PEER, asset=USD, relation="peer", settle=SettleTerms(engine="bank", ahead_max=10**9), payable_max=10**9
)
TABLES = Tables("test.node", {PEER: TERMS}, RouteTable({}), RateTable({}))
ACCOUNTS = {"bank": [SettlingAccount(PEER, USD, {})]}


class PeerLink:
    """The peer, as the driver sees it: what is written is there to be looked at."""

    def __init__(self, driver: Driver) -> None:
        self.account = PEER
        self.written: list[Outbound] = []
        self.news = asyncio.Event()
        self._driver = driver

    async def start(self) -> None: ...

    def write(self, frames: list[Outbound]) -> None:
        self.written += frames
        self.news.set()

    async def frame(self) -> Outbound:
        """The next one, of which the kernel's own question after outcomes is none: it comes by the clock."""
        async with asyncio.timeout(60):
            while True:
                while not self.written:
                    self.news.clear()
                    await self.news.wait()
                frame = self.written.pop(0)
                if OUTCOMES_DESTINATION.encode() not in frame.packet:
                    return frame

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def reset(self, why: str) -> None: ...

    async def close(self) -> None: ...


class Bank:
    """An engine whose behaviour a test writes down."""

    def __init__(self) -> None:
        self.port: Port
        self.starting: Callable[[], Awaitable[None]] | None = None
        self.paying: Callable[[int], Awaitable[None]] | None = None
        self.answering: Callable[[bytes], Awaitable[bytes]] | None = None
        self.paid: list[tuple[int, int, bytes]] = []
        self.accounts: Sequence[SettlingAccount] = ()
        self.news = asyncio.Event()
        self.closed = False
        self.is_done = False  # what is kept isn't open
        self.links_up: list[AccountId] = []
        self.link_came_up: Callable[[], None] | None = None

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        self.port = port
        self.accounts = accounts
        if self.starting is not None:
            await self.starting()

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        self.accounts = accounts

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        self.paid.append((number, amount, key))
        self.news.set()
        if self.paying is not None:
            await self.paying(number)
            return
        await self.port.step(account, Step(moved=[(number, TAKEN, "")], kept=[(b"tx", b"bytes")]))

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        return data if self.answering is None else await self.answering(data)

    def unfinished(self, account: AccountId) -> Sequence[str]:
        count = 0 if self.is_done else len(self.port.kept(account))
        return [f"{count} things are open"] if count else []

    def link_up(self, account: AccountId) -> None:
        self.links_up.append(account)
        self.news.set()
        if self.link_came_up is not None:
            self.link_came_up()

    def describe(self, account: AccountId) -> Mapping[str, str]:
        return {"paid": str(len(self.paid))}

    async def close(self) -> None:
        self.closed = True

    async def until_paid(self, times: int) -> None:
        async with asyncio.timeout(60):
            while len(self.paid) < times:
                self.news.clear()
                await self.news.wait()


class World:
    """A driver on a journal in memory that is durable at once, an engine, and its runner."""

    def __init__(
        self, disk: MemoryDisk | None = None, engine: Engine | None = None, *, link_up_s: float = 60.0
    ) -> None:
        self.disk = MemoryDisk() if disk is None else disk
        self.journal = MemoryJournal(self.disk)
        self.log: list[Log] = []
        self._news = asyncio.Event()
        self.kernel = Kernel(bytes(32))
        for batch in self.journal.read_from(1):
            self.kernel.replay(batch.sequence, batch.record)
        self.kernel.opened(Now(1, 1))
        self.holds = False  # nothing becomes durable
        self.waiting: list[asyncio.Future[bytes]] = []
        self.driver = Driver(self.kernel, self.journal, on_log=self._hear)
        self.link = PeerLink(self.driver)
        self.driver.attach(self.link)
        self.bank = Bank()
        desk = KernelDesk(self.driver)
        self.runner = EngineRunner(
            desk,
            {"bank": self.bank if engine is None else engine},
            on_log=self._hear,
            now=lambda: Now(1_000, 1_000),
            random=lambda: 1.0,
            retry_s_min=0.001,
            link_up_s=link_up_s,
        )
        desk.serve(self.runner)
        self._syncing = asyncio.create_task(self._sync())

    async def _sync(self) -> None:
        """The disk: all that was submitted in a turn is durable a turn later."""
        while True:
            await asyncio.sleep(0.001)
            if not self.holds:
                self.journal.sync()

    async def start(self, *, engines: bool = True) -> "World":
        self.driver.start()
        self.driver.post(TablesChanged(TABLES))
        self.driver.post(LinkUp(PEER))
        if engines:
            await self.runner.start(ACCOUNTS)
        return self

    async def settle(self, amount: int, key: str = "k") -> int:
        told = await self.driver.settle(Settle(PEER, amount, key, "", 0))
        assert not told.problem, told.problem
        return told.number

    async def ask(self, data: bytes, *, left_ms: int = 20_000) -> None:
        packet = encode_prepare(Prepare(0, clock.system_now().wall_ms + left_ms, PEER_CONDITION, "peer.settle", data))
        self._asked = getattr(self, "_asked", 0) + 1
        self.driver.inbound([Inbound(PEER, bytes(16), self._asked, packet, self.driver.mono_ms())])

    async def answer(self) -> Fulfill | Reject:
        reply = decode((await self.link.frame()).packet)
        assert isinstance(reply, Fulfill | Reject)
        return reply

    def state(self, number: int) -> int | None:
        settling = self.runner.settling(PEER)
        settlement = None if settling is None else settling.open.get(number)
        return None if settlement is None else settlement.state

    def logged(self, event: str) -> list[Log]:
        return [one for one in self.log if one.event == event]

    def _hear(self, log: Log) -> None:
        self.log.append(log)
        self._news.set()

    async def until_logged(self, event: str) -> None:
        async with asyncio.timeout(60):
            while not self.logged(event):
                self._news.clear()
                await self._news.wait()

    async def stop(self) -> None:
        await self.runner.close()
        self._syncing.cancel()
        self.journal.sync()
        await self.driver.stop()
