"""A checkpoint is trusted, and older batches deleted, only after replay in another process gave the same bytes."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isthmus.errors import CodecError, JournalError
from isthmus.journal.archive import read_archive
from isthmus.journal.interface import StoredBatch
from isthmus.journal.reader import JournalReader
from isthmus.journal.verify import Verified, main, verify_and_prune, verify_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.journal.conftest import SqliteBench


def replay(state: bytes | None, batches: Iterator[StoredBatch]) -> bytes:
    """The books of this test: a digest over all records, by hand."""
    state = state or bytes(32)
    for batch in batches:
        state = sha256(state + batch.record).digest()
    return state


@pytest.fixture
def replayer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same books, where the other process can import them."""
    (tmp_path / "booksofatest.py").write_text(
        "from hashlib import sha256\n\ndef replay(state, batches):\n    state = state or bytes(32)\n"
        "    for batch in batches:\n        state = sha256(state + batch.record).digest()\n    return state\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "booksofatest:replay"


def checkpoint(bench: "SqliteBench", state: bytes | None = None) -> None:
    bench.settle()
    last = bench.journal.last_sequence
    with JournalReader(bench.path) as reader:
        before = next((one for one in reversed(reader.checkpoints()) if one.verified), None)
        first = before.sequence + 1 if before else 1
        made = replay(before.state if before else None, reader.read_from(first))
    bench.journal.save_checkpoint(last, made if state is None else state)


def kept(path: Path) -> tuple[int, list[tuple[int, bool]]]:
    with JournalReader(path) as reader:
        return reader.first_sequence, [(one.sequence, one.verified) for one in reader.checkpoints()]


def test_pruning_keeps_everything_since_the_older_of_two_verified_checkpoints(
    sqlite_bench: "SqliteBench", replayer: str
) -> None:
    sqlite_bench.start()
    deleted = []
    for _ in range(4):
        sqlite_bench.submit(10)
        checkpoint(sqlite_bench)
        deleted.append(verify_and_prune(sqlite_bench.journal, replayer=replayer))
    assert deleted == [0, 10, 10, 10]
    assert kept(sqlite_bench.path) == (31, [(30, True), (40, True)])
    with JournalReader(sqlite_bench.path) as reader:
        # The chain of what stays still hangs on what went.
        assert [batch.sequence for batch in reader.read_from(31)] == list(range(31, 41))
        assert len(reader.digest_at(30)) == 32
        with pytest.raises(JournalError, match="batch 30 was pruned, the oldest is 31"):
            list(reader.read_from(30))


def test_a_pruned_journal_opens_and_goes_on(sqlite_bench: "SqliteBench", replayer: str) -> None:
    sqlite_bench.start()
    for _ in range(2):
        sqlite_bench.submit(5)
        checkpoint(sqlite_bench)
        verify_and_prune(sqlite_bench.journal, replayer=replayer)
    sqlite_bench.reopen()
    sqlite_bench.start()
    sqlite_bench.submit(3)
    checkpoint(sqlite_bench)
    assert verify_and_prune(sqlite_bench.journal, replayer=replayer) == 5
    assert kept(sqlite_bench.path) == (11, [(10, True), (13, True)])


def test_a_checkpoint_that_replay_doesnt_give_prunes_nothing(sqlite_bench: "SqliteBench", replayer: str) -> None:
    sqlite_bench.start()
    sqlite_bench.submit(5)
    checkpoint(sqlite_bench)
    verify_and_prune(sqlite_bench.journal, replayer=replayer)
    sqlite_bench.submit(5)
    checkpoint(sqlite_bench, b"made up")
    with pytest.raises(JournalError, match="replay from batch 5 doesn't give the checkpoint after batch 10"):
        verify_and_prune(sqlite_bench.journal, replayer=replayer)
    assert kept(sqlite_bench.path) == (1, [(5, True), (10, False)])


def test_an_unverified_checkpoint_never_drives_out_the_verified_one(sqlite_bench: "SqliteBench", replayer: str) -> None:
    sqlite_bench.start()
    for _ in range(2):
        sqlite_bench.submit(5)
        checkpoint(sqlite_bench)
        verify_and_prune(sqlite_bench.journal, replayer=replayer)
    for _ in range(3):
        sqlite_bench.submit(5)
        checkpoint(sqlite_bench)
    assert kept(sqlite_bench.path) == (6, [(10, True), (25, False)])
    with JournalReader(sqlite_bench.path) as reader:
        verified = verify_checkpoint(reader, replay)
    assert verified is not None
    assert (verified.older, verified.newer) == (10, 25)


def test_only_the_checkpoint_that_was_verified_is_marked(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(5)
    checkpoint(sqlite_bench)
    with pytest.raises(JournalError, match="is not the one that was verified"):
        sqlite_bench.journal.mark_verified(5, bytes(32))
    assert kept(sqlite_bench.path) == (1, [(5, False)])


def test_nothing_to_verify_is_no_error(sqlite_bench: "SqliteBench", replayer: str) -> None:
    sqlite_bench.start()
    assert verify_and_prune(sqlite_bench.journal, replayer=replayer) == 0
    sqlite_bench.submit(5)
    checkpoint(sqlite_bench)
    verify_and_prune(sqlite_bench.journal, replayer=replayer)
    with JournalReader(sqlite_bench.path) as reader:
        assert verify_checkpoint(reader, replay) is None


def test_a_damaged_row_on_the_way_prunes_nothing_and_is_named(sqlite_bench: "SqliteBench", replayer: str) -> None:
    sqlite_bench.start()
    sqlite_bench.submit(9)
    checkpoint(sqlite_bench)
    sqlite_bench.flip_bit(4)
    with pytest.raises(JournalError, match="batch 4 is damaged"):
        verify_and_prune(sqlite_bench.journal, replayer=replayer)
    assert kept(sqlite_bench.path) == (1, [(9, False)])


def damage_checkpoint(path: Path, sequence: int) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE checkpoints SET state = zeroblob(32) WHERE sequence = ?", (sequence,))


def test_a_damaged_checkpoint_is_refused_and_named(sqlite_bench: "SqliteBench") -> None:
    sqlite_bench.start()
    sqlite_bench.submit(5)
    checkpoint(sqlite_bench)
    damage_checkpoint(sqlite_bench.path, 5)
    with pytest.raises(JournalError, match="the checkpoint after batch 5 is damaged"):
        sqlite_bench.journal.load_checkpoint()


def test_a_damaged_checkpoint_can_be_given_up_for_the_one_before(sqlite_bench: "SqliteBench", replayer: str) -> None:
    sqlite_bench.start()
    for _ in range(3):
        sqlite_bench.submit(5)
        checkpoint(sqlite_bench)
        verify_and_prune(sqlite_bench.journal, replayer=replayer)
    sqlite_bench.journal.close()
    damage_checkpoint(sqlite_bench.path, 15)
    path = str(sqlite_bench.path)
    assert main([path, "--replayer", replayer]) == 1
    assert main([path, "--replayer", replayer, "--drop-checkpoint", "7"]) == 1
    assert main([path, "--replayer", replayer, "--drop-checkpoint", "15"]) == 0
    assert kept(sqlite_bench.path) == (11, [(10, True)])
    # The last one that is left is not given up: nothing could be replayed without it.
    assert main([path, "--replayer", replayer, "--drop-checkpoint", "10"]) == 1
    sqlite_bench.reopen()
    loaded = sqlite_bench.journal.load_checkpoint()
    assert loaded is not None
    assert len(list(sqlite_bench.journal.read_from(loaded.sequence + 1))) == 5


def test_the_archive_has_what_was_pruned(tmp_path: Path, bench_at: "Callable[..., SqliteBench]", replayer: str) -> None:
    bench = bench_at(tmp_path / "journal.db", archive=tmp_path / "archive")
    bench.start()
    for _ in range(3):
        bench.submit(5)
        checkpoint(bench)
        verify_and_prune(bench.journal, replayer=replayer)
    files = sorted((tmp_path / "archive").iterdir())
    assert [file.name for file in files] == [
        "batches-00000000000000000001-00000000000000000005.isthmus",
        "batches-00000000000000000006-00000000000000000010.isthmus",
    ]
    found = [envelope for file in files for envelope in read_archive(file.read_bytes())]
    assert [envelope.sequence for envelope in found] == list(range(1, 11))
    assert all(envelope.entries.startswith(b"%d:" % envelope.sequence) for envelope in found)
    damaged = bytearray(files[0].read_bytes())
    damaged[60] ^= 1
    with pytest.raises(CodecError):
        list(read_archive(bytes(damaged)))
    with pytest.raises(CodecError, match="digest"):
        list(read_archive(files[0].read_bytes()[:-32]))


def test_an_archive_that_cant_be_written_prunes_nothing(
    tmp_path: Path, bench_at: "Callable[..., SqliteBench]", replayer: str
) -> None:
    (tmp_path / "archive").write_text("in the way")
    bench = bench_at(tmp_path / "journal.db", archive=tmp_path / "archive")
    bench.start()
    bench.submit(5)
    checkpoint(bench)
    verify_and_prune(bench.journal, replayer=replayer)
    bench.submit(5)
    checkpoint(bench)
    with pytest.raises(JournalError, match="the archive can't be written.*nothing was pruned"):
        verify_and_prune(bench.journal, replayer=replayer)
    assert kept(bench.path)[0] == 1


def test_the_file_stays_bounded_by_page_reuse(tmp_path: Path, bench_at: "Callable[..., SqliteBench]") -> None:
    """The journal of two checkpoint intervals, plus the one that is being written, is the bound."""
    bench = bench_at(tmp_path / "journal.db")
    bench.start()
    sizes = []
    for _ in range(9):
        bench.submit(50, size_bytes=4_000)
        checkpoint(bench)
        with JournalReader(bench.path) as reader:
            verified = verify_checkpoint(reader, replay)
        assert isinstance(verified, Verified)
        bench.journal.mark_verified(verified.newer, verified.checksum)
        bench.journal.prune()
        # Not by the journal's own connection: its thread may be at work, and two on one connection lock each other out.
        with closing(sqlite3.connect(bench.path)) as other:
            (pages,) = other.execute("PRAGMA page_count").fetchone()
        sizes.append(pages)
    assert max(sizes) <= sizes[2] * 1.05


def test_the_command_prints_what_it_verified(
    sqlite_bench: "SqliteBench", replayer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sqlite_bench.start()
    sqlite_bench.submit(5)
    checkpoint(sqlite_bench)
    command = [sys.executable, "-m", "isthmus.journal.verify", str(sqlite_bench.path), "--replayer", replayer]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert (answer["older"], answer["newer"], len(answer["checksum"])) == (0, 5, 64)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["nowhere.db", "--replayer", "booksofatest:replay"], "there is no journal"),
        (["{path}", "--replayer", "booksofatest:nothing"], "there is no replayer booksofatest:nothing"),
        (["{path}", "--replayer", "no.such.module:x"], "there is no replayer"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    sqlite_bench: "SqliteBench",
    replayer: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    assert main([argument.format(path=sqlite_bench.path) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
