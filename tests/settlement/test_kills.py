"""Processes that are killed in the middle of settlements: nothing is paid twice, nothing is lost, the sums agree.

Two nodes owe each other by turns while they and, with RFC 38, their engines are killed at moments drawn from a seed.
At the end all runs, what is due is settled, and ledger, books and packets tell the same.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from isthmus.journal.reader import JournalReader
from tests.node.conftest import WAIT_SECONDS, NodeProcess, Nodes, Peer, account, dials, toml
from tests.ports import free_port
from tests.settlement.conftest import WRAPPER, engine, settles
from tests.settlement.toy import ToyLedger

USD: Final = 10**9
THRESHOLD: Final = 5
KILLS: Final = 8  # `make crash` has the hundreds; here each is seen to be survivable


@dataclass
class Party:
    """One node with the wallet at its end, and its engine if that is a process of its own."""

    name: str
    other: str
    text: str
    nodes: Nodes
    folder: Path
    file: Path | None = None  # of an engine that is a process of its own
    node: NodeProcess = field(init=False)
    wallet: Peer = field(init=False)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        await self.start_engine()
        self.node = await self.nodes.run(self.text, folder=self.folder, wrapper=WRAPPER)
        self.wallet = (await Peer(f"{self.name}-wallet").dial(self.node.port)).fulfil_all()

    async def start_engine(self) -> None:
        if self.file is not None:
            self.process = await asyncio.create_subprocess_exec(
                *WRAPPER, "engine", "run", "toy", str(self.file), stderr=asyncio.subprocess.PIPE, limit=1 << 20
            )
            assert self.process.stderr is not None
            async with asyncio.timeout(WAIT_SECONDS):
                while b'"running"' not in (line := await self.process.stderr.readline()):
                    assert line, "the engine ended"
            self._reader = asyncio.create_task(self.process.stderr.read())  # so that it never blocks on its log

    async def kill_node(self) -> None:
        await self.node.kill()
        await self.wallet.close()
        self.node = await self.nodes.run(self.text, folder=self.folder, wrapper=WRAPPER)
        self.wallet = (await Peer(f"{self.name}-wallet").dial(self.node.port)).fulfil_all()

    async def kill_engine(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()
        await self.start_engine()

    async def close(self) -> None:
        await self.wallet.close()
        if self.process is not None:
            if self.process.returncode is None:
                self.process.terminate()
            assert await self.process.wait() == 0

    async def settlements(self) -> dict[str, Any]:
        status, _, body = await self.node.get("/settlements")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        return found


def rfc38(port: int, listen: int) -> str:
    return (
        f'[settlement.bank]\ntype = "rfc38"\nurl = "http://127.0.0.1:{port}"\nlisten = "127.0.0.1:{listen}"\n'
        f'timeout = "2 s"\n'
    )


def engine_file(ledger: ToyLedger, us: str, them: str, listen: int, connector: int) -> str:
    return (
        f'asset = "USD"\nscale = 9\nlisten = "127.0.0.1:{listen}"\n'
        f'[connector]\nurl = "http://127.0.0.1:{connector}"\ntimeout = "2 s"\n'
        f'[engine]\nurl = "{ledger.url}"\nholder = "{us}"\n[accounts.{them}]\nholder = "{them}"\n'
    )


@pytest.fixture(params=["in process", "rfc38"])
async def parties(
    request: pytest.FixtureRequest, nodes: Nodes, ledger: ToyLedger, tmp_path: Path
) -> AsyncIterator[tuple[Party, Party]]:
    """East and west, who pay each other's wallets."""
    port = free_port()
    made: list[Party] = []
    for us, them, link in (("east", "west", None), ("west", "east", dials(port, "west"))):
        folder = tmp_path / us
        folder.mkdir()
        file = None
        settlement = settles(them, them, threshold=str(THRESHOLD))
        its_engine = engine(ledger, us)
        if request.param == "rfc38":
            at, back = free_port(), free_port()
            file = folder / "engine.toml"
            file.write_text(engine_file(ledger, us, them, at, back))
            settlement = settlement.replace(f'holder = "{them}"\n', "")
            its_engine = rfc38(at, back)
        text = toml(
            account(f"{us}-wallet"),
            account(them, relation="peer", link=link),
            settlement,
            its_engine,
            address=f"test.{us}",
            btp=port if us == "east" else 0,
            routes={f"test.{them}": them},
        )
        made.append(Party(us, them, text, nodes, folder, file))
    for party in made:
        await party.start()
    yield made[0], made[1]
    for party in made:
        await party.close()


async def pay(payer: Party, amount: int) -> None:
    """A packet that may meet a kill, and then has no answer."""
    await payer.wallet.prepare(f"test.{payer.other}.{payer.other}-wallet", amount, left_ms=4_000)


async def settled(parties: tuple[Party, Party], ledger: ToyLedger) -> None:
    """Until nothing is under way and both books count what the ledger has, in both directions."""
    async with asyncio.timeout(180):
        while True:
            states = [await party.settlements() for party in parties]
            on_ledger = ledger.sent("west") - ledger.sent("east")  # what west paid east, net
            found = [next((one for one in state["accounts"]), None) for state in states]
            seen = [0 if one is None else int(one["on_ledger"]) for one in found]
            balances = [(await party.node.balances())[party.other] for party in parties]
            agree = balances[0] == -balances[1] and seen == [on_ledger, -on_ledger]
            if agree and not any(state["settlements"] for state in states):
                return
            ledger.news.clear()
            try:
                async with asyncio.timeout(0.2):
                    await ledger.news.wait()
            except TimeoutError:
                continue


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_at_any_moment_pay_nothing_twice_and_lose_nothing(
    parties: tuple[Party, Party], ledger: ToyLedger, seed: int
) -> None:
    """SE-7, SE-9, SE-10: 8 kills of nodes and engines while settlements are under way; some answers are lost too."""
    rng = random.Random(seed)
    east, west = parties
    # So much is owed and settled whatever comes after it; and the link between the two is up.
    await east.wallet.pay_when_linked("test.west.west-wallet", THRESHOLD * USD)
    for _ in range(KILLS):
        payer, payee = (east, west) if rng.random() < 0.7 else (west, east)
        paying = [asyncio.create_task(pay(payer, rng.randint(1, 3) * USD)) for _ in range(rng.randint(2, 6))]
        ledger.loses_answers = rng.choice([0, 0, 1])
        ledger.is_down = rng.random() < 0.3
        victim = rng.choice((payer, payee))
        # Not at a moment of the clock, but after so many attempts of settling.
        attempts = len(ledger.attempts) + rng.randint(0, 2)
        with contextlib.suppress(TimeoutError):  # too little may be owed
            await ledger.until(lambda attempts=attempts: len(ledger.attempts) >= attempts, 1.0)
        if victim.process is not None and rng.random() < 0.5:
            await victim.kill_engine()
        else:
            await victim.kill_node()
        ledger.is_down = False
        for task in paying:
            task.cancel()
        await asyncio.gather(*paying, return_exceptions=True)
    await settled(parties, ledger)
    ids = [one["id"] for one in ledger.transfers]
    assert len(ids) == len(set(ids))
    balances = [(await party.node.balances())[party.other] for party in parties]
    # What the packets moved, less what the ledger did, is what stands open; both sides say the same.
    assert balances[0] == -balances[1], balances
    for party, balance in zip(parties, balances, strict=True):
        paid = ledger.sent(party.name)
        assert paid == begun_by(party), "every settlement that was debited is on the ledger, once"
        assert balance > -THRESHOLD * USD
    assert ledger.transfers, "nothing was settled: the test tested nothing"


def begun_by(party: Party) -> int:
    """What its journal says was debited by settlements."""
    with JournalReader(party.folder / "data" / "journal.db") as reader:
        found = reader.singles(account=party.other)
    return sum(-one.amount for one in found if one.kind == "settlement" and one.amount < 0)
