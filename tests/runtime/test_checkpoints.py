"""When checkpoints are taken. What they are worth is `tests/journal/test_verify.py`."""

import asyncio
import os
from pathlib import Path

import pytest

from isthmus.connector.events import AccountId, Log
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.journal.reader import JournalReader
from isthmus.journal.sqlite import SqliteJournal
from isthmus.runtime import clock
from isthmus.runtime.checkpoints import CheckpointKeeper
from isthmus.runtime.driver import Driver
from isthmus.runtime.opening import open_kernel

PEER = AccountId("peer")
TERMS = AccountTerms(id=PEER, asset=Asset("USD", 9), relation="peer")
TABLES = Tables("test.node", {PEER: TERMS}, RouteTable({}), RateTable({}))


HANGS = """
import threading

def replay(state, batches):
    pipe = open({pipe!r}, "w")
    pipe.write("replaying")
    pipe.flush()
    threading.Event().wait()
"""


async def run(path: Path, notes: int, every_batches: int) -> list[str]:
    """One life of a node that appends this many batches, one after the other; what it logged."""
    log: list[Log] = []
    told = asyncio.Event()

    def on_log(fact: Log) -> None:
        log.append(fact)
        told.set()

    journal = SqliteJournal(path)
    kernel = open_kernel(journal, TABLES, entropy=bytes(32), now=clock.system_now())
    driver = Driver(kernel, journal, on_log=on_log)
    keeper = CheckpointKeeper(driver, journal, on_log=on_log, every_batches=every_batches)
    driver.on_commit = keeper.committed
    driver.start()
    driver.post(TablesChanged(TABLES))
    for number in range(notes):
        await driver.note(b"%d" % number)
    if keeper._task is not None:
        await asyncio.wait_for(told.wait(), 60)
    await keeper.close()
    await keeper.last()
    await driver.stop()
    return [fact.event for fact in log]


async def test_a_node_that_is_restarted_often_verifies_and_prunes_all_the_same(tmp_path: Path) -> None:
    """The checkpoint at each stop is not verified, so it doesn't put off the next one that is."""
    path = tmp_path / "journal.db"
    events = [await run(path, notes=4, every_batches=10) for _ in range(4)]
    assert events[:2] == [[], []]
    assert "checkpoint" in [event for one in events for event in one]
    with JournalReader(path) as reader:
        assert any(one.verified for one in reader.checkpoints())


async def test_a_stop_does_not_wait_for_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that verifies is ended; the next start takes the checkpoint anew."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "replayerthathangs.py").write_text(HANGS.format(pipe=str(pipe)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    journal = SqliteJournal(tmp_path / "journal.db")
    kernel = open_kernel(journal, TABLES, entropy=bytes(32), now=clock.system_now())
    driver = Driver(kernel, journal, on_log=lambda fact: None)
    keeper = CheckpointKeeper(
        driver, journal, on_log=lambda fact: None, every_batches=1, replayer="replayerthathangs:replay"
    )
    driver.on_commit = keeper.committed
    driver.start()
    driver.post(TablesChanged(TABLES))
    with await asyncio.to_thread(open, pipe) as replaying:
        assert await asyncio.to_thread(replaying.read, 9) == "replaying"
        await asyncio.wait_for(keeper.close(), 60)
        assert await asyncio.to_thread(replaying.read) == ""  # its only writer has ended
    await driver.stop()
