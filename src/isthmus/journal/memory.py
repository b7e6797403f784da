"""A journal in memory for tests and the simulator: durable only when its owner says so, with faults to switch on.

Deterministic: no thread, no clock, no randomness. `sync()` plays the disk; the callbacks come from within it.
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final, final

from isthmus.connector.events import Summary
from isthmus.errors import CodecError, JournalError
from isthmus.journal.interface import Checkpoint, StoredBatch
from isthmus.journal.record import (
    JOURNAL_ID_BYTES,
    checkpoint_checksum,
    decode_envelope,
    encode_envelope,
    first_digest,
    next_digest,
)


class Fault(Enum):
    """What the disk does at the next `sync`."""

    FAIL = auto()  # reports a failure; nothing of it is on the disk
    UNKNOWN = auto()  # reports a failure; all of it is on the disk
    TORN = auto()  # reports a failure; the first half of the batches is on the disk, then half a batch
    LOSE = auto()  # reports success; after a crash it is gone (a disk that lies; an auditor must notice)
    SLOW = auto()  # nothing happens, until the fault is switched off


@final
class MemoryDisk:
    """What survives a crash of the process. `MemoryJournal(disk)` is the process's next start."""

    def __init__(self, *, journal_id: bytes = bytes(JOURNAL_ID_BYTES), shard_id: int = 0) -> None:
        self.journal_id: Final = journal_id
        self.shard_id: Final = shard_id
        self.envelopes: dict[int, bytes] = {}
        self.digests: dict[int, bytes] = {}
        self.torn = b""
        # (sequence, digest, state, checksum), oldest first
        self.checkpoints: list[tuple[int, bytes, bytes, bytes]] = []
        self.writer: MemoryJournal | None = None

    @property
    def last_sequence(self) -> int:
        return max(self.envelopes, default=0)

    def digest_at(self, sequence: int) -> bytes:
        return self.digests[sequence] if sequence else first_digest(self.journal_id, self.shard_id)

    def write(self, sequence: int, record: bytes) -> None:
        envelope = encode_envelope(self.journal_id, self.shard_id, sequence, record)
        self.digests[sequence] = next_digest(self.digest_at(sequence - 1), envelope)
        self.envelopes[sequence] = envelope

    def flip_bit(self, sequence: int, bit: int = 0) -> None:
        """Damage one stored batch."""
        damaged = bytearray(self.envelopes[sequence])
        damaged[bit // 8] ^= 1 << bit % 8
        self.envelopes[sequence] = bytes(damaged)


@final
class MemoryJournal:
    """Implements `journal.interface.Journal` on a `MemoryDisk`."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk: Final = MemoryDisk() if disk is None else disk
        if self.disk.writer is not None:
            raise JournalError("the journal in memory is in use by another process; stop that one first")
        self.disk.writer = self
        self.disk.torn = b""  # half a batch was never reported durable: it doesn't count
        self.journal_id: bytes = self.disk.journal_id
        self.shard_id: int = self.disk.shard_id
        self.last_sequence: int = self.disk.last_sequence
        self.fault: Fault | None = None
        self._submitted = self.last_sequence
        self._queue: list[tuple[int, bytes]] = []
        self._lost: list[int] = []
        self._problem: str | None = None
        self._on_durable: Callable[[int], None] | None = None
        self._on_failed: Callable[[int, str], None] | None = None
        self._closed = False
        self.bytes_since_checkpoint = 0

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[int, str], None]) -> None:
        assert self._on_durable is None and not self._closed
        self._on_durable = on_durable
        self._on_failed = on_failed

    def submit(self, sequence: int, record: bytes, summary: Summary) -> None:
        assert self._on_failed is not None and not self._closed
        assert sequence == self._submitted + 1, (sequence, self._submitted)
        self._submitted = sequence
        if self._problem is not None:
            self._on_failed(sequence, self._problem)
            return
        self._queue.append((sequence, record))

    def sync(self, batches_max: int | None = None) -> int:
        """Make what is queued durable (the first `batches_max` of it) and report it; returns how many batches."""
        if self._problem is not None or self.fault is Fault.SLOW:
            return 0
        group = self._queue[:batches_max]
        if not group:
            return 0
        if self.fault in (Fault.FAIL, Fault.UNKNOWN, Fault.TORN):
            self._fail(group)
            return 0
        self._queue = self._queue[len(group) :]
        for sequence, record in group:
            self._write(sequence, record)
            if self.fault is Fault.LOSE:
                self._lost.append(sequence)
        self.last_sequence = group[-1][0]
        assert self._on_durable is not None
        self._on_durable(self.last_sequence)
        return len(group)

    def read_from(self, sequence: int) -> Iterator[StoredBatch]:
        disk = self.disk
        for expected in range(max(sequence, 1), disk.last_sequence + 1):
            stored = disk.envelopes.get(expected)
            if stored is None:
                raise JournalError(f"the journal in memory: batch {expected} is missing")
            try:
                envelope = decode_envelope(stored)
            except CodecError as error:
                raise JournalError(f"the journal in memory: batch {expected} is damaged: {error}") from error
            if next_digest(disk.digest_at(expected - 1), stored) != disk.digests[expected]:
                raise JournalError(f"the journal in memory: batch {expected} doesn't continue the chain of digests")
            yield StoredBatch(expected, envelope.entries)

    def save_checkpoint(self, sequence: int, state: bytes) -> None:
        self.sync()
        if self._problem is not None:
            raise JournalError(self._problem)
        if sequence not in self.disk.digests:
            raise JournalError(f"the journal in memory: no checkpoint without its batch: {sequence}")
        digest = self.disk.digests[sequence]
        checksum = checkpoint_checksum(self.journal_id, self.shard_id, sequence, digest, state)
        kept = [one for one in self.disk.checkpoints if one[0] < sequence]
        self.disk.checkpoints = [*kept[-1:], (sequence, digest, state, checksum)]
        self.bytes_since_checkpoint = 0

    def load_checkpoint(self) -> Checkpoint | None:
        for sequence, digest, state, checksum in reversed(self.disk.checkpoints):
            if checkpoint_checksum(self.journal_id, self.shard_id, sequence, digest, state) != checksum:
                raise JournalError(f"the journal in memory: the checkpoint after batch {sequence} is damaged")
            return Checkpoint(sequence, state)
        return None

    def close(self) -> None:
        if not self._closed:
            self.sync()
            self._closed = True
            self.disk.writer = None

    def crash(self) -> MemoryDisk:
        """The process dies now: what was not synced is gone, and what the disk only said it kept."""
        for sequence in self._lost:
            # All after a lost batch is unreachable: a journal has no gaps.
            for later in [one for one in self.disk.envelopes if one >= sequence]:
                del self.disk.envelopes[later], self.disk.digests[later]
        self.disk.checkpoints = [one for one in self.disk.checkpoints if one[0] in self.disk.digests]
        self._closed = True
        self.disk.writer = None
        return self.disk

    def _write(self, sequence: int, record: bytes) -> None:
        self.disk.write(sequence, record)
        self.bytes_since_checkpoint += len(record)

    def _fail(self, group: list[tuple[int, bytes]]) -> None:
        written = {Fault.FAIL: 0, Fault.UNKNOWN: len(group), Fault.TORN: len(group) // 2}
        assert self.fault is not None
        whole = written[self.fault]
        for sequence, record in group[:whole]:
            self._write(sequence, record)
        if self.fault is Fault.TORN:
            self.disk.torn = group[whole][1][: len(group[whole][1]) // 2]
        self._queue.clear()
        first = group[0][0]
        self._problem = f"nothing from batch {first} on is known to be recorded. The disk failed ({self.fault.name})"
        assert self._on_failed is not None
        self._on_failed(first, self._problem)
