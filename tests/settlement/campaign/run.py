"""One campaign: two nodes owe each other, settle, and are killed; then ledger and books must tell the same."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from isthmus.cli.books_replay import latest
from isthmus.connector.books import settled_name
from isthmus.connector.events import AccountId
from isthmus.connector.record import SettlementBegun, decode_record
from isthmus.ilp.asset import format_decimal
from isthmus.ilp.packet import Fulfill
from isthmus.journal.reader import JournalReader
from tests.node.conftest import NodeProcess, Nodes, Peer, account, dials, toml
from tests.ports import free_port
from tests.settlement.campaign.ledgers import SIDES, Ledger
from tests.settlement.conftest import WRAPPER

AMOUNT_UNITS_MAX: Final = 5
PAYMENTS_AT_ONCE: Final = 4
QUIET_S_MAX: Final = 300.0
START_S_MAX: Final = 120.0  # of a node, on a machine that does much else: 23 s were seen
# After so long without an end, the ledger's server is asked whether it has lost one of its payments itself.
LEFT_AFTER_S: Final = 60.0
LEDGER_KILL_SHARE: Final = 0.25
Tell = Callable[["Standing"], None]


@dataclass(slots=True)
class Standing:
    """How far a campaign is, and what came of it."""

    settlements: int = 0
    kills: int = 0
    ledger_kills: int = 0
    packets: int = 0
    left_in_flight: dict[str, list[int]] = field(default_factory=dict)  # by the ledger's own server, by side
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Standing", name: str) -> None:
        """Another's, whose problems are told under a name."""
        self.settlements += other.settlements
        self.kills += other.kills
        self.ledger_kills += other.ledger_kills
        self.packets += other.packets
        for side, amounts in other.left_in_flight.items():
            self.left_in_flight[side] = [*self.left_in_flight.get(side, []), *amounts]
        self.problems += [f"{name}: {problem}" for problem in other.problems]


@dataclass(slots=True)
class Party:
    """A node and the wallet behind it."""

    name: str
    other: str
    text: str
    folder: Path
    node: NodeProcess
    wallet: Peer


class Campaign:
    """`await run()`; what doesn't add up is in `standing.problems`."""

    def __init__(
        self, ledger: Ledger, folder: Path, *, settlements: int, kills: int, seed: int | str, tell: Tell
    ) -> None:
        self.standing: Final = Standing()
        self._ledger: Final = ledger
        self._folder: Final = folder
        self._settlements: Final = settlements
        self._kills: Final = kills
        self._rng: Final = random.Random(seed)
        self._tell: Final = tell
        self._parties: dict[str, Party] = {}
        self._nodes: Final = Nodes(folder)

    async def run(self) -> Standing:
        port = free_port()
        try:
            for name, other in (SIDES, SIDES[::-1]):
                await self._begin(name, other, port)
            while self.standing.settlements < self._settlements or self.standing.kills < self._kills:
                await self._round()
                self.standing.settlements = sum(self._begun(one) for one in SIDES)
                self._tell(self.standing)
            await self._until_quiet()
            for party in self._parties.values():
                await party.wallet.close()
                if await party.node.stop():
                    self.standing.problems.append(f"{party.name} ended badly")
            await self._audit()
        finally:
            for node in self._nodes.processes:
                if node.process.returncode is None:
                    await node.kill()
        return self.standing

    async def _begin(self, name: str, other: str, port: int) -> None:
        ledger = self._ledger
        folder = self._folder / name
        folder.mkdir(parents=True)
        threshold = format_decimal(ledger.unit, 9)
        text = toml(
            account(f"{name}-wallet", asset=ledger.asset),
            account(other, asset=ledger.asset, relation="peer", link=None if name == "east" else dials(port, "west")),
            f'[accounts.{other}.settlement]\nengine = "bank"\nthreshold = "{threshold}"\n{ledger.account(other)}',
            ledger.engine(name, folder),
            "[journal]\ncheckpoint_every = 10_000_000\n",  # so that the whole story is there for the audit
            address=f"test.{name}",
            btp=port if name == "east" else 0,
            routes={f"test.{other}": other},
        )
        node = await self._start(text, folder)
        wallet = (await Peer(f"{name}-wallet").dial(node.port)).fulfil_all()
        self._parties[name] = Party(name, other, text, folder, node, wallet)

    async def _start(self, text: str, folder: Path) -> NodeProcess:
        node = await self._nodes.launch(text, folder=folder, wrapper=WRAPPER)
        return await node.started(START_S_MAX)

    async def _round(self) -> None:
        """Some payments; now and then somebody is killed while their settlements are under way."""
        rng = self._rng
        paying = [asyncio.create_task(self._pay(rng.choice(SIDES))) for _ in range(rng.randint(1, PAYMENTS_AT_ONCE))]
        due = self.standing.kills * self._settlements < self.standing.settlements * self._kills
        if due and self.standing.kills < self._kills:
            await asyncio.sleep(rng.random() * 0.2)
            victim = rng.choice(SIDES)
            if self._ledger.kills_itself and rng.random() < LEDGER_KILL_SHARE:
                await self._ledger.kill(victim)
                self.standing.ledger_kills += 1
            else:
                await self._kill(self._parties[victim])
            self.standing.kills += 1
        await asyncio.gather(*paying)

    async def _pay(self, name: str) -> None:
        party = self._parties[name]
        amount = self._rng.randint(1, AMOUNT_UNITS_MAX) * self._ledger.unit
        with contextlib.suppress(TimeoutError):  # it met a kill
            async with asyncio.timeout(5):
                destination = f"test.{party.other}.{party.other}-wallet"
                answer = await party.wallet.prepare(destination, amount, left_ms=4_000)
                self.standing.packets += isinstance(answer, Fulfill)

    async def _kill(self, party: Party) -> None:
        await party.node.kill()
        await party.wallet.close()
        party.node = await self._start(party.text, party.folder)
        party.wallet = (await Peer(f"{party.name}-wallet").dial(party.node.port)).fulfil_all()

    # --- judging ----------------------------------------------------------------------------------------------------

    def _journal(self, name: str) -> Path:
        return self._folder / name / "data" / "journal.db"

    def _begun(self, name: str) -> int:
        with JournalReader(self._journal(name)) as reader:
            account = latest(reader).books.peers.get(AccountId(self._parties[name].other))
        return 0 if account is None or account.settling is None else account.settling.last

    async def _until_quiet(self) -> None:
        """Until nothing is under way, and what one side owes the other counts as owed."""
        start = asyncio.get_running_loop().time()
        while True:
            spent_s = asyncio.get_running_loop().time() - start
            left = {name: await self._ledger.left_in_flight(name) if spent_s > LEFT_AFTER_S else [] for name in SIDES}
            found = []
            for party in self._parties.values():
                with JournalReader(self._journal(party.name)) as reader:
                    account = latest(reader).books.peers[AccountId(party.other)]
                found.append((account.balance, len(account.settling.open) if account.settling else 0))
            lost = sum(map(sum, left.values()))
            if [count for _, count in found] == [len(left[name]) for name in SIDES] and sum(
                balance for balance, _ in found
            ) == lost:
                self.standing.left_in_flight = {name: amounts for name, amounts in left.items() if amounts}
                return
            if spent_s > QUIET_S_MAX:
                self.standing.problems.append(f"not at rest after {QUIET_S_MAX:g} s: balances and open {found}")
                return
            await asyncio.sleep(0.2)

    async def _audit(self) -> None:
        """Nothing doubled, nothing lost, nothing unexplained."""
        problems = self.standing.problems
        debited = {}
        for name, party in self._parties.items():
            begun = self._entries(name)
            numbers = [one.number for one in begun]
            if numbers != list(range(1, len(numbers) + 1)):
                problems.append(f"{name}'s settlements are not numbered without gaps: {numbers[:10]}…")
            debited[name] = Counter(one.amount for one in begun)
            on_ledger = Counter([*await self._ledger.paid(name), *self.standing.left_in_flight.get(name, [])])
            if on_ledger and on_ledger != debited[name]:
                doubled, lost = on_ledger - debited[name], debited[name] - on_ledger
                problems.append(f"{name}: more on the ledger than debited {dict(doubled)}, less {dict(lost)}")
            with JournalReader(self._journal(name)) as reader:
                books = latest(reader).books
            books.check()
            settled = books.internal.get(settled_name(party.other))
            party_paid = -(0 if settled is None else settled.balance)
            debited[f"{name} net"] = Counter({1: party_paid})
        net = [debited[f"{name} net"][1] for name in SIDES]
        if sum(net) != sum(map(sum, self.standing.left_in_flight.values())):
            problems.append(f"what one side paid the other is {net[0]} by its books, and {-net[1]} by the other's")

    def _entries(self, name: str) -> list[SettlementBegun]:
        found: list[SettlementBegun] = []
        with JournalReader(self._journal(name)) as reader:
            for batch in reader.read_from(1):
                found += [one for one in decode_record(batch.record) if isinstance(one, SettlementBegun)]
        return found
