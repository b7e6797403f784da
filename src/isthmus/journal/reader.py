"""A journal file as others see it: read-only, a consistent snapshot, whether its node runs or not."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, final
from urllib.parse import quote

from isthmus.errors import CodecError, JournalError
from isthmus.journal.interface import Checkpoint, StoredBatch
from isthmus.journal.projection import Totals, totals_of
from isthmus.journal.record import (
    Envelope,
    checkpoint_checksum,
    decode_envelope,
    first_digest,
    next_digest,
)
from isthmus.journal.schema import SCHEMA_VERSION, check_identity, schema_version

BUSY_TIMEOUT_MS: Final = 5_000
# Batches are read in pieces, so that a long replay beside a running node doesn't hold one snapshot, and its log, all
# the time. What was appended doesn't change.
CHUNK_ROWS: Final = 64
_CHUNK: Final = (
    "SELECT sequence, envelope, digest FROM batches WHERE sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?"
)
REPAIR: Final = 'docs/journal.md, "The way back", says what to do'


class StoredCheckpoint(NamedTuple):
    """A checkpoint with what binds it to the chain. `verified`: it was reproduced by replay from the one before."""

    sequence: int
    digest: bytes
    state: bytes
    checksum: bytes
    verified: bool


class Period(NamedTuple):
    """One account in one minute, hour or day. `internal` accounts (clearing, revenue) have a balance only."""

    span_ms: int
    starts_at: int
    account: str
    internal: bool
    totals: Totals


class Single(NamedTuple):
    """A fact that is kept by itself: a loss, a settlement, an adjustment, an amount at risk."""

    sequence: int
    wall_ms: int
    kind: str
    account: str
    amount: int
    text: str


def in_words(error: sqlite3.Error, path: str) -> str:
    """What happened to the file, and what to do, for somebody who doesn't know SQLite."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return f"{path}: the disk is full, or the file reached its bound; make room, then start again"
    if name.startswith("SQLITE_READONLY"):
        return f"{path}: the file can't be written (read-only); make the data folder writable, then start again"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"{path}: the file is damaged or no journal ({error}); `isthmus books verify` says where, {REPAIR}"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"{path}: the file can't be opened; check the path and its permissions"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{path}: another program holds the file locked; stop it, then start again"
    if name.startswith("SQLITE_IOERR"):
        return f"{path}: the disk failed ({name}); check the disk, then start again"
    return f"{path}: {error}"


def _blob(value: object) -> bytes:
    """A flipped bit can turn a blob into a number; no digest fits an empty one."""
    return value if isinstance(value, bytes) else b""


@final
class JournalReader:
    """Opens the file read-only. Between `snapshot()` and `close()` it sees one moment of the journal."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise JournalError(f"{self.path}: there is no journal; give a node's or a wallet's data folder")
        try:
            self._connection = self._open()
            self._read_identity()
        except sqlite3.Error as error:
            raise JournalError(in_words(error, self.path)) from error

    def __enter__(self) -> "JournalReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def snapshot(self) -> None:
        """From here on, everything is read as of one moment. Keep it short: the writer's log grows meanwhile."""
        self._connection.execute("BEGIN")
        self._connection.execute("SELECT count(*) FROM meta").fetchone()

    # --- batches ------------------------------------------------------------------------------------------------

    @property
    def last_sequence(self) -> int:
        (last,) = self._query("SELECT ifnull(max(sequence), 0) FROM batches")[0]
        assert isinstance(last, int)
        return last

    @property
    def first_sequence(self) -> int:
        """Of the oldest batch that is still here; 1 as long as nothing was pruned, and in an empty journal."""
        (first,) = self._query("SELECT ifnull(min(sequence), 1) FROM batches")[0]
        assert isinstance(first, int)
        return first

    def digest_at(self, sequence: int) -> bytes:
        """The chain's digest after the batch `sequence`, as it was stored."""
        if sequence == 0:
            return first_digest(self.journal_id, self.shard_id)
        row = self._query("SELECT digest FROM batches WHERE sequence = ?", sequence) or self._query(
            "SELECT value FROM meta WHERE name = 'pruned_digest' AND EXISTS"
            " (SELECT 1 FROM meta WHERE name = 'pruned_sequence' AND value = ?)",
            sequence,
        )
        if not row:
            raise JournalError(f"{self.path}: batch {sequence} is not here (the oldest is {self.first_sequence})")
        return _blob(row[0][0])

    def read_from(self, sequence: int) -> Iterator[StoredBatch]:
        """The batches from this one on, each checked: its checksum, identity and place, and the chain of digests.

        Raises JournalError at the first that is wrong, naming it. Nothing after that one is worth replaying.
        """
        for envelope, _ in self.envelopes_from(sequence):
            yield StoredBatch(envelope.sequence, envelope.entries)

    def envelopes_from(self, sequence: int) -> Iterator[tuple[Envelope, bytes]]:
        """As `read_from`, with the stored bytes of each envelope."""
        sequence = max(sequence, 1)
        last = self.last_sequence
        if sequence > last:
            return
        if sequence < self.first_sequence:
            raise JournalError(
                f"{self.path}: batch {sequence} was pruned, the oldest is {self.first_sequence};"
                " an archive folder has the older ones, if one is configured"
            )
        digest = self.digest_at(sequence - 1)
        while sequence <= last:
            for found, stored, stored_digest in self._query(_CHUNK, sequence, last, CHUNK_ROWS) or [(None, b"", b"")]:
                if found != sequence:
                    raise JournalError(f"{self.path}: batch {sequence} is missing; {REPAIR}")
                envelope = self._checked(sequence, stored)
                digest = next_digest(digest, stored)
                if digest != stored_digest:
                    raise JournalError(
                        f"{self.path}: batch {sequence} doesn't continue the chain of digests;"
                        f" it, its digest or the batch before was changed; {REPAIR}"
                    )
                yield envelope, stored
                sequence += 1

    def _checked(self, sequence: int, stored: object) -> Envelope:
        try:
            envelope = decode_envelope(_blob(stored))
        except CodecError as error:
            raise JournalError(f"{self.path}: batch {sequence} is damaged: {error}; {REPAIR}") from error
        if (envelope.journal_id, envelope.shard_id, envelope.sequence) != (self.journal_id, self.shard_id, sequence):
            raise JournalError(f"{self.path}: batch {sequence} belongs to another journal or place; {REPAIR}")
        return envelope

    # --- checkpoints --------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[StoredCheckpoint]:
        """Those that are kept, oldest first; raises JournalError if one doesn't fit its checksum."""
        return [self._intact(row) for row in self._query("SELECT * FROM checkpoints ORDER BY sequence")]

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest one; raises JournalError if it doesn't fit its checksum."""
        rows = self._query("SELECT * FROM checkpoints ORDER BY sequence DESC LIMIT 1")
        return Checkpoint(rows[0][0], self._intact(rows[0]).state) if rows else None

    def _intact(self, row: tuple[Any, ...]) -> StoredCheckpoint:
        sequence, digest, state, checksum, verified = row
        one = StoredCheckpoint(sequence, _blob(digest), _blob(state), _blob(checksum), verified == 1)
        if checkpoint_checksum(self.journal_id, self.shard_id, sequence, one.digest, one.state) != one.checksum:
            raise JournalError(
                f"{self.path}: the checkpoint after batch {sequence} is damaged (its checksum doesn't fit); {REPAIR}"
            )
        return one

    def checkpoint_sequences(self) -> list[int]:
        """The batches that checkpoints stand for, oldest first; their states are not looked at."""
        return [row[0] for row in self._query("SELECT sequence FROM checkpoints ORDER BY sequence")]

    # --- the projection -----------------------------------------------------------------------------------------

    def periods(self, *, account: str | None = None, since_ms: int = 0) -> list[Period]:
        """Minutes, and the hours and days that older minutes were folded into, in the order of time."""
        rows = self._query(
            "SELECT span_ms, starts_at, name, internal, incoming, outgoing, incoming_packets, outgoing_packets,"
            " rejected_packets, balance, sequence FROM periods JOIN ledger_accounts ON id = account"
            " WHERE starts_at + span_ms > ? AND (? IS NULL OR name = ?) ORDER BY starts_at, span_ms DESC, id",
            since_ms,
            account,
            account,
        )
        try:
            return [Period(row[0], row[1], row[2], bool(row[3]), totals_of(row[4:])) for row in rows]
        except (TypeError, ValueError) as error:
            raise JournalError(f"{self.path}: a row of `periods` is damaged: {error}; {REPAIR}") from error

    def singles(self, *, account: str | None = None, since_ms: int = 0) -> list[Single]:
        rows = self._query(
            "SELECT sequence, wall_ms, kind, account, amount, text FROM singles"
            " WHERE wall_ms >= ? AND (? IS NULL OR account = ?) ORDER BY sequence, position",
            since_ms,
            account,
            account,
        )
        try:
            return [Single(row[0], row[1], row[2], row[3], int(row[4]), row[5]) for row in rows]
        except (TypeError, ValueError) as error:
            raise JournalError(f"{self.path}: a row of `singles` is damaged: {error}; {REPAIR}") from error

    def last_singles(self, kinds: Sequence[str], count_max: int, *, account: str | None = None) -> list[Single]:
        """The newest of these kinds, the newest first. Looks through all that there are: some µs each."""
        marks = ", ".join("?" * len(kinds))
        rows = self._query(
            "SELECT sequence, wall_ms, kind, account, amount, text FROM singles"  # noqa: S608 - only marks are put in
            f" WHERE kind IN ({marks}) AND (? IS NULL OR account = ?) ORDER BY sequence DESC, position DESC LIMIT ?",
            *kinds,
            account,
            account,
            count_max,
        )
        try:
            return [Single(row[0], row[1], row[2], row[3], int(row[4]), row[5]) for row in rows]
        except (TypeError, ValueError) as error:
            raise JournalError(f"{self.path}: a row of `singles` is damaged: {error}; {REPAIR}") from error

    # --- the connection -----------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect("mode=ro")
        except sqlite3.OperationalError as error:
            # Without a -wal file nobody writes and nothing is outstanding, so a read-only folder does no harm.
            wal = self.path + "-wal"
            if error.sqlite_errorname != "SQLITE_CANTOPEN" or (os.path.exists(wal) and os.path.getsize(wal)):
                raise
            return self._connect("mode=ro&immutable=1")

    def _connect(self, options: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(os.path.abspath(self.path))}?{options}",
            uri=True,
            isolation_level=None,
            timeout=BUSY_TIMEOUT_MS / 1000,
            check_same_thread=False,
        )
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _read_identity(self) -> None:
        try:
            check_identity(self._connection, self.path)
            self.schema = schema_version(self._connection)
            if self.schema == 0:
                raise JournalError(f"{self.path} holds no journal; give a node's or a wallet's data folder")
            if self.schema < SCHEMA_VERSION:
                raise JournalError(
                    f"{self.path} has the older schema {self.schema}; start its node once, that brings it to"
                    f" {SCHEMA_VERSION}"
                )
            meta = dict(self._connection.execute("SELECT name, value FROM meta"))
            self.journal_id: bytes = _blob(meta["journal_id"])
            self.shard_id: int = int(meta["shard_id"])
        except (KeyError, TypeError, ValueError) as error:
            self.close()
            raise JournalError(f"{self.path}: the journal's identity is damaged; {REPAIR}") from error
        except BaseException:
            self.close()
            raise

    def _query(self, sql: str, *values: int | str | None) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(in_words(error, self.path)) from error
