"""The journal in one SQLite file: one row per batch, WAL, synchronous=FULL, group commit on a thread of its own.

`submit` queues and returns; the writer thread takes everything that is queued, writes it with its projection in one
transaction, and one fsync makes all of it durable. After a failure nothing is accepted any more: what the file holds
is then known only by opening it again. The queue needs no bound of its own: the kernel bounds the open Prepares of
each account, and takes no new ones while an append is slow.
"""

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Final, NamedTuple, TypeAlias, TypeVar, final

from isthmus.connector.events import Summary
from isthmus.errors import JournalError
from isthmus.journal.archive import write_archive
from isthmus.journal.interface import Checkpoint, StoredBatch
from isthmus.journal.lock import WriterLock
from isthmus.journal.projection import Projection
from isthmus.journal.reader import BUSY_TIMEOUT_MS, JournalReader, in_words
from isthmus.journal.record import (
    JOURNAL_ID_BYTES,
    checkpoint_checksum,
    encode_envelope,
    first_digest,
    next_digest,
)
from isthmus.journal.scheduling import ask_for_short_slices
from isthmus.journal.schema import check_identity, insert_rows, migrate

T = TypeVar("T")

# The write-ahead log is copied into the file after this many bytes, once the batch was reported durable: the copy
# costs two fsyncs, and frames wait for the report only.
WAL_BYTES_MAX: Final = 4 * 1024 * 1024
# What is left of the log file after a reader, or a burst, made it longer.
WAL_FILE_BYTES_KEPT: Final = 16 * 1024 * 1024
# Pages that a transaction writes besides the envelopes: the tables' leaves and the file's head.
_PAGE_BYTES: Final = 4096
_PAGES_PER_COMMIT: Final = 4
# Rows deleted in one transaction: a commit of batches waits at most for one of these.
PRUNE_ROWS_MAX: Final = 500
# Hours of minutes folded after one commit. One an hour falls due; a node that slept for long catches up in a while.
ROLL_UPS_MAX: Final = 4
# A busy event loop gives up the GIL at each system call and takes it again before this thread wakes; only a forced
# switch lets the thread in. At Python's 5 ms a loaded node committed once it was idle; at 0.2 ms within a turn or two.
SWITCH_INTERVAL_S: Final = 0.0002

_BEGIN: Final = "BEGIN IMMEDIATE"
# A writer that missed another one's batches (a copied folder, a lock on a file system that has none) inserts nothing.
_INSERT_FIRST: Final = "INSERT INTO batches SELECT ?, ?, ? WHERE (SELECT ifnull(max(sequence), 0) FROM batches) = ? - 1"


class _Batch(NamedTuple):
    sequence: int
    record: bytes
    summary: Summary


class _Task(NamedTuple):
    """Something else for the writer thread to do, in its turn between commits."""

    run: Callable[[], None]


_Item: TypeAlias = _Batch | _Task | None


def _ignore_durable(sequence: int) -> None: ...


def _ignore_failed(sequence: int, problem: str) -> None: ...


@final
class SqliteJournal:
    """Implements `journal.interface.Journal`. Opening it takes the writer's lock, and makes or migrates the file.

    `archive`: a folder that keeps what is pruned. `file_bytes_max`: the file never grows beyond it; the journal fails
    there as on a full disk. `journal_id` and `shard_id` are used when the file is made, and must fit it afterwards.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        shard_id: int | None = None,
        journal_id: bytes | None = None,
        archive: str | os.PathLike[str] | None = None,
        file_bytes_max: int | None = None,
    ) -> None:
        self.path: Final = os.fspath(path)
        self._archive: Final = None if archive is None else os.fspath(archive)
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._on_durable: Callable[[int], None] = _ignore_durable
        self._on_failed: Callable[[int, str], None] = _ignore_failed
        self._problem: str | None = None
        self._closed = False
        self._closing = threading.Lock()
        self._submitted = 0
        self._wal_bytes = 0
        self._wall_ms = 0  # of the last batch: the projection's age is counted in it
        # Bytes of entries since the last checkpoint: whoever keeps the checkpoints decides by it.
        self.bytes_since_checkpoint = 0
        # Of the newest checkpoint that replay has reproduced; 0 if there is none. What came before it can be pruned.
        self.verified_sequence = 0
        self._lock = WriterLock(self.path)
        try:
            self._connection = _open_for_writing(self.path)
            try:
                self._prepare(journal_id, shard_id, file_bytes_max)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            self._lock.release()
            raise JournalError(in_words(error, self.path)) from error
        except BaseException:
            self._lock.release()
            raise

    # --- the interface ------------------------------------------------------------------------------------------

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[int, str], None]) -> None:
        """Begin to accept batches. Both callbacks come from the writer thread."""
        assert self._thread is None and not self._closed
        self._on_durable = on_durable
        self._on_failed = on_failed
        if sys.getswitchinterval() > SWITCH_INTERVAL_S:
            sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def submit(self, sequence: int, record: bytes, summary: Summary) -> None:
        """Queue a batch. After a failure it only reports that failure again, for this sequence."""
        assert self._thread is not None and not self._closed
        assert sequence == self._submitted + 1, (sequence, self._submitted)
        self._submitted = sequence
        if self._problem is not None:
            self._on_failed(sequence, self._problem)
            return
        self._queue.put(_Batch(sequence, record, summary))

    def read_from(self, sequence: int) -> Iterator[StoredBatch]:
        with JournalReader(self.path) as reader:
            yield from reader.read_from(sequence)

    def save_checkpoint(self, sequence: int, state: bytes) -> None:
        """Keep the state after the batch `sequence`, which was submitted before. Returns once it is durable.

        Two are kept: the newest, and the newest one that replay has reproduced (else the one before). Blocks its
        caller, never the loop: call it from another thread. Raises JournalError.
        """
        self._in_writer(partial(self._save_checkpoint, sequence, state))

    def load_checkpoint(self) -> Checkpoint | None:
        with JournalReader(self.path) as reader:
            return reader.load_checkpoint()

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        self._connection.close()
        self._lock.release()

    # --- pruning ------------------------------------------------------------------------------------------------

    def mark_verified(self, sequence: int, checksum: bytes) -> None:
        """Replay from the checkpoint before reproduced this one, byte by byte. `checksum` tells that it is this one."""
        self._in_writer(partial(self._mark_verified, sequence, checksum))

    def drop_checkpoint(self, sequence: int) -> None:
        """Give up a damaged checkpoint: the one before, or the first batch, is replayed from instead."""
        with JournalReader(self.path) as reader:
            if reader.first_sequence > 1 and reader.checkpoint_sequences() == [sequence]:
                raise JournalError(
                    f"{self.path}: the checkpoint after batch {sequence} is the only one, and batches before it are"
                    " gone; restore the folder from a copy"
                )
            if sequence not in reader.checkpoint_sequences():
                raise JournalError(f"{self.path}: there is no checkpoint after batch {sequence}")
        self._in_writer(
            lambda: self._connection.execute("DELETE FROM checkpoints WHERE sequence = ?", (sequence,)).close()
        )

    def prune(self) -> int:
        """Delete what is older than the older of two verified checkpoints; returns the number of batches deleted.

        With an archive folder they are there, and synced, before they are deleted. Blocks its caller, never the loop.
        """
        with JournalReader(self.path) as reader:
            reader.snapshot()
            verified = [one.sequence for one in reader.checkpoints() if one.verified]
            first = reader.first_sequence
            if len(verified) < 2 or verified[-2] < first:
                return 0
            last = verified[-2]
            if self._archive is not None:
                write_archive(self._archive, reader, first, last)
        for chunk_first in range(first, last + 1, PRUNE_ROWS_MAX):
            self._in_writer(partial(self._delete, min(last, chunk_first + PRUNE_ROWS_MAX - 1)))
        return last - first + 1

    # --- opening ------------------------------------------------------------------------------------------------

    def _prepare(self, journal_id: bytes | None, shard_id: int | None, file_bytes_max: int | None) -> None:
        connection = self._connection
        check_identity(connection, self.path)
        if file_bytes_max is not None:
            connection.execute(f"PRAGMA max_page_count = {file_bytes_max // _PAGE_BYTES}")
        migrate(connection)
        connection.execute(_BEGIN)
        fresh = os.urandom(JOURNAL_ID_BYTES) if journal_id is None else journal_id
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('journal_id', ?)", (fresh,))
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('shard_id', ?)", (shard_id or 0,))
        connection.execute("COMMIT")
        with JournalReader(self.path) as reader:
            self.journal_id: bytes = reader.journal_id
            self.shard_id: int = reader.shard_id
            if journal_id not in (None, self.journal_id) or shard_id not in (None, self.shard_id):
                raise JournalError(f"{self.path} is the journal of another node or shard; check the data folder")
            self.last_sequence: int = reader.last_sequence
            self._submitted = self.last_sequence
            self._digest = first_digest(self.journal_id, self.shard_id)
            # The newest batch is looked at now; replay looks at all of them.
            for envelope, stored in reader.envelopes_from(self.last_sequence):
                self._digest = next_digest(reader.digest_at(envelope.sequence - 1), stored)
            checkpoint = max(reader.checkpoint_sequences(), default=0)
        (self.bytes_since_checkpoint,) = connection.execute(
            "SELECT ifnull(sum(length(envelope)), 0) FROM batches WHERE sequence > ?", (checkpoint,)
        ).fetchone()
        (self.verified_sequence,) = connection.execute(
            "SELECT ifnull(max(sequence), 0) FROM checkpoints WHERE verified"
        ).fetchone()
        self._projection = Projection(connection)

    # --- the writer thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        ask_for_short_slices()
        queue = self._queue
        while True:
            items = [queue.get()]
            for _ in range(queue.qsize()):
                items.append(queue.get_nowait())
            group: list[_Batch] = []
            for item in items:
                if isinstance(item, _Batch):
                    group.append(item)
                    continue
                self._commit(group)
                group = []
                if item is None:
                    return
                item.run()
            self._commit(group)
            self._keep_house()

    def _commit(self, group: list[_Batch]) -> None:
        if not group or self._problem is not None:
            return
        try:
            self._write(group)
        except sqlite3.Error as error:
            self._fail(group[0].sequence, in_words(error, self.path))
        except JournalError as error:
            self._fail(group[0].sequence, str(error))
        except Exception as error:  # noqa: BLE001 - a defect of ours must stop the node in the same way
            self._fail(group[0].sequence, f"{self.path}: {type(error).__name__}: {error}")
        else:
            self.last_sequence = group[-1].sequence
            self._on_durable(self.last_sequence)

    def _write(self, group: list[_Batch]) -> None:
        """One transaction: the batches, then what the projection tells of them."""
        rows: list[tuple[int | bytes, ...]] = []
        digest = self._digest
        written_bytes = 0
        for batch in group:
            envelope = encode_envelope(self.journal_id, self.shard_id, batch.sequence, batch.record)
            digest = next_digest(digest, envelope)
            written_bytes += len(envelope)
            rows.append((batch.sequence, envelope, digest))
        connection = self._connection
        connection.execute(_BEGIN)
        if connection.execute(_INSERT_FIRST, (*rows[0], rows[0][0])).rowcount != 1:
            raise JournalError(
                f"{self.path}: batch {group[0].sequence} is not the next one: another process wrote to this journal;"
                " find it, and start this node again"
            )
        insert_rows(connection, "INSERT INTO batches", rows[1:])
        for batch in group:
            self._projection.apply(batch.sequence, batch.summary)
        self._projection.write()
        connection.execute("COMMIT")
        self._digest = digest
        self.bytes_since_checkpoint += written_bytes
        self._wal_bytes += written_bytes + _PAGES_PER_COMMIT * _PAGE_BYTES
        self._wall_ms = group[-1].summary.wall_ms

    def _fail(self, sequence: int, problem: str) -> None:
        self._problem = f"nothing from batch {sequence} on is known to be recorded. {problem}"
        self._roll_back()
        self._on_failed(sequence, self._problem)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # The first failure is the one to tell; the file is rolled back when it is opened next.

    def _keep_house(self) -> None:
        """After the report: copy the log into the file, fold old minutes (a bounded number of them)."""
        if self._problem is not None:
            return
        try:
            if self._wal_bytes > WAL_BYTES_MAX:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self._wal_bytes = 0
            for _ in range(ROLL_UPS_MAX):
                if not self._projection.roll_up_due(self._wall_ms):
                    break
                self._projection.roll_up(self._wall_ms)
        except sqlite3.Error as error:
            self._fail(self.last_sequence + 1, in_words(error, self.path))
        except Exception as error:  # noqa: BLE001 - else the thread ends unseen, and the node waits for it for ever
            self._fail(self.last_sequence + 1, f"{self.path}: {type(error).__name__}: {error}")

    def _in_writer(self, work: Callable[[], T]) -> T:
        """Run it between commits on the writer thread, or here if that doesn't run; wait for what it returns."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                if self._problem is not None:
                    raise JournalError(self._problem)
                done.set_result(work())
            except sqlite3.Error as error:
                self._roll_back()
                done.set_exception(JournalError(in_words(error, self.path)))
            except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
                self._roll_back()
                done.set_exception(error)

        assert threading.current_thread() is not self._thread
        with self._closing:  # else a task could be queued behind the end, and never run
            if self._closed:
                raise JournalError(f"{self.path}: the journal is closed")
            if self._thread is not None:
                self._queue.put(_Task(run))
        if self._thread is None:
            run()
        return done.result()

    def _save_checkpoint(self, sequence: int, state: bytes) -> None:
        connection = self._connection
        connection.execute(_BEGIN)
        row = connection.execute("SELECT digest FROM batches WHERE sequence = ?", (sequence,)).fetchone()
        if row is None:
            raise JournalError(f"{self.path}: no checkpoint without its batch: {sequence} is not in the journal")
        checksum = checkpoint_checksum(self.journal_id, self.shard_id, sequence, row[0], state)
        connection.execute(
            "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, 0)", (sequence, row[0], state, checksum)
        )
        # The older one that stays is the one to replay from: never drop a verified one for one that isn't.
        connection.execute(
            "DELETE FROM checkpoints WHERE sequence < ? AND sequence IS NOT (SELECT sequence FROM checkpoints"
            " WHERE sequence < ? ORDER BY verified DESC, sequence DESC LIMIT 1)",
            (sequence, sequence),
        )
        (self.bytes_since_checkpoint,) = connection.execute(
            "SELECT ifnull(sum(length(envelope)), 0) FROM batches WHERE sequence > ?", (sequence,)
        ).fetchone()
        connection.execute("COMMIT")
        self._wal_bytes += len(state)

    def _mark_verified(self, sequence: int, checksum: bytes) -> None:
        marked = self._connection.execute(
            "UPDATE checkpoints SET verified = 1 WHERE sequence = ? AND checksum = ?", (sequence, checksum)
        )
        if marked.rowcount != 1:
            raise JournalError(f"{self.path}: the checkpoint after batch {sequence} is not the one that was verified")
        self.verified_sequence = sequence

    def _delete(self, up_to: int) -> None:
        """Remember the digest of the last one that goes: the chain of those that stay begins there."""
        connection = self._connection
        connection.execute(_BEGIN)
        connection.execute(
            "INSERT OR REPLACE INTO meta SELECT 'pruned_digest', digest FROM batches WHERE sequence = ?", (up_to,)
        )
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('pruned_sequence', ?)", (up_to,))
        connection.execute("DELETE FROM batches WHERE sequence <= ?", (up_to,))
        connection.execute("COMMIT")
        self._wal_bytes += PRUNE_ROWS_MAX * _PAGE_BYTES


def _open_for_writing(path: str) -> sqlite3.Connection:
    """The writer's connection to a file that is made, readable for its owner only, if it isn't there."""
    try:
        # Only if there is none: closing a file that SQLite has open would drop SQLite's own locks on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise JournalError(f"{path} can't be made: {error.strerror}; check the data folder") from error
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchone()
        connection.execute(f"PRAGMA journal_size_limit = {WAL_FILE_BYTES_KEPT}").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
