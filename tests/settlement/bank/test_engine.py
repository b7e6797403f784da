"""Two engines at a bank: paid once, credited once, whatever fails in between."""

import asyncio
import json
from typing import Any

import pytest

from isthmus.connector.events import ReverseSettlement
from isthmus.errors import LedgerError
from isthmus.settlement.bank import records
from isthmus.settlement.bank.engine import UNMATCHED_MAX
from isthmus.settlement.bank.messages import Hello, decode, encode
from isthmus.settlement.conversion import CARRIED
from isthmus.settlement.port import MessageRefusedError, Step
from tests.settlement.bank.world import MONEY, World, settled, until
from tests.settlement.lightning.ports import PEER, WALL

DAY_MS = 86_400_000


async def test_a_settlement_is_a_transfer_with_the_peers_reference(world: World) -> None:
    """SE-10."""
    await world.begin()
    world.east.settle(1_234)
    await settled(world, 1_234)
    world.agree()
    _, entries = world.bank.statement("west", 1)
    assert [(each.amount, each.counterparty) for each in entries] == [(1_234, "east")]
    assert entries[0].reference == world.reference_of(world.west) != world.reference_of(world.east)
    assert not [key for key in world.east.kept(PEER) if key.startswith(b"out/")]


async def test_both_pay_at_the_same_time(world: World) -> None:
    await world.begin()
    for amount in (100, 250, 70):
        world.east.settle(amount)
        world.west.settle(amount + 1)
        await until(lambda: not world.east.open(PEER) and not world.west.open(PEER))
    await until(lambda: world.west.balance == world.east.balance * -1 == 3)
    assert (world.money("east"), world.money("west")) == (MONEY + 3, MONEY - 3)


async def test_what_is_less_than_the_banks_unit_is_carried(world: World) -> None:
    """SE-11."""
    await world.begin(scale=4)
    for amount in (50, 49, 1, 250):
        world.east.settle(amount)
        await until(lambda: not world.east.open(PEER))
    await until(lambda: world.west.balance == -300)
    assert world.money("west") == MONEY + 3
    assert world.east.kept(PEER)[CARRIED] == b"50"


async def test_one_that_fails_takes_back_what_it_carried(world: World) -> None:
    """Else the rest of it would be paid, and owed again as well."""
    await world.begin(scale=4)
    world.way.refuses = (422, "no-such-payee")
    world.east.settle(150)
    await until(lambda: any(one.state == 3 for one in world.east.open(PEER)))
    assert CARRIED not in world.east.kept(PEER)
    world.way.refuses = None
    world.east.tell(ReverseSettlement(PEER, 1, "r", "the bank voided it", 99))
    world.east.settle(150)
    await until(lambda: not world.east.open(PEER))
    world.east.settle(50)
    await settled(world, 200)
    world.agree()


async def test_coarser_accounts_get_all_that_the_bank_pays(world: World) -> None:
    await world.begin(scale=1)
    world.east.settle(7)
    await settled(world, 7)
    assert world.money("west") == MONEY + 70
    world.pay("stranger", "west", 5, world.reference_of(world.west))
    await world.west.looked()
    assert world.west.balance == -7
    world.pay("stranger", "west", 5, world.reference_of(world.west), key="2")
    await until(lambda: world.west.balance == -8)


# --- faults of the bank -----------------------------------------------------------------------------------------------


async def test_a_lost_answer_pays_once(world: World) -> None:
    """SE-9."""
    await world.begin()
    world.way.loses_answers = 3
    world.east.settle(500)
    await settled(world, 500)
    assert len(world.way.sent) >= 4 and len(set(world.way.sent)) == 1, "the very same request each time"
    world.agree()


async def test_a_bank_that_is_down_for_an_hour_delays_and_no_more(world: World) -> None:
    await world.begin()
    world.way.is_down = True
    world.east.settle(300)
    await until(lambda: "bank_ledger_away" in world.east.events())
    assert [one.number for one in world.east.open(PEER)] == [1]
    world.clock.now += 3_600_000
    assert ("bank_ledger_away", "") not in world.east.overs
    world.way.is_down = False
    await until(lambda: ("bank_ledger_away", "") in world.east.overs)
    world.pay("stranger", "west", 9, world.reference_of(world.west))
    await settled(world, 309)
    assert world.money("west") == MONEY + 309


async def test_without_money_it_waits_and_then_pays(world: World) -> None:
    await world.begin()
    world.east.settle(MONEY + 1)
    await until(lambda: "doesn't have as much" in world.east.told("bank_refused"))
    await world.east.looked()
    assert [one.number for one in world.east.open(PEER)] == [1]
    world.pay("stranger", "east", 1, "pocket money")
    await settled(world, MONEY + 1)
    assert world.money("east") == 0


@pytest.mark.parametrize("code", ["no-such-payee", "other-asset"])
async def test_what_the_bank_will_never_do_fails_once_its_key_is_void(world: World, code: str) -> None:
    await world.begin()
    world.way.refuses = (422, code)
    due = world.east.settle(100)
    await until(lambda: any(one.state == 3 for one in world.east.open(PEER)))
    world.way.refuses = None
    with pytest.raises(Exception, match="voided"):
        world.pay("east", "west", 100, world.reference_of(world.west), key=due.key.hex())
    await world.east.looked()
    assert world.money("east") == MONEY
    world.east.tell(ReverseSettlement(PEER, 1, "r", "the bank voided it", 99))
    assert world.east.balance == 0
    world.east.settle(100)
    await settled(world, 100)


async def test_refused_after_it_was_done_is_not_failed(world: World) -> None:
    """Its answer was lost, and the bank tells nonsense when asked again: the key can't be voided."""
    await world.begin()
    world.way.loses_answers = 1
    world.way.gate.clear()
    world.east.settle(100)
    await until(lambda: len(world.way.sent) == 1)
    world.way.gate.set()
    await until(lambda: world.money("west") == MONEY + 100)
    world.way.refuses = (422, "no-such-payee")
    await world.east.looked(1)
    world.way.refuses = None
    await settled(world, 100)
    world.agree()


@pytest.mark.parametrize("field", ["amount", "to", "from", "key", "reference"])
async def test_an_answer_that_tells_of_something_else_confirms_nothing(world: World, field: str) -> None:
    await world.begin()

    def lie(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        return {**found, field: "7"} if method == "POST" else found

    world.way.tamper = lie
    world.east.settle(100)
    await until(lambda: "did something else" in world.east.told("bank_refused"))
    assert [one.number for one in world.east.open(PEER)] == [1]
    world.way.tamper = None
    await settled(world, 100)
    world.agree()


def _with(entries: list[dict[str, Any]], change: str) -> list[dict[str, Any]]:
    last = entries[-1]
    if change == "gap":
        return [*entries[:-1], {**last, "number": last["number"] + 1}]
    if change == "amount":
        return [*entries[:-1], {**last, "amount": "99999"}]
    if change == "balance":
        return [*entries[:-1], {**last, "balance": "5"}]
    if change == "garbage":
        return [*entries[:-1], {**last, "amount": 5}]
    assert change == "missing"
    return entries[:-1]


@pytest.mark.parametrize("change", ["gap", "amount", "balance", "garbage", "missing"])
async def test_a_statement_that_cant_be_true_credits_nothing(world: World, change: str) -> None:
    await world.begin()
    world.pay("stranger", "west", 1, world.reference_of(world.west), key="first")
    await until(lambda: world.west.balance == -1)

    def lie(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        if path == "/accounts/west/entries" and found["entries"]:
            return {**found, "entries": _with(found["entries"], change)}
        return found

    world.way.tamper = lie
    world.pay("stranger", "west", 100, world.reference_of(world.west))
    await until(lambda: "bank_ledger_away" in world.west.events())
    assert world.west.balance == -1
    world.way.tamper = None
    await until(lambda: world.west.balance == -101)


async def test_a_bank_that_forgot_what_it_had_is_told(world: World) -> None:
    """Restored from an old copy, say."""
    await world.begin()
    world.east.settle(100)
    await settled(world, 100)

    def forget(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "entries": 1} if path == "/accounts/west" else found

    world.way.tamper = forget
    await until(lambda: "were there before" in world.west.told("bank_ledger_away"))
    assert world.west.balance == -100


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("asset_scale", 3, "in USD with 3"), ("asset_code", "EUR", "in EUR"), ("id", "other", "another account")],
)
async def test_another_account_than_configured_pays_nothing(
    world: World, field: str, value: object, words: str
) -> None:
    await world.begin()

    def change(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        return {**found, field: value} if path == "/accounts/east" else found

    world.way.tamper = change
    world.east.settle(100)
    await until(lambda: words in world.east.told("bank_ledger_away"))
    assert world.money("east") == MONEY
    await world.east.kill()
    world.way.tamper = None
    await world.east.restart()
    await settled(world, 100)


async def test_a_wrong_token_or_account_keeps_the_engine_from_starting(world: World) -> None:
    await world.begin(start=False)
    right = world.east.token
    for token, words in (("x" * 20, "doesn't know our token"), (world.west.token, "for the account west")):
        world.east.token = token  # type: ignore[misc]
        world.east.engine = world.east.make()
        with pytest.raises(LedgerError, match=words):
            await world.east.engine.start(world.east.process, world.east.accounts)
    world.east.token = right  # type: ignore[misc]
    world.east.engine = world.east.make()
    await world.east.start()


# --- statements -------------------------------------------------------------------------------------------------------


async def test_a_transfer_that_is_twice_in_a_statement_is_credited_once(world: World) -> None:
    """Once under the number of another, which comes later: a number of its own is no new transfer."""
    await world.begin()
    first = world.pay("stranger", "west", 40, world.reference_of(world.west), key="1")
    await until(lambda: world.west.balance == -40)

    def repeat(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        if path != "/accounts/west/entries":
            return found
        entries = [
            {**each, "transfer": first, "reference": ours} if each["number"] == 3 else each for each in found["entries"]
        ]
        return {**found, "entries": [*entries, *entries]}

    ours = world.reference_of(world.west)
    world.way.tamper = repeat
    world.pay("stranger", "west", 40, "something else", key="2")
    await until(lambda: "bank_transfer_twice" in world.west.events())
    assert world.west.balance == -40 and world.west.engine.unmatched() == []


async def test_a_page_that_begins_too_early_is_passed_over(world: World) -> None:
    await world.begin()
    seen: list[dict[str, Any]] = []

    def all_again(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        if path != "/accounts/west/entries":
            return found
        seen.extend(each for each in found["entries"] if each not in seen)
        return {**found, "entries": list(reversed(seen))}

    world.way.tamper = all_again
    for number in range(3):
        world.pay("stranger", "west", 10, world.reference_of(world.west), key=str(number))
        await until(lambda wanted=-10 * number - 10: world.west.balance == wanted)  # type: ignore[misc]


async def test_an_old_transfer_that_nobody_remembers_waits_for_the_operator(world: World) -> None:
    """Keys of credits are forgotten after a week: a copy that comes later than that is not believed."""
    await world.begin()
    first = world.pay("stranger", "west", 40, world.reference_of(world.west), key="1")
    await until(lambda: world.west.balance == -40)
    ours, at = world.reference_of(world.west), world.clock.now
    world.clock.now += 8 * DAY_MS

    def repeat(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        if path != "/accounts/west/entries":
            return found
        old = {"transfer": first + "x", "reference": ours, "at_ms": at}
        return {**found, "entries": [{**each, **old} if each["number"] == 3 else each for each in found["entries"]]}

    world.way.tamper = repeat
    world.pay("stranger", "west", 40, "something else", key="2")
    await until(lambda: len(world.west.engine.unmatched()) == 1)
    assert "so old that peer may have been credited" in world.west.engine.unmatched()[0].why
    assert world.west.balance == -40


async def test_one_that_comes_late_is_credited(world: World) -> None:
    """The bank books it after others, with a time before theirs."""
    await world.begin()
    world.pay("stranger", "west", 5, world.reference_of(world.west), key="1")
    await until(lambda: world.west.balance == -5)

    def late(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
        if path != "/accounts/west/entries":
            return found
        return {**found, "entries": [{**each, "at_ms": WALL - 3 * DAY_MS} for each in found["entries"]]}

    world.way.tamper = late
    world.pay("stranger", "west", 40, world.reference_of(world.west), key="2")
    await until(lambda: world.west.balance == -45)


async def test_a_long_absence_is_made_up_for(world: World) -> None:
    """More than a page, older than what is remembered: nothing is lost, nothing waits."""
    await world.begin()
    await world.west.kill()
    for number in range(250):
        world.pay("stranger", "west", 1, world.reference_of(world.west), key=f"{number}")
    world.clock.now += 30 * DAY_MS
    await world.west.restart()
    await until(lambda: world.west.balance == -250)
    assert world.west.engine.unmatched() == []


# --- what waits for the operator --------------------------------------------------------------------------------------


async def test_a_wrong_reference_waits_and_is_assigned_once(world: World) -> None:
    await world.begin()
    world.pay("stranger", "west", 40, "for the packets, thanks")
    await until(lambda: len(world.west.engine.unmatched()) == 1)
    (one,) = world.west.engine.unmatched()
    assert (one.amount, one.payer, one.reference) == (40, "stranger", "for the packets, thanks")
    await until(lambda: "bank_unmatched" in world.west.events())
    assert world.west.balance == 0
    await world.west.restart()
    assert world.west.engine.unmatched() == [one]
    assert await world.west.engine.assign(one.id, PEER, "their mail of 3 May") == 40
    assert (world.west.balance, world.west.engine.unmatched()) == (-40, [])
    with pytest.raises(LedgerError, match="no transfer"):
        await world.west.engine.assign(one.id, PEER, "again")
    await world.west.restart()
    await world.west.looked()
    assert (world.west.balance, world.west.engine.unmatched()) == (-40, [])
    assert not world.west.kept(PEER).get(b"assigned/" + one.id.rjust(18, "0").encode())


async def test_one_is_dismissed(world: World) -> None:
    await world.begin()
    for amount in (40, 41):
        world.pay("stranger", "west", amount, "oops", f"by hand {amount}")
    await until(lambda: len(world.west.engine.unmatched()) == 2 and "bank_unmatched" in world.west.events())
    await world.west.engine.dismiss(world.west.engine.unmatched()[0].id, "sent back")
    assert not world.west.overs, "another one waits"
    await world.west.engine.dismiss(world.west.engine.unmatched()[0].id, "sent back")
    assert world.west.overs == [("bank_unmatched", "")]
    await world.west.restart()
    await world.west.looked()
    assert (world.west.balance, world.west.engine.unmatched()) == (0, [])
    with pytest.raises(LedgerError, match="no transfer"):
        await world.west.engine.dismiss("3", "again")


async def test_from_another_account_than_agreed_it_waits(world: World) -> None:
    await world.begin(start=False)
    world.west.settings["peer_account"] = "east"
    await world.east.start()
    await world.west.start()
    await world.greeted()
    world.pay("stranger", "west", 40, world.reference_of(world.west))
    await until(lambda: len(world.west.engine.unmatched()) == 1)
    assert "comes from another account than east" in world.west.engine.unmatched()[0].why
    world.east.settle(5)
    await settled(world, 5)


async def test_dust_cant_push_out_what_is_worth_more(world: World) -> None:
    await world.begin()
    world.pay("stranger", "west", 1_000, "worth something", key="big")
    for number in range(UNMATCHED_MAX + 10):
        world.pay("stranger", "west", 1 + number % 3, "dust", key=str(number))
    await until(lambda: world.west.told("bank_unmatched_dropped").count("dust") == 11)
    found = world.west.engine.unmatched()
    assert len(found) == UNMATCHED_MAX and found[0].amount == 1_000
    assert sum(1 for each in found if each.amount == 1) < sum(1 for each in found if each.amount == 3)


# --- reversals by the operator ----------------------------------------------------------------------------------------


async def test_reversed_as_certain_it_is_voided_at_the_bank(world: World) -> None:
    await world.begin()
    world.way.refuses = (503, "busy")
    due = world.east.settle(100)
    await until(lambda: bool(world.way.sent))
    world.east.tell(ReverseSettlement(PEER, due.number, "r", "I am sure", 99, True))
    assert world.east.balance == 0
    await until(lambda: not [key for key in world.east.kept(PEER) if key.startswith(b"out/")])
    world.way.refuses = None
    await world.east.looked()
    assert (world.money("east"), world.east.balance) == (MONEY, 0)
    with pytest.raises(Exception, match="voided"):
        world.pay("east", "west", 100, world.reference_of(world.west), key=due.key.hex())


async def test_reversed_although_it_was_paid_is_told(world: World) -> None:
    await world.begin()
    world.way.gate.clear()
    due = world.east.settle(100)
    await until(lambda: bool(world.way.sent))
    world.east.tell(ReverseSettlement(PEER, due.number, "r", "I am sure", 99, True))
    world.way.loses_answers = 1
    world.way.gate.set()
    await until(lambda: "settlement_paid_and_reversed" in world.east.events())
    assert world.money("west") == MONEY + 100
    assert not [key for key in world.east.kept(PEER) if key.startswith(b"out/")]


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("ahead", [1, 2, 3])
async def test_a_kill_of_the_payer_at_each_of_its_steps(world: World, ahead: int, before: bool) -> None:
    """Two settlements, and a kill at a step of theirs, booked or not."""
    await world.begin()
    world.east.process.kill_before = before
    world.east.process.kill_at = world.east.steps + ahead
    world.east.settle(100)
    await until(lambda: world.east.process.is_dead or not world.east.open(PEER))
    if not world.east.process.is_dead:
        world.east.settle(30)
        await until(lambda: world.east.process.is_dead)
    await world.east.restart()
    await until(lambda: not world.east.open(PEER))
    await until(lambda: world.west.balance == -world.east.balance)
    world.agree()


async def test_a_kill_while_the_transfer_is_on_its_way(world: World) -> None:
    await world.begin()
    world.way.gate.clear()
    world.east.settle(100)
    await until(lambda: len(world.way.sent) == 1)
    await world.east.kill()
    world.way.gate.set()
    await world.east.restart()
    await settled(world, 100)
    world.agree()
    assert len(set(world.way.sent)) == 1


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_kill_of_the_receiver_as_it_credits(world: World, before: bool) -> None:
    await world.begin()
    world.west.process.kill_before = before
    world.west.process.kill_at = world.west.steps + 1
    world.east.settle(100)
    await until(lambda: world.west.process.is_dead)
    await world.west.restart()
    await settled(world, 100)
    await world.west.looked()
    world.agree()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_kill_as_a_transfer_is_assigned(world: World, before: bool) -> None:
    await world.begin()
    world.pay("stranger", "west", 40, "which?")
    await until(lambda: len(world.west.engine.unmatched()) == 1)
    (one,) = world.west.engine.unmatched()
    world.west.process.kill_before = before
    world.west.process.kill_at = world.west.steps + 1
    with pytest.raises(Exception, match="killed"):
        await world.west.engine.assign(one.id, PEER, "the mail")
    await world.west.restart()
    if before:
        await world.west.engine.assign(one.id, PEER, "the mail")
    await world.west.looked()
    assert (world.west.balance, world.west.engine.unmatched()) == (-40, [])


async def test_a_kill_before_the_first_greeting(world: World) -> None:
    await world.begin(start=False)
    world.east.process.kill_at = 1
    await world.east.start()
    await world.west.start()
    await until(lambda: world.east.process.is_dead)
    await world.east.restart()
    await world.greeted()
    world.east.settle(10)
    await settled(world, 10)


# --- what engines say to each other -----------------------------------------------------------------------------------


async def test_a_peer_whose_books_are_new_is_paid_with_its_new_reference(world: World) -> None:
    await world.begin()
    world.east.settle(10)
    await settled(world, 10)
    await world.west.kill()
    world.west.records.clear()
    await world.west.restart()
    await until(lambda: records.REFERENCE in world.west.kept(PEER))
    wanted = world.reference_of(world.west)
    await until(lambda: (hello := world.east.engine.pays_to(PEER)) is not None and hello.reference == wanted)
    world.east.settle(5)
    await settled(world, 5)


@pytest.mark.parametrize(
    ("hello", "code", "words"),
    [
        (Hello("another", "west", "r"), "F00", "another bank"),
        (Hello("the-bank", "east", "r"), "F00", "the same account"),
        (b"{}", "F00", "not a message"),
        (b"\xff", "F00", "not JSON"),
        (b"[" * 3_000, "F00", "too long"),
    ],
)
async def test_what_a_peer_cant_say(world: World, hello: Hello | bytes, code: str, words: str) -> None:
    await world.begin()
    data = hello if isinstance(hello, bytes) else encode(hello)
    with pytest.raises(MessageRefusedError) as caught:
        await world.east.engine.take_message(PEER, data)
    assert caught.value.code == code and words in caught.value.message


async def test_nothing_is_begun_before_the_peer_has_told_where(world: World) -> None:
    await world.begin(start=False)
    world.east.is_deaf = True
    await world.east.start()
    world.east.settle(10)
    await until(lambda: "has not told yet" in world.east.told("not_taken"))
    assert [one.state for one in world.east.open(PEER)] == [1]
    world.east.is_deaf = False
    await world.west.start()
    await settled(world, 10)


def test_messages_are_read_as_they_are_written() -> None:
    hello = Hello("b" * 64, "a" * 64, "ü" * 140)
    assert decode(encode(hello)) == hello
    for field in ("bank", "account", "reference"):
        for value in (None, "", 5, "x" * 200, "\n"):
            fields = json.loads(encode(hello)) | {field: value}
            with pytest.raises(Exception, match=field):
                decode(json.dumps(fields).encode())


async def test_many_settlements_with_everything_failing_now_and_then(world: World) -> None:
    """Kills of both, lost answers, a bank that goes down: nothing is paid twice, nothing is lost."""
    await world.begin()
    for number in range(30):
        if number % 3 == 0:
            world.way.loses_answers = 2
        if number % 5 == 0:
            world.east.process.kill_before = number % 2 == 0
            world.east.process.kill_at = world.east.steps + 1 + number % 3
        if number % 7 == 0:
            world.way.is_down = True
        world.east.settle(10 + number)
        await asyncio.sleep(0)
        if number % 7 == 0:
            await world.east.restart()
            world.way.is_down = False
        if number % 5 == 0:
            await until(lambda: world.east.process.is_dead or not world.east.open(PEER))
            await world.east.restart()
        if number % 4 == 0:
            await world.west.restart()
        await until(lambda: not any(one.state == 1 for one in world.east.open(PEER)))
    total = sum(10 + number for number in range(30))
    await settled(world, total)
    world.agree()
    assert len({key for key, _ in world.way.sent}) == 30


# --- accounts that go -------------------------------------------------------------------------------------------------


async def test_an_account_is_open_while_transfers_are_and_comes_back_with_another_reference(world: World) -> None:
    """What still comes with the old one waits for the operator, and with it the account."""
    await world.begin()
    world.way.gate.clear()
    world.east.settle(500)
    await until(lambda: bool(world.way.sent))
    assert world.east.engine.unfinished(PEER) == ["transfers to it are under way: wait"]
    world.way.gate.set()
    await settled(world, 500)
    before = world.reference_of(world.west)
    for party in (world.east, world.west):
        assert party.engine.unfinished(PEER) == []
        await party.step(PEER, Step(kept=[(key, b"") for key in party.kept(PEER)]))
        await party.engine.accounts_changed([])
        await party.engine.accounts_changed(party.accounts)
    await world.greeted()
    assert world.reference_of(world.west) != before
    world.east.settle(70)
    await settled(world, 570)
    world.pay("stranger", "west", 5, before)
    await until(lambda: len(world.west.engine.unmatched()) == 1)
    (one,) = world.west.engine.unmatched()
    (left,) = world.west.engine.unfinished(PEER)
    assert left == f"the unmatched transfers {one.id} are kept with it: isthmus settlements assign or dismiss"
    await world.west.engine.dismiss(one.id, "a stranger's")
    assert world.west.engine.unfinished(PEER) == []
