"""Bits that flip in a journal on disk: found by a checksum, named by `isthmus books verify`, and the way back.

The bits are flipped in the file itself, behind SQLite's back, as a disk would. docs/journal.md, "The way back", is what
an operator reads then; each of its steps is taken here.
"""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from isthmus.ilp.packet import Fulfill
from isthmus.journal.reader import JournalReader

slow = pytest.mark.slow
PAID_BEFORE, PAID_AFTER = 7, 5  # packets before and after the checkpoint


class Recorded:
    """The folder of a node that was stopped once, so that it has a checkpoint, and killed later."""

    def __init__(self, folder: Path, text: str, checkpoint: int, last: int, digest: str) -> None:
        self.folder, self.text = folder, text
        self.checkpoint, self.last = checkpoint, last
        self.digest = digest  # of the whole books, as `books verify` tells it
        self.journal = folder / "data" / "journal.db"

    def flip(self, column: str, table: str, sequence: int, at: int) -> None:
        """Flip one bit of a stored value, `at` bytes into it (negative: from its end), in the file."""
        with closing(sqlite3.connect(self.journal)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # all that is in the log, into the file
            query = f"SELECT {column} FROM {table} WHERE sequence = ?"
            (value,) = connection.execute(query, (sequence,)).fetchone()
        data = bytearray(self.journal.read_bytes())
        # A value of a few hundred bytes lies in one page as it is; of a longer one, its first part is looked for.
        part = value[:300] if at >= 0 else value[-60:]
        assert data.count(part) == 1
        place = data.index(part) + (at if at >= 0 else len(part) + at)
        data[place] ^= 1 << (at % 8)
        self.journal.write_bytes(data)


@pytest.fixture
async def recorded(nodes: Any, two: str, peer: Any) -> Recorded:
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    for amount in range(PAID_BEFORE):
        assert isinstance(await alice.pay("test.node.bob", amount + 1), Fulfill)
    assert await node.stop() == 0
    with JournalReader(str(node.folder / "data" / "journal.db")) as reader:
        (checkpoint,) = reader.checkpoint_sequences()
    for one in (alice, bob):
        await one.close()
    node = await nodes.run(two, folder=node.folder)
    for one in (alice, bob):
        await one.dial(node.port)
    for amount in range(PAID_AFTER):
        assert isinstance(await alice.pay("test.node.bob", amount + 1), Fulfill)
    await node.kill()
    status, says = await command("isthmus", "books", "verify", node.folder / "data")
    assert status == 0, says
    with JournalReader(str(node.folder / "data" / "journal.db")) as reader:
        last = reader.last_sequence
    assert last > checkpoint + 2
    return Recorded(node.folder, two, checkpoint, last, says.split()[-1])


async def command(*words: Any) -> tuple[int, str]:
    """Status of a `python -m` command, and what it says on stdout or, where it fails, on stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, problem = await process.communicate()
    return process.returncode or 0, (problem if process.returncode else out).decode()


async def refuses(nodes: Any, recorded: Recorded) -> str:
    """The node doesn't start; its one line."""
    node = await nodes.launch(recorded.text, folder=recorded.folder)
    assert await node.exit_code() == 1
    (line,) = node.lines
    return str(line)


async def runs(nodes: Any, recorded: Recorded) -> None:
    """The node starts, with the balances that it had."""
    node = await nodes.run(recorded.text, folder=recorded.folder)
    owed = sum(range(1, PAID_BEFORE + 1)) + sum(range(1, PAID_AFTER + 1))
    assert await node.balances() == {"alice": owed, "bob": -owed}
    assert await node.stop() == 0


@slow
@pytest.mark.parametrize("at", [0, 20, 60, -1])
async def test_a_bit_in_a_row_that_replay_needs(nodes: Any, recorded: Recorded, at: int) -> None:
    """Refused and named; with the row as it was, from a mirror, everything is there again."""
    mirror = recorded.folder / "mirror"
    shutil.copytree(recorded.folder / "data", mirror)
    sequence = recorded.checkpoint + 2
    recorded.flip("envelope", "batches", sequence, at)
    status, says = await command("isthmus", "books", "verify", recorded.folder / "data")
    assert status == 1 and f"batch {sequence}" in says and says.count("\n") == 1
    assert f"batch {sequence}" in await refuses(nodes, recorded)
    shutil.rmtree(recorded.folder / "data")
    mirror.rename(recorded.folder / "data")
    status, says = await command("isthmus", "books", "verify", recorded.folder / "data")
    assert status == 0 and says.split()[-1] == recorded.digest
    await runs(nodes, recorded)


@slow
async def test_a_bit_in_the_digest_of_a_row(nodes: Any, recorded: Recorded) -> None:
    sequence = recorded.last - 2
    recorded.flip("digest", "batches", sequence, 3)
    status, says = await command("isthmus", "books", "verify", recorded.folder / "data")
    assert status == 1 and f"batch {sequence}" in says
    assert f"batch {sequence}" in await refuses(nodes, recorded)


@slow
@pytest.mark.parametrize("column", ["state", "checksum", "digest"])
async def test_a_bit_in_a_checkpoint_and_the_way_back(nodes: Any, recorded: Recorded, column: str) -> None:
    """Refused and named. It is given up, as the page says: the batches are there, and give the same books."""
    if column == "digest":  # the batch has the same 32 bytes
        with closing(sqlite3.connect(recorded.journal)) as connection, connection:
            connection.execute("UPDATE checkpoints SET digest = zeroblob(32)")
    else:
        recorded.flip(column, "checkpoints", recorded.checkpoint, 12)
    status, says = await command("isthmus", "books", "verify", recorded.folder / "data")
    assert status == 1 and f"checkpoint after batch {recorded.checkpoint}" in says and "The way back" in says
    assert f"checkpoint after batch {recorded.checkpoint}" in await refuses(nodes, recorded)
    drop = ("isthmus.journal.verify", recorded.journal, "--drop-checkpoint", recorded.checkpoint)
    status, says = await command(*drop)
    assert status == 0, says
    status, says = await command("isthmus", "books", "verify", recorded.folder / "data")
    assert status == 0 and says.split()[-1] == recorded.digest
    await runs(nodes, recorded)


@slow
async def test_a_bit_in_a_row_below_the_checkpoint(nodes: Any, recorded: Recorded) -> None:
    """The books don't need it: the node runs. It is named, and the way back lets it be pruned in time."""
    sequence = recorded.checkpoint - 2
    recorded.flip("envelope", "batches", sequence, 40)
    status, says = await command("isthmus", "books", "verify", recorded.folder / "data")
    assert status == 1 and f"batch {sequence}" in says
    await runs(nodes, recorded)
    # Replay can't reproduce the checkpoint above it, so nothing would ever be pruned: the operator says to trust it.
    status, says = await command("isthmus.journal.verify", recorded.journal)
    assert status == 1 and f"batch {sequence}" in says
    status, says = await command("isthmus.journal.verify", recorded.journal, "--trust-checkpoint", recorded.checkpoint)
    assert status == 0, says
    found = json.loads(says)
    assert found["older"] == recorded.checkpoint and found["newer"] >= recorded.last
    await runs(nodes, recorded)
    status, says = await command("isthmus.journal.verify", recorded.journal, "--trust-checkpoint", 1)
    assert status == 1 and "there is no checkpoint after batch 1" in says
