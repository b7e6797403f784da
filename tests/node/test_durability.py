"""No frame leaves before the event that it rests on is on the disk: shown by a trace of the system calls.

A kill keeps what the kernel holds in memory, so kills can't show it. Here strace watches a node under load: for each
Prepare, Fulfill and Reject that touched the books, the send must come after the `fdatasync` that covers its batch.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli.books_replay import transfer_rows
from isthmus.ilp.packet import FULFILL, PREPARE, Reject
from isthmus.journal.reader import JournalReader
from tests.node import syscalls

BURSTS = 12
BURST = 25
# A node that is as it should be, but for what it tells SQLite.
CARELESS = """
import sys
from isthmus.journal import sqlite

opened = sqlite._open_for_writing

def open_for_writing(path):
    connection = opened(path)
    connection.execute("PRAGMA synchronous = {}")
    return connection

sqlite._open_for_writing = open_for_writing
from isthmus.cli.main import main
main(sys.argv[1:])
"""

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace (Debian, Ubuntu: apt-get install strace)"
)


def batches_of(journal: Path) -> tuple[bytes, dict[tuple[str, int], int]]:
    """The journal's id, and for each frame that touched the books ("prepare" or "reply", request id) its batch."""
    legs: dict[int, tuple[str, int]] = {}
    batches: dict[tuple[str, int], int] = {}
    with JournalReader(str(journal)) as reader:
        for row in transfer_rows(reader):
            if row["entry"] == "reserve" and row["direction"] == "outgoing":
                batches["prepare", int(str(row["request_id"]))] = int(str(row["sequence"]))
            elif row["entry"] == "reserve":
                legs[int(str(row["leg"]))] = ("reply", int(str(row["request_id"])))
            elif row["entry"] in ("post", "void") and row["direction"] == "incoming":
                batches[legs[int(str(row["leg"]))]] = int(str(row["sequence"]))
        return reader.journal_id, batches


async def traced(nodes: Any, two: str, peer: Any, tmp_path: Path, *program: str) -> tuple[int, list[str]]:
    """Packets through a traced node: how many frames were judged, and which left too early."""
    trace = tmp_path / "trace"
    command = program or ("-m", "isthmus")
    node = await nodes.run(two, wrapper=(*syscalls.command(trace), sys.executable, *command))
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    bob.answer = lambda asked: bob.reject(asked) if asked.request_id % 5 == 0 else bob.fulfil(asked)
    rejected = 0
    for _ in range(BURSTS):
        answers = [alice.prepare("test.node.bob.x", 10) for _ in range(BURST)]
        rejected += sum([isinstance(await answer, Reject) for answer in answers])
    assert 0 < rejected < BURSTS * BURST
    assert await node.stop() == 0
    journal_id, batches = batches_of(node.folder / "data" / "journal.db")
    calls = syscalls.Trace.read(trace)
    durable = calls.durable_at("journal.db-wal", journal_id)
    judged, early = 0, []
    for begun, request_id, packet in calls.frames():
        kind = "prepare" if packet[0] == PREPARE else "reply"
        batch = batches.pop((kind, request_id), None)
        if batch is None:
            continue  # it rests on no event: an answer to ILDCP, for one
        judged += 1
        if durable.get(batch, begun) >= begun:
            name = kind if kind == "prepare" else "fulfill" if packet[0] == FULFILL else "reject"
            early.append(f"{name} {request_id} left before batch {batch} was synced")
    assert not batches, "not every frame was seen in the trace"
    return judged, early


@needs_strace
async def test_every_frame_follows_the_fdatasync_that_covers_its_batch(
    nodes: Any, two: str, peer: Any, tmp_path: Path
) -> None:
    """CONN-3: commit before send."""
    judged, early = await traced(nodes, two, peer, tmp_path)
    assert judged == 2 * BURSTS * BURST
    assert early == []


@needs_strace
@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
async def test_the_trace_shows_a_journal_that_does_not_sync_each_batch(
    nodes: Any, two: str, peer: Any, tmp_path: Path, synchronous: str
) -> None:
    """The test above can fail."""
    judged, early = await traced(nodes, two, peer, tmp_path, "-c", CARELESS.format(synchronous))
    assert len(early) == judged
