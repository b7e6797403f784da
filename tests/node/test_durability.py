"""No frame leaves before the event that it rests on is on the disk: shown by a trace of the system calls.

A kill keeps what the kernel holds in memory, so kills can't show it. Here strace watches a node under load: for each
Prepare, Fulfill and Reject that touched the books, and each report of outcomes and answer to one, the send must come
after the `fdatasync` that covers its batch.
"""

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli.books_replay import transfer_rows
from isthmus.ilp.outcomes import OUTCOMES_DESTINATION, decode_report
from isthmus.ilp.packet import FULFILL, PREPARE, Reject, decode_prepare
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


class Resting:
    """What each frame of a node rests on, by its journal: a batch that must be on the disk before the frame leaves."""

    def __init__(self, journal: Path) -> None:
        self.frames: dict[tuple[str, int], int] = {}  # "prepare" or "reply", and request id
        self._decided: dict[int, int] = {}  # our Prepares, by request id
        self._acknowledged: dict[int, int] = {}  # watermarks of the peer's reports
        legs: dict[int, tuple[str, int]] = {}
        with JournalReader(str(journal)) as reader:
            self.journal_id = reader.journal_id
            for row in transfer_rows(reader):
                self._take(row, legs)

    def _take(self, row: dict[str, Any], legs: dict[int, tuple[str, int]]) -> None:
        entry, sequence = row["entry"], int(row["sequence"])
        if entry == "reserve":
            legs[row["leg"]] = (row["direction"], row["request_id"])
            if row["direction"] == "outgoing":
                self.frames["prepare", row["request_id"]] = sequence
        elif entry in ("post", "void"):
            direction, request_id = legs[row["leg"]]
            if direction == "incoming":
                self.frames["reply", request_id] = sequence
            else:
                self._decided[request_id] = sequence
        elif entry == "outcomes" and row["account"] == "alice" and row["request_id"]:
            self._acknowledged[row["request_id"]] = sequence

    def of_outcomes(self, request_id: int, packet: bytes) -> int | None:
        """The batch behind a report, or behind the answer to one: the last of what it speaks of."""
        if packet[0] == PREPARE:
            prepare = decode_prepare(packet)
            if prepare.destination != OUTCOMES_DESTINATION:
                return None
            watermark = decode_report(prepare.data).watermark
            return max((batch for one, batch in self._decided.items() if one <= watermark), default=None)
        return self._acknowledged.get(request_id - 1)  # alice's report has the next id after those that it is about


async def traced(nodes: Any, two: str, peer: Any, tmp_path: Path, *program: str) -> tuple[Counter[str], list[str]]:
    """Packets through a traced node: how many frames of each kind were judged, and which left too early."""
    trace = tmp_path / "trace"
    command = program or ("-m", "isthmus")
    node = await nodes.run(two, wrapper=(*syscalls.command(trace), sys.executable, *command))
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    alice.takes_reports = bob.takes_reports = True
    bob.answer = lambda asked: bob.reject(asked) if asked.request_id % 5 == 0 else bob.fulfil(asked)
    rejected = 0
    for _ in range(BURSTS):
        answers = [alice.prepare("test.node.bob.x", 10) for _ in range(BURST)]
        rejected += sum([isinstance(await answer, Reject) for answer in answers])
        await alice.report()
    assert 0 < rejected < BURSTS * BURST
    await bob.until(lambda: any(report.watermark >= BURSTS * BURST for report in bob.reports))
    assert await node.stop() == 0
    resting = Resting(node.folder / "data" / "journal.db")
    calls = syscalls.Trace.read(trace)
    durable = calls.durable_at("journal.db-wal", resting.journal_id)
    judged, early = Counter[str](), []
    for begun, request_id, packet in calls.frames():
        kind = "prepare" if packet[0] == PREPARE else "reply"
        batch = resting.frames.pop((kind, request_id), None)
        if batch is None:
            kind, batch = "outcomes", resting.of_outcomes(request_id, packet)
        if batch is None:
            continue  # it rests on no event: an answer to ILDCP, for one
        judged[kind] += 1
        if durable.get(batch, begun) >= begun:
            name = "fulfill" if packet[0] == FULFILL else "reject" if kind == "reply" else kind
            early.append(f"{name} {request_id} left before batch {batch} was synced")
    assert not resting.frames, "not every frame was seen in the trace"
    return judged, early


@needs_strace
async def test_every_frame_follows_the_fdatasync_that_covers_its_batch(
    nodes: Any, two: str, peer: Any, tmp_path: Path
) -> None:
    """CONN-3: commit before send."""
    judged, early = await traced(nodes, two, peer, tmp_path)
    assert judged["prepare"] == judged["reply"] == BURSTS * BURST
    assert judged["outcomes"] > BURSTS  # an answer to each of alice's reports, and reports to bob
    assert early == []


@needs_strace
@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
async def test_the_trace_shows_a_journal_that_does_not_sync_each_batch(
    nodes: Any, two: str, peer: Any, tmp_path: Path, synchronous: str
) -> None:
    """The test above can fail."""
    judged, early = await traced(nodes, two, peer, tmp_path, "-c", CARELESS.format(synchronous))
    assert len(early) == judged.total()
