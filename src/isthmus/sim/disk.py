"""A node's disk: what was written waits for a sync, which takes its time. A crash leaves what was synced."""

from collections.abc import Callable
from typing import Final, final

from isthmus.connector.events import Summary
from isthmus.journal.memory import Fault, MemoryDisk, MemoryJournal
from isthmus.sim.agenda import Agenda, Timers


@final
class Disk:
    """The journal of one node over all its lives, with group commit on virtual time."""

    def __init__(self, agenda: Agenda, *, journal_id: bytes, sync_ms: int) -> None:
        self.stored: MemoryDisk = MemoryDisk(journal_id=journal_id)
        self.sync_ms = sync_ms
        self.slower_ms = 0
        self.journal: MemoryJournal | None = None
        # Submitted and not reported: what a crash may lose.
        self.waiting: list[tuple[int, bytes]] = []
        self._agenda: Final = agenda
        self._timers: Timers | None = None
        self._on_durable: Callable[[int], None] | None = None
        self._syncing = 0  # batches of the sync under way
        self._next_fault: tuple[Fault, Callable[[], None]] | None = None  # what becomes of the next sync

    def open(self) -> MemoryJournal:
        """For the next process."""
        self.journal = MemoryJournal(self.stored)
        self.waiting = []
        self._syncing = 0
        self._next_fault = None
        return self.journal

    def start(self, timers: Timers, on_durable: Callable[[int], None], on_failed: Callable[[int, str], None]) -> None:
        assert self.journal is not None
        self._timers = timers
        self._on_durable = on_durable
        self.journal.start(self._reported, on_failed)

    def submit(self, sequence: int, record: bytes, summary: Summary) -> None:
        assert self.journal is not None
        self.waiting.append((sequence, record))
        self.journal.submit(sequence, record, summary)
        self._sync_soon()

    def fail_next(self, fault: Fault, on_hit: Callable[[], None]) -> None:
        """The next sync ends so; whoever asked is told when it does."""
        if self.journal is not None:
            self._next_fault = (fault, on_hit)

    def _sync_soon(self) -> None:
        if self.waiting and not self._syncing:
            # What comes while the disk works waits for its next turn.
            self._syncing = len(self.waiting)
            assert self._timers is not None
            self._timers.after(self.sync_ms + self.slower_ms, self._sync)

    def _sync(self) -> None:
        assert self.journal is not None
        group, self._syncing = self._syncing, 0
        if self._next_fault is not None:
            self.journal.fault, on_hit = self._next_fault
            self._next_fault = None
            on_hit()
        self.journal.sync(group)
        self._sync_soon()

    def _reported(self, sequence: int) -> None:
        while self.waiting and self.waiting[0][0] <= sequence:
            self.waiting.pop(0)
        assert self._on_durable is not None
        self._on_durable(sequence)

    def crash(self, *, written: int) -> None:
        """The process dies. The first `written` batches of a sync under way had reached the disk all the same."""
        journal = self.journal
        assert journal is not None
        self._on_durable = lambda sequence: None
        if self._syncing and journal.fault is None:
            journal.sync(min(written, self._syncing))
        self.stored = journal.crash()
        self.journal = None
        self.waiting = []
        self._syncing = 0
