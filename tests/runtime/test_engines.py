"""The runner of engines: what is due gets there and what engines tell is booked, whatever raises, hangs or ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from isthmus.connector.events import AccountId, Inbound, LinkDown
from isthmus.connector.settling import CONFIRMED, TAKEN
from isthmus.errors import ConfigError, JournalError, LedgerError
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode, encode_fulfill
from isthmus.runtime import engines, kernel_desk
from isthmus.runtime.engines import ALARMS_MAX, HANDLERS_MAX
from isthmus.settlement.pauses import RETRY_S_MAX
from isthmus.settlement.port import MessageRefusedError, SettlingAccount, Step, StepRefusedError
from tests.runtime.engine_world import ACCOUNTS, PEER, World


@pytest.fixture
async def worlds() -> AsyncIterator[list[World]]:
    """Those of a test; all are stopped at its end."""
    made: list[World] = []
    yield made
    for world in made:
        await world.stop()


@pytest.fixture
async def world(worlds: list[World]) -> World:
    worlds.append(World())
    return worlds[0]


# --- paying ----------------------------------------------------------------------------------------------------------


async def test_what_is_due_reaches_the_engine_and_what_it_tells_the_books(world: World) -> None:
    await world.start()
    number = await world.settle(1_000)
    await world.bank.until_paid(1)
    assert world.bank.paid[0][:2] == (number, 1_000)
    assert len(world.bank.paid[0][2]) == 16
    assert world.bank.port.kept(PEER) == {b"tx": b"bytes"}
    assert [one.state for one in world.bank.port.open(PEER)] == [TAKEN]
    await world.bank.port.step(PEER, Step(moved=[(number, CONFIRMED, "")], kept=[(b"tx", b"")]))
    assert world.bank.port.kept(PEER) == {}
    assert not world.bank.port.open(PEER)


async def test_what_the_engine_raises_is_told_and_tried_again_under_the_same_key(world: World) -> None:
    """SE-9."""

    async def fail(number: int) -> None:
        if len(world.bank.paid) < 4:
            raise LedgerError("the ledger is away\nfor now")
        await world.bank.port.step(PEER, Step(moved=[(number, TAKEN, "")]))

    world.bank.paying = fail
    await world.start()
    await world.settle(1_000)
    await world.bank.until_paid(4)
    assert len(set(world.bank.paid)) == 1
    told = world.logged("settlement_not_taken")
    assert len(told) == 3
    assert "the ledger is away for now; again in" in str(told[0].fields["problem"])
    (alarm,) = world.runner.engines()[0].alarms.values()
    assert (alarm.event, alarm.count, alarm.account) == ("settlement_not_taken", 3, PEER)
    await world.until_logged("alarm_over")
    assert alarm.over_at is not None, "the engine has it now"


async def test_pauses_grow_up_to_an_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """SE-9: the interval is bounded; at full jitter it is the bound."""
    pauses: list[float] = []

    async def note(account: AccountId, number: int, seconds: float) -> None:
        pauses.append(seconds)

    async def fail(number: int) -> None:
        if len(world.bank.paid) < 26:
            raise LedgerError("away")
        await world.bank.port.step(PEER, Step(moved=[(number, TAKEN, "")]))

    world.bank.paying = fail
    monkeypatch.setattr(world.runner, "_until_taken", note)
    await world.start()
    await world.settle(5)
    await world.bank.until_paid(26)
    assert pauses[:3] == [0.001, 0.002, 0.004]
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRY_S_MAX == 3_600


async def test_a_settlement_that_was_not_taken_comes_again_in_the_next_process(worlds: list[World]) -> None:
    """The same number, amount and key: SE-9."""
    first = World()
    worlds.append(first)

    async def hang(number: int) -> None:
        await asyncio.Event().wait()

    first.bank.paying = hang
    await first.start()
    await first.settle(7)
    await first.bank.until_paid(1)
    await first.stop()
    worlds.clear()
    second = World(first.disk)
    worlds.append(second)
    await second.start()
    await second.bank.until_paid(1)
    assert second.bank.paid == first.bank.paid


async def test_due_before_the_engine_works_is_paid_when_it_does(world: World) -> None:
    await world.start(engines=False)
    await world.settle(7)
    assert not world.bank.paid
    await world.runner.start(ACCOUNTS)
    await world.bank.until_paid(1)


async def test_due_without_an_engine_waits_for_one_and_says_so(world: World) -> None:
    await world.start(engines=False)
    await world.runner.start({})
    await world.settle(7)
    await world.until_logged("settlement_waits")
    await world.runner.follow(ACCOUNTS)
    await world.bank.until_paid(1)
    assert [one.id for one in world.bank.accounts] == [PEER]


async def test_a_slow_pay_that_returns_is_waited_for_before_it_comes_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "TAKEN_S_MAX", 0.01)
    taken = asyncio.Event()

    async def later(number: int) -> None:
        if len(world.bank.paid) == 2:
            await world.bank.port.step(PEER, Step(moved=[(number, TAKEN, "")]))
            taken.set()

    world.bank.paying = later
    await world.start()
    await world.settle(7)
    async with asyncio.timeout(60):
        await taken.wait()
    assert "has not taken it" in str(world.logged("settlement_not_taken")[0].fields["problem"])


async def test_a_pay_that_hangs_is_cancelled_and_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PAY_S_MAX", 0.01)

    async def hang(number: int) -> None:
        if len(world.bank.paid) == 1:
            await asyncio.Event().wait()
        await world.bank.port.step(PEER, Step(moved=[(number, TAKEN, "")]))

    world.bank.paying = hang
    await world.start()
    await world.settle(7)
    await world.bank.until_paid(2)
    assert "didn't return" in str(world.logged("settlement_not_taken")[0].fields["problem"])


# --- steps -----------------------------------------------------------------------------------------------------------


async def test_a_step_stands_in_what_is_kept_from_the_moment_of_the_call(world: World) -> None:
    """So that no claim is credited twice by two messages that come together."""
    await world.start()
    world.holds = True
    step = asyncio.ensure_future(world.bank.port.step(PEER, Step(credits=[(5, 9, "", "")], kept=[(b"a", b"1")])))
    await asyncio.sleep(0)
    assert world.bank.port.kept(PEER) == {b"a": b"1"}
    assert not step.done()
    world.holds = False
    assert await step == [5]


async def test_a_step_whose_task_is_cancelled_is_booked_all_the_same(world: World) -> None:
    await world.start()
    world.holds = True
    step = asyncio.ensure_future(world.bank.port.step(PEER, Step(credits=[(5, 9, "", "")], kept=[(b"a", b"1")])))
    await asyncio.sleep(0)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    world.holds = False
    assert await world.bank.port.step(PEER, Step(credits=[(6, 9, "", "")])) == [6]
    assert world.kernel.books.peers[PEER].balance == -11
    assert world.bank.port.kept(PEER) == {b"a": b"1"}


async def test_an_empty_step_waits_for_all_that_was_booked_before(world: World) -> None:
    await world.start()
    world.holds = True
    world.bank.port.book(PEER, Step(kept=[(b"a", b"1")]))
    step = asyncio.ensure_future(world.bank.port.step(PEER, Step()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not step.done()
    world.holds = False
    assert await step == []
    assert await world.bank.port.step(PEER, Step()) == []


async def test_a_step_that_cant_be_booked_is_refused_whole(world: World) -> None:
    await world.start()
    with pytest.raises(StepRefusedError, match="settlement 9 is not open"):
        await world.bank.port.step(PEER, Step(moved=[(9, TAKEN, "")], kept=[(b"a", b"1")]))
    assert world.bank.port.kept(PEER) == {}
    with pytest.raises(StepRefusedError, match="no account of the engine"):
        await world.bank.port.step(AccountId("other"), Step())


async def test_what_is_booked_without_waiting_is_durable_before_the_answer_and_messages_leave(world: World) -> None:
    asking: list[asyncio.Future[bytes]] = []

    async def book(data: bytes) -> bytes:
        assert world.bank.port.book(PEER, Step(credits=[(5, 9, "", "")])) == [5]
        asking.append(asyncio.ensure_future(world.bank.port.message(PEER, b"and you?")))
        await asyncio.sleep(0)
        return b"booked"

    world.bank.answering = book
    await world.start()
    world.link.written.clear()
    world.holds = True
    await world.ask(b"claim")
    for _ in range(20):  # turns of the loop: more than the engine needs
        await asyncio.sleep(0)
    assert asking and not world.runner._handling, "the engine has answered"
    assert world.kernel.books.peers[PEER].balance == -5
    assert not world.link.written
    world.holds = False
    destinations = {type(decode((await world.link.frame()).packet)) for _ in range(2)}
    assert destinations == {Fulfill, Prepare}
    asking[0].cancel()


async def test_what_is_booked_without_waiting_may_be_refused_too(world: World) -> None:
    await world.start()
    with pytest.raises(StepRefusedError, match="settlement 9 is not open"):
        world.bank.port.book(PEER, Step(moved=[(9, TAKEN, "")], kept=[(b"a", b"1")]))
    assert world.bank.port.kept(PEER) == {}
    with pytest.raises(StepRefusedError, match="no account of the engine"):
        world.bank.port.book(AccountId("other"), Step())
    await world.driver.stop()
    with pytest.raises(JournalError, match="stopped"):
        world.bank.port.book(PEER, Step(kept=[(b"a", b"1")]))


async def test_a_step_during_the_stop_fails_and_is_not_lost_silently(worlds: list[World]) -> None:
    world = await World().start()
    world.holds = True
    step = asyncio.ensure_future(world.bank.port.step(PEER, Step(credits=[(5, 9, "", "")])))
    await asyncio.sleep(0)
    await world.driver.stop()
    with pytest.raises(JournalError, match="stopped"):
        await step
    with pytest.raises(JournalError, match="stopped"):
        await world.bank.port.step(PEER, Step(credits=[(5, 9, "", "")]))
    await world.runner.close()
    world._syncing.cancel()


# --- messages --------------------------------------------------------------------------------------------------------


async def test_a_peers_message_and_the_engines_answer(world: World) -> None:
    """SE-12."""
    await world.start()
    await world.ask(b"hello")
    answer = await world.answer()
    assert isinstance(answer, Fulfill)
    assert answer.data == b"hello"


@pytest.mark.parametrize(
    "error, code, text",
    [
        (MessageRefusedError("F00", "no claim"), "F00", "no claim"),
        (RuntimeError("defect"), "T00", "the settlement engine failed"),
        (LedgerError("away"), "T00", "the settlement engine failed"),
    ],
)
async def test_an_engine_that_raises_has_the_message_rejected(
    world: World, error: Exception, code: str, text: str
) -> None:
    """SE-12."""

    async def fail(data: bytes) -> bytes:
        raise error

    world.bank.answering = fail
    await world.start()
    await world.ask(b"hello")
    assert await world.answer() == Reject(code, "peer.settle", text)
    assert bool(world.runner.engines()[0].alarms) == (code == "T00")


async def test_an_answer_that_is_too_long_is_none(world: World) -> None:
    async def much(data: bytes) -> bytes:
        return bytes(32_768)

    world.bank.answering = much
    await world.start()
    await world.ask(b"hello")
    answer = await world.answer()
    assert isinstance(answer, Reject)
    assert answer.code == "T00"


async def test_an_engine_that_takes_too_long_goes_on_while_the_peer_hears_r00(world: World) -> None:
    """What it has booked meanwhile stays, and its answer goes nowhere."""
    may_end = asyncio.Event()
    ended = asyncio.Event()

    async def slow(data: bytes) -> bytes:
        await may_end.wait()
        await world.bank.port.step(PEER, Step(credits=[(5, 9, "", "")]))
        ended.set()
        return b"late"

    world.bank.answering = slow
    await world.start()
    await world.ask(b"hello", left_ms=300)
    answer = await world.answer()
    assert isinstance(answer, Reject)
    assert (answer.code, answer.triggered_by) == ("R00", "peer.settle")
    may_end.set()
    async with asyncio.timeout(60):
        await ended.wait()
    assert world.kernel.books.peers[PEER].balance == -5


async def test_what_an_engine_does_without_end_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "HANDLER_S_MAX", 0.15)
    cancelled = asyncio.Event()

    async def forever(data: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    world.bank.answering = forever
    await world.start()
    await world.ask(b"hello", left_ms=250)
    assert isinstance(await world.answer(), Reject)
    async with asyncio.timeout(60):
        await cancelled.wait()
    await world.until_logged("settlement_message_dropped")


async def test_handlers_of_one_account_are_bounded(world: World) -> None:
    gate = asyncio.Event()

    async def wait(data: bytes) -> bytes:
        await gate.wait()
        return b""

    world.bank.answering = wait
    await world.start()
    for _ in range(HANDLERS_MAX):
        world.waiting.append(asyncio.ensure_future(world.runner.answer(PEER, b"", 10_000)))
        await asyncio.sleep(0)
    await world.ask(b"one more")
    answer = await world.answer()
    assert isinstance(answer, Reject)
    assert answer.code == "T03"
    gate.set()
    assert await asyncio.gather(*world.waiting) == [b""] * HANDLERS_MAX


async def test_a_message_before_the_engine_works_is_refused_for_now(world: World) -> None:
    await world.start(engines=False)
    await world.ask(b"hello")
    answer = await world.answer()
    assert isinstance(answer, Reject)
    assert answer.code == "T00"


async def test_our_message_and_the_peers_answer(world: World) -> None:
    await world.start()
    asking = asyncio.ensure_future(world.bank.port.message(PEER, b"hello"))
    frame = await world.link.frame()
    packet = encode_fulfill(Fulfill(bytes(32), b"hi"))
    world.driver.inbound([Inbound(PEER, frame.session, frame.request_id, packet, world.driver.mono_ms())])
    assert await asyncio.wait_for(asking, 60) == b"hi"


async def test_our_message_without_an_answer_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_desk, "MESSAGE_MS", 10)
    await world.start()
    with pytest.raises(MessageRefusedError, match="R00") as caught:
        await world.bank.port.message(PEER, b"hello")
    assert caught.value.code == "R00"


async def test_our_message_over_the_bound_is_refused(world: World) -> None:
    await world.start()
    with pytest.raises(MessageRefusedError, match="T01 .*at most"):
        await world.bank.port.message(PEER, bytes(32_768))


# --- life ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LedgerError("another chain"), ConfigError("settlement.bank.key", "bad", "Mend it")])
async def test_an_engine_that_is_misconfigured_stops_the_start(world: World, error: Exception) -> None:
    async def fail() -> None:
        raise error

    world.bank.starting = fail
    with pytest.raises(type(error), match=str(error)[:10]):
        await world.start()
    assert world.runner.engines()[0].problem == str(error)


async def test_an_engine_that_starts_slowly_keeps_nothing_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "START_S_MAX", 0.01)
    gate = asyncio.Event()
    world.bank.starting = lambda: _wait(gate)
    await world.start()
    assert not world.runner.engines()[0].works
    await world.settle(5)
    await world.runner.follow({})  # its account is taken from it meanwhile, and given back
    await world.runner.follow(ACCOUNTS)
    gate.set()
    await world.bank.until_paid(1)


async def _wait(gate: asyncio.Event) -> None:
    await gate.wait()


async def test_an_engine_that_cant_follow_the_configuration_is_told_of(world: World) -> None:
    await world.start()

    async def fail(accounts: Sequence[SettlingAccount]) -> None:
        raise RuntimeError("a defect")

    world.bank.accounts_changed = fail  # type: ignore[method-assign]
    await world.runner.follow({})
    assert "engine_accounts_not_changed" in {one.event for one in world.log}


async def test_a_close_that_hangs_or_raises_keeps_nothing_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "CLOSE_S_MAX", 0.01)
    await world.start()

    async def hang() -> None:
        await asyncio.Event().wait()

    world.bank.close = hang  # type: ignore[method-assign]
    await world.runner.close()
    assert len(world.logged("engine_not_closed")) == 1
    del world.bank.close  # the world's own end waits for it


async def test_alarms_are_bounded_and_the_last_are_kept(world: World) -> None:
    await world.start()
    for number in range(ALARMS_MAX + 5):
        world.bank.port.log("warning", f"event {number}", {"account": PEER, "height": number})
    world.bank.port.log("info", "not an alarm", {})
    one = world.runner.engines()[0]
    assert len(one.alarms) == ALARMS_MAX
    assert list(one.alarms.values())[-1].text == f"height {ALARMS_MAX + 4}"
    assert one.alarm_count == ALARMS_MAX + 5
    assert world.log[-1].fields == {"engine": "bank"}


async def test_an_alarm_ends_by_the_engines_report_and_stands_again_when_it_is_told_again(world: World) -> None:
    await world.start()
    port, one = world.bank.port, world.runner.engines()[0]
    port.over("away", PEER)
    assert not world.logged("alarm_over"), "nothing was told"
    port.log("warning", "away", {"account": PEER})
    port.over("away")
    assert [alarm.over_at for alarm in one.alarms.values()] == [None], "the engine's own is over, not an account's"
    for _ in range(2):
        port.over("away", PEER)
    assert [alarm.over_at for alarm in one.alarms.values()] == [1_000]
    (told,) = world.logged("alarm_over")
    assert (told.level, told.fields) == ("info", {"engine": "bank", "alarm": "away", "was": "warning", "account": PEER})
    port.log("error", "away", {"account": PEER})
    (alarm,) = one.alarms.values()
    assert (alarm.level, alarm.count, alarm.over_at) == ("error", 2, None)
    assert [world.runner.over(one, "away", PEER, "I saw to it") for _ in range(2)] == [True, False]
    assert world.logged("alarm_over")[-1].fields["note"] == "I saw to it"


async def test_alarms_that_are_over_give_way_first(world: World) -> None:
    await world.start()
    for number in range(ALARMS_MAX):
        world.bank.port.log("warning", f"event {number}", {})
    world.bank.port.over("event 7")
    world.bank.port.log("warning", "one more", {})
    names = {alarm.event for alarm in world.runner.engines()[0].alarms.values()}
    assert {"event 0", "one more"} <= names and "event 7" not in names


async def test_alarms_of_an_account_end_with_it(world: World) -> None:
    await world.start()
    world.bank.port.log("warning", "away", {"account": PEER})
    world.bank.port.log("warning", "away", {})
    await world.runner.follow({})
    standing = [alarm.account for alarm in world.runner.engines()[0].alarms.values() if alarm.over_at is None]
    assert standing == [None]


async def test_what_an_engine_shows_may_fail(world: World) -> None:
    await world.start()
    assert world.runner.describe(PEER) == {"paid": "0"}
    assert world.runner.describe(AccountId("other")) == {}

    def fail(account: AccountId) -> Any:
        raise RuntimeError("a defect")

    world.bank.describe = fail  # type: ignore[method-assign]
    assert world.runner.describe(PEER) == {"problem": "RuntimeError: a defect"}


# --- links -----------------------------------------------------------------------------------------------------------


async def until_up(world: World, times: int) -> None:
    async with asyncio.timeout(60):
        while len(world.bank.links_up) < times:
            world.bank.news.clear()
            await world.bank.news.wait()


async def test_an_engine_hears_of_a_link_when_a_message_can_leave(world: World) -> None:
    asked: list[asyncio.Future[bytes]] = []
    await world.start()
    world.driver.post(LinkDown(PEER, "cut"))
    world.bank.link_came_up = lambda: asked.append(asyncio.ensure_future(world.bank.port.message(PEER, b"again")))
    world.driver.link_up(PEER)
    await until_up(world, 1)
    frame = await world.link.frame()
    answer = encode_fulfill(Fulfill(bytes(32), b"got it"))
    world.driver.inbound([Inbound(PEER, frame.session, frame.request_id, answer, world.driver.mono_ms())])
    assert await asked[0] == b"got it"


async def test_a_link_that_flaps_is_told_at_once_and_once_more(worlds: list[World]) -> None:
    """However often it comes up within the rest, and the last time isn't forgotten."""
    world = World(link_up_s=0.05)
    worlds.append(world)
    await world.start()
    for _ in range(100):
        world.driver.link_up(PEER)
    await until_up(world, 2)
    assert world.bank.links_up == [PEER, PEER]


async def test_a_link_without_an_engine_is_nobodys_news(world: World) -> None:
    """Nor is one whose engine doesn't work yet: as that starts it says all there is to say."""
    await world.start(engines=False)
    world.driver.link_up(PEER)
    await world.driver.digest()
    await world.runner.start(ACCOUNTS)
    world.driver.link_up(AccountId("nobody"))
    await world.driver.digest()
    assert world.bank.links_up == []


async def test_an_engine_that_raises_at_a_link_ends_nothing(world: World) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    world.bank.link_came_up = fail
    await world.start()
    world.driver.link_up(PEER)
    await world.until_logged("engine_defect")
    assert not world.driver.halted.done()


# --- accounts that go ------------------------------------------------------------------------------------------------


async def test_what_is_open_of_an_account_is_its_engines_word(world: World) -> None:
    await world.start()
    assert world.runner.unfinished(PEER) == ()
    await world.bank.port.step(PEER, Step(kept=[(b"tx", b"bytes")]))
    assert world.runner.unfinished(PEER) == ["1 things are open"]
    assert world.runner.unfinished(AccountId("nobody")) == ()


async def test_nobody_can_say_it_for_an_engine_that_does_not_work(worlds: list[World]) -> None:
    first = await World().start()
    await first.bank.port.step(PEER, Step(kept=[(b"tx", b"bytes")]))
    await first.stop()
    world = World(first.disk)
    worlds.append(world)
    await world.start(engines=False)
    await world.driver.digest()
    (problem,) = world.runner.unfinished(PEER)
    assert "no configuration" in problem
    await world.runner.follow(ACCOUNTS)
    (problem,) = world.runner.unfinished(PEER)
    assert "doesn't work" in problem


async def test_of_an_account_that_was_let_go_nothing_is_booked_until_it_is_back(world: World) -> None:
    await world.start()
    world.runner.let_go(PEER)
    with pytest.raises(StepRefusedError, match="no account of the engine"):
        await world.bank.port.step(PEER, Step(kept=[(b"tx", b"bytes")]))
    await world.runner.follow(ACCOUNTS)
    await world.bank.port.step(PEER, Step(kept=[(b"tx", b"bytes")]))
    world.runner.let_go(PEER)
    await world.runner.follow({})
    assert list(world.bank.accounts) == []
