"""What a journal is: an ordered, durable list of batches with checkpoints. One writer per journal."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from isthmus.connector.events import Summary


class StoredBatch(NamedTuple):
    """One batch as it was appended."""

    sequence: int  # 1, 2, 3, … without gaps
    record: bytes


class Checkpoint(NamedTuple):
    """The whole state after the batch `sequence`."""

    sequence: int
    state: bytes


class Journal(Protocol):
    """Durable order of money events. Methods other than `submit` are called before the node runs, or off its loop."""

    journal_id: bytes  # 16 random bytes, made with the journal
    shard_id: int
    last_sequence: int  # of the last durable batch; 0 in an empty journal
    bytes_since_checkpoint: int  # of envelopes: whoever saves checkpoints decides by it

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[int, str], None]) -> None:
        """Begin to accept batches. The callbacks may come from another thread; `on_durable(n)` covers all up to n."""

    def submit(self, sequence: int, record: bytes, summary: Summary) -> None:
        """Queue a batch; returns at once. `sequence` must be the one after the last submitted.

        After a failure nothing is accepted any more: `on_failed` is called again, for this sequence.
        """

    def read_from(self, sequence: int) -> Iterator[StoredBatch]:
        """The batches with this sequence and after it; raises JournalError at a corrupt one, naming it."""

    def save_checkpoint(self, sequence: int, state: bytes) -> None:
        """Keep the state after a batch that was submitted. Blocks until it is durable; raises JournalError."""

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest; raises JournalError if it is damaged."""

    def close(self) -> None:
        """Wait for what was submitted, then let go of the journal."""
