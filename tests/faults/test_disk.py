"""The disk under a running node: full in mid-batch, failing to sync, read-only. Nothing is half done, and it goes on.

`tests/node/test_journal_failure.py` has the frames that must not leave; here it is load, and the way back.
"""

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.ilp.packet import Fulfill, decode_prepare

pytestmark = pytest.mark.slow
PACKETS = 400


class Load:
    """Alice pays bob and bob pays alice, many packets at a time. What each has seen is what is asked for later."""

    def __init__(self, alice: Any, bob: Any) -> None:
        self.alice, self.bob = alice, bob
        self.taken: dict[str, list[int]] = {"alice": [], "bob": []}  # amounts that each has fulfilled
        self.answers: list[tuple[str, int, asyncio.Future[Any]]] = []
        for one in (alice, bob):
            one.answer = self._fulfil(one)

    def _fulfil(self, one: Any) -> Callable[[Any], None]:
        def fulfil(inbound: Any) -> None:
            self.taken[one.name].append(decode_prepare(inbound.packet).amount)
            one.fulfil(inbound)

        return fulfil

    def send(self, count: int = PACKETS) -> None:
        """Amounts are all different, so that each can be found again."""
        first = len(self.answers) + 1
        for amount in range(first, first + count):
            for sender, receiver in ((self.alice, "bob"), (self.bob, "alice")):
                self.answers.append((sender.name, amount, sender.prepare(f"test.node.{receiver}", amount)))

    async def until_some_are_answered(self, count: int) -> None:
        async with asyncio.timeout(60):
            while (missing := count - sum(answer.done() for _, _, answer in self.answers)) > 0:
                waiting = [answer for _, _, answer in self.answers if not answer.done()]
                await asyncio.wait(waiting[:missing], return_when=asyncio.FIRST_COMPLETED)

    def check(self, balances: dict[str, int]) -> None:
        """No more than was fulfilled is booked, and no less than was told; neither party is out of pocket by it."""
        told = {"alice": 0, "bob": 0}
        for name, amount, answer in self.answers:
            if answer.done() and isinstance(answer.result(), Fulfill):
                told[name] += amount
        taken = {name: sum(amounts) for name, amounts in self.taken.items()}
        assert balances["alice"] == -balances["bob"]
        assert told["alice"] - taken["alice"] <= balances["alice"] <= taken["bob"] - told["bob"]


async def settled(node: Any) -> None:
    """Until nothing is in flight."""
    async with asyncio.timeout(90):
        while any(each["packets_in_flight"] for each in (await node.accounts()).values()):
            pass  # each question is answered by the node


def verify(folder: Path) -> str:
    """`isthmus books verify`: what it says; it must find nothing."""
    command = [sys.executable, "-m", "isthmus", "books", "verify", str(folder / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def under_load(nodes: Any, peer: Any, text: str, **how: Any) -> tuple[Any, Load]:
    node = await nodes.run(text, **how)
    load = Load(await peer(node, "alice"), await peer(node, "bob"))
    load.send()
    await load.until_some_are_answered(100)
    load.send()
    return node, load


async def halts(node: Any, load: Load) -> str:
    """The node stops by itself with status 1; its one line that says why."""
    assert await node.exit_code() == 1
    (line,) = [each for each in node.log if each["event"] == "halted"]
    await load.alice.until(lambda: not load.alice.is_up)
    await load.bob.until(lambda: not load.bob.is_up)
    assert "nothing from batch" in line["problem"]
    return str(line["problem"])


async def goes_on(nodes: Any, peer: Any, text: str, before: Any, load: Load, **how: Any) -> None:
    """Started again: the books are those that the peers have seen, and the next payments pass."""
    assert "sum to zero" in verify(before.folder)
    node = await nodes.run(text, folder=before.folder, **how)
    for one in (load.alice, load.bob):
        await one.close()
        await one.dial(node.port)
    await settled(node)
    load.check(await node.balances())
    load.send(20)
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(answer for _, _, answer in load.answers[-40:]))
    assert all(isinstance(answer, Fulfill) for answer in answers)
    load.check(await node.balances())


@pytest.fixture
def quick(config: Any) -> str:
    """Alice and bob; what is in flight at a halt is over soon after the next start."""
    return str(config.toml(*(config.account(name, margin="100 ms", hold="3 s") for name in ("alice", "bob"))))


async def test_a_disk_that_is_full_in_mid_batch(nodes: Any, quick: str, peer: Any) -> None:
    """The file may grow by one more page or so: a batch of this load doesn't fit, whatever it has written of it."""
    node, load = await under_load(nodes, peer, quick)
    size = (node.folder / "data" / "journal.db-wal").stat().st_size
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (size + 5_000, size + 5_000))
    load.send()
    assert "full" in await halts(node, load) or "disk" in node.log[-1]["problem"]
    await goes_on(nodes, peer, quick, node, load)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of this size in memory; gives what makes it larger."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a small disk needs `mount`")
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount: {done.stderr.strip()}")
    try:
        yield lambda size: run("mount", "-o", f"remount,size={size}", str(folder))
    finally:
        run("umount", str(folder))


def run(*command: str) -> None:
    subprocess.run(command, check=True)


async def test_a_full_file_system_and_room_made_on_it(config: Any, quick: str, peer: Any, tmp_path: Path) -> None:
    """ENOSPC from a real file system. The journal needs no repair once there is room again."""
    nodes = config.Nodes(tmp_path)
    folder = tmp_path / "small"
    (folder / "data").mkdir(parents=True)
    with mounted(folder / "data", "1m") as resize:
        node = await nodes.launch(quick, folder=folder)
        await node.started()
        load = Load(await peer(node, "alice"), await peer(node, "bob"))
        while node.process.returncode is None:
            before = len(load.answers)
            load.send()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await load.until_some_are_answered(before + PACKETS)
            assert len(load.answers) < 100 * PACKETS
        assert "full" in await halts(node, load)
        resize("64m")
        await goes_on(nodes, peer, quick, node, load)
        await nodes.close()


async def test_a_sync_that_fails(nodes: Any, quick: str, peer: Any, faults: Any) -> None:
    """A failed fdatasync is never tried again: what the kernel then says about the page cache can't be trusted."""
    switches = faults()
    node, load = await under_load(nodes, peer, quick, wrapper=switches.wrapper)
    switches.on("fsync")
    load.send()
    assert "the disk failed" in await halts(node, load)
    # It may have been written all the same, and is then found by the replay: nobody was told.
    switches.off("fsync")
    await goes_on(nodes, peer, quick, node, load, wrapper=switches.wrapper)


async def test_a_disk_that_fails_to_sync_from_the_start(nodes: Any, quick: str, faults: Any) -> None:
    switches = faults()
    switches.on("fsync")
    node = await nodes.launch(quick, wrapper=switches.wrapper)
    assert await node.exit_code() == 1
    assert "the disk failed" in node.lines[-1]


@pytest.mark.parametrize("what", ["journal.db", "."])
async def test_a_journal_that_was_made_read_only(nodes: Any, quick: str, peer: Any, what: str, plain_user: Any) -> None:
    """The node says what is wrong before it listens; with the mode put back it goes on where it was."""
    node, load = await under_load(nodes, peer, quick, wrapper=plain_user)
    await node.kill()
    await load.alice.until(lambda: not load.alice.is_up)
    await load.bob.until(lambda: not load.bob.is_up)
    place = node.folder / "data" / what
    mode = place.stat().st_mode & 0o777
    os.chmod(place, mode & 0o555)
    refused = await nodes.launch(quick, folder=node.folder, wrapper=plain_user)
    assert await refused.exit_code() == 1
    said = refused.lines[-1]
    assert "read-only" in said or "Permission denied" in said, refused.lines
    assert str(node.folder / "data") in said
    os.chmod(place, mode)
    await goes_on(nodes, peer, quick, node, load, wrapper=plain_user)
