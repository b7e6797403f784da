"""Two engines that settle one account with each other, each over a real kernel's books; their messages go across."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from isthmus.connector.events import (
    AccountId,
    Append,
    Durable,
    Effect,
    Event,
    LinkUp,
    Now,
    Settle,
    SettlementAnswered,
    SettlementDue,
    SettlementStep,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.settling import Settlement, SettleTerms
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, TableEvent, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.settlement.port import Engine, MessageRefusedError, SettlingAccount, Step, StepRefusedError

PEER: Final = AccountId("peer")
WALL: Final = 1_800_000_000_000


class Side:
    """One side: books that are durable at once, and its engine. `restart` is a kill: only the records stay."""

    def __init__(self, name: str, scale: int = 11, code: str = "BTC") -> None:
        self.name: Final = name
        self.asset: Final = Asset(code, scale)
        self.settings: dict[str, str] = {}
        self.records: list[bytes] = []
        self.logs: list[tuple[str, str, Mapping[str, str | int]]] = []
        self.overs: list[tuple[str, str]] = []  # alarms that the engine said have ended
        self.other: Side
        self.engine: Engine
        self.is_deaf = False  # messages are lost
        self.kernel = self._open()
        self.dues: list[SettlementDue] = []
        self.changed = asyncio.Event()
        self._token = 0

    def _open(self) -> Kernel:
        kernel = Kernel(len(self.records).to_bytes(32, "big"))
        for sequence, record in enumerate(self.records, 1):
            kernel.replay(sequence, record)
        kernel.opened(Now(WALL, 0))
        return kernel

    def begin(self) -> None:
        terms = SettleTerms(engine="lightning", ahead_max=10**20)
        account = AccountTerms(id=PEER, asset=self.asset, relation="peer", settle=terms)
        tables = Tables(f"test.{self.name}", {PEER: account}, RouteTable({}), RateTable({}))
        self.tell(TablesChanged(tables), LinkUp(PEER))

    def tell(self, *events: Event | TableEvent) -> list[Effect]:
        effects = self.kernel.handle(list(events), Now(WALL, 1))
        found = list(effects)
        for effect in effects:
            if isinstance(effect, Append):
                self.records.append(effect.record)
                found += self.tell(Durable(effect.sequence))
            elif isinstance(effect, SettlementDue):
                self.dues.append(effect)
        self.changed.set()
        return found

    async def until(self, is_so: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()

    def settle(self, amount: int) -> SettlementDue:
        """The operator says so; what the engine is to be told."""
        self._token += 1
        found = self.tell(Settle(PEER, amount, f"key {len(self.records)}", "", self._token))
        (answer,) = [one for one in found if isinstance(one, SettlementAnswered)]
        assert not answer.problem, answer.problem
        return self.dues[-1]

    async def pay(self, due: SettlementDue) -> None:
        await self.engine.pay(due.account, due.number, due.amount, due.key)

    @property
    def balance(self) -> int:
        return self.kernel.books.peers[PEER].balance

    @property
    def accounts(self) -> list[SettlingAccount]:
        return [SettlingAccount(PEER, self.asset, self.settings)]

    # --- settlement.port.Port ---------------------------------------------------------------------------------------

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        return self.book(account, step)

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        self._token += 1
        event = SettlementStep(account, self._token, step.moved, step.credits, step.undone, step.kept)
        (answer,) = [one for one in self.tell(event) if isinstance(one, SettlementAnswered)]
        if answer.problem:
            raise StepRefusedError(answer.problem)
        return answer.amounts

    async def message(self, account: AccountId, data: bytes) -> bytes:
        if self.is_deaf:
            raise MessageRefusedError("T01", "the link is down")
        return await self.other.engine.take_message(account, data)

    def kept(self, account: AccountId) -> Mapping[bytes, bytes]:
        settling = self.kernel.books.peers[account].settling
        return {} if settling is None else dict(settling.engine)

    def credited(self, account: AccountId, start: str) -> Sequence[str]:
        settling = self.kernel.books.peers[account].settling
        names = [] if settling is None else [key.decode() for key in settling.credited]
        return [name for name in names if name.startswith(start)]

    def open(self, account: AccountId) -> Sequence[Settlement]:
        settling = self.kernel.books.peers[account].settling
        return [] if settling is None else list(settling.open.values())

    def log(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        self.logs.append((level, event, fields))
        self.changed.set()

    def over(self, event: str, account: AccountId | str = "") -> None:
        self.overs.append((event, str(account)))
        self.changed.set()

    def problems(self) -> str:
        return " ".join(str(fields.get("problem", "")) for _, _, fields in self.logs)

    # --- kills ------------------------------------------------------------------------------------------------------

    async def killed(self) -> None:
        """The engine is gone in the middle of whatever it does, and the books are those of the journal."""
        await self.engine.close()
        self.kernel = self._open()
        self.dues = []
        self.begin()
