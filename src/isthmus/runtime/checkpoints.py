"""Checkpoints of a running node: taken now and then, verified by replay in another process, then the journal is pruned.

The state of a quiet node is encoded between two batches, which takes a few milliseconds at the bound below. With more
legs open than that, a process of its own replays the journal from the checkpoint before, so that the loop never stops
for it. Either way nothing is pruned before `journal.verify` has reproduced the checkpoint byte by byte.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from isthmus.connector.events import Log
from isthmus.connector.kernel import Kernel
from isthmus.errors import JournalError
from isthmus.journal.sqlite import SqliteJournal
from isthmus.journal.verify import REPLAYER, verify_and_prune
from isthmus.runtime.driver import Driver

T = TypeVar("T")

# About 250,000 forwarded packets: some seconds of replay, and a file of a few hundred megabytes at the most.
BYTES_PER_CHECKPOINT: Final = 64 * 1024 * 1024
BATCHES_PER_CHECKPOINT: Final = 20_000
# Encoding costs about 3 µs a leg: at the bound a few milliseconds, well under an expiry margin.
LEGS_IN_LOOP_MAX: Final = 1_000
REPLAY_S_MAX: Final = 3_600


def open_legs(kernel: Kernel) -> int:
    """How many legs are undecided: two for each packet in flight."""
    return sum(len(account.received) + len(account.sent) for account in kernel.books.peers.values())


class CheckpointKeeper:
    """Listens to commits and keeps replay short and the file bounded."""

    def __init__(
        self,
        driver: Driver,
        journal: SqliteJournal,
        *,
        on_log: Callable[[Log], None],
        replayer: str = REPLAYER,
        every_batches: int = BATCHES_PER_CHECKPOINT,
        every_bytes: int = BYTES_PER_CHECKPOINT,
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._on_log = on_log
        self._replayer = replayer
        self._every_batches = every_batches
        self._every_bytes = every_bytes
        # Counted from the last one that was verified: a node that is restarted often must prune all the same.
        self._last = journal.verified_sequence
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._verifier: subprocess.Popen[str] | None = None

    def committed(self, sequence: int) -> None:
        """After each commit: begin a checkpoint if it is time, and none is under way."""
        due = sequence - self._last >= self._every_batches or self._journal.bytes_since_checkpoint >= self._every_bytes
        if due and self._task is None:
            self._last = sequence
            self._task = asyncio.create_task(self._keep(sequence))

    async def close(self) -> None:
        """Let a checkpoint that is under way go: the next start makes it anew."""
        self._closed = True
        if self._verifier is not None:
            self._verifier.kill()  # else its thread, and so the process, would end with the replay only
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def last(self) -> None:
        """Save the state of a drained node, so that its next start replays nothing."""
        kernel = self._driver.kernel
        if kernel.sequence > 0 and kernel.at_boundary():
            await self._in_thread(partial(self._journal.save_checkpoint, kernel.sequence, kernel.state()))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """On a thread of the keeper's own: those of the loop may all wait for name look-ups."""
        thread = ThreadPoolExecutor(1, "checkpoints")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        finally:
            thread.shutdown(wait=False)

    async def _keep(self, sequence: int) -> None:
        try:
            kernel = self._driver.kernel
            if kernel.at_boundary() and open_legs(kernel) <= LEGS_IN_LOOP_MAX:
                sequence, state = kernel.sequence, kernel.state()
            else:
                state = await self._replayed(sequence)
            await self._in_thread(partial(self._journal.save_checkpoint, sequence, state))
            pruned = await self._in_thread(
                partial(verify_and_prune, self._journal, replayer=self._replayer, on_start=self._verifying)
            )
            self._on_log(Log("info", "checkpoint", {"sequence": sequence, "bytes": len(state), "pruned": pruned}))
        except (JournalError, OSError) as error:
            # The node goes on: only replay grows longer and the file larger.
            self._on_log(Log("error", "checkpoint failed", {"sequence": sequence, "problem": str(error)}))
        finally:
            self._task = None

    def _verifying(self, process: subprocess.Popen[str]) -> None:
        """From the thread that waits for it."""
        self._verifier = process
        if self._closed:
            process.kill()

    async def _replayed(self, sequence: int) -> bytes:
        """The state after the batch, by replay in another process."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "isthmus.runtime.replay",
            "--replayer",
            self._replayer,
            self._journal.path,
            str(sequence),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            state, problem = await asyncio.wait_for(process.communicate(), REPLAY_S_MAX)
        except (TimeoutError, asyncio.CancelledError):
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            last_line = (problem.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
            raise JournalError(f"replay in another process failed: {last_line}")
        return state
