"""A kernel as the desk of engines: their steps are entries of its journal, their messages packets on its links."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final, final

from isthmus.connector.events import (
    AccountId,
    SettlementAnswered,
    SettlementDue,
    SettlementMessage,
    SettlementMessageAnswered,
    SettlementMessageReply,
    SettlementStep,
)
from isthmus.connector.settlement_messages import MESSAGE_MS
from isthmus.connector.settling import Settling
from isthmus.errors import JournalError, plain
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner
from isthmus.settlement.port import MessageRefusedError, Step, StepRefusedError

# Of the time that a message leaves: the answer must still be written.
ANSWER_MARGIN_MS: Final = 200


@final
class KernelDesk:
    """Implements `engines.Desk` over a driver. `serve` comes before the driver starts."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Final = driver
        self._runner: EngineRunner

    def serve(self, runner: EngineRunner) -> None:
        """From here on this runner hears what is due, what peers' engines ask, and which links are up."""
        self._runner = runner
        self._driver.on_settlement = self._hear
        self._driver.on_link_up = runner.link_up

    def settling(self, account: AccountId) -> Settling | None:
        found = self._driver.kernel.books.peers.get(account)
        return None if found is None else found.settling

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        return _amounts(await self._driver.step(_event(account, step)))

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        return _amounts(self._driver.book(_event(account, step)))

    def message(self, account: AccountId, data: bytes) -> "asyncio.Future[bytes]":
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._driver.send_settlement_message(account, data, MESSAGE_MS / 1000, partial(_answer, answer))
        return answer

    def _hear(self, effect: SettlementDue | SettlementMessage) -> None:
        if isinstance(effect, SettlementDue):
            self._runner.due(effect.account, effect.number)
            return
        # The peer's engine is answered whatever ours does (SE-12). The kernel bounds how many wait.
        wait_ms = max(1, effect.wait_ms - ANSWER_MARGIN_MS)
        self._runner.answer_to(effect.account, effect.data, wait_ms, partial(self._reply, effect.token))

    def _reply(self, token: int, answer: bytes | MessageRefusedError) -> None:
        if isinstance(answer, MessageRefusedError):
            reply = SettlementMessageReply(token, b"", answer.code, plain(answer.message))
        else:
            reply = SettlementMessageReply(token, answer)
        self._driver.post_now(reply)


def _answer(answer: "asyncio.Future[bytes]", told: SettlementMessageAnswered | JournalError | None) -> None:
    if answer.done():
        return  # nobody waits for it any more
    if told is None:
        answer.set_exception(
            MessageRefusedError("R00", f"the peer's engine didn't answer within {MESSAGE_MS // 1000} s")
        )
    elif isinstance(told, JournalError):
        answer.set_exception(told)
    elif told.code:
        answer.set_exception(MessageRefusedError(told.code, told.message))
    else:
        answer.set_result(told.data)


def _event(account: AccountId, step: Step) -> SettlementStep:
    return SettlementStep(account, 0, step.moved, step.credits, step.undone, step.kept)


def _amounts(told: SettlementAnswered) -> Sequence[int]:
    if told.problem:
        raise StepRefusedError(told.problem)
    return told.amounts
