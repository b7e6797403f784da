"""A wallet that settles with its connector by an engine of its own, in its own process."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, final

from isthmus.client.tables import UPLINK
from isthmus.connector.events import Log, Settle, SettlementAnswered
from isthmus.connector.settling import FAILED, STATES, SettleTerms, Settling
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.runtime import clock
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner
from isthmus.runtime.kernel_desk import KernelDesk
from isthmus.settlement.channels import ChannelKeeper
from isthmus.settlement.port import Engine, SettlingAccount

ENGINE: Final = "wallet"
# Before a payment begins, what is being paid ahead is waited for so long.
PAID_AHEAD_S_MAX: Final = 60.0
# What a redemption may take before a process ends without it.
REDEEMED_S_MAX: Final = 90.0

Json: TypeAlias = dict[str, Any]


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class WalletSettling:
    """What a wallet settles by: the agreement with its connector, and how to make the engine."""

    terms: SettleTerms
    receivable_max: int | None  # what the connector may owe us; None: any amount
    settings: Mapping[str, str]  # the engine's options for this account
    kind: str
    make_engine: Callable[[], Engine]


# Reads what the wallet in a folder, which counts in this asset, settles by; None if it doesn't. Raises ConfigError.
LoadSettling: TypeAlias = Callable[[Path, Asset], WalletSettling | None]


@final
class Settler:
    """The engine of one running wallet."""

    def __init__(self, driver: Driver, settling: WalletSettling, asset: Asset, on_log: Callable[[Log], None]) -> None:
        """Before the driver starts. Raises ConfigError if the engine can't be made."""
        self.settling: Final = settling
        self._driver: Final = driver
        self._asset: Final = asset
        self._engine: Final = settling.make_engine()
        desk = KernelDesk(driver)
        self.runner: Final = EngineRunner(
            desk, {ENGINE: self._engine}, on_log=on_log, now=clock.system_now, random=random.random
        )
        desk.serve(self.runner)

    async def start(self) -> None:
        """Raises ConfigError or LedgerError for an engine that can't be used as it is configured."""
        await self.runner.start({ENGINE: [SettlingAccount(UPLINK, self._asset, self.settling.settings)]})

    async def close(self) -> None:
        await self.runner.close()

    # --- paying -----------------------------------------------------------------------------------------------------

    async def pay(self, amount: int | None, key: str, note: str) -> SettlementAnswered:
        """Pay the connector now: an amount, or what the terms say."""
        return await self._driver.settle(Settle(UPLINK, amount, key, note, 0))

    async def until_paid_ahead(self) -> None:
        """Wait for what is being paid to the connector now, for a while: packets that are there before it get T04."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PAID_AHEAD_S_MAX
        while self._is_paying() and (left_s := deadline - loop.time()) > 0:
            await self.runner.wait(left_s)

    def _is_paying(self) -> bool:
        settling = self.runner.settling(UPLINK)
        return settling is not None and any(one.state != FAILED for one in settling.open.values())

    # --- what is shown ----------------------------------------------------------------------------------------------

    def to_json(self) -> Json:
        """The settlements under way, the channels, and what the engine says."""
        (running,) = self.runner.engines()
        return {
            **settlement_json(self.settling, self.runner.settling(UPLINK)),
            "works": running.works,
            "problem": running.problem,
            "channels": [one.to_json() for one in self.keeper.channels(UPLINK)] if self.keeper else [],
            "says": dict(self.runner.describe(UPLINK)),
            "alarms": [alarm.text for alarm in reversed(running.alarms.values()) if alarm.over_at is None],
        }

    @property
    def keeper(self) -> ChannelKeeper | None:
        """The engine, if it has channels and works."""
        (running,) = self.runner.engines()
        return self._engine if running.works and isinstance(self._engine, ChannelKeeper) else None

    # --- before the process ends ------------------------------------------------------------------------------------

    async def leave(self, *, always: bool = False, and_end: bool = False) -> list[Json]:
        """Redeem what channels to us owe, where that is worth more than its fee, and wait for it for a while.

        What became of each channel that owed something. `always`: whatever it costs.
        """
        keeper = self.keeper
        if keeper is None:
            return []
        before = {one.id: one for one in keeper.channels(UPLINK) if one.unredeemed or (and_end and one.is_to_us)}
        if not before:
            return []
        fee = await keeper.redemption_fee(UPLINK)
        worth = sum(one.unredeemed for one in before.values())
        if always or fee is None or worth > fee:
            await keeper.redeem_channels(UPLINK, and_end=and_end)
            await self._until(lambda: not _owing(keeper, before, and_end=and_end))
        left = {one.id: one for one in keeper.channels(UPLINK)}
        return [
            {
                **one.to_json(),
                "fee": None if fee is None else str(fee),
                "is_redeemed": one.id not in left or left[one.id].unredeemed == 0,
            }
            for one in before.values()
        ]

    async def _until(self, is_so: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REDEEMED_S_MAX
        while not is_so() and (left_s := deadline - loop.time()) > 0:
            await self.runner.wait(min(left_s, 0.25))  # what the engine sees of its ledger changes no books


def settlement_json(settling: WalletSettling, booked: Settling | None) -> Json:
    """What a wallet that isn't connected knows: its books alone."""
    under_way = [] if booked is None else list(booked.open.values())
    return {
        "type": settling.kind,
        "works": False,
        "problem": "",
        "under_way": [
            {"number": str(one.number), "amount": str(one.amount), "state": STATES[one.state], "text": one.text}
            for one in under_way
        ],
        "channels": [],
        "says": {},
        "alarms": [],
    }


def _owing(keeper: ChannelKeeper, before: Mapping[str, Any], *, and_end: bool) -> bool:
    """Whether a channel of these still owes something; or is still there."""
    return any(one.id in before and (and_end or one.unredeemed) for one in keeper.channels(UPLINK))


def no_settler() -> ConfigError:
    """What a wallet without an engine says."""
    return ConfigError("wallet", "it has no settlement engine", "Write settlement.toml beside its wallet.toml")
