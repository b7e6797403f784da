"""Engines that need wait for nothing: they pay and answer in the turn that says so, and else as all others."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from isthmus.connector.events import AccountId, Inbound, SettlementMessageAnswered
from isthmus.connector.settling import TAKEN
from isthmus.errors import JournalError, LedgerError
from isthmus.ilp.packet import Fulfill, Reject, encode_fulfill
from isthmus.settlement.port import MessageRefusedError, Step
from tests.runtime.engine_world import PEER, Bank, World


class PromptBank(Bank):
    """Pays and answers at once, unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = False
        self.wrong: Exception | None = None
        self.paid_now: list[int] = []

    def pay_now(self, account: AccountId, number: int, amount: int, key: bytes) -> bool:
        if self.wrong is not None:
            raise self.wrong
        if self.waits:
            return False
        self.port.book(account, Step(moved=[(number, TAKEN, "")], kept=[(b"tx", b"at once")]))
        self.paid_now.append(number)
        return True

    def answer_now(self, account: AccountId, data: bytes) -> bytes | None:
        if self.wrong is not None:
            raise self.wrong
        if self.waits:
            return None
        self.port.book(account, Step(credits=[(5, 9, "", "")]))
        self.news.set()
        return b"at once"


@pytest.fixture
async def bank() -> PromptBank:
    return PromptBank()


@pytest.fixture
async def world(bank: PromptBank) -> AsyncIterator[World]:
    made = World(engine=bank)
    yield made
    await made.stop()


async def test_what_is_due_is_with_a_prompt_engine_before_anything_else_happens(world: World, bank: PromptBank) -> None:
    await world.start()
    tasks = len(asyncio.all_tasks())
    number = await world.settle(1_000)
    assert bank.paid_now == [number]
    assert world.state(number) == TAKEN
    assert len(asyncio.all_tasks()) == tasks
    assert not bank.paid


async def test_a_prompt_engine_that_has_to_wait_is_asked_as_others_are(world: World, bank: PromptBank) -> None:
    await world.start()
    bank.waits = True
    number = await world.settle(1_000)
    await bank.until_paid(1)
    assert world.state(number) == TAKEN
    assert bank.paid_now == []


async def test_what_a_prompt_engine_raises_is_told_and_tried_again(world: World, bank: PromptBank) -> None:
    """SE-9."""
    await world.start()
    bank.wrong = LedgerError("away")

    async def fail(number: int) -> None:
        if len(bank.paid) < 3:
            raise LedgerError("away")
        await bank.port.step(PEER, Step(moved=[(number, TAKEN, "")]))

    bank.paying = fail
    await world.settle(1_000)
    await bank.until_paid(3)
    assert len(world.logged("settlement_not_taken")) == 2
    assert len(set(bank.paid)) == 1


async def test_a_prompt_answer_leaves_after_what_was_booked_for_it(world: World, bank: PromptBank) -> None:
    await world.start()
    world.holds = True
    await world.ask(b"a claim")
    await asyncio.wait_for(bank.news.wait(), 5)  # when we go on, the turn that it was asked in has ended
    assert world.kernel.books.peers[PEER].balance == -5
    assert not world.link.written
    world.holds = False
    answer = await world.answer()
    assert isinstance(answer, Fulfill)
    assert answer.data == b"at once"


async def test_a_prompt_engine_that_has_to_wait_for_its_answer_is_asked_as_others_are(
    world: World, bank: PromptBank
) -> None:
    await world.start()
    bank.waits = True
    await world.ask(b"how do you do")
    answer = await world.answer()
    assert isinstance(answer, Fulfill)
    assert answer.data == b"how do you do"


@pytest.mark.parametrize(
    ("wrong", "code", "logged"),
    [(MessageRefusedError("F00", "nonsense"), "F00", 0), (ValueError("a defect"), "T00", 1)],
    ids=["refused", "defect"],
)
async def test_a_peer_hears_what_a_prompt_engine_refuses(
    world: World, bank: PromptBank, wrong: Exception, code: str, logged: int
) -> None:
    """SE-12."""
    await world.start()
    bank.wrong = wrong
    await world.ask(b"a claim")
    answer = await world.answer()
    assert isinstance(answer, Reject)
    assert answer.code == code
    assert len(world.logged("settlement_message_failed")) == logged


async def test_messages_give_up_one_by_one_and_the_others_still_have_their_answers(world: World) -> None:
    await world.start()
    told: asyncio.Queue[SettlementMessageAnswered | JournalError | None] = asyncio.Queue()
    for seconds in (0.01, 60):
        world.driver.send_settlement_message(PEER, b"hello", seconds, told.put_nowait)
    frames = [await world.link.frame(), await world.link.frame()]
    assert await asyncio.wait_for(told.get(), 5) is None
    for frame in frames:
        packet = encode_fulfill(Fulfill(bytes(32), b"hi"))
        world.driver.inbound([Inbound(PEER, frame.session, frame.request_id, packet, world.driver.mono_ms())])
    answer = await asyncio.wait_for(told.get(), 5)
    assert isinstance(answer, SettlementMessageAnswered)
    assert answer.data == b"hi"
    assert told.empty()


async def test_who_asked_a_peer_hears_that_the_node_stops(bank: PromptBank) -> None:
    world = await World(engine=bank).start()
    asking = asyncio.ensure_future(bank.port.message(PEER, b"hello"))
    await world.link.frame()
    await world.stop()
    with pytest.raises(JournalError):
        await asking
