"""The demo's processes: none outlives it, whatever ends it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from isthmus.cli.demo.processes import DemoError, PortTakenError, Processes, free_ports, running

WAIT_S = 60

CONFIG = """\
address = "test.one"
[admin]
listen = "127.0.0.1:{port}"
"""


def a_node(folder: Path, port: int = 0) -> str:
    (folder / "node.toml").write_text(CONFIG.format(port=port))
    return str(folder / "node.toml")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_node_runs_and_stops_cleanly(tmp_path: Path) -> None:
    async with Processes(tmp_path / "logs") as processes:
        child = await processes.start("one", "node", "run", a_node(tmp_path))
        told = await running(child, tmp_path / "data" / "running.json")
        assert told["pid"] == child.pid
        assert await processes.stop() == []
        assert child.status == 0


async def test_leaving_stops_what_still_runs(tmp_path: Path) -> None:
    async with Processes(tmp_path / "logs") as processes:
        child = await processes.start("one", "node", "run", a_node(tmp_path))
        await running(child, tmp_path / "data" / "running.json")
    assert child.status is not None


async def test_a_process_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    async with Processes(tmp_path / "logs") as processes:
        child = await processes.start("one", "node", "run", str(tmp_path / "none.toml"))
        with pytest.raises(DemoError, match=r"one ended with status 2: .*none\.toml"):
            await running(child, tmp_path / "data" / "running.json")
        assert [problem.partition(":")[0] for problem in await processes.stop()] == ["one ended with status 2"]


async def test_work_is_given_up_when_a_process_ends(tmp_path: Path) -> None:
    async with Processes(tmp_path / "logs") as processes:
        child = await processes.start("one", "node", "run", a_node(tmp_path))
        await running(child, tmp_path / "data" / "running.json")
        work = asyncio.create_task(processes.guard(asyncio.Event().wait()))
        child.tell(signal.SIGKILL)
        with pytest.raises(DemoError, match="one ended with status -9$"):
            await work


async def test_work_that_ends_is_done(tmp_path: Path) -> None:
    async with Processes(tmp_path / "logs") as processes:
        await processes.start("one", "node", "run", a_node(tmp_path))
        assert await processes.guard(asyncio.sleep(0, "done")) == "done"


async def test_a_port_that_is_taken_is_told_apart(tmp_path: Path) -> None:
    async with Processes(tmp_path / "logs") as processes:
        first = await processes.start("one", "node", "run", a_node(tmp_path, port := free_ports(1)[0]))
        await running(first, tmp_path / "data" / "running.json")
        (tmp_path / "two").mkdir()
        second = await processes.start("two", "node", "run", a_node(tmp_path / "two", port))
        with pytest.raises(PortTakenError):
            await running(second, tmp_path / "two" / "data" / "running.json")


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(9))) == 9


PARENT = """
import asyncio, signal, sys
from pathlib import Path
from isthmus.cli.demo.processes import Processes, running

async def main(folder):
    async with Processes(folder / "logs") as processes:
        child = await processes.start("one", "node", "run", str(folder / "node.toml"))
        await running(child, folder / "data" / "running.json")
        print(child.pid, flush=True)
        await asyncio.Event().wait()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without
asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_children_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    a_node(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # Readable when the child has ended: its journal's lock is let go by the system.
        child = os.pidfd_open(pid)
        parent.send_signal(number)
        try:
            parent.wait(WAIT_S)
        finally:
            parent.kill()
    ended(child)


def ended(pidfd: int) -> None:
    import select

    try:
        assert select.select([pidfd], [], [], WAIT_S)[0], "it still runs"
    finally:
        os.close(pidfd)
