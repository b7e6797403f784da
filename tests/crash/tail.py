"""Reads a journal while its process lives and dies, and keeps what `isthmus books export` would say of each batch.

A thread for each journal: the export walks along the batches as they come, so rows are kept before they are pruned. It
also knows how many legs are undecided, and when it has seen which batch.
"""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from isthmus.cli.books_replay import transfer_rows
from isthmus.journal.interface import StoredBatch
from isthmus.journal.reader import JournalReader, StoredCheckpoint
from isthmus.sim.evidence import Mark

POLL_S: Final = 0.15


class _Growing:
    """A journal that never ends; stands in for a `JournalReader`. Each time it is at the end it waits."""

    def __init__(self, reader: JournalReader, tail: "Tail") -> None:
        self._reader = reader
        self._tail = tail
        self.path = reader.path

    @property
    def first_sequence(self) -> int:
        return self._reader.first_sequence

    def checkpoints(self) -> list[StoredCheckpoint]:
        return self._reader.checkpoints()

    def read_from(self, sequence: int) -> Iterator[StoredBatch]:
        while True:
            for batch in self._reader.read_from(sequence):
                sequence = batch.sequence + 1
                yield batch
            self._tail.reached(sequence - 1)
            if self._tail.waits():
                return


class Tail:
    """The rows of one journal, in a file of JSON lines. `start` once the journal is there.

    If the file has rows already, of a campaign that was interrupted, it goes on after them.
    """

    def __init__(self, node: str, journal: Path, rows: Path) -> None:
        self.node: Final = node
        self.rows = rows
        self.marks: Final[list[Mark]] = []
        self.sequence = 0  # up to here the rows are in the file
        self.open_packets = 0
        self.failure: Exception | None = None
        self._journal = journal
        self.open_legs: Final[set[int]] = set()
        self.first_wanted = 1  # rows of the batches before were in the file
        self._rotated: Path | None = None
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"tail-{node}")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._wanted.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    def catch_up(self, timeout_s: float) -> bool:
        """Wait until all that is in the journal now has been read."""
        with self._changed:
            at = len(self.marks)
            self._wanted.set()
            # The pass that goes on now may have begun before our call; the one after it has not.
            self._changed.wait_for(lambda: len(self.marks) >= at + 2 or self._is_over(), timeout_s)
            return len(self.marks) >= at + 2

    def _is_over(self) -> bool:
        return self.failure is not None or self._stop.is_set()

    def rotate(self, rows: Path, timeout_s: float) -> bool:
        """What comes from now on goes to another file. Call it while nothing comes."""
        self._rotated = rows
        return self.catch_up(timeout_s)

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._take_up()
            self._file = self.rows.open("a", encoding="utf-8")
            try:
                with JournalReader(str(self._journal)) as reader:
                    for row in transfer_rows(_Growing(reader, self)):  # type: ignore[arg-type]
                        if int(str(row["sequence"])) >= self.first_wanted:
                            self._take(row)
            finally:
                self._file.close()
        except Exception as error:  # noqa: BLE001 - told by whoever waits for us
            with self._changed:
                self.failure = error
                self._changed.notify_all()

    def _take_up(self) -> None:
        """Rows of an earlier process, but for its last batch: that may be there in part, and comes again."""
        if not self.rows.exists():
            return
        lines = self.rows.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        last = rows[-1]["sequence"] if rows else 0
        self.first_wanted = max(1, last)
        kept = [row for row in rows if row["sequence"] < self.first_wanted]
        self.rows.write_text("".join(lines[: len(kept)]), encoding="utf-8")
        for row in kept:
            self._follow(row)

    def _take(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._follow(row)

    def _follow(self, row: dict[str, Any]) -> None:
        entry = row["entry"]
        if entry == "reserve" and row["direction"] == "incoming":
            self.open_legs.add(row["leg"])
        elif entry in ("post", "void"):
            self.open_legs.discard(row["leg"])

    def reached(self, sequence: int) -> None:
        self._file.flush()
        if self._rotated is not None:
            self._file.close()
            self.rows, self._rotated = self._rotated, None
            self._file = self.rows.open("a", encoding="utf-8")
        with self._changed:
            self.sequence = sequence
            self.open_packets = len(self.open_legs)
            self.marks.append(Mark(_wall_ms(), sequence))
            self._changed.notify_all()

    def waits(self) -> bool:
        """Until there may be more; whether it is the end."""
        self._wanted.wait(POLL_S)
        self._wanted.clear()
        return self._stop.is_set()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
