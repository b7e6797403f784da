"""Settlements in a kernel: debited once before anybody pays, credited once, found again after a crash."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.connector import settling, state
from isthmus.connector.events import (
    AccountId,
    Append,
    Corrected,
    DigestAsked,
    Digested,
    Drain,
    Effect,
    Log,
    RecordSettlement,
    ReverseSettlement,
    Settle,
    SettlementAnswered,
    SettlementDue,
    SettlementStep,
)
from isthmus.connector.lane import TOLD_BURST
from isthmus.connector.record import EngineKept, ReserveIncoming, SettlementMoved, decode_record
from isthmus.connector.settling import (
    BEGUN,
    CONFIRMED,
    CREDIT_KEY_MS,
    CREDIT_KEYS_MAX,
    ENDED,
    ENGINE_KEYS_MAX,
    ENGINE_VALUE_BYTES_MAX,
    FAILED,
    OPEN_SETTLEMENTS_MAX,
    REVERSED,
    TAKEN,
    SettleTerms,
    Settling,
)
from isthmus.connector.step_pause import STEP_WAIT_MS, STEP_WAIT_MS_MAX
from isthmus.connector.tables import RouteTable, Tables, TablesChanged
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

BOB = AccountId("bob")
TERMS = SettleTerms(engine="bank", threshold=1_000, target=0, ahead_max=50)


@pytest.fixture
def node(make_node: "MakeNode", make_terms: "MakeTerms") -> "Node":
    """Alice pays Bob over us; we settle with Bob from 1,000 on."""
    return make_node(make_terms("alice"), make_terms("bob", settle=TERMS))


def pay(node: "Node", amount: int, account: str = "bob") -> list[Effect]:
    first = len(node.effects)
    node.prepare("alice", f"test.node.{account}.x", amount)
    for frame in node.take(account):
        node.fulfil(account, frame.request_id)
    return node.effects[first:]


def dues(effects: list[Effect]) -> list[SettlementDue]:
    return [effect for effect in effects if isinstance(effect, SettlementDue)]


def answer(effects: list[Effect]) -> SettlementAnswered:
    (one,) = [effect for effect in effects if isinstance(effect, SettlementAnswered)]
    return one


def tell_step(node: "Node", event: SettlementStep) -> list[Effect]:
    """When no packets flow any more: it is durable at once."""
    node.wait(STEP_WAIT_MS)
    return node.tell(event)


def step(node: "Node", **what: Any) -> SettlementAnswered:
    return answer(tell_step(node, SettlementStep(BOB, 7, **what)))


def kept(node: "Node") -> Settling:
    found = node.kernel.books.peers[BOB].settling
    assert found is not None
    return found


# --- outgoing --------------------------------------------------------------------------------------------------------


def test_what_is_owed_is_settled_from_the_threshold_on(node: "Node") -> None:
    """CONN-7, SE-10: debited when the engine hears of it."""
    assert not dues(pay(node, 999))
    (due,) = dues(pay(node, 1))
    assert (due.account, due.number, due.amount, len(due.key)) == (BOB, 1, 1_000, 16)
    assert (node.balance("bob"), node.internal("settled:bob")) == (0, -1_000)


def test_the_engine_hears_only_what_is_durable(node: "Node") -> None:
    """SE-10."""
    node.prepare("alice", "test.node.bob.x", 1_000)
    frame = node.taken("bob")
    node.durable = False
    effects = node.fulfil("bob", frame.request_id)
    assert not dues(effects)
    assert dues(node.commit())


def test_one_at_a_time_until_the_engine_has_it(node: "Node") -> None:
    """SE-10: and the limits go on counting what is owed meanwhile."""
    (first,) = dues(pay(node, 1_000))
    assert not dues(pay(node, 5_000))
    assert node.balance("bob") == -5_000
    effects = tell_step(node, SettlementStep(BOB, 1, moved=[(first.number, TAKEN, "")]))
    assert answer(effects).problem == ""
    (second,) = dues(effects)
    assert (second.number, second.amount) == (2, 5_000)
    assert second.key != first.key


def test_a_crash_before_the_engine_has_it_asks_again_with_the_same_key(node: "Node") -> None:
    """SE-9, SE-10."""
    (due,) = dues(pay(node, 1_000))
    for _ in range(2):
        node = node.restarted()
        assert dues(node.effects) == [due]
    tell_step(node, SettlementStep(BOB, 1, moved=[(due.number, TAKEN, "")]))
    assert not dues(node.restarted().effects)


def test_a_checkpoint_keeps_what_is_under_way(node: "Node") -> None:
    pay(node, 1_000)
    step(node, credits=[(15, 10, "a key", "wire")], kept=[(b"channel", b"state")])
    encoded = state.encode_state(node.kernel.books)
    again = state.decode_state(encoded)
    assert state.encode_state(again) == encoded
    found = again.peers[BOB].settling
    assert found is not None
    assert [(one.number, one.amount, one.state) for one in found.open.values()] == [(1, 1_000, BEGUN)]
    assert (found.leftover, found.leftover_scale) == (5, 10)
    assert (found.credited, found.engine) == ({b"a key": (1, node.wall)}, {b"channel": b"state"})


@pytest.mark.parametrize("end", [ENDED, CONFIRMED])
def test_nothing_is_kept_of_what_is_at_its_end(node: "Node", end: int) -> None:
    pay(node, 1_000)
    assert step(node, moved=[(1, end, "")]).problem == ""
    assert (kept(node).open, kept(node).last) == ({}, 1)
    assert "not open" in step(node, moved=[(1, CONFIRMED, "")]).problem


def test_a_failure_stops_the_account_until_the_operator_reverses_it(node: "Node") -> None:
    """SE-10: nothing is refunded by itself."""
    pay(node, 1_000)
    effects = tell_step(node, SettlementStep(BOB, 1, moved=[(1, FAILED, "no funds")]))
    assert any(isinstance(one, Log) and one.level == "error" for one in effects)
    assert node.balance("bob") == 0
    assert not dues(pay(node, 2_000))
    refused = answer(node.tell(Settle(BOB, 100, "k0", "now", 3)))
    assert "has failed" in refused.problem
    reversal = ReverseSettlement(BOB, 1, "k1", "the bank says no", 4)
    effects = node.tell(reversal, reversal)  # the second finds that it was done
    assert [(one.amount, one.problem) for one in effects if isinstance(one, Corrected)] == [(1_000, "")] * 2
    (due,) = dues(effects)  # it is owed again, and the terms call for another
    assert (due.number, due.amount) == (2, 3_000)
    assert (node.balance("bob"), node.internal("settled:bob"), list(kept(node).open)) == (0, -3_000, [2])


def test_what_the_engine_has_is_not_reversed_unless_the_operator_is_certain(node: "Node") -> None:
    pay(node, 1_000)
    reversal = ReverseSettlement(BOB, 1, "k1", "the engine is gone", 4)
    (told,) = [one for one in node.tell(reversal) if isinstance(one, Corrected)]
    assert "paid twice" in told.problem
    effects = node.tell(replace(reversal, is_certain=True))
    (told,) = [one for one in effects if isinstance(one, Corrected)]
    assert (told.amount, told.problem, dues(effects)[0].number) == (1_000, "", 2)


def test_told_twice_is_once_and_backwards_is_refused(node: "Node") -> None:
    pay(node, 1_000)
    step(node, moved=[(1, TAKEN, "")])
    batches = len(node.records)
    assert step(node, moved=[(1, TAKEN, "")]).problem == ""
    assert len(node.records) == batches
    for state_ in (BEGUN, REVERSED, 99):
        assert "can't" in step(node, moved=[(1, state_, "")]).problem
    assert "not open" in step(node, moved=[(2, TAKEN, "")]).problem


def test_settlements_under_way_are_bounded(node: "Node") -> None:
    for number in range(1, OPEN_SETTLEMENTS_MAX + 1):
        assert dues(pay(node, 1_000)), number
        step(node, moved=[(number, TAKEN, "")])
    assert not dues(pay(node, 1_000))
    assert dues(tell_step(node, SettlementStep(BOB, 1, moved=[(1, CONFIRMED, "")])))


def test_the_operator_pays_now_and_once_for_a_key(node: "Node") -> None:
    pay(node, 600)
    effects = node.tell(Settle(BOB, None, "monday", "weekly", 3))
    assert (answer(effects).number, answer(effects).amount) == (1, 600)
    assert dues(effects)[0].amount == 600
    again = node.tell(Settle(BOB, None, "monday", "weekly", 4))
    assert answer(again).amount == 600 and not dues(again)
    assert "used for something else" in answer(node.tell(Settle(BOB, 601, "monday", "weekly", 4))).problem
    assert node.balance("bob") == 0


@pytest.mark.parametrize(
    "amount, problem",
    [(None, "nothing is owed"), (0, "nothing is owed"), (51, "ahead_max allows 50"), (10**30, "ahead_max")],
)
def test_what_the_operator_asks_has_its_bounds(node: "Node", amount: int | None, problem: str) -> None:
    assert problem in answer(node.tell(Settle(BOB, amount, "k", "", 3))).problem
    assert answer(node.tell(Settle(BOB, 50, "k2", "a gift", 4))).problem == ""
    assert node.balance("bob") == 50


def test_without_an_engine_nothing_is_paid(node: "Node") -> None:
    assert "no settlement engine" in answer(node.tell(Settle(AccountId("alice"), 1, "k", "", 3))).problem
    assert "no such account" in answer(node.tell(Settle(AccountId("carol"), 1, "k", "", 3))).problem


def test_a_ledger_of_cents_is_asked_for_whole_cents(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """SE-11."""
    node = make_node(make_terms("alice"), make_terms("bob", settle=replace(TERMS, ledger_scale=7)))
    (due,) = dues(pay(node, 1_099))
    assert (due.amount, node.balance("bob")) == (1_000, -99)
    assert "units of 100" in answer(node.tell(Settle(BOB, 99, "k", "", 3))).problem


def test_a_node_that_drains_begins_nothing(node: "Node") -> None:
    node.prepare("alice", "test.node.bob.x", 1_000)
    frame = node.taken("bob")
    node.tell(Drain())
    assert not dues(node.fulfil("bob", frame.request_id))
    assert [due.amount for due in dues(node.restarted().effects)] == [1_000]


def test_new_terms_settle_what_is_owed_already(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    node = make_node(make_terms("alice"), make_terms("bob"))
    pay(node, 5_000)
    accounts = {**node.tables.accounts, BOB: make_terms("bob", settle=TERMS)}
    tables = replace(node.tables, accounts=accounts)
    assert [due.amount for due in dues(node.tell(TablesChanged(tables)))] == [5_000]


# --- incoming --------------------------------------------------------------------------------------------------------


def test_what_the_peer_paid_is_credited_once_for_its_key(node: "Node") -> None:
    """SE-5, SE-7."""
    for _ in range(2):
        told = step(node, credits=[(300, 9, "wire 1", "bank transfer")])
        assert (told.amount, told.amounts, told.problem) == (300, [300], "")
        node = node.restarted()
    assert (node.balance("bob"), node.internal("settled:bob")) == (-300, 300)


def test_fractions_of_a_unit_count_with_what_comes_next(node: "Node") -> None:
    """SE-11."""
    assert step(node, credits=[(9, 10, "a", "")]).amounts == [0]
    node = node.restarted()
    assert step(node, credits=[(1, 10, "b", "")]).amounts == [1]
    assert (kept(node).leftover, kept(node).leftover_scale) == (0, 0)


def test_keys_are_remembered_for_a_week_after_their_last_use(node: "Node") -> None:
    """SE-7."""
    day = 86_400_000
    step(node, credits=[(5, 9, "a", "")])
    for _ in range(3):
        node.wait(CREDIT_KEY_MS - day)
        node.tell()
        assert step(node, credits=[(5, 9, "a", "")]).amounts == [5]
        step(node, credits=[(1, 9, f"other {node.mono}", "")])
        node = node.restarted()
    assert node.balance("bob") == -5 - 3
    node.wait(CREDIT_KEY_MS)
    step(node, credits=[(1, 9, "another", "")])
    assert set(kept(node).credited) == {b"another"}


@pytest.mark.slow
def test_more_keys_than_can_be_remembered_wait(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    node = make_node(make_terms("bob", settle=SettleTerms(engine="bank")))
    node.checks = False
    for start in range(0, CREDIT_KEYS_MAX, 1_000):
        assert not step(node, credits=[(1, 9, f"{start + number}", "") for number in range(1_000)]).problem
    node.checks = True
    assert "ask again later" in step(node, credits=[(1, 9, "one more", "")]).problem
    assert step(node, credits=[(1, 9, "0", "")]).amounts == [1]
    assert node.balance("bob") == -CREDIT_KEYS_MAX
    node.wait(CREDIT_KEY_MS)
    assert step(node, credits=[(1, 9, "one more", "")]).problem == ""


def test_a_step_is_booked_whole_or_not_at_all(node: "Node") -> None:
    good = (100, 9, "good", "")
    batches = len(node.records)
    for bad in (
        {"credits": [good, (1, 256, "bad", "")]},
        {"credits": [good, (2**256, 9, "bad", "")]},
        {"credits": [good, (1, 9, "k" * 256, "")]},
        {"credits": [good], "moved": [(1, TAKEN, "")]},
        {"credits": [good], "undone": [(0, "")]},
        {"credits": [good], "kept": [(b"", b"v")]},
        {"credits": [good], "kept": [(b"k", bytes(ENGINE_VALUE_BYTES_MAX + 1))]},
        {"credits": [good] * 1_025},
    ):
        assert step(node, **bad).problem
    assert (node.balance("bob"), len(node.records)) == (0, batches)


def test_who_pays_too_much_is_paid_back(node: "Node") -> None:
    """What the peer paid too much we owe, and terms with a threshold settle it as any other."""
    (due,) = dues(tell_step(node, SettlementStep(BOB, 7, credits=[(1_500, 9, "wire", "")])))
    assert (due.amount, node.balance("bob"), node.internal("settled:bob")) == (1_500, 0, 0)


def test_a_credit_that_its_ledger_undid_is_taken_back(node: "Node") -> None:
    step(node, credits=[(100, 9, "block 5", "")])
    step(node, undone=[(100, "block 5 was replaced")])
    assert (node.balance("bob"), node.internal("settled:bob")) == (0, 0)


def test_what_an_engine_keeps_is_there_after_a_restart_and_bounded(node: "Node") -> None:
    step(node, kept=[(b"%d" % number, b"v") for number in range(ENGINE_KEYS_MAX)])
    assert "more than" in step(node, kept=[(b"one more", b"v")]).problem
    assert step(node, kept=[(b"0", b""), (b"1", b"w")]).problem == ""
    engine = kept(node.restarted()).engine
    assert (len(engine), engine[b"1"]) == (ENGINE_KEYS_MAX - 1, b"w")


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_what_was_paid_where_no_engine_looks_is_booked_once(node: "Node") -> None:
    for amount, balance in ((400, -400), (-150, -250)):
        for _ in range(2):
            event = RecordSettlement(BOB, amount, f"k{amount}", "bank transfer of 3 May, reference 17", 3)
            (told,) = [one for one in node.tell(event) if isinstance(one, Corrected)]
            assert (told.amount, told.problem, node.balance("bob")) == (amount, "", balance)
    (told,) = [one for one in node.tell(RecordSettlement(BOB, 0, "k", "", 3)) if isinstance(one, Corrected)]
    assert "zero" in told.problem


# --- accounts that go ------------------------------------------------------------------------------------------------


def test_an_account_with_settlements_under_way_cant_go(node: "Node") -> None:
    node.tell(Settle(BOB, 50, "k", "", 3))
    node.tell(RecordSettlement(BOB, 50, "k2", "paid back", 3))
    alone = Tables("test.node", {}, RouteTable({}), node.tables.rates)
    books = node.kernel.books
    with pytest.raises(ConfigError, match="settlements under way"):
        alone.check_against(books)
    step(node, moved=[(1, CONFIRMED, "")], kept=[(b"channel", b"open")])
    with pytest.raises(ConfigError, match="channels or payments"):
        alone.check_against(books)
    step(node, kept=[(b"channel", b"")])


def test_what_an_engine_keeps_goes_with_its_account_if_it_says_so(node: "Node") -> None:
    """In one batch, entry by entry. Numbers, keys and leftovers stay, as the books do: the account may come back."""
    step(node, credits=[(15, 10, "wire", "")], kept=[(b"channel", b"ended"), (b"cursor", b"7")])
    node.tell(RecordSettlement(BOB, -1, "k2", "paid back", 3))
    alone = Tables("test.node", {}, RouteTable({}), node.tables.rates)
    node.kernel.check_tables(alone, [BOB])
    batches = len(node.records)
    node.tell(TablesChanged(alone, forgotten=[BOB, AccountId("nobody")]))
    assert len(node.records) == batches + 1
    entries = [one for one in decode_record(node.records[-1]) if isinstance(one, EngineKept)]
    assert [(one.key, one.value) for one in entries] == [(b"channel", b""), (b"cursor", b"")]
    told = node.kernel.books.peers[BOB].settling
    assert told is not None and not told.engine
    assert (told.leftover, told.leftover_scale, list(told.credited)) == (5, 10, [b"wire"])
    assert step(node, kept=[(b"late", b"v")]).problem == "there is no such account"
    node.tables = alone
    again = node.restarted()
    found = again.kernel.books.peers[BOB].settling
    assert found is not None and not found.engine
    assert (found.leftover, found.leftover_scale) == (5, 10)


def test_an_account_whose_engine_keeps_something_can_change_it_if_that_is_forgotten(
    node: "Node", make_terms: "MakeTerms"
) -> None:
    bob = make_terms("bob", settle=replace(TERMS, engine="till"))
    other = replace(node.tables, accounts={**node.tables.accounts, BOB: bob})
    step(node, kept=[(b"channel", b"ended")])
    with pytest.raises(ConfigError, match="the engine bank"):
        node.kernel.check_tables(other)
    node.tell(TablesChanged(other, forgotten=[BOB]))
    assert not kept(node).engine
    assert node.kernel.switch.lanes[BOB].terms.settle.engine == "till"


def test_settlements_under_way_are_not_forgotten(node: "Node") -> None:
    node.tell(Settle(BOB, 50, "k", "", 3))
    node.tell(RecordSettlement(BOB, 50, "k2", "paid back", 3))
    alone = Tables("test.node", {}, RouteTable({}), node.tables.rates)
    with pytest.raises(ConfigError, match="settlements under way"):
        node.kernel.check_tables(alone, [BOB])


def test_every_open_state_has_a_name() -> None:
    assert set(settling.OPEN_STATES) <= set(settling.STATES)


# --- beside the books ------------------------------------------------------------------------------------------------


def test_an_engine_with_something_on_a_ledger_is_not_replaced(node: "Node", make_terms: "MakeTerms") -> None:
    """Another would not find its channels; nor would none."""

    def with_terms(other: SettleTerms) -> Tables:
        return replace(node.tables, accounts={**node.tables.accounts, BOB: make_terms("bob", settle=other)})

    for other in (replace(TERMS, engine="till"), SettleTerms()):
        tables = with_terms(other)
        tables.check_against(node.kernel.books)
        step(node, kept=[(b"channel", b"state")])
        with pytest.raises(ConfigError, match="the engine bank has channels or payments") as told:
            tables.check_against(node.kernel.books)
        assert told.value.key == "accounts.bob.settlement.engine"
        step(node, kept=[(b"channel", b"")])
    pay(node, 1_000)
    with pytest.raises(ConfigError, match="the engine bank"):
        with_terms(SettleTerms()).check_against(node.kernel.books)


def test_what_happens_is_counted_for_metrics(node: "Node") -> None:
    (due,) = dues(pay(node, 1_000))
    step(node, moved=[(due.number, TAKEN, "")])
    node.wait(2_000 - 2 * STEP_WAIT_MS)
    step(node, moved=[(due.number, CONFIRMED, "")], credits=[(5, 9, "k", "")], undone=[(5, "reorganised")])
    tally = node.kernel.switch.settlement_tally
    happened = {what: count for (account, what), count in tally.counts.items() if account == BOB}
    assert happened == {"begun": 1, "taken": 1, "confirmed": 1, "credited": 1, "undone": 1}
    assert (tally.latency_sum_ms, tally.latency[2], sum(tally.latency)) == (2_000, 1, 1)


def test_settlements_that_come_with_every_packet_fill_no_log(node: "Node") -> None:
    def begun(effects: list[Effect]) -> list[dict[str, str | int]]:
        return [one.fields for one in effects if isinstance(one, Log) and one.event == "settlement_begun"]

    first = len(node.effects)
    for number in range(1, 101):
        pay(node, 1_000)
        node.tell(SettlementStep(BOB, 7, moved=[(number, CONFIRMED, "")]))
    lines = begun(node.effects[first:])
    assert len(lines) <= TOLD_BURST
    node.wait(10_000)
    first = len(node.effects)
    pay(node, 1_000)
    [line] = begun(node.effects[first:])
    assert (line["number"], int(line["left_out_before"]) >= 2 * 100 - TOLD_BURST) == (101, True)


# --- with packets ----------------------------------------------------------------------------------------------------


def appends(effects: list[Effect]) -> list[Append]:
    return [effect for effect in effects if isinstance(effect, Append)]


def answered(effects: list[Effect]) -> bool:
    return any(isinstance(effect, SettlementAnswered) for effect in effects)


def test_where_packets_flow_a_step_becomes_durable_with_the_next_ones(node: "Node") -> None:
    (due,) = dues(pay(node, 1_000))
    told = node.tell(SettlementStep(BOB, 1, moved=[(due.number, TAKEN, "")]))
    told += node.tell(SettlementStep(BOB, 2, kept=[(b"channel", b"state")]))
    assert not appends(told) and not answered(told)
    assert kept(node).open[due.number].state == TAKEN, "it stands in the books at once"
    first = len(node.effects)
    node.prepare("alice", "test.node.bob.x", 5)
    effects = node.effects[first:]
    (append,) = appends(effects)
    kinds = {type(entry) for entry in decode_record(append.record)}
    assert {EngineKept, SettlementMoved, ReserveIncoming} <= kinds
    assert answered(effects) and len(node.take("bob")) == 1
    assert kept(node.restarted()).open[due.number].state == TAKEN


def test_a_step_waits_no_longer_for_packets_than_its_time(node: "Node") -> None:
    """On the bound, and one before it."""
    pay(node, 1)
    assert not appends(node.tell(SettlementStep(BOB, 1, kept=[(b"channel", b"state")])))
    assert node.kernel.wakes_at() == node.mono + STEP_WAIT_MS
    assert not appends(node.wait(STEP_WAIT_MS - 1))
    effects = node.wait(1)
    assert len(appends(effects)) == 1 and answered(effects)
    assert appends(node.tell(SettlementStep(BOB, 1, kept=[(b"channel", b"more")]))), "nothing flows any more"


def test_a_step_waits_longer_where_packets_come_further_apart(node: "Node") -> None:
    """Twice as long as from one batch of them to the next, up to a bound; beyond it nothing flows."""
    pay(node, 1)
    for apart, waits in ((8, 16), (12, STEP_WAIT_MS_MAX), (STEP_WAIT_MS_MAX, STEP_WAIT_MS)):
        node.wait(apart)
        node.prepare("alice", "test.node.bob.x", 5)
        assert not appends(node.tell(SettlementStep(BOB, 1, kept=[(b"channel", b"state")])))
        assert node.kernel.wakes_at() == node.mono + waits
        node.prepare("alice", "test.node.bob.x", 5)


def test_what_an_engine_says_is_decided_at_once_and_held_as_in_a_turn(node: "Node") -> None:
    pay(node, 1)
    event = SettlementStep(BOB, 0, kept=[(b"channel", b"state")])
    assert not node.kernel.settle(event, node.now())
    assert event.told is not None and not event.told.problem
    assert kept(node).engine == {b"channel": b"state"}
    assert node.kernel.is_held()
    effects = node.wait(STEP_WAIT_MS)
    assert len(appends(effects)) == 1
    node.kernel.settle(SettlementStep(BOB, 0, kept=[(b"channel", b"more")]), node.now())
    assert not node.kernel.is_held(), "no packets are to come, so it is to be appended"


def test_a_step_waits_for_no_packets_while_the_node_drains(node: "Node") -> None:
    pay(node, 1)
    node.tell(Drain())
    assert answered(node.tell(SettlementStep(BOB, 1, kept=[(b"channel", b"state")])))


def test_a_step_waits_for_no_packets_if_the_books_are_asked_for(node: "Node") -> None:
    """A digest is of a boundary between two batches."""
    pay(node, 1)
    node.tell(SettlementStep(BOB, 1, kept=[(b"channel", b"state")]))
    effects = node.tell(DigestAsked(3))
    assert answered(effects)
    (told,) = [effect for effect in effects if isinstance(effect, Digested)]
    assert told.digest == node.shadow.digest()


def test_what_was_decided_is_told_before_it_is_durable(node: "Node") -> None:
    """Who asks so has no other answer."""
    node.durable = False
    event = SettlementStep(BOB, 0, credits=[(7, 9, "", "wire")])
    effects = node.tell(event)
    assert event.told is not None and (event.told.problem, event.told.amounts) == ("", [7])
    refused = SettlementStep(BOB, 0, moved=[(1, TAKEN, "")])
    effects += node.tell(refused) + node.commit()
    assert refused.told is not None and "not open" in refused.told.problem
    assert not answered(effects)
