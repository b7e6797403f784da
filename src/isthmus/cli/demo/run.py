"""The demo from an empty folder to books that agree: lay out, start, pay, stop, read all books.

What is seen of it is the business of `Audience`: a terminal, a script that wants one JSON object, a test.
"""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Protocol

from rich.console import RenderableType

import isthmus
from isthmus.cli.demo import report
from isthmus.cli.demo.audit import NodeBooks, disagreements, read_books
from isthmus.cli.demo.network import (
    ADMIN,
    ALICE,
    BOB,
    BTP,
    CONFIG_NAME,
    HOST,
    Listener,
    Network,
    btp_url,
    files,
    token_names,
)
from isthmus.cli.demo.parties import make_wallet, start_receiving
from isthmus.cli.demo.processes import (
    DemoError,
    PortTakenError,
    Processes,
    connected,
    free_ports,
    routed,
    running,
)
from isthmus.cli.demo.report import Outcome
from isthmus.client.goal import COMPLETED
from isthmus.client.payment import Progress
from isthmus.client.streams import base_rate
from isthmus.ilp.asset import format_amount

TOKEN_BYTES: Final = 32
RUNNING_NAME: Final = "running.json"
DATA_NAME: Final = "data"
LOGS_NAME: Final = "logs"
# What Alice accepts below the price that she knows: the spreads take 0.6 %, rounding next to nothing.
SLIPPAGE: Final = Fraction(1, 100)
STARTS_MAX: Final = 2  # a port may be taken by another program once
QUIET_S_MAX: Final = 10  # until the last packets of a running network have their outcome
QUIET_POLL_S: Final = 0.1


class Audience(Protocol):
    """Who watches."""

    def step(self, text: str) -> None:
        """What happens now."""

    def progress(self, progress: Progress) -> None:
        """How far the payment is."""

    def paid(self, outcome: Outcome) -> None:
        """How it ended."""


@dataclass(slots=True, kw_only=True)
class Result:
    """What the demo came to."""

    outcome: Outcome
    books: dict[str, NodeBooks]
    problems: list[str]  # why the books don't agree
    stopped_badly: list[str]  # processes that had to be killed, or failed


class Demo:
    """One network in one folder. `run` it once."""

    def __init__(
        self, network: Network, folder: Path, amount: int, audience: Audience, *, price: Fraction | None = None
    ) -> None:
        """`price` is what Alice knows from elsewhere: units of Bob's asset for one of hers; by default the fair one."""
        self.network: Final = network
        self.price: Final = network.fair_rate if price is None else price
        self.folder: Final = folder
        self.amount: Final = amount
        self.audience: Final = audience
        self.ports: dict[Listener, int] = {}
        self.tokens: dict[str, str] = {}
        self.url = ""  # where Bob is paid

    @property
    def logs(self) -> Path:
        return self.folder / LOGS_NAME

    @property
    def minimum_rate(self) -> Fraction:
        """The least that Alice takes, in whole units: from her price, never from what the path says."""
        return self.price * (1 - SLIPPAGE)

    def promised(self, amount: int) -> int:
        """The least that is to arrive for so much, in base units."""
        return int(amount * base_rate(self.minimum_rate, self.network.source, self.network.destination))

    def data(self, name: str) -> Path:
        """The folder with somebody's journal."""
        return self.folder / name if name in (ALICE, BOB) else self.folder / name / DATA_NAME

    def secret(self, name: str) -> Path:
        """The file with the token of a connector's admin API."""
        return self.folder / name / "secrets" / ADMIN

    def admin_url(self, name: str) -> str:
        return f"http://{HOST}:{self.ports[Listener(name, ADMIN)]}"

    async def run(self, kept: Callable[[Result], Awaitable[None]] | None = None) -> Result:
        """Everything. `kept` is awaited with the network still up; DemoError or another IsthmusError if it fails."""
        async with Processes(self.logs) as processes:
            await self._start(processes)
            self.audience.step("Paying")
            outcome = await processes.guard(self._pay())
            self.audience.paid(outcome)
            if kept is not None:
                result = await self._judged(outcome)
                await kept(result)
                result.stopped_badly += await processes.stop()
                return result
            self.audience.step("Stopping the nodes")
            stopped_badly = await processes.stop()
        self.audience.step("Replaying all books")
        books = await asyncio.to_thread(self._read_all)
        problems = disagreements(self.network.pairs(), books)
        return Result(outcome=outcome, books=books, problems=problems, stopped_badly=stopped_badly)

    # --- what is shown ------------------------------------------------------------------------------------------

    def picture(self, width: int) -> RenderableType:
        """The network, before anything happens."""
        return report.path(self.network, width)

    def tables(self, result: Result) -> RenderableType:
        """What happened."""
        return report.tables(self.network, result.outcome, result.books)

    def as_json(self, result: Result) -> dict[str, object]:
        """The same for scripts."""
        return report.as_json(self.network, result.outcome, result.books, result.problems)

    def check(self, result: Result) -> None:
        """Raise DemoError unless what was promised was delivered and the books agree."""
        outcome, asset = result.outcome, self.network.destination
        if not outcome.is_kept or outcome.sent != self.amount:
            raise DemoError(
                f"{format_amount(outcome.delivered, asset)} arrived for"
                f" {format_amount(outcome.sent, self.network.source)},"
                f" promised was {format_amount(outcome.promised, asset)}"
            )
        if result.problems:
            raise DemoError(f"the books don't agree: {'; '.join(result.problems)}")

    # --- start --------------------------------------------------------------------------------------------------

    async def _start(self, processes: Processes) -> None:
        """Connectors with routes, and two wallets."""
        self.audience.step(f"Starting {len(self.network.connectors)} connectors")
        await self.start_connectors(processes)
        found = sum(len(self.network.learned_by(one.name)) for one in self.network.connectors)
        if found:
            self.audience.step(f"They told each other what they reach: {found} routes found by CCP")
        self.audience.step("Making two wallets")
        await self._start_wallets(processes)

    async def start_connectors(self, processes: Processes) -> None:
        """Write their files and start them; returns when each has its links to the others, and routes to all."""
        for attempt in range(1, STARTS_MAX + 1):
            self._lay_out()
            try:
                await self._start_connectors(processes)
                return
            except PortTakenError:
                if attempt == STARTS_MAX:
                    raise
                await processes.stop()

    async def _start_connectors(self, processes: Processes) -> None:
        children = []
        # From Bob's end: each finds its listening neighbour up, and needn't dial twice.
        for connector in reversed(self.network.connectors):
            config = self.folder / connector.name / CONFIG_NAME
            children.append(await processes.start(connector.name, "node", "run", str(config)))
        for child in children:
            await running(child, self.data(child.name) / RUNNING_NAME)
        for child in children:
            await connected(child, self.admin_url(child.name), waiting_for=frozenset((ALICE, BOB)))
        for child in children:
            token = self.tokens[f"{child.name}/{ADMIN}"]
            await routed(child, self.admin_url(child.name), token, self.network.learned_by(child.name))

    async def _start_wallets(self, processes: Processes) -> None:
        for name in (ALICE, BOB):
            await make_wallet(self.folder / name, *self.door(name))
        self.url = await start_receiving(processes, BOB, self.folder / BOB)

    def door(self, name: str) -> tuple[str, str]:
        """Where a wallet connects: its connector's URL and the token for it."""
        pair = self.network.pairs()[0 if name == ALICE else -1]
        connector = pair.right if name == ALICE else pair.left
        return btp_url(self.ports[Listener(connector, BTP)]), self.tokens[f"{pair.left}/{pair.right}"]

    def _lay_out(self) -> None:
        listeners = self.network.listeners()
        self.ports = dict(zip(listeners, free_ports(len(listeners)), strict=True))
        self.tokens = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in token_names(self.network)}
        for name, text in files(self.network, self.ports, self.tokens).items():
            write_private(self.folder / name, text)

    # --- pay ----------------------------------------------------------------------------------------------------

    async def _pay(self, on_progress: Callable[[Progress], None] | None = None, amount: int = 0) -> Outcome:
        """Pay `amount`, by default all."""
        amount = amount or self.amount
        async with isthmus.connect(self.folder / ALICE) as wallet:
            result = await wallet.pay(
                self.url, amount, min_rate=self.minimum_rate, on_progress=on_progress or self.audience.progress
            )
        if result.status != COMPLETED:
            raise DemoError(f"the payment {result.status}: {result.detail}")
        return Outcome(
            sent=result.sent,
            delivered=result.delivered,
            promised=self.promised(amount),
            packets=result.packets,
            rejects=result.rejected,
            seconds=result.seconds,
        )

    # --- judge --------------------------------------------------------------------------------------------------

    async def _judged(self, outcome: Outcome) -> Result:
        """The books of a running network, as soon as no packet is on its way."""
        deadline = asyncio.get_running_loop().time() + QUIET_S_MAX
        while True:
            books = await asyncio.to_thread(self._read_all)
            problems = disagreements(self.network.pairs(), books)
            if not problems or asyncio.get_running_loop().time() > deadline:
                return Result(outcome=outcome, books=books, problems=problems, stopped_badly=[])
            await asyncio.sleep(QUIET_POLL_S)

    def _read_all(self) -> dict[str, NodeBooks]:
        return {name: read_books(name, self.data(name)) for name in self.network.names}


def write_private(path: Path, text: str) -> None:
    """Only this user may read it, from the first byte on. A second start replaces what the first one wrote."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
