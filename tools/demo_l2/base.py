"""What all demos of layer 2 do: two connectors, a wallet that pays, one that receives; then ledgers beside books."""

import asyncio
import contextlib
import json
import secrets
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import aiohttp

import isthmus
from isthmus.cli.demo.audit import NodeBooks, disagreements, read_books
from isthmus.cli.demo.network import ALICE, BOB, BTP, HOST, UPLINK, Pair, btp_url
from isthmus.cli.demo.parties import make_wallet, start_receiving
from isthmus.cli.demo.processes import Child, DemoError, Processes, connected, free_ports, routed, running
from isthmus.cli.demo.run import write_private
from isthmus.client.folder import SETTLEMENT_FILE
from isthmus.client.goal import COMPLETED
from isthmus.client.payment import PaymentResult, Progress
from isthmus.client.streams import base_rate
from isthmus.connector.books import settled_name
from isthmus.ilp.asset import Asset
from isthmus.node.wallet_settlement import load_wallet_settlement
from tools.demo_l2.show import Audience, Fact, Limits, Result

ONE, TWO = "connector-1", "connector-2"
PAIRS: Final = (
    Pair(ALICE, UPLINK, ONE, ALICE, BTP),
    Pair(ONE, TWO, TWO, ONE, BTP),
    Pair(TWO, BOB, BOB, UPLINK, BTP),
)
QUIET_S_MAX: Final = 60.0
POLL_S: Final = 0.1
LEAVE_S_MAX: Final = 120.0

Seen = TypeVar("Seen")  # what ledgers say at one moment


class Demo(ABC, Generic[Seen]):
    """One run in one folder. `await run()` once."""

    title: str
    amount: int  # that Alice pays
    source: Asset
    destination: Asset
    price: Fraction  # whole units of destination for one of source, which Alice knows from elsewhere
    least: Fraction  # what she takes

    def __init__(self, folder: Path, audience: Audience) -> None:
        self.folder: Final = folder
        self.audience: Final = audience
        self.tokens: Final = {name: secrets.token_urlsafe(32) for name in ("alice", "two", "bob", "admin")}
        self.ports: Final = dict(zip(("one", "two", "one-admin", "two-admin"), free_ports(4), strict=True))
        folder.mkdir(parents=True, exist_ok=True)

    # --- what each demo has of its own ------------------------------------------------------------------------------

    @abstractmethod
    def ledgers(self, processes: Processes) -> contextlib.AbstractAsyncContextManager[None]:
        """All ledgers, running, with whoever needs money having it."""

    @abstractmethod
    def one(self) -> str:
        """The first connector's accounts, engines and rates, as TOML."""

    @abstractmethod
    def two(self) -> str: ...

    @abstractmethod
    def settlements(self) -> dict[str, str]:
        """The wallets' settlement.toml."""

    @abstractmethod
    async def look(self) -> Seen: ...

    @abstractmethod
    async def compare(self, before: Seen, after: Seen, books: dict[str, NodeBooks]) -> tuple[list[Fact], list[str]]:
        """Ledgers beside books, and what else is to be said."""

    async def after(self) -> None:
        """What Bob does once his wallet is closed."""

    # --- the run ----------------------------------------------------------------------------------------------------

    async def run(self) -> Result:
        """DemoError if something fails; what doesn't add up is in the result."""
        async with Processes(self.folder / "logs") as ledgers, self.ledgers(ledgers):
            before = await self.look()
            async with Processes(self.folder / "logs") as processes:
                self.audience.step("Starting two connectors, a wallet for Alice and one for Bob")
                await self._start(processes)
                url = await start_receiving(processes, BOB, self.folder / BOB)
                self.audience.step("Alice settles ahead, and pays")
                result = await processes.guard(self._pay(url))
                await self._until_quiet()  # what is on its way to Bob comes before he closes
                self.audience.step("Bob's wallet closes")
                said = await _ended(processes.children.pop(BOB))
                await self.after()
                await self._until_quiet()
                channels = await self._channels()
                limits = await self._limits()
                self.audience.step("Stopping the connectors")
                badly = await processes.stop()
            after = await self.look()
            books = await asyncio.to_thread(self._read)
            facts, notes = await self.compare(before, after, books)
        words = [line for line in said.splitlines() if line and not line.startswith("{")]
        return Result(
            title=self.title,
            sent=(result.sent, self.source),
            delivered=(result.delivered, self.destination),
            packets=result.packets,
            seconds=result.seconds,
            facts=facts,
            books=books,
            pairs=PAIRS,
            channels=channels,
            limits=limits,
            notes=[*(f"Bob's wallet said: {line}" for line in words), *notes],
            problems=[
                *disagreements(PAIRS, books),
                *over_limits(books, limits),
                *badly,
                *(fact.text for fact in facts if not fact.holds),
            ],
        )

    async def _start(self, processes: Processes) -> None:
        for name, text in ((ONE, self.one()), (TWO, self.two())):
            write_private(self.folder / name / "isthmus.toml", text + self._listeners(name))
            write_private(self.folder / name / "admin.token", self.tokens["admin"] + "\n")
        children = []
        for name in (TWO, ONE):
            config = self.folder / name / "isthmus.toml"
            children.append(await processes.start(name, "node", "run", str(config)))
        for child in children:
            await running(child, self.folder / child.name / "data" / "running.json")
        for child in children:
            await connected(child, self._admin(child.name), waiting_for=frozenset((ALICE, BOB)))
        for child in children:
            other = TWO if child.name == ONE else ONE
            await routed(child, self._admin(child.name), self.tokens["admin"], frozenset((f"test.{other}",)))
        for name, port in ((ALICE, "one"), (BOB, "two")):
            await make_wallet(self.folder / name, btp_url(self.ports[port]), self.tokens[name])
            write_private(self.folder / name / SETTLEMENT_FILE, self.settlements()[name])

    def account(self, name: str, asset: Asset, limits: str, settlement: str) -> str:
        """An account of a connector. The first one dials the second."""
        relation = "child" if name in (ALICE, BOB) else "peer"
        token = self.tokens[name] if name in (ALICE, BOB) else self.tokens["two"]
        link = f'{{ type = "btp-server", token = "{token}" }}'
        if name == TWO:
            link = f'{{ type = "btp-client", url = "{btp_url(self.ports["two"])}", token = "{token}" }}'
        return (
            f'[accounts.{name}]\nasset = "{asset.code}"\nscale = {asset.scale}\nrelation = "{relation}"\n'
            f"link = {link}\n[accounts.{name}.limits]\n{limits}\n[accounts.{name}.settlement]\n{settlement}\n"
        )

    def _listeners(self, name: str) -> str:
        which = "one" if name == ONE else "two"
        return (
            f'[listeners.btp]\nlisten = "{HOST}:{self.ports[which]}"\n'
            f'[admin]\nlisten = "{HOST}:{self.ports[f"{which}-admin"]}"\ntoken = {{ file = "admin.token" }}\n'
        )

    def _admin(self, name: str) -> str:
        return f"http://{HOST}:{self.ports['one-admin' if name == ONE else 'two-admin']}"

    def key(self, name: str, text: str) -> Path:
        """A key in a file of its own."""
        path = self.folder / "keys" / f"{name}.key"
        write_private(path, text + "\n")
        return path

    async def _pay(self, url: str) -> PaymentResult:
        def tell(progress: Progress) -> None:
            self.audience.progress(progress.sent, self.amount, progress.delivered, self.destination)

        async with isthmus.connect(self.folder / ALICE) as wallet:
            result = await wallet.pay(url, self.amount, min_rate=self.least, on_progress=tell)
        self.audience.done()
        if result.status != COMPLETED:
            raise DemoError(f"the payment {result.status}: {result.detail}")
        if result.delivered < int(self.amount * base_rate(self.least, self.source, self.destination)):
            raise DemoError(f"{result.delivered} units arrived, less than was promised")
        return result

    async def _channels(self) -> list[dict[str, Any]]:
        """Those that connectors still have."""
        found = []
        for name in (ONE, TWO):
            answer = await self._get(name, "/channels")
            found += [{**one, "node": name} for one in answer["channels"]]
        return found

    async def _limits(self) -> Limits:
        """What each neighbour may owe, as connectors say it and wallets read it in their files."""
        limits: Limits = {}
        for name in (ONE, TWO):
            for one in (await self._get(name, "/accounts"))["accounts"]:
                limits[name, one["id"]] = None if one["receivable_max"] is None else int(one["receivable_max"])
        for name, asset in ((ALICE, self.source), (BOB, self.destination)):
            settling = load_wallet_settlement(self.folder / name, asset)
            assert settling is not None
            limits[name, UPLINK] = settling.receivable_max
        return limits

    async def _until_quiet(self) -> None:
        """Until no settlement is under way and neighbours' books agree; else the result says what doesn't."""
        deadline = asyncio.get_running_loop().time() + QUIET_S_MAX
        while asyncio.get_running_loop().time() < deadline:
            under_way = [await self._get(name, "/settlements") for name in (ONE, TWO)]
            at_rest = not any(one["settlements"] for one in under_way)
            if at_rest and not disagreements(PAIRS, await asyncio.to_thread(self._read)):
                return
            await asyncio.sleep(POLL_S)

    async def _get(self, name: str, path: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.tokens['admin']}"}
        async with aiohttp.ClientSession(headers=headers) as http, http.get(self._admin(name) + path) as answer:
            found: dict[str, Any] = json.loads(await answer.text())
            return found

    def _read(self) -> dict[str, NodeBooks]:
        folders = {ALICE: ALICE, BOB: BOB, ONE: f"{ONE}/data", TWO: f"{TWO}/data"}
        return {name: read_books(name, self.folder / place) for name, place in folders.items()}


def over_limits(books: Mapping[str, NodeBooks], limits: Limits) -> list[str]:
    """Who owes more than was agreed, a line each."""
    return [
        f"{name} is owed {books[name].balance(account)} by {account}, more than the limit of {limit} (base units)"
        for (name, account), limit in limits.items()
        if limit is not None and books[name].balance(account) > limit
    ]


def settled(books: dict[str, NodeBooks], name: str, account: str) -> int:
    """What the peer of this account has paid by settlements, less what it was paid; in the account's units."""
    return books[name].tally.balances.get(settled_name(account), 0)


async def _ended(child: Child) -> str:
    """End `isthmus receive` as Ctrl-C does; what it said."""
    child.tell(signal.SIGINT)
    async with asyncio.timeout(LEAVE_S_MAX):
        status = await child.ended()
    if status:
        raise DemoError(child.obituary())
    return child.log.read_text()
