"""From a journal to a kernel that stands where the last one stopped."""

from collections.abc import Callable, Iterator
from typing import Final

from isthmus.connector.events import Now
from isthmus.connector.kernel import Kernel
from isthmus.connector.replay import Application
from isthmus.connector.tables import Tables
from isthmus.errors import CodecError, JournalError
from isthmus.journal.interface import Journal, StoredBatch

# A replayed kernel that never runs needs no randomness.
_NO_ENTROPY: Final = bytes(32)


def open_kernel(
    journal: Journal,
    tables: Tables | Callable[[Kernel], Tables],
    *,
    entropy: bytes,
    now: Now,
    application: Application | None = None,
) -> Kernel:
    """Load the last checkpoint, replay what came after it, and compare with the tables (or what makes them of it).

    Raises JournalError for a journal that can't be replayed, ConfigError for tables that contradict the books.
    """
    kernel = Kernel(entropy, application=application)
    checkpoint = journal.load_checkpoint()
    _replay(kernel, None if checkpoint is None else checkpoint.state, journal.read_from)
    kernel.check_tables(tables(kernel) if callable(tables) else tables)
    kernel.opened(now)
    return kernel


def replay_node(state: bytes | None, batches: Iterator[StoredBatch]) -> bytes:
    """A connector's state after these batches: the `Replayer` of `journal.verify`."""
    return replay_state(Kernel(_NO_ENTROPY), state, batches)


def replay_wallet(state: bytes | None, batches: Iterator[StoredBatch], application: Application) -> bytes:
    """The same where an application's notes are in the journal."""
    return replay_state(Kernel(_NO_ENTROPY, application=application), state, batches)


def replay_state(kernel: Kernel, state: bytes | None, batches: Iterator[StoredBatch]) -> bytes:
    """Drive a fresh kernel from a state over the batches, and give its state then."""
    _replay(kernel, state, lambda _: batches)
    return kernel.state()


def _replay(kernel: Kernel, state: bytes | None, read_from: Callable[[int], Iterator[StoredBatch]]) -> None:
    at = 0
    try:
        if state is not None:
            kernel.load_state(state)
            at = kernel.sequence
        for batch in read_from(at + 1):
            at = batch.sequence
            kernel.replay(at, batch.record)
    except CodecError as error:
        raise JournalError(f"batch {at} can't be replayed: {error}. `isthmus books verify` tells more") from error
