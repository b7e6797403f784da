"""What every journal promises: one suite, run on the file and on memory, so that the fake can be trusted."""

from typing import TYPE_CHECKING

import pytest

from isthmus.connector.events import Summary
from isthmus.errors import JournalError

if TYPE_CHECKING:
    from tests.journal.conftest import Bench


def sequences(bench: "Bench", first: int = 1) -> list[int]:
    return [batch.sequence for batch in bench.journal.read_from(first)]


def test_an_empty_journal_has_no_batch_and_no_checkpoint(bench: "Bench") -> None:
    assert bench.journal.last_sequence == 0
    assert sequences(bench) == []
    assert bench.journal.load_checkpoint() is None


def test_batches_come_back_as_they_were_appended(bench: "Bench") -> None:
    bench.start()
    bench.submit(5, size_bytes=5_000)
    bench.settle()
    assert bench.reports[-1] == ("durable", 5)
    assert bench.journal.last_sequence == 5
    stored = list(bench.journal.read_from(1))
    assert [batch.sequence for batch in stored] == [1, 2, 3, 4, 5]
    assert all(batch.record == b"%d:" % batch.sequence + bytes(5_000) for batch in stored)


def test_reading_starts_where_it_is_told(bench: "Bench") -> None:
    bench.start()
    bench.submit(4)
    bench.settle()
    assert sequences(bench, 3) == [3, 4]
    assert sequences(bench, 4) == [4]
    assert sequences(bench, 5) == []
    assert sequences(bench, 0) == [1, 2, 3, 4]


def test_durable_is_reported_in_order_and_covers_all_before_it(bench: "Bench") -> None:
    bench.start()
    for _ in range(20):
        bench.submit(3)
    bench.settle()
    reported = [sequence for kind, sequence in bench.reports]
    assert {kind for kind, _ in bench.reports} == {"durable"}
    assert reported == sorted(set(reported))
    assert reported[-1] == 60


def test_a_reopened_journal_goes_on_where_it_ended(bench: "Bench") -> None:
    bench.start()
    bench.submit(3)
    bench.settle()
    journal_id = bench.journal.journal_id
    bench.reopen()
    assert bench.journal.journal_id == journal_id
    assert bench.journal.last_sequence == 3
    bench.start()
    bench.submit(2)
    bench.settle()
    assert sequences(bench) == [1, 2, 3, 4, 5]


def test_close_waits_for_what_was_submitted(bench: "Bench") -> None:
    bench.start()
    bench.submit(7)
    bench.reopen()
    assert sequences(bench) == [1, 2, 3, 4, 5, 6, 7]


def test_what_was_reported_durable_survives_a_crash(bench: "Bench") -> None:
    bench.start()
    bench.submit(6)
    bench.settle()
    bench.crash_and_reopen()
    assert sequences(bench) == [1, 2, 3, 4, 5, 6]


def test_a_second_writer_is_refused_in_words(bench: "Bench") -> None:
    with pytest.raises(JournalError, match="in use by another process.*stop that one first"):
        bench.second_writer()


def test_a_sequence_out_of_turn_is_our_own_defect(bench: "Bench") -> None:
    bench.start()
    bench.submit(1)
    with pytest.raises(AssertionError):
        bench.journal.submit(3, b"", Summary(0))


def test_after_a_failure_nothing_further_is_accepted(bench: "Bench") -> None:
    bench.start()
    bench.submit(2)
    bench.settle()
    bench.break_disk()
    bench.submit(1, size_bytes=100_000)
    bench.settle()
    assert bench.reports[-1] == ("failed", 3)
    bench.submit(1)
    bench.settle()
    assert all(kind == "failed" for kind, sequence in bench.reports if sequence > 2)
    with pytest.raises(JournalError, match="nothing from batch 3 on is known to be recorded"):
        bench.journal.save_checkpoint(2, b"state")
    bench.reopen()
    assert sequences(bench) == [1, 2]


def test_a_changed_bit_is_found_and_its_batch_named(bench: "Bench") -> None:
    bench.start()
    bench.submit(5)
    bench.settle()
    bench.flip_bit(3)
    read = []
    with pytest.raises(JournalError, match="batch 3 is damaged"):
        for batch in bench.journal.read_from(1):
            read.append(batch.sequence)
    assert read == [1, 2]


def test_the_newest_checkpoint_is_loaded(bench: "Bench") -> None:
    bench.start()
    bench.submit(4)
    for sequence in (2, 3, 4):
        bench.journal.save_checkpoint(sequence, b"state %d" % sequence)
    checkpoint = bench.journal.load_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.sequence, checkpoint.state) == (4, b"state 4")
    bench.reopen()
    assert bench.journal.load_checkpoint() == checkpoint


def test_a_checkpoint_needs_its_batch(bench: "Bench") -> None:
    bench.start()
    bench.submit(1)
    with pytest.raises(JournalError, match="no checkpoint without its batch"):
        bench.journal.save_checkpoint(2, b"state")
    bench.submit(1)
    bench.journal.save_checkpoint(2, b"state")


def test_a_checkpoint_can_be_saved_before_the_journal_is_started(bench: "Bench") -> None:
    bench.start()
    bench.submit(2)
    bench.reopen()
    bench.journal.save_checkpoint(2, b"state")
    checkpoint = bench.journal.load_checkpoint()
    assert checkpoint is not None
    assert checkpoint.sequence == 2


def test_closing_twice_is_harmless(bench: "Bench") -> None:
    bench.journal.close()
    bench.journal.close()
