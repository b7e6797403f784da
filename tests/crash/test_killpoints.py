"""A process dies at the point that it is armed for, and its journal is what a crash there leaves."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from isthmus.journal.reader import JournalReader
from isthmus.journal.schema import SCHEMA_VERSION
from isthmus.journal.sqlite import SqliteJournal
from tests.crash import killpoints
from tests.crash.campaign import MANNERS, RANDOM
from tests.crash.journals import make_older

ROOT = Path(__file__).resolve().parents[2]
BATCHES = 3
# A node's journal without the node: three batches, one after the other; a checkpoint after each; what can go is pruned.
PROGRAM = f"""
import os, sys, threading
from isthmus.connector.events import Summary
from isthmus.journal.sqlite import SqliteJournal
from isthmus.journal.reader import JournalReader
from tests.crash import killpoints

killpoints.arm(dict(os.environ))
journal = SqliteJournal(sys.argv[1])
durable = threading.Semaphore(0)
journal.start(lambda sequence: durable.release(), lambda sequence, problem: os._exit(3))
first = journal.last_sequence + 1
for sequence in range(first, first + {BATCHES}):
    journal.submit(sequence, os.urandom(40_000), Summary(wall_ms=1_000 * sequence))
    durable.acquire()
    journal.save_checkpoint(sequence, b"state")
    with JournalReader(sys.argv[1]) as reader:
        newest = reader.checkpoints()[-1]
    journal.mark_verified(newest.sequence, newest.checksum)
    journal.prune()
journal.close()
"""


def run(journal: Path, point: str | None, passage: int = 1, open_packets: int = 0) -> int:
    """The exit status of a process that is armed for this point."""
    environment = dict(os.environ)
    if point is not None:
        environment |= {killpoints.POINT: point, killpoints.PASSAGE: str(passage)}
        environment |= {killpoints.OPEN_PACKETS: str(open_packets)}
    command = [sys.executable, "-c", PROGRAM, str(journal)]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False, timeout=120).returncode


def state_of(journal: Path) -> tuple[int, int, list[int], int]:
    """First batch, last batch, checkpoints, how many of them are verified."""
    with JournalReader(str(journal)) as reader:
        kept = reader.checkpoints()
        for _ in reader.read_from(reader.first_sequence):
            pass  # the chain of digests holds
        sequences = [one.sequence for one in kept]
        return reader.first_sequence, reader.last_sequence, sequences, sum(one.verified for one in kept)


def test_the_program_comes_to_its_end_where_nothing_is_armed(tmp_path: Path) -> None:
    assert run(tmp_path / "journal.db", None) == 0
    assert state_of(tmp_path / "journal.db") == (3, 3, [2, 3], 2)


@pytest.mark.parametrize(
    "point, passage, expected",
    [
        ("append.before", 2, (1, 1, [1], 1)),
        ("append.written", 2, (1, 1, [1], 1)),
        ("append.durable", 2, (1, 2, [1], 1)),
        ("checkpoint.written", 2, (1, 2, [1], 1)),
        ("checkpoint.saved", 2, (1, 2, [1, 2], 1)),
        ("checkpoint.verified", 2, (1, 2, [1, 2], 2)),
        ("checkpoint.pruning", 1, (1, 2, [1, 2], 2)),
    ],
)
def test_a_process_dies_where_it_was_told_to(
    tmp_path: Path, point: str, passage: int, expected: tuple[int, int, list[int], int]
) -> None:
    journal = tmp_path / "journal.db"
    assert run(journal, point, passage) == -signal.SIGKILL
    assert state_of(journal) == expected
    with closing(SqliteJournal(journal)) as opened:  # as the next process does
        assert opened.last_sequence == expected[1]


def test_passages_of_a_process_with_too_few_undecided_packets_dont_count(tmp_path: Path) -> None:
    assert run(tmp_path / "journal.db", "append.before", open_packets=1) == 0


def test_a_process_dies_while_the_log_is_copied(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    assert run(journal, "log.copied") == -signal.SIGKILL
    assert state_of(journal)[1] >= 1


def test_a_process_dies_inside_a_migration_and_the_file_is_as_old_as_before(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    assert run(journal, None) == 0
    make_older(journal)
    assert run(journal, "migration") == -signal.SIGKILL
    with pytest.raises(Exception, match="older schema"), JournalReader(str(journal)):
        pass
    with closing(SqliteJournal(journal)):
        pass
    with JournalReader(str(journal)) as reader:
        assert (reader.schema, reader.last_sequence) == (SCHEMA_VERSION, BATCHES)


def test_the_campaign_uses_every_point() -> None:
    assert set(MANNERS) - {RANDOM} == set(killpoints.POINTS)
