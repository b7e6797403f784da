"""Where a process kills itself: at the n-th passage of a named point of the shell, by SIGKILL.

The product has no hooks for this. A child that is told to (`arm`, in the process that is to die) wraps functions of
the journal and the driver; what they do stays what it was, until the process is gone. SQL statements are passages too:
SQLite's own trace tells when a COMMIT begins.
"""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from isthmus.connector.events import Release
from isthmus.connector.kernel import Kernel
from isthmus.journal import schema, sqlite
from isthmus.journal.projection import Projection
from isthmus.journal.sqlite import SqliteJournal
from isthmus.runtime.checkpoints import CheckpointKeeper
from isthmus.runtime.driver import Driver

# The point's name, the passage that kills, how many undecided packets the process must have for a passage to count, and
# after how many batches a checkpoint is due in this life.
POINT: Final = "CRASH_POINT"
PASSAGE: Final = "CRASH_PASSAGE"
OPEN_PACKETS: Final = "CRASH_OPEN_PACKETS"
CHECKPOINT_EVERY: Final = "CRASH_CHECKPOINT_EVERY"
WAL_BYTES_MAX: Final = 48 * 1024


@dataclass(slots=True)
class Countdown:
    """Kills this process at the last of so many passages."""

    left: int
    open_wanted: int = 0  # undecided packets; passages with fewer don't count
    kernel: Kernel | None = None  # once there is one

    def passed(self) -> None:
        if self.open_wanted and self._open_packets() < self.open_wanted:
            return
        self.left -= 1
        if self.left == 0:
            die()

    def _open_packets(self) -> int:
        if self.kernel is None:
            return 0
        return sum(len(account.received) for account in list(self.kernel.books.peers.values()))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal is on its way


def arm(environment: dict[str, str]) -> None:
    """Prepare this process to die as its environment says; nothing happens if it says nothing."""
    every = environment.get(CHECKPOINT_EVERY)
    if every is not None:
        _checkpoint_every(int(every))
    point = environment.get(POINT)
    if point is not None:
        countdown = Countdown(int(environment[PASSAGE]), int(environment.get(OPEN_PACKETS, 0)))
        _know_kernel(countdown)
        POINTS[point](countdown)


def _know_kernel(countdown: Countdown) -> None:
    original = Driver.__init__

    def init(self: Driver, kernel: Kernel, *positional: Any, **named: Any) -> None:
        countdown.kernel = kernel
        original(self, kernel, *positional, **named)

    _set(Driver, "__init__", init)


def _checkpoint_every(batches: int) -> None:
    """A setting that wallets don't have in a file."""
    original = CheckpointKeeper.__init__

    def init(self: CheckpointKeeper, *positional: Any, **named: Any) -> None:
        original(self, *positional, **named | {"every_batches": batches})

    _set(CheckpointKeeper, "__init__", init)


def _set(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _before(owner: Any, name: str) -> Callable[[Countdown], None]:
    """The point before a method."""

    def wrap(countdown: Countdown) -> None:
        original = getattr(owner, name)

        def wrapped(*positional: Any, **named: Any) -> Any:
            countdown.passed()
            return original(*positional, **named)

        _set(owner, name, wrapped)

    return wrap


def _after(owner: Any, name: str) -> Callable[[Countdown], None]:
    """The point after a method has done its work, and before its caller goes on."""

    def wrap(countdown: Countdown) -> None:
        original = getattr(owner, name)

        def wrapped(*positional: Any, **named: Any) -> Any:
            result = original(*positional, **named)
            countdown.passed()
            return result

        _set(owner, name, wrapped)

    return wrap


def _at_commit(name: str) -> Callable[[Countdown], None]:
    """The point inside a transaction of the journal: everything is written, nothing committed."""

    def wrap(countdown: Countdown) -> None:
        original = getattr(SqliteJournal, name)

        def wrapped(self: SqliteJournal, *positional: Any) -> Any:
            with _Traced(self._connection, countdown, "COMMIT"):
                return original(self, *positional)

        _set(SqliteJournal, name, wrapped)

    return wrap


class _Traced:
    """Counts statements that begin so."""

    def __init__(self, connection: sqlite3.Connection, countdown: Countdown, begins: str) -> None:
        self._connection = connection
        self._countdown = countdown
        self._begins = begins

    def __enter__(self) -> None:
        self._connection.set_trace_callback(self._seen)

    def __exit__(self, *_: object) -> None:
        self._connection.set_trace_callback(None)

    def _seen(self, statement: str) -> None:
        if statement.startswith(self._begins):
            self._countdown.passed()


def _append_durable(countdown: Countdown) -> None:
    """After the commit, before the kernel hears of it: nothing of the batch has left."""
    original = SqliteJournal.start

    def start(self: SqliteJournal, on_durable: Callable[[int], None], on_failed: Callable[[int, str], None]) -> None:
        def durable(sequence: int) -> None:
            countdown.passed()
            on_durable(sequence)

        original(self, durable, on_failed)

    _set(SqliteJournal, "start", start)


def _sent(countdown: Countdown) -> None:
    """Frames were handed to one link; those for other links, if any, were not."""
    original = Driver._carry_out

    def carry_out(self: Driver, effect: Any) -> None:
        original(self, effect)
        if isinstance(effect, Release):
            countdown.passed()

    _set(Driver, "_carry_out", carry_out)


def _log_copied(countdown: Countdown) -> None:
    """While SQLite copies its write-ahead log into the file: from another thread, a moment after the copy began."""
    _set(sqlite, "WAL_BYTES_MAX", WAL_BYTES_MAX)
    original = SqliteJournal._keep_house

    def seen(statement: str) -> None:
        if statement.startswith("PRAGMA wal_checkpoint"):
            countdown.left -= 1
            if countdown.left == 0:
                threading.Thread(target=die).start()

    def keep_house(self: SqliteJournal) -> None:
        self._connection.set_trace_callback(seen)
        original(self)
        self._connection.set_trace_callback(None)

    _set(SqliteJournal, "_keep_house", keep_house)


def _migrated(countdown: Countdown) -> None:
    """Inside a migration: the new tables are made, the transaction is open."""
    original = schema.migrate

    def migrate(connection: sqlite3.Connection) -> Any:
        with _Traced(connection, countdown, "COMMIT"):
            return original(connection)

    _set(sqlite, "migrate", migrate)


# Every named point, and how to wait there.
POINTS: Final[dict[str, Callable[[Countdown], None]]] = {
    "append.before": _before(SqliteJournal, "_write"),
    "append.written": _after(Projection, "write"),
    "append.durable": _append_durable,
    "released": _sent,
    "checkpoint.written": _at_commit("_save_checkpoint"),
    "checkpoint.saved": _after(SqliteJournal, "_save_checkpoint"),
    "checkpoint.verified": _after(SqliteJournal, "_mark_verified"),
    "checkpoint.pruning": _at_commit("_delete"),
    "log.copied": _log_copied,
    "migration": _migrated,
    "start.replayed": _before(Driver, "start"),
}
