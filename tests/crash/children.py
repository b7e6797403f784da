"""The processes of a campaign, started by the nursery and killed by anybody."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

from isthmus.cli.demo.processes import last_words

ROOT: Final = Path(__file__).resolve().parents[2]
ANSWER_S_MAX: Final = 30


class Child:
    """One process; `ended` has its status, negative for a signal."""

    def __init__(self, name: str, pid: int) -> None:
        self.name: Final = name
        self.pid: Final = pid
        self.ended: Final[asyncio.Future[int]] = asyncio.get_running_loop().create_future()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Children:
    """All of them. Leaving the `async with` ends the nursery, and it kills those that still live."""

    def __init__(self, logs: Path) -> None:
        self.alive: Final[dict[str, Child]] = {}
        self._logs: Final = logs
        self._by_pid: Final[dict[int, Child]] = {}
        self._started: Final[dict[str, asyncio.Future[Child]]] = {}
        self._nursery: Process | None = None
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Children":
        with (self._logs / "nursery.log").open("ab") as log:
            self._nursery = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.crash.nursery", stdin=PIPE, stdout=PIPE, stderr=log, cwd=ROOT
            )
        self._listening = asyncio.create_task(self._listen(self._nursery))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._nursery is not None and self._nursery.stdin is not None and self._listening is not None
        self._nursery.stdin.close()
        await self._nursery.wait()
        await self._listening

    async def start(self, name: str, kind: str, arguments: list[str], environment: dict[str, str]) -> Child:
        """Fork one more."""
        assert self._nursery is not None and self._nursery.stdin is not None
        started: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._started[name] = started
        request = {"name": name, "kind": kind, "arguments": arguments, "environment": environment}
        line = json.dumps(request | {"log": str(self.log(name))})
        self._nursery.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(ANSWER_S_MAX):
            child = await started
        self.alive[name] = child
        return child

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def last_words(self, name: str) -> str:
        return last_words(self.log(name))

    async def _listen(self, nursery: Process) -> None:
        assert nursery.stdout is not None
        while line := await nursery.stdout.readline():
            told = json.loads(line)
            if "started" in told:
                child = Child(told["started"], told["pid"])
                self._by_pid[child.pid] = child
                started = self._started.pop(child.name)
                if not started.done():  # who asked for it may have gone
                    started.set_result(child)
            else:
                self._by_pid.pop(told["pid"]).ended.set_result(told["status"])
