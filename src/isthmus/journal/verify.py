"""Is the newest checkpoint what replay makes of the one before it? Nothing is pruned until another process said yes.

    python -m isthmus.journal.verify JOURNAL

reads the journal of a node that runs or not, and changes nothing. Exit 0 and one line of JSON: the checkpoint was
reproduced byte by byte. Exit 1: it was not, and the line on stderr says how. `verify_and_prune` runs it for the
journal's owner, who alone deletes.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final, NamedTuple, TypeAlias

from isthmus.errors import IsthmusError, JournalError
from isthmus.journal.interface import StoredBatch
from isthmus.journal.reader import REPAIR, JournalReader, StoredCheckpoint
from isthmus.journal.sqlite import SqliteJournal

# From a state (None: nothing happened yet) and the batches after it to the state at the end. It decides nothing and
# asks nothing, so that the same bytes always give the same bytes.
Replayer: TypeAlias = Callable[[bytes | None, Iterator[StoredBatch]], bytes]

# Named, not imported: the journal doesn't know what its entries mean.
REPLAYER: Final = "isthmus.runtime.opening:replay_node"
# A replay is far faster than what it replays was; a process that hangs must not keep the file growing unseen.
VERIFY_TIMEOUT_S: Final = 3_600.0
# The node's packets come first.
_NICENESS: Final = 10


class Verified(NamedTuple):
    """Replay from `older` (0: the very beginning) gave exactly the checkpoint after `newer`."""

    older: int
    newer: int
    checksum: bytes  # of the newer checkpoint


def verify_checkpoint(reader: JournalReader, replayer: Replayer) -> Verified | None:
    """Replay from the last trusted checkpoint to the newest one and compare; None if there is nothing to verify.

    Raises JournalError where a row is damaged, the chain is broken, or the state differs.
    """
    kept = reader.checkpoints()
    if not kept or kept[-1].verified:
        return None
    newer = kept[-1]
    older = _trusted_before(reader, kept)
    sequence = older.sequence if older is not None else 0
    for one in kept:
        if reader.digest_at(one.sequence) != one.digest:
            raise JournalError(
                f"{reader.path}: the checkpoint after batch {one.sequence} stands on other batches; {REPAIR}"
            )
    state = replayer(older.state if older is not None else None, _batches(reader, sequence + 1, newer.sequence))
    if state != newer.state:
        raise JournalError(
            f"{reader.path}: replay from batch {sequence} doesn't give the checkpoint after batch {newer.sequence}"
            f" ({_first_difference(state, newer.state)}); nothing is pruned; {REPAIR}"
        )
    return Verified(sequence, newer.sequence, newer.checksum)


def verify_and_prune(
    journal: SqliteJournal,
    *,
    replayer: str = REPLAYER,
    timeout_s: float = VERIFY_TIMEOUT_S,
    on_start: Callable[[subprocess.Popen[str]], None] | None = None,
) -> int:
    """Verify the newest checkpoint in a process of its own, then prune; returns how many batches were deleted.

    Blocks its caller for as long as the replay takes: call it from a thread, after `save_checkpoint`. `on_start` gets
    the process; who kills it ends the wait with a JournalError.
    """
    command = [sys.executable, "-m", "isthmus.journal.verify", "--replayer", replayer, journal.path]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
            if on_start is not None:
                on_start(process)
            try:
                found, problem = process.communicate(timeout=timeout_s)
            except BaseException:
                process.kill()
                raise
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JournalError(f"{journal.path}: the checkpoint was not verified, nothing is pruned: {error}") from error
    if process.returncode != 0:
        says = problem.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
        raise JournalError(says[0])
    verified = json.loads(found)
    if verified["checksum"] is not None:
        journal.mark_verified(verified["newer"], bytes.fromhex(verified["checksum"]))
    return journal.prune()


def load_replayer(name: str) -> Replayer:
    """`package.module:function`; raises JournalError in words if there is none."""
    module, _, function = name.partition(":")
    try:
        found: Replayer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise JournalError(f"there is no replayer {name}: {error}") from error
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m isthmus.journal.verify", description=__doc__.partition("\n")[0])
    parser.add_argument("path", metavar="JOURNAL", help="the journal's file, e.g. data/journal.db")
    parser.add_argument("--replayer", default=REPLAYER, help="package.module:function (default: the connector's)")
    parser.add_argument(
        "--drop-checkpoint", type=int, metavar="N", help="give up the damaged checkpoint after batch N (node stopped)"
    )
    parser.add_argument(
        "--trust-checkpoint",
        type=int,
        metavar="N",
        help="replay from the checkpoint after batch N although batches before it are damaged (node stopped)",
    )
    given = parser.parse_args(arguments)
    try:
        if given.drop_checkpoint is not None:
            with closing(SqliteJournal(given.path)) as journal:
                journal.drop_checkpoint(given.drop_checkpoint)
        if given.trust_checkpoint is not None:
            with closing(SqliteJournal(given.path)) as journal:
                _trust(journal, given.trust_checkpoint)
        with JournalReader(given.path) as reader:
            # No snapshot for all of it: only this journal's owner prunes, and it waits for the answer.
            verified = verify_checkpoint(reader, load_replayer(given.replayer))
    except IsthmusError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    older, newer, checksum = verified or (None, None, None)
    sys.stdout.write(json.dumps({"older": older, "newer": newer, "checksum": checksum and checksum.hex()}) + "\n")
    return 0


def _trust(journal: SqliteJournal, sequence: int) -> None:
    """Say for replay, which can't any more, that a checkpoint is right; its own checksum must hold."""
    with JournalReader(journal.path) as reader:
        for one in reader.checkpoints():
            if one.sequence == sequence:
                journal.mark_verified(sequence, one.checksum)
                return
    raise JournalError(f"{journal.path}: there is no checkpoint after batch {sequence}")


def _trusted_before(reader: JournalReader, kept: list[StoredCheckpoint]) -> StoredCheckpoint | None:
    """The newest verified checkpoint before the last one; None for the beginning of the journal."""
    for one in reversed(kept[:-1]):
        if one.verified:
            return one
    if reader.first_sequence > 1:
        raise JournalError(
            f"{reader.path}: no verified checkpoint is left to replay from, and batch 1 was pruned; {REPAIR}"
        )
    return None


def _batches(reader: JournalReader, first: int, last: int) -> Iterator[StoredBatch]:
    for batch in reader.read_from(first):
        if batch.sequence > last:
            return
        yield batch
        if batch.sequence == last:
            return


def _first_difference(left: bytes, right: bytes) -> str:
    at = next((at for at, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), None)
    if at is None:
        return f"{len(left)} and {len(right)} bytes"
    return f"byte {at} differs"


if __name__ == "__main__":
    os.nice(_NICENESS)
    sys.exit(main())
