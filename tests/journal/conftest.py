"""What the journal's tests share: batches, and one bench that drives either journal."""

import queue
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from isthmus.connector.events import AccountId, AccountMovement, Summary
from isthmus.journal.interface import Journal
from isthmus.journal.memory import Fault, MemoryJournal
from isthmus.journal.sqlite import SqliteJournal

ALICE = AccountId("alice")
WALL_MS = 1_700_000_000_000
Report = tuple[str, int]


def summary_of(sequence: int, wall_ms: int = WALL_MS) -> Summary:
    return Summary(wall_ms, [AccountMovement(ALICE, 10, 3, 1, 1, 0, sequence)])


def record_of(sequence: int, size_bytes: int = 10) -> bytes:
    return b"%d:" % sequence + bytes(size_bytes)


def flip_bit(path: Path, sequence: int, bit: int) -> None:
    """Change one bit of a stored envelope behind the journal's back."""
    connection = sqlite3.connect(path)
    with connection:
        (stored,) = connection.execute("SELECT envelope FROM batches WHERE sequence = ?", (sequence,)).fetchone()
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        connection.execute("UPDATE batches SET envelope = ? WHERE sequence = ?", (bytes(damaged), sequence))
    connection.close()


class Bench(Protocol):
    """One journal under the contract: the same steps for a file and for memory."""

    reports: list[Report]

    @property
    def journal(self) -> Journal: ...

    def start(self) -> None: ...

    def submit(self, count: int, size_bytes: int = 10) -> None: ...

    def settle(self) -> None:
        """Until everything submitted was reported, one way or the other."""

    def crash_and_reopen(self) -> None: ...

    def reopen(self) -> None: ...

    def break_disk(self) -> None:
        """The next append fails."""

    def flip_bit(self, sequence: int) -> None: ...

    def second_writer(self) -> None: ...


class MemoryBench:
    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.reports: list[Report] = []
        self._submitted = 0

    def start(self) -> None:
        self.reports.clear()
        self._submitted = self.journal.last_sequence
        self.journal.start(
            lambda sequence: self.reports.append(("durable", sequence)),
            lambda sequence, problem: self.reports.append(("failed", sequence)),
        )

    def submit(self, count: int, size_bytes: int = 10) -> None:
        for _ in range(count):
            self._submitted += 1
            self.journal.submit(self._submitted, record_of(self._submitted, size_bytes), summary_of(self._submitted))

    def settle(self) -> None:
        self.journal.sync()

    def crash_and_reopen(self) -> None:
        self.journal = MemoryJournal(self.journal.crash())

    def reopen(self) -> None:
        self.journal.close()
        self.journal = MemoryJournal(self.journal.disk)

    def break_disk(self) -> None:
        self.journal.fault = Fault.FAIL

    def flip_bit(self, sequence: int) -> None:
        self.journal.disk.flip_bit(sequence, 300)

    def second_writer(self) -> None:
        MemoryJournal(self.journal.disk)


class SqliteBench:
    def __init__(self, path: Path, open_journal: Callable[[Path], SqliteJournal] = SqliteJournal) -> None:
        self.path = path
        self._open = open_journal
        self.journal = open_journal(path)
        self.reports: list[Report] = []
        self.problems: list[str] = []
        self._inbox: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._submitted = 0

    def start(self) -> None:
        self.reports.clear()
        self._submitted = self.journal.last_sequence
        self.journal.start(lambda sequence: self._inbox.put(("durable", sequence)), self._failed)

    def _failed(self, sequence: int, problem: str) -> None:
        self.problems.append(problem)
        self._inbox.put(("failed", sequence))

    def submit(self, count: int, size_bytes: int = 10, wall_ms: int = WALL_MS) -> None:
        for _ in range(count):
            self._submitted += 1
            summary = summary_of(self._submitted, wall_ms)
            self.journal.submit(self._submitted, record_of(self._submitted, size_bytes), summary)

    def submit_summary(self, summary: Summary) -> None:
        self._submitted += 1
        self.journal.submit(self._submitted, record_of(self._submitted), summary)

    def settle(self) -> None:
        while not self.reports or not (self.reports[-1][0] == "failed" or self.reports[-1][1] == self._submitted):
            self.reports.append(self._inbox.get(timeout=120))

    def crash_and_reopen(self) -> None:
        # What a kill leaves, as the next start sees it: the files, and no lock. Another process copies them, for
        # closing a file in this one would drop SQLite's locks on it.
        copy = self.path.with_name("after-" + self.path.name)
        for suffix in ("", "-wal"):
            subprocess.run(["cp", f"{self.path}{suffix}", f"{copy}{suffix}"], check=True)
        self.journal.close()
        self.path = copy
        self.journal = self._open(copy)

    def reopen(self) -> None:
        self.journal.close()
        self.journal = self._open(self.path)

    def break_disk(self) -> None:
        (pages,) = self.journal._connection.execute("PRAGMA page_count").fetchone()
        self.journal._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    def flip_bit(self, sequence: int) -> None:
        flip_bit(self.path, sequence, 300)

    def second_writer(self) -> None:
        self._open(self.path)


@pytest.fixture(params=["sqlite", "memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made: SqliteBench | MemoryBench
    made = SqliteBench(tmp_path / "journal.db") if request.param == "sqlite" else MemoryBench()
    yield made
    made.journal.close()


@pytest.fixture
def sqlite_bench(tmp_path: Path) -> Iterator[SqliteBench]:
    made = SqliteBench(tmp_path / "journal.db")
    yield made
    made.journal.close()


@pytest.fixture
def bench_at() -> Iterator[Callable[..., SqliteBench]]:
    """Open a bench on a path, with options of the journal; closed at the end of the test."""
    made: list[SqliteBench] = []

    def open_at(path: Path, **options: object) -> SqliteBench:
        made.append(SqliteBench(path, lambda path: SqliteJournal(path, **options)))  # type: ignore[arg-type]
        return made[-1]

    yield open_at
    for one in made:
        one.journal.close()


@pytest.fixture
def flip() -> Callable[[Path, int, int], None]:
    return flip_bit
