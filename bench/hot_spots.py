"""A profile of a running node by py-spy: which functions cost most, by themselves."""

import asyncio
import shutil
import sys
from collections import Counter
from pathlib import Path

RATE_HZ = 500


def find_py_spy() -> str | None:
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


async def record(pid: int, *, seconds: int, folder: Path) -> Path | None:
    """Sample a process; the file has one line per stack: functions joined by `;`, then the number of samples."""
    py_spy = find_py_spy()
    if py_spy is None:
        return None
    out = folder / "stacks.txt"
    process = await asyncio.create_subprocess_exec(
        *(py_spy, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(RATE_HZ)),
        *("--format", "raw", "--output", str(out), "--nonblocking"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.wait()
    return out if out.exists() else None


def function(frame: str) -> str:
    """`name (file:line)` without the line: a function's lines are one cost."""
    name, colon, _ = frame.rpartition(":")
    name = f"{name})" if colon else frame
    return "waiting for sockets" if name.startswith("EpollSelector.select") else name


def costs(stacks: Path) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Shares of all samples: by the function on top (its own time), and by every function on the stack (total time)."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        names = [function(name) for name in stack.split(";")]
        samples += int(count)
        own[names[-1]] += int(count)
        # Of what calls others only ours: the frames of asyncio, click and runpy above them hold everything.
        for name in {name for name in names if "(isthmus/" in name and "(isthmus/cli/" not in name}:
            total[name] += int(count)
    if not samples:
        return [], []
    return (
        [(name, count / samples) for name, count in own.most_common(15)],
        [(name, count / samples) for name, count in total.most_common(25)],
    )
