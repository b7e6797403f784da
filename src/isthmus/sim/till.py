"""A process's settlement engines: the real ones, run by what runs them live, on the loop of the agenda.

The engines' ledgers are simulated (`bank.py`, `chain.py`); all that stands between them and the kernel is the
product's: `runtime.engines`, `runtime.kernel_desk`, `settlement.bank`, `settlement.evm`.
"""

import asyncio
from collections.abc import Callable
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast, final

from isthmus.connector.events import (
    AccountId,
    Event,
    Log,
    ReverseSettlement,
    SendSettlementMessage,
    SettlementAnswered,
    SettlementDue,
    SettlementMessage,
    SettlementMessageAnswered,
    SettlementStep,
)
from isthmus.connector.settling import FAILED
from isthmus.errors import JournalError
from isthmus.ilp.asset import Asset
from isthmus.ledgers.evm.contract import address as contract_address
from isthmus.ledgers.evm.fees import FeePolicy
from isthmus.ledgers.evm.keys import Key
from isthmus.runtime.engines import EngineRunner
from isthmus.runtime.kernel_desk import KernelDesk
from isthmus.settlement.bank.engine import BankEngine
from isthmus.settlement.evm.channels import ChannelEngine
from isthmus.settlement.evm.settings import ChainSettings, ChannelPolicy
from isthmus.settlement.evm.transfers import TransferEngine
from isthmus.settlement.port import Engine, SettlingAccount
from isthmus.sim import plan as p
from isthmus.sim.bad_settlers import cheat, holder_of, way_of
from isthmus.sim.bank import SimBank
from isthmus.sim.chain import CHAIN_ID, CONFIRMATIONS, SimChain
from isthmus.sim.loop import AgendaLoop
from isthmus.sim.plan import ASSETS, LedgerPlan, units

if TYPE_CHECKING:
    from isthmus.runtime.driver import Driver, TellAnswer
    from isthmus.sim.ledgers import Ledger
    from isthmus.sim.node import Node
    from isthmus.sim.process import Process
    from isthmus.sim.world import World

POLL_MS: Final = 1_500
SETTLE_DELAY_S: Final = 60
SETTLE_DELAY_MIN_S: Final = 30
OPERATOR_MS: Final = 5_000  # how often somebody looks whether a settlement has failed


def ledger_of(world: "World", plan: LedgerPlan) -> "Ledger":
    """The ledger of a plan, with an account for each node that settles there."""
    rng = Random(plan.seed)
    ledger: Ledger
    if plan.kind == p.BANK:
        ledger = bank = SimBank(world.agenda, plan.name, rng, Asset(plan.asset, plan.decimals))
        for link in world.plan.links:
            if link.ledger == plan.name:
                bank.open(link.a)
                bank.open(link.b)
    else:
        ledger = SimChain(world.agenda, plan.name, rng)
    ledger.on_hit = world.hit
    return ledger


def key_of(node: "Node") -> Key:
    """A node's key on chains, the same in all its lives."""
    return Key(Random(f"key of {node.name}, {node.plan.seed}").randbytes(32))


@final
class Till:
    """Engines and their runner for one process."""

    def __init__(self, process: "Process") -> None:
        node = process.node
        self.node: Final = node
        self.rng: Final = Random(node.till_rng.getrandbits(62))
        self.loop: Final[AgendaLoop] = AgendaLoop(node.world.agenda, process.timers, self._defect)
        self.engines: Final[dict[str, Engine]] = {}
        self.driver: Final = _Driver(process, self.loop)
        self.accounts: Final[dict[str, list[SettlingAccount]]] = {}  # by engine
        accounts = self.accounts
        for line in node.lines:
            if line.plan.ledger and line.plan.settle(node.name) is not None:
                one = SettlingAccount(AccountId(node.account_of(line)), ASSETS[line.plan.asset][0], {})
                accounts.setdefault(line.plan.ledger, []).append(one)
        for name in accounts:
            self.engines[name] = cheat(self, name, self._engine(node.world.plan.ledger(name)))
        desk = KernelDesk(cast("Driver", self.driver))
        self.runner: Final = EngineRunner(
            desk, self.engines, on_log=self._log, now=node.clock.now, random=self.rng.random
        )
        desk.serve(self.runner)
        node.tills.append(self)
        if self.engines:
            self.loop.call_soon(lambda: self.loop.create_task(self.runner.start(accounts)))
            self.loop.call_later(OPERATOR_MS / 1000, self._operate)

    def _engine(self, plan: LedgerPlan) -> Engine:
        node, now = self.node, self.node.clock.wall_ms
        ledger = node.world.ledgers[plan.name]
        if isinstance(ledger, SimBank):
            return BankEngine(
                holder_of(self, ledger),
                ledger.asset,
                poll_ms=POLL_MS,
                now=now,
                random=self.rng.random,
                random_bytes=self.rng.randbytes,
            )
        assert isinstance(ledger, SimChain)
        way = way_of(self, ledger)
        settings = ChainSettings(
            urls=("http://chain",),
            chain_id=CHAIN_ID,
            contract=contract_address(),
            decimals=plan.decimals,
            confirmations=CONFIRMATIONS,
            fees=FeePolicy(tip=0),
            poll_ms=POLL_MS,
        )
        if plan.kind == p.TRANSFERS:
            return TransferEngine(settings, key_of(node), now=now, random=self.rng.random, node_at=lambda _: way)
        policy = ChannelPolicy(
            deposit=ledger_units(plan, plan.deposit),
            claim_above=ledger_units(plan, plan.claim_above),
            settle_delay=SETTLE_DELAY_S,
            settle_delay_min=SETTLE_DELAY_MIN_S,
        )
        return ChannelEngine(
            settings,
            policy,
            key_of(node),
            now=now,
            random=self.rng.random,
            random_bytes=self.rng.randbytes,
            node_at=lambda _: way,
        )

    # --- the process ----------------------------------------------------------------------------------------------

    def hear(self, effect: SettlementDue | SettlementMessage | SettlementAnswered | SettlementMessageAnswered) -> None:
        """What the kernel says about settlements."""
        if isinstance(effect, SettlementDue | SettlementMessage):
            hear = self.driver.on_settlement
            if hear is not None:
                self.loop.call_soon(hear, effect)
        else:
            self.driver.answered(effect)

    def link_up(self, account: AccountId) -> None:
        up = self.driver.on_link_up
        if up is not None:
            self.loop.call_soon(up, account)

    def close_channels(self) -> None:
        """The operator ends all channels of ours."""
        for name, engine in self.engines.items():
            if isinstance(engine, ChannelEngine):
                for account in self.accounts[name]:
                    self.loop.create_task(self._close(engine, account.id))

    async def _close(self, engine: ChannelEngine, account: AccountId) -> None:
        if await engine.close_channel(account):
            self.node.world.hit(p.CHANNEL_CLOSED)

    def die(self) -> None:
        self.loop.die()

    def _operate(self) -> None:
        """The operator looks: what has failed is owed again."""
        process = self.driver.process
        for account in process.kernel.books.peers.values():
            for one in [] if account.settling is None else list(account.settling.open.values()):
                if one.state == FAILED:
                    self.node.world.coverage.enter("settlement", "reversed by the operator")
                    name, key = AccountId(account.name), f"reversal of {account.name} {one.number}"
                    process.post(ReverseSettlement(name, one.number, key, "the ledger says so", 0))
        self.loop.call_later(OPERATOR_MS / 1000, self._operate)

    def _log(self, fact: Log) -> None:
        self.node.world.logged(self.node.name, fact)
        if fact.event.endswith("engine_defect") and self.node.plan.is_honest:
            self.node.world.found("defect", self.node.name, f"{fact.event}: {dict(fact.fields)}")

    def _defect(self, text: str) -> None:
        self.node.world.found("defect", self.node.name, text)


@final
class _Driver:
    """A process as `KernelDesk` needs a driver."""

    def __init__(self, process: "Process", loop: AgendaLoop) -> None:
        self.process: Final = process
        self.kernel: Final = process.kernel
        self.on_settlement: Callable[[SettlementDue | SettlementMessage], None] | None = None
        self.on_link_up: Callable[[AccountId], None] | None = None
        self._loop: Final = loop
        self._asked: Final[dict[int, asyncio.Future[Any]]] = {}
        self._messages: Final[dict[int, tuple[TellAnswer, asyncio.TimerHandle]]] = {}
        self._tokens = 0

    def answered(self, effect: SettlementAnswered | SettlementMessageAnswered) -> None:
        if isinstance(effect, SettlementMessageAnswered):
            if effect.token in self._messages:
                tell, timer = self._messages.pop(effect.token)
                timer.cancel()
                tell(effect)
            return
        asked = self._asked.pop(effect.token, None)
        if asked is not None and not asked.done():
            asked.set_result(effect)

    def post(self, event: Event) -> None:
        self.process.post(event)

    def post_now(self, event: Event) -> None:
        self.process.post_now(event)

    def step(self, event: SettlementStep) -> "asyncio.Future[SettlementAnswered]":
        """As live: when this returns it stands in the books; the answer comes once it is durable."""
        event.token, done = self._expect()
        self.process.post_now(event)
        return done

    def book(self, event: SettlementStep) -> SettlementAnswered:
        """As live."""
        if not self.process.halted:
            self.process.post_now(event)
        if event.told is None:
            raise JournalError(self.process.halted)
        return event.told

    def send_settlement_message(self, account: AccountId, data: bytes, timeout_s: float, tell: "TellAnswer") -> None:
        token = self._take_token()
        self._messages[token] = tell, self._loop.call_later(timeout_s, self._give_up, token)
        self.post_now(SendSettlementMessage(account, data, token))

    def _give_up(self, token: int) -> None:
        tell, _ = self._messages.pop(token)
        tell(None)

    def _expect(self) -> "tuple[int, asyncio.Future[Any]]":
        token = self._take_token()
        done = self._asked[token] = self._loop.create_future()
        return token, done

    def _take_token(self) -> int:
        if self.process.halted:
            raise JournalError(self.process.halted)
        self._tokens += 1
        return self._tokens


def ledger_units(plan: LedgerPlan, cents: int) -> int:
    """A value in the ledger's units."""
    scale = ASSETS[plan.asset][0].scale
    amount = units(cents, plan.asset)
    return int(Fraction(amount) * Fraction(10) ** (plan.decimals - scale))
