"""The file: kills, full and read-only disks, damage, stale writers, modes, what a reader beside it sees."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isthmus.connector.events import Summary
from isthmus.errors import JournalError
from isthmus.journal.reader import JournalReader
from isthmus.journal.sqlite import SqliteJournal

if TYPE_CHECKING:
    from tests.journal.conftest import SqliteBench

KILLED = """
import os, sys
from isthmus.connector.events import AccountId, AccountMovement, Summary
from isthmus.journal.sqlite import SqliteJournal

journal = SqliteJournal(sys.argv[1])
def durable(sequence):
    os.write(1, b"%d\\n" % sequence)
journal.start(durable, lambda sequence, problem: os._exit(3))
sequence = 0
while sys.stdin.buffer.read(1):
    for _ in range(50):
        sequence += 1
        summary = Summary(1_700_000_000_000, [AccountMovement(AccountId("a"), 1, 0, 1, 0, 0, sequence)])
        journal.submit(sequence, b"%d" % sequence * 20, summary)
"""


def test_after_kill_9_every_batch_that_was_reported_durable_is_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    reported = 0
    for stop_at in (1, 60, 170):
        path.unlink(missing_ok=True)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x" * 1_000)
            process.stdin.flush()
            for line in process.stdout:
                reported = int(line)
                if reported >= stop_at:
                    process.kill()
                    break
            rest = process.stdout.read().split(b"\n")[:-1]
            reported = max([reported, *(int(line) for line in rest)])
        with closing(SqliteJournal(path)) as journal:
            stored = list(journal.read_from(1))
            assert [batch.sequence for batch in stored] == list(range(1, len(stored) + 1))
            assert len(stored) >= reported >= stop_at
            assert all(batch.record == b"%d" % batch.sequence * 20 for batch in stored)
            with JournalReader(path) as reader:
                # The projection tells of the same batches, no more and no fewer.
                assert reader.periods()[0].totals.incoming == len(stored)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, if we may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("only root can mount a small disk; the bound of the file is tested beside this")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_fails_the_batch_and_keeps_those_before(
    small_disk: Path, bench_at: "Callable[..., SqliteBench]"
) -> None:
    bench = bench_at(small_disk / "journal.db")
    bench.start()
    bench.submit(1)
    bench.settle()
    while bench.reports[-1][0] == "durable":
        bench.submit(1, size_bytes=40_000)
        bench.settle()
    kept = bench.reports[-1][1] - 1
    assert "the disk is full" in bench.problems[0]
    assert f"nothing from batch {kept + 1} on is known to be recorded" in bench.problems[0]
    bench.journal.close()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    bench.reopen()
    assert [batch.sequence for batch in bench.journal.read_from(1)] == list(range(1, kept + 1))
    bench.start()
    bench.submit(1)
    bench.settle()
    assert bench.reports[-1] == ("durable", kept + 1)
    bench.journal.close()


def test_the_bound_of_the_file_is_a_full_disk(tmp_path: Path, bench_at: "Callable[..., SqliteBench]") -> None:
    bench = bench_at(tmp_path / "journal.db", file_bytes_max=200_000)
    bench.start()
    bench.submit(1)
    bench.settle()
    bench.submit(1, size_bytes=200_000)
    bench.settle()
    assert bench.reports[-1] == ("failed", 2)
    assert "the file reached its bound; make room" in bench.problems[0]


def test_a_read_only_disk_is_refused_in_words_and_can_be_read(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    SqliteJournal(path).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(JournalError, match="can't be opened for writing: Read-only file system"):
        SqliteJournal(path)
    with JournalReader(path) as reader:
        assert reader.last_sequence == 0


def test_a_disk_that_turns_read_only_fails_the_batch(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(1)
    sqlite_bench.settle()
    # What SQLite reports then; a mounted disk can't be made read-only while a file on it is open for writing.
    sqlite_bench.journal._connection.execute("PRAGMA query_only = 1")
    sqlite_bench.submit(1)
    sqlite_bench.settle()
    assert sqlite_bench.reports[-1] == ("failed", 2)
    assert "read-only" in sqlite_bench.problems[0]


def test_a_stale_writer_is_refused_inside_the_transaction(sqlite_bench: "SqliteBench") -> None:
    """As where the lock doesn't hold: another process appended what this one doesn't know of."""
    sqlite_bench.start()
    sqlite_bench.submit(1)
    sqlite_bench.settle()
    with closing(sqlite3.connect(sqlite_bench.path)) as other, other:
        other.execute("INSERT INTO batches SELECT 2, envelope, digest FROM batches")
    sqlite_bench.submit(1)
    sqlite_bench.settle()
    assert sqlite_bench.reports[-1] == ("failed", 2)
    assert "another process wrote to this journal" in sqlite_bench.problems[0]


def test_a_writer_whose_journal_was_set_back_is_refused(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(3)
    sqlite_bench.settle()
    with closing(sqlite3.connect(sqlite_bench.path)) as other, other:
        other.execute("DELETE FROM batches WHERE sequence = 3")
    sqlite_bench.submit(1)
    sqlite_bench.settle()
    assert sqlite_bench.reports[-1] == ("failed", 4)


def test_a_second_process_is_refused_and_told_who_holds_the_journal(sqlite_bench: "SqliteBench") -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from isthmus.journal.sqlite import SqliteJournal\nSqliteJournal(sys.argv[1])",
            str(sqlite_bench.path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"in use by another process (pid {os.getpid()})" in done.stderr


def test_the_lock_ends_with_its_journal(sqlite_bench: "SqliteBench") -> None:
    with pytest.raises(JournalError):
        SqliteJournal(sqlite_bench.path)
    sqlite_bench.journal.close()
    SqliteJournal(sqlite_bench.path).close()


def test_the_files_are_their_owners_only(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(1)
    sqlite_bench.settle()
    for file in sqlite_bench.path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


def test_a_stopped_journal_is_one_file_and_its_lock(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(3)
    sqlite_bench.journal.close()
    assert sorted(file.name for file in sqlite_bench.path.parent.iterdir()) == ["journal.db", "journal.db.lock"]


def test_a_reader_beside_the_writer_sees_one_moment(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(2)
    sqlite_bench.settle()
    with JournalReader(sqlite_bench.path) as reader:
        reader.snapshot()
        sqlite_bench.submit(3)
        sqlite_bench.settle()
        assert reader.last_sequence == 2
        assert [batch.sequence for batch in reader.read_from(1)] == [1, 2]
        assert reader.periods()[0].totals.incoming_packets == 2
    with JournalReader(sqlite_bench.path) as reader:
        assert reader.last_sequence == 5


def test_a_reader_of_a_killed_nodes_files_sees_what_was_durable(sqlite_bench: "SqliteBench", tmp_path: Path) -> None:
    sqlite_bench.start()
    sqlite_bench.submit(2)
    sqlite_bench.settle()
    for suffix in ("", "-wal"):
        subprocess.run(["cp", f"{sqlite_bench.path}{suffix}", f"{tmp_path}/copy.db{suffix}"], check=True)
    with JournalReader(tmp_path / "copy.db") as reader:
        assert reader.last_sequence == 2


@pytest.mark.parametrize("bit", [0, 100, 200, 270, 310])
def test_every_part_of_a_batch_is_covered(
    sqlite_bench: "SqliteBench", flip: Callable[[Path, int, int], None], bit: int
) -> None:
    sqlite_bench.start()
    sqlite_bench.submit(3)
    sqlite_bench.journal.close()
    flip(sqlite_bench.path, 2, bit)
    with JournalReader(sqlite_bench.path) as reader, pytest.raises(JournalError, match="batch 2 is damaged"):
        list(reader.read_from(1))


def test_a_damaged_last_batch_stops_the_node_at_its_start(
    sqlite_bench: "SqliteBench", flip: Callable[[Path, int, int], None]
) -> None:
    sqlite_bench.start()
    sqlite_bench.submit(3)
    sqlite_bench.journal.close()
    flip(sqlite_bench.path, 3, 300)
    with pytest.raises(JournalError, match="batch 3 is damaged"):
        SqliteJournal(sqlite_bench.path)
    # The refusal lets go of the lock, and another start says the same.
    with pytest.raises(JournalError, match="batch 3 is damaged"):
        SqliteJournal(sqlite_bench.path)


@pytest.mark.parametrize(
    "change, says",
    [
        ("DELETE FROM batches WHERE sequence = 2", "batch 2 is missing"),
        ("UPDATE batches SET digest = zeroblob(32) WHERE sequence = 2", "batch 2 doesn't continue the chain"),
        ("UPDATE batches SET envelope = 5 WHERE sequence = 2", "batch 2 is damaged"),
        (
            "UPDATE batches SET envelope = (SELECT envelope FROM batches WHERE sequence = 3) WHERE sequence = 2",
            "batch 2 belongs to another journal or place",
        ),
        ("UPDATE meta SET value = zeroblob(16) WHERE name = 'journal_id'", "belongs to another journal"),
        ("DELETE FROM meta", "the journal's identity is damaged"),
    ],
)
def test_a_changed_row_is_found_and_named(sqlite_bench: "SqliteBench", change: str, says: str) -> None:
    sqlite_bench.start()
    sqlite_bench.submit(4)
    sqlite_bench.journal.close()
    with closing(sqlite3.connect(sqlite_bench.path)) as other, other:
        other.execute(change)
    with pytest.raises(JournalError, match=says), JournalReader(sqlite_bench.path) as reader:
        list(reader.read_from(1))


def test_a_damaged_page_is_an_error_in_words(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(200, size_bytes=500)
    sqlite_bench.journal.close()
    with sqlite_bench.path.open("r+b") as file:
        file.seek(4096 * 12)
        file.write(b"\xa5" * 4096 * 4)
    with pytest.raises(JournalError, match="damaged"), JournalReader(sqlite_bench.path) as reader:
        list(reader.read_from(1))


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be looked at" * 90])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="no journal"):
        JournalReader(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    for open_it in (SqliteJournal, JournalReader):
        with pytest.raises(JournalError, match="not an isthmus journal"):
            open_it(path)
    assert path.read_bytes()[100:] == before[100:]


def test_a_missing_folder_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file or directory"):
        SqliteJournal(tmp_path / "none" / "journal.db")
    with pytest.raises(JournalError, match="there is no journal"):
        JournalReader(tmp_path / "journal.db")


def test_the_journal_of_another_node_or_shard_is_refused(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "journal.db", journal_id=b"a" * 16, shard_id=3).close()
    for options in ({"journal_id": b"b" * 16}, {"shard_id": 0}):
        with pytest.raises(JournalError, match="another node or shard"):
            SqliteJournal(tmp_path / "journal.db", **options)
    with closing(SqliteJournal(tmp_path / "journal.db")) as journal:
        assert (journal.journal_id, journal.shard_id) == (b"a" * 16, 3)


def test_a_defect_in_the_projection_stops_the_journal_too(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit_summary(Summary(wall_ms=None))  # type: ignore[arg-type]
    sqlite_bench.settle()
    assert sqlite_bench.reports == [("failed", 1)]
    assert "TypeError" in sqlite_bench.problems[0]


def test_a_defect_after_a_commit_stops_the_journal_too(sqlite_bench: "SqliteBench") -> None:
    """The writer's thread never ends unseen: nobody would be told that nothing becomes durable any more."""
    sqlite_bench.start()
    sqlite_bench.submit(1)
    sqlite_bench.settle()
    with closing(sqlite3.connect(sqlite_bench.path)) as other, other:
        other.execute("UPDATE periods SET incoming = 'damaged'")
    sqlite_bench.submit(1, wall_ms=1_700_000_000_000 + 3 * 86_400_000)  # the damaged minute is folded after this one
    sqlite_bench.settle()
    sqlite_bench.reports.append(sqlite_bench._inbox.get(timeout=120))
    assert sqlite_bench.reports == [("durable", 1), ("durable", 2), ("failed", 3)]
    assert "ValueError" in sqlite_bench.problems[0]


def test_every_commit_is_synced_to_the_disk(sqlite_bench: "SqliteBench") -> None:
    connection = sqlite_bench.journal._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_log_beside_the_file_stays_bounded(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    for _ in range(40):
        sqlite_bench.submit(1, size_bytes=400_000)
        sqlite_bench.settle()
    wal = sqlite_bench.path.with_name("journal.db-wal")
    assert wal.stat().st_size < 8_000_000 < sqlite_bench.path.stat().st_size
