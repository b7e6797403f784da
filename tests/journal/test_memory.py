"""The faults of the journal in memory: what a crash leaves of each."""

import pytest

from isthmus.connector.events import Summary
from isthmus.journal.memory import Fault, MemoryJournal

Reports = list[tuple[str, int]]


def started(journal: MemoryJournal) -> Reports:
    reports: Reports = []
    journal.start(
        lambda sequence: reports.append(("durable", sequence)),
        lambda sequence, problem: reports.append(("failed", sequence)),
    )
    return reports


def submit(journal: MemoryJournal, first: int, last: int) -> None:
    for sequence in range(first, last + 1):
        journal.submit(sequence, b"record %d" % sequence, Summary(0))


def after_a_crash(journal: MemoryJournal) -> list[int]:
    return [batch.sequence for batch in MemoryJournal(journal.crash()).read_from(1)]


def test_nothing_is_durable_before_the_owner_says_so() -> None:
    journal = MemoryJournal()
    reports = started(journal)
    submit(journal, 1, 3)
    assert (reports, journal.last_sequence) == ([], 0)
    assert journal.sync(2) == 2
    assert (reports, journal.last_sequence) == ([("durable", 2)], 2)
    assert after_a_crash(journal) == [1, 2]


@pytest.mark.parametrize(
    "fault, reported, left",
    [
        (Fault.FAIL, [("durable", 2), ("failed", 3)], [1, 2]),
        (Fault.UNKNOWN, [("durable", 2), ("failed", 3)], [1, 2, 3, 4, 5, 6]),
        (Fault.TORN, [("durable", 2), ("failed", 3)], [1, 2, 3, 4]),
        (Fault.LOSE, [("durable", 2), ("durable", 6)], [1, 2]),
        (Fault.SLOW, [("durable", 2)], [1, 2]),
    ],
)
def test_what_each_fault_reports_and_what_a_crash_leaves(fault: Fault, reported: Reports, left: list[int]) -> None:
    journal = MemoryJournal()
    reports = started(journal)
    submit(journal, 1, 2)
    journal.sync()
    journal.fault = fault
    submit(journal, 3, 6)
    journal.sync()
    assert reports == reported
    assert after_a_crash(journal) == left


def test_a_slow_disk_catches_up() -> None:
    journal = MemoryJournal()
    reports = started(journal)
    journal.fault = Fault.SLOW
    submit(journal, 1, 4)
    assert journal.sync() == 0
    journal.fault = None
    assert journal.sync() == 4
    assert reports == [("durable", 4)]


def test_a_checkpoint_goes_with_the_batch_that_a_lying_disk_lost() -> None:
    journal = MemoryJournal()
    started(journal)
    submit(journal, 1, 1)
    journal.save_checkpoint(1, b"one")
    journal.fault = Fault.LOSE
    submit(journal, 2, 2)
    journal.save_checkpoint(2, b"two")
    again = MemoryJournal(journal.crash())
    checkpoint = again.load_checkpoint()
    assert checkpoint is not None
    assert checkpoint.sequence == 1
    started(again)
    submit(again, 2, 3)
    assert again.sync() == 2
