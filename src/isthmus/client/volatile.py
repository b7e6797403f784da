"""The journal of a wallet that lives in memory: it keeps nothing, so every batch is as durable as it will ever be."""

import os
from collections.abc import Callable, Iterator
from typing import final

from isthmus.connector.events import Summary
from isthmus.journal.interface import Checkpoint, StoredBatch
from isthmus.journal.record import JOURNAL_ID_BYTES


@final
class VolatileJournal:
    """Implements `journal.interface.Journal` in constant memory."""

    def __init__(self) -> None:
        self.journal_id: bytes = os.urandom(JOURNAL_ID_BYTES)
        self.shard_id = 0
        self.last_sequence = 0
        self.bytes_since_checkpoint = 0
        self._on_durable: Callable[[int], None] | None = None

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[int, str], None]) -> None:
        self._on_durable = on_durable

    def submit(self, sequence: int, record: bytes, summary: Summary) -> None:
        assert sequence == self.last_sequence + 1
        assert self._on_durable is not None
        self.last_sequence = sequence
        self._on_durable(sequence)  # the driver takes it up in a later turn of the loop

    def read_from(self, sequence: int) -> Iterator[StoredBatch]:
        return iter(())

    def save_checkpoint(self, sequence: int, state: bytes) -> None:
        """There is nothing to shorten."""

    def load_checkpoint(self) -> Checkpoint | None:
        return None

    def close(self) -> None:
        """Nothing was kept."""
