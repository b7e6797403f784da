"""Replay a journal and write the state to standard output: `python -m isthmus.runtime.replay JOURNAL SEQUENCE`.

Run at low priority by the node that owns the journal, when too much is open to encode its state in the loop.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Final

from isthmus.errors import IsthmusError
from isthmus.journal.interface import StoredBatch
from isthmus.journal.reader import JournalReader
from isthmus.journal.verify import REPLAYER, load_replayer

_NICENESS: Final = 10


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m isthmus.runtime.replay", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("path", metavar="JOURNAL")
    parser.add_argument("sequence", type=int, metavar="SEQUENCE", help="the last batch to replay")
    parser.add_argument("--replayer", default=REPLAYER, help="package.module:function")
    given = parser.parse_args(arguments)
    os.nice(_NICENESS)
    try:
        with JournalReader(given.path) as reader:
            checkpoint = reader.load_checkpoint()
            first = 1 if checkpoint is None else checkpoint.sequence + 1
            batches = _up_to(reader.read_from(first), given.sequence)
            state = load_replayer(given.replayer)(None if checkpoint is None else checkpoint.state, batches)
    except IsthmusError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.buffer.write(state)
    return 0


def _up_to(batches: Iterator[StoredBatch], last: int) -> Iterator[StoredBatch]:
    for batch in batches:
        if batch.sequence > last:
            return
        yield batch


if __name__ == "__main__":
    sys.exit(main())
