"""Statements: exact sums of any size, one transaction with the batches, and a bound on the rows."""

import random
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from isthmus.connector.events import AccountId, AccountMovement, Summary
from isthmus.journal.projection import DAY_MS, HOUR_MS, HOURS_KEPT_MS, MINUTE_MS, MINUTES_KEPT_MS
from isthmus.journal.reader import JournalReader, Period

if TYPE_CHECKING:
    from tests.journal.conftest import SqliteBench

START = 1_700_000_000_000 // DAY_MS * DAY_MS
ALICE, BOB = AccountId("alice"), AccountId("bob")


def summary(wall_ms: int, account: AccountId, amount: int, balance: int) -> Summary:
    return Summary(wall_ms, [AccountMovement(account, amount, amount // 2, 2, 1, 1, balance)])


def periods(bench: "SqliteBench", **asked: object) -> list[Period]:
    bench.settle()
    with JournalReader(bench.path) as reader:
        return reader.periods(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [0, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**80])
def test_amounts_are_exact_at_every_edge(sqlite_bench: "SqliteBench", amount: int) -> None:
    """P-1."""
    sqlite_bench.start()
    for _ in range(3):
        sqlite_bench.submit_summary(summary(START, ALICE, amount, -amount))
    sqlite_bench.submit_summary(Summary(START, singles=[("loss", ALICE, -amount, "late")], internal=[("c", amount)]))
    of_alice, clearing = periods(sqlite_bench)
    assert of_alice.totals.incoming == 3 * amount
    assert of_alice.totals.outgoing == 3 * (amount // 2)
    assert of_alice.totals.balance == -amount
    assert (clearing.account, clearing.internal, clearing.totals.balance) == ("c", True, amount)
    with JournalReader(sqlite_bench.path) as reader:
        assert [(one.kind, one.amount, one.text) for one in reader.singles()] == [("loss", -amount, "late")]


def test_the_newest_singles_of_some_kinds(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    for number in range(4):
        singles = [("settlement", ALICE, number, "one"), ("loss", ALICE, -number, "x"), ("settlement", BOB, number, "")]
        sqlite_bench.submit_summary(Summary(START + number, singles=singles))
    sqlite_bench.settle()
    with JournalReader(sqlite_bench.path) as reader:
        found = reader.last_singles(["settlement", "settlement failed"], 3)
        assert [(one.account, one.amount) for one in found] == [(BOB, 3), (ALICE, 3), (BOB, 2)]
        assert [one.amount for one in reader.last_singles(["loss"], 9, account=ALICE)] == [-3, -2, -1, 0]
        assert reader.last_singles(["loss"], 9, account=BOB) == []


def test_a_minute_adds_up_over_transactions_and_restarts(sqlite_bench: "SqliteBench") -> None:
    for balance in (5, 9):
        sqlite_bench.start()
        sqlite_bench.submit_summary(summary(START + balance, ALICE, 10, balance))
        sqlite_bench.settle()
        sqlite_bench.submit_summary(summary(START + 2 * balance, ALICE, 10, balance + 1))
        sqlite_bench.settle()
        sqlite_bench.reopen()
    (one,) = periods(sqlite_bench)
    assert (one.span_ms, one.starts_at, one.account, one.internal) == (MINUTE_MS, START, "alice", False)
    assert (one.totals.incoming, one.totals.incoming_packets, one.totals.rejected_packets) == (40, 8, 4)
    assert (one.totals.balance, one.totals.sequence) == (10, 4)


def test_periods_can_be_asked_for_by_account_and_time(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    for minute in range(5):
        for account in (ALICE, BOB):
            sqlite_bench.submit_summary(summary(START + minute * MINUTE_MS, account, 1, 0))
    assert len(periods(sqlite_bench)) == 10
    assert {one.account for one in periods(sqlite_bench, account="bob")} == {"bob"}
    asked = periods(sqlite_bench, account="bob", since_ms=START + 3 * MINUTE_MS + 30_000)
    assert [one.starts_at - START for one in asked] == [3 * MINUTE_MS, 4 * MINUTE_MS]


def test_an_account_and_a_ledger_account_may_share_a_name(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit_summary(Summary(START, [AccountMovement(ALICE, 1, 0, 1, 0, 0, 1)], internal=[("alice", 77)]))
    assert sorted((one.internal, one.totals.balance) for one in periods(sqlite_bench)) == [(False, 1), (True, 77)]


def test_old_minutes_become_hours_and_days_and_nothing_is_lost(sqlite_bench: "SqliteBench") -> None:
    seeded = random.Random(3)
    sqlite_bench.start()
    expected: Counter[str] = Counter()
    balances: dict[str, int] = defaultdict(int)
    at = START
    for _ in range(400):
        at += seeded.randrange(6 * HOUR_MS)
        account = seeded.choice((ALICE, BOB))
        amount = seeded.randrange(2**64)
        balances[account] += amount
        expected[account] += amount
        sqlite_bench.submit_summary(summary(at, account, amount, balances[account]))
        sqlite_bench.settle()
    sqlite_bench.journal.close()
    with JournalReader(sqlite_bench.path) as reader:
        found = reader.periods()
    seen: Counter[str] = Counter()
    last = {}
    for one in found:
        seen[one.account] += one.totals.incoming
        last[one.account] = one.totals.balance
        assert one.starts_at % one.span_ms == 0
    assert seen == expected
    assert last == balances
    assert {one.span_ms for one in found} == {MINUTE_MS, HOUR_MS, DAY_MS}
    oldest = {span: min(one.starts_at for one in found if one.span_ms == span) for span in (MINUTE_MS, HOUR_MS)}
    assert oldest[MINUTE_MS] >= at - MINUTES_KEPT_MS - HOUR_MS - HOUR_MS
    assert oldest[HOUR_MS] >= at - HOURS_KEPT_MS - DAY_MS - HOUR_MS


def test_a_clock_that_is_set_back_loses_nothing(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    times = [START, START + 3 * DAY_MS, START, START + 1, START + 3 * DAY_MS, START + 4 * DAY_MS, START]
    for balance, at in enumerate(times):
        sqlite_bench.submit_summary(summary(at, ALICE, 1, balance))
        sqlite_bench.settle()
    found = periods(sqlite_bench)
    assert sum(one.totals.incoming for one in found) == len(times)
    assert max(found, key=lambda one: one.totals.sequence).totals.balance == len(times) - 1


def test_a_batch_that_fails_leaves_no_trace_in_the_projection(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(1)
    sqlite_bench.settle()
    sqlite_bench.break_disk()
    sqlite_bench.submit(1, size_bytes=200_000)
    sqlite_bench.settle()
    sqlite_bench.reopen()
    with JournalReader(sqlite_bench.path) as reader:
        assert reader.periods()[0].totals.sequence == 1


def test_damaged_numbers_are_an_error_in_words(sqlite_bench: "SqliteBench") -> None:
    from isthmus.errors import JournalError

    sqlite_bench.start()
    sqlite_bench.submit(1)
    sqlite_bench.journal.close()
    with closing(sqlite3.connect(sqlite_bench.path)) as other, other:
        other.execute("UPDATE periods SET incoming = 'x1'")
    with JournalReader(sqlite_bench.path) as reader, pytest.raises(JournalError, match="a row of `periods` is damaged"):
        reader.periods()
