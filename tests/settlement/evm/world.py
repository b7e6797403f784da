"""Two engines that settle with each other: ports whose steps survive them, a link that can break, and a real chain."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import BEGUN, CONFIRMED, OPEN_STATES, STATES, Settlement, credit_of
from isthmus.errors import JournalError
from isthmus.ilp.asset import Asset
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.fees import GWEI, FeePolicy
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS
from isthmus.settlement.evm.channels import ChannelEngine
from isthmus.settlement.evm.engine import EvmEngine
from isthmus.settlement.evm.pending import PREFIX, Pending
from isthmus.settlement.evm.settings import ChainSettings, ChannelPolicy
from isthmus.settlement.evm.transfers import TransferEngine
from isthmus.settlement.port import Engine, MessageRefusedError, SettlingAccount, Step, StepRefusedError
from tests.ledgers.evm.anvil import Anvil

UNTIL_SECONDS: Final = 60.0
FINNEY: Final = 10**15  # the accounts' unit here
FINNEY_SCALE: Final = 3
PEER: Final = AccountId("peer")


class Books:
    """What a node's journal has: it outlives engines. Applies steps as the node's books do."""

    def __init__(self, accounts: Sequence[AccountId] = (PEER,), scale: int = FINNEY_SCALE) -> None:
        self.scale = scale
        self.kept: dict[AccountId, dict[bytes, bytes]] = {one: {} for one in accounts}
        self.settlements: dict[AccountId, dict[int, Settlement]] = {one: {} for one in accounts}
        self.credited: dict[AccountId, int] = dict.fromkeys(accounts, 0)
        self.leftover: dict[AccountId, tuple[int, int]] = dict.fromkeys(accounts, (0, 0))
        self.refused: set[AccountId] = set()  # no credit of these accounts is taken
        self.steps = 0
        self.log: list[tuple[str, str, dict[str, str | int]]] = []
        self.overs: list[tuple[str, str]] = []  # alarms that the engine said have ended

    def settle(self, amount: int, account: AccountId = PEER) -> int:
        number = len(self.settlements[account]) + 1
        self.settlements[account][number] = Settlement(number, amount, number.to_bytes(16, "big"), 0)
        return number

    def state(self, number: int, account: AccountId = PEER) -> str:
        return STATES[self.settlements[account][number].state]

    def confirmed(self, account: AccountId = PEER) -> int:
        """How much of our settlements is final."""
        return sum(one.amount for one in self.settlements[account].values() if one.state == CONFIRMED)

    def events(self, event: str) -> list[dict[str, str | int]]:
        return [fields for _, name, fields in self.log if name == event]

    def take(self, account: AccountId, step: Step) -> list[int]:
        for number, state, _ in step.moved:
            one = self.settlements[account][number]
            if one.state not in OPEN_STATES or state < one.state:
                raise StepRefusedError(f"settlement {number} is {STATES[one.state]}")
        if step.credits and account in self.refused:
            raise StepRefusedError("not now")
        if any(units < 1 for units, _ in step.undone):
            raise StepRefusedError("an amount is not above zero")
        for number, state, text in step.moved:
            self.settlements[account][number].state = state
            self.settlements[account][number].text = text
        gave = []
        for amount, scale, key, _ in step.credits:
            assert key == "", "these engines make it happen once by what they keep"
            units, self.leftover[account] = credit_of(amount, scale, self.leftover[account], self.scale)
            self.credited[account] += units
            gave.append(units)
        for units, _ in step.undone:
            self.credited[account] -= units
        for name, value in step.kept:
            if value:
                self.kept[account][name] = value
            else:
                self.kept[account].pop(name, None)
        self.steps += 1
        return gave


class MemoryPort:
    """A `Port` on these books. The link to the other side is `peer`; a killed node's port takes nothing any more."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.peers: dict[AccountId, Callable[[bytes], asyncio.Future[bytes] | object]] = {}
        self.is_dead = False
        self.kill_at: int | None = None  # the step with this number is the last thing of this process
        self.kill_before = False  # and it isn't booked
        self.disk = asyncio.Event()  # what is booked is durable while it is set
        self.disk.set()
        self.waiting = 0  # steps that aren't durable yet

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        gave = self.book(account, step)
        await asyncio.sleep(0)
        self.waiting += 1
        await self.disk.wait()
        self.waiting -= 1
        return gave

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        self._alive()
        if self.kill_at is not None and self.books.steps + 1 >= self.kill_at:
            self.is_dead = True
            if self.kill_before:
                raise JournalError("killed before the step")
            self.books.take(account, step)
            raise JournalError("killed after the step")
        return self.books.take(account, step)

    async def message(self, account: AccountId, data: bytes) -> bytes:
        self._alive()
        peer = self.peers.get(account)
        if peer is None:
            raise MessageRefusedError("T01", "the link is down")
        answer = await peer(data)  # type: ignore[misc]
        self._alive()
        return bytes(answer)

    def kept(self, account: AccountId) -> Mapping[bytes, bytes]:
        return self.books.kept[account]

    def credited(self, account: AccountId, start: str) -> Sequence[str]:
        return []

    def open(self, account: AccountId) -> Sequence[Settlement]:
        return [one for one in self.books.settlements[account].values() if one.state in OPEN_STATES]

    def log(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        self.books.log.append((level, event, dict(fields)))

    def over(self, event: str, account: AccountId | str = "") -> None:
        self.books.overs.append((event, str(account)))

    def _alive(self) -> None:
        if self.is_dead:
            raise JournalError("the node has stopped")


class Party:
    """One side: books, and an engine that can be killed and started again from them."""

    def __init__(self, make: Callable[[], Engine], books: Books | None = None) -> None:
        self.make = make
        self.books = books or Books()
        self.engine: Engine = make()
        self.port = MemoryPort(self.books)
        self.other: Party | None = None
        self.link_is_up = True
        self.said: list[bytes] = []  # what our engine has told the peer's
        self.account_settings: dict[str, str] = {}
        self._payer: asyncio.Task[None] | None = None

    async def start(self) -> "Party":
        self.port.peers = dict.fromkeys(self.books.kept, self._carry)
        accounts = [
            SettlingAccount(one, Asset("ETH", self.books.scale), self.account_settings) for one in self.books.kept
        ]
        await self.engine.start(self.port, accounts)
        self._payer = asyncio.create_task(self._pay(self.port, self.engine))
        return self

    async def kill(self) -> None:
        """Nothing more is booked; what was under way on the chain goes on there."""
        self.port.is_dead = True
        await self.stop()

    async def stop(self) -> None:
        if self._payer is not None:
            self._payer.cancel()
            await asyncio.gather(self._payer, return_exceptions=True)
        await self.engine.close()

    async def restart(self) -> None:
        await self.kill()
        self.engine = self.make()
        self.port = MemoryPort(self.books)
        await self.start()

    async def _carry(self, data: bytes) -> bytes:
        other = self.other
        self.said.append(data)
        if other is None or not self.link_is_up or other.port.is_dead:
            raise MessageRefusedError("T01", "the link is down")
        try:
            return await other.engine.take_message(PEER, data)
        except JournalError:
            raise MessageRefusedError("T00", "the peer has stopped") from None

    async def _pay(self, port: MemoryPort, engine: Engine) -> None:
        """As the node does: what was begun is told until the engine has it."""
        while not port.is_dead:
            for account in self.books.settlements:
                for one in list(port.open(account)):
                    if one.state == BEGUN:
                        try:
                            await engine.pay(account, one.number, one.amount, one.key)
                        except Exception as error:  # noqa: BLE001 - as the node: logged, and tried again
                            port.books.log.append(("warning", "pay_failed", {"reason": str(error)}))
            await asyncio.sleep(0.005)


def join(one: Party, other: Party) -> None:
    one.other, other.other = other, one


class Clock:
    """Wall ms, which only tests move."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


def no_jitter() -> float:
    return 0.0


def settings_for(anvil: Anvil, **changes: object) -> ChainSettings:
    values: dict[str, object] = {
        "urls": (anvil.url,),
        "chain_id": anvil.chain_id,
        "contract": contract.address(),
        "token": NO_ADDRESS,
        "confirmations": 3,
        "fees": FeePolicy(tip=GWEI, most=100 * GWEI, urgent=1_000 * GWEI, wait_ms=60_000),
        "poll_ms": 20,
    }
    return ChainSettings(**{**values, **changes})  # type: ignore[arg-type]


POLICY: Final = ChannelPolicy(
    deposit=1_000 * FINNEY, settle_delay=3_600, settle_delay_min=3_600, settle_delay_max=7_200
)


def channel_party(
    anvil: Anvil,
    key: Key,
    *,
    policy: ChannelPolicy = POLICY,
    clock: Callable[[], int] | None = None,
    books: Books | None = None,
    **changes: object,
) -> Party:
    clock = clock or Clock()
    settings = settings_for(anvil, **changes)
    return Party(lambda: ChannelEngine(settings, policy, key, now=clock, random=no_jitter), books)


async def until(condition: Callable[[], object], anvil: Anvil | None = None, *, seconds: float = UNTIL_SECONDS) -> None:
    """Wait for it, while blocks are made."""
    async with asyncio.timeout(seconds):
        while not condition():
            if anvil is not None:
                await anvil.mine()
            await asyncio.sleep(0.01)


def channels_of(party: Party) -> ChannelEngine:
    assert isinstance(party.engine, ChannelEngine)
    return party.engine


class TransferParty(Party):
    """A party that makes plain transfers."""

    @property
    def transfers(self) -> TransferEngine:
        assert isinstance(self.engine, TransferEngine)
        return self.engine

    def pending(self) -> list[Pending]:
        kept = self.books.kept[PEER]
        return [Pending.decode(kept[key]) for key in kept if key.startswith(PREFIX)]


def transfer_party(
    anvil: Anvil,
    key: Key,
    *,
    clock: Callable[[], int] | None = None,
    books: Books | None = None,
    peer_address: str | None = None,
    **changes: object,
) -> TransferParty:
    clock = clock or Clock()
    settings = settings_for(anvil, **changes)
    party = TransferParty(lambda: TransferEngine(settings, key, now=clock, random=no_jitter), books)
    if peer_address is not None:
        party.account_settings["peer_address"] = peer_address
    return party


async def read_beyond(party: Party, anvil: Anvil, *, turns: int = 2) -> None:
    """Until the engine has looked at the chain so often, with blocks made meanwhile."""
    engine = party.engine
    assert isinstance(engine, EvmEngine)
    wanted = engine.turns + turns
    await until(lambda: engine.turns >= wanted, anvil)


async def looked(party: Party, *, turns: int = 2) -> None:
    """The same without blocks."""
    engine = party.engine
    assert isinstance(engine, EvmEngine)
    wanted = engine.turns + turns
    await until(lambda: engine.turns >= wanted)
