"""Two engines that settle at a real bank: each over a kernel's books, with faults between them and the bank."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import aiohttp
from aiohttp import web

from isthmus.connector.events import AccountId
from isthmus.connector.settling import Settlement
from isthmus.errors import IsthmusError, JournalError
from isthmus.ilp.asset import Asset
from isthmus.ledgers.bank.client import BankClient
from isthmus.ledgers.bank.rules import Bank
from isthmus.ledgers.bank.values import Order
from isthmus.settlement.bank.engine import BankEngine
from isthmus.settlement.port import MessageRefusedError, Step
from tests.settlement.lightning.ports import PEER, WALL, Side

UNTIL_SECONDS: Final = 60.0
MONEY: Final = 100_000
Tamper = Callable[[str, str, dict[str, Any]], dict[str, Any]]


class Way:
    """The way to a bank, on which everything may go wrong. `url` stays while the bank behind it comes and goes."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.is_down = False
        self.loses_answers = 0  # of so many of the next transfers; they are done
        self.refuses: tuple[int, str] | None = None  # transfers, with this status and code
        self.tamper: Tamper | None = None  # method, path, what the bank says -> what is told instead
        self.asked: list[tuple[str, str]] = []
        self.sent: list[tuple[str, bytes]] = []  # keys and bodies of transfers
        self.gate = asyncio.Event()  # cleared: transfers wait here, on their way
        self.gate.set()
        self.hanging: set[int] = set()  # transfers of these amounts wait for ever, on their way
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> "Way":
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._http = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        await self._http.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, request.path))
        is_transfer = request.method == "POST"
        if is_transfer:
            self.sent.append((request.headers["Idempotency-Key"], body))
            await self.gate.wait()
            while int(json.loads(body)["amount"]) in self.hanging:  # noqa: ASYNC110 - until a test takes it out
                await asyncio.sleep(0.01)
        if self.is_down:
            return web.Response(status=502, text="bad gateway")
        if is_transfer and self.refuses is not None:
            status, code = self.refuses
            return web.json_response({"detail": "no", "code": code}, status=status)
        headers = {
            name: request.headers[name] for name in ("Authorization", "Idempotency-Key") if name in request.headers
        }
        try:
            async with self._http.request(
                request.method, self.target + request.path_qs, data=body, headers=headers
            ) as answer:
                status, found = answer.status, await answer.json(content_type=None)
        except aiohttp.ClientError:
            return web.Response(status=502, text="bad gateway")
        if is_transfer and self.loses_answers:
            self.loses_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        if self.tamper is not None and status < 400:
            found = self.tamper(request.method, request.path, found)
        return web.Response(status=status, text=json.dumps(found), content_type="application/json")


class Clock:
    """Wall ms, which only tests move."""

    def __init__(self) -> None:
        self.now = WALL

    def __call__(self) -> int:
        return self.now


class Process:
    """A `Port` of one process of a node. A killed one takes nothing any more."""

    def __init__(self, side: "Party") -> None:
        self.side: Final = side
        self.is_dead = False
        self.kill_at: int | None = None  # the step with this number is the last thing of this process
        self.kill_before = False  # and it isn't booked

    def _alive(self) -> None:
        if self.is_dead:
            raise JournalError("the node has stopped")

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        gave = self.book(account, step)
        await asyncio.sleep(0)
        return gave

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        self._alive()
        if self.kill_at is not None and self.side.steps + 1 >= self.kill_at:
            self.is_dead = True
            if not self.kill_before:
                self._book(account, step)
            raise JournalError("killed at the step")
        return self._book(account, step)

    def _book(self, account: AccountId, step: Step) -> Sequence[int]:
        gave = self.side.book(account, step)
        self.side.steps += 1
        return gave

    async def message(self, account: AccountId, data: bytes) -> bytes:
        self._alive()
        if self.side.silence is not None:
            self.side.asked.append(account)
            await self.side.silence.wait()
        other = self.side.other
        if self.side.is_deaf or other.process.is_dead:
            raise MessageRefusedError("T01", "the link is down")
        answer = await other.engine.take_message(account, data)
        self._alive()
        return answer

    def kept(self, account: AccountId) -> Mapping[bytes, bytes]:
        return self.side.kept(account)

    def credited(self, account: AccountId, start: str) -> Sequence[str]:
        return self.side.credited(account, start)

    def open(self, account: AccountId) -> Sequence[Settlement]:
        return self.side.open(account)

    def log(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        self.side.log(level, event, fields)

    def over(self, event: str, account: AccountId | str = "") -> None:
        self.side.over(event, account)


class Party(Side):
    """One side, whose engine can be killed and started again from the journal alone."""

    other: "Party"
    engine: BankEngine
    silence: asyncio.Event | None = None  # peers that are asked say nothing until it is set

    def __init__(self, name: str, world: "World", scale: int) -> None:
        super().__init__(name, scale, "USD")
        self.world: Final = world
        self.token: Final = world.bank.new_token(name, "")[1]
        self.steps = 0
        self.asked: list[AccountId] = []  # while they are silent
        self.begin()
        self.engine = self.make()
        self.process = Process(self)
        self._payer: asyncio.Task[None] | None = None

    def make(self) -> BankEngine:
        return BankEngine(
            BankClient(self.world.way.url, self.name, self.token, timeout_s=UNTIL_SECONDS),
            Asset("USD", 2),
            poll_ms=10,
            now=self.world.clock,
            random=lambda: 0.5,
            random_bytes=self.world.random_bytes,
        )

    async def start(self) -> "Party":
        await self.engine.start(self.process, self.accounts)
        self._payer = asyncio.create_task(self._pay(self.process, self.engine))
        return self

    async def _pay(self, process: Process, engine: BankEngine) -> None:
        """What a node's runner does: what is due is handed over until the engine has it."""
        while not process.is_dead:
            for due in self.dues:
                if any(one.number == due.number for one in process.open(PEER)):
                    try:
                        await engine.pay(due.account, due.number, due.amount, due.key)
                    except JournalError:
                        return
                    except IsthmusError as error:
                        self.log("warning", "not_taken", {"problem": str(error)})
            await asyncio.sleep(0.005)

    async def kill(self) -> None:
        """Nothing more is booked; what is on its way to the bank arrives there."""
        self.process.is_dead = True
        if self._payer is not None:
            self._payer.cancel()
            await asyncio.gather(self._payer, return_exceptions=True)
        await self.engine.close()

    async def restart(self) -> None:
        await self.kill()
        self.kernel = self._open()
        self.dues = []
        self.begin()
        self.process = Process(self)
        self.engine = self.make()
        await self.start()

    async def looked(self, turns: int = 3) -> None:
        """Until the engine has looked at the bank so often."""
        engine, wanted = self.engine, self.engine.turns + turns
        await until(lambda: engine.turns >= wanted)

    def events(self) -> list[str]:
        return [event for _, event, _ in self.logs]

    def told(self, event: str) -> str:
        return " ".join(str(fields) for _, each, fields in self.logs if each == event)


class World:
    """A bank with two customers, East and West, who are peers."""

    east: Party
    west: Party

    def __init__(self, bank: Bank, way: Way, clock: Clock) -> None:
        self.bank = bank
        self.way = way
        self.clock = clock
        self._drawn = 0

    def random_bytes(self, size: int) -> bytes:
        self._drawn += 1
        return self._drawn.to_bytes(size, "big")

    async def begin(self, scale: int = 2, *, start: bool = True) -> None:
        self.east, self.west = Party("east", self, scale), Party("west", self, scale)
        self.east.other, self.west.other = self.west, self.east
        if start:
            await self.east.start()
            await self.west.start()
            await self.greeted()

    async def greeted(self) -> None:
        await until(lambda: all(one.engine.pays_to(PEER) is not None for one in (self.east, self.west)))

    def money(self, name: str) -> int:
        return self.bank.account(name).balance

    def pay(self, payer: str, payee: str, amount: int, reference: str, key: str = "by-hand") -> str:
        """Somebody at the bank pays by himself; the transfer's id."""
        return self.bank.transfer(Order(payer=payer, key=key, payee=payee, amount=amount, reference=reference))[0].id

    def reference_of(self, party: Party) -> str:
        """What transfers to this party must carry."""
        return party.kept(PEER)[b"reference"].decode()

    def agree(self) -> None:
        """What left one account has come to the other, and the books say what the bank says."""
        unit = 10 ** (self.east.asset.scale - 2)
        moved = MONEY - self.money("east")
        assert self.money("west") == MONEY + moved
        assert (self.east.balance, self.west.balance) == (moved * unit, -moved * unit)
        assert self.bank.audit() == []


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(UNTIL_SECONDS):
        while not is_so():  # noqa: ASYNC110 - of processes and a bank that tell no one event
            await asyncio.sleep(0.005)


async def settled(world: World, amount: int) -> None:
    """East's settlements are at their end, and West was credited so much in all."""
    await until(lambda: not world.east.open(PEER))
    await until(lambda: world.west.balance == -amount)


Act = Callable[[World], Awaitable[None]]
