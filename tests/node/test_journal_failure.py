"""A journal that can't be written, or read, stops the node: no frame leaves that was not recorded."""

import asyncio
import resource
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from isthmus.ilp.packet import Fulfill
from isthmus.journal.reader import JournalReader


def forbid_growth(node: Any) -> None:
    """The process may write no file beyond what is there already, as on a full disk."""
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (0, 0))


async def test_a_full_disk_stops_the_node_before_a_frame_leaves(nodes: Any, two: str, peer: Any) -> None:
    """Exit status 1, and one line that says why. What was recorded before is there."""
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    held = alice.prepare("test.node.bob", 5)
    request = await bob.request()
    forbid_growth(node)
    bob.fulfil(request)  # it can't be recorded, so alice must not hear of it
    unsent = alice.prepare("test.node.bob", 6)
    assert await node.exit_code() == 1
    halted = [line for line in node.log if line["event"] == "halted"]
    assert len(halted) == 1 and "nothing from batch" in halted[0]["problem"]
    await alice.until(lambda: not alice.is_up)
    await bob.until(lambda: not bob.is_up)
    assert not held.done() and not unsent.done()
    assert bob.requests.empty()
    assert not (node.folder / "data" / "running.json").exists()

    again = await nodes.run(two, folder=node.folder)
    accounts = await again.accounts()
    assert (accounts["alice"]["reserved_incoming"], accounts["bob"]["reserved_outgoing"]) == ("5", "5")
    # Bob's Fulfill was not lost: he tells it again, and alice gets it under her old id.
    await alice.close()
    await bob.close()
    await alice.dial(again.port)
    await bob.dial(again.port)
    bob.fulfil(request)
    async with asyncio.timeout(60):
        assert isinstance(await held, Fulfill)
    assert await again.balances() == {"alice": 5, "bob": -5}


async def test_a_journal_that_fails_while_the_node_stops_is_no_clean_stop(nodes: Any, two: str, peer: Any) -> None:
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    held = alice.prepare("test.node.bob", 5)
    request = await bob.request()
    node.signal(signal.SIGTERM)
    await node.until("stopping")
    forbid_growth(node)
    bob.fulfil(request)
    assert await node.exit_code() == 1
    assert [line["event"] for line in node.log].count("halted") == 1
    assert not held.done()


async def test_no_first_batch_no_node(nodes: Any, two: str) -> None:
    """The accounts of a new journal can't be recorded: it never says that it runs for long."""
    wrapper = ("sh", "-c", 'ulimit -f 64; exec "$0" -m isthmus "$@"', sys.executable)
    node = await nodes.launch(two, wrapper=wrapper)
    assert await node.exit_code() == 1
    assert "disk" in node.lines[-1] or "full" in node.lines[-1] or "I/O" in node.lines[-1], node.lines


def damage(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement, says",
    [
        ("UPDATE batches SET envelope = zeroblob(length(envelope)) WHERE sequence = 2", "2"),
        ("UPDATE batches SET envelope = (SELECT envelope FROM batches WHERE sequence = 3) WHERE sequence = 2", "2"),
        ("DELETE FROM batches WHERE sequence = 2", "2"),
        ("UPDATE batches SET digest = zeroblob(32) WHERE sequence = 3", "3"),
    ],
)
async def test_a_damaged_row_is_named_at_the_start(
    nodes: Any, two: str, recorded: Path, statement: str, says: str
) -> None:
    damage(recorded / "data" / "journal.db", statement)
    node = await nodes.launch(two, folder=recorded)
    assert await node.exit_code() == 1
    (line,) = node.lines
    assert f"batch {says}" in line


@pytest.fixture
async def recorded(nodes: Any, two: str, peer: Any) -> Path:
    """The folder of a node that was killed after a few packets."""
    node = await nodes.run(two)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    for _ in range(3):
        assert isinstance(await alice.pay("test.node.bob", 10), Fulfill)
    await node.kill()
    with JournalReader(str(node.folder / "data" / "journal.db")) as reader:
        assert reader.last_sequence >= 6
    folder: Path = node.folder
    return folder


async def test_a_journal_of_another_program_is_refused(nodes: Any, two: str, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    (folder / "data").mkdir(parents=True)
    damage(folder / "data" / "journal.db", "CREATE TABLE batches (other)")
    node = await nodes.launch(two, folder=folder)
    assert await node.exit_code() == 1
    (line,) = node.lines
    assert "journal.db" in line
