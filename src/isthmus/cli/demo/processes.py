"""The demo's processes: started with a log each, awaited, stopped; none outlives the demo.

Children run in sessions of their own, so a Ctrl-C at the terminal reaches the demo only, which stops them in order;
and each watches a pipe to the demo (`guarded.py`), so that they end even when it is killed.
"""

import asyncio
import contextlib
import json
import random
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from isthmus.cli.demo.network import HOST
from isthmus.errors import IsthmusError

T = TypeVar("T")

START_S_MAX: Final = 30  # of one process, on a slow and busy machine
STOP_S_MAX: Final = 10
HURRIED_STOP_S_MAX: Final = 1
POLL_S: Final = 0.02
LOG_TAIL_BYTES: Final = 4_096
# Linux takes the ends of outgoing connections from 32,768 on, others from 49,152 on.
PORTS: Final = range(16_384, 32_768)


class DemoError(IsthmusError):
    """The demo can't go on; the text says why."""


class PortTakenError(DemoError):
    """Another program took a port between our choosing and its use."""


class Child:
    """One process of the demo."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name: Final = name
        self.log: Final = log
        self._process: Final = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        return self._process.returncode

    def check(self) -> None:
        """Raise if the process has ended."""
        if self.status is None:
            return
        text = self.obituary()
        raise PortTakenError(text) if "can't listen" in text or "in use" in text else DemoError(text)

    def obituary(self) -> str:
        said = last_words(self.log)
        return f"{self.name} ended with status {self.status}{f': {said}' if said else ''}"

    def tell(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self) -> int:
        return await self._process.wait()


class Processes:
    """All children. Leaving the `async with` stops those that still run, in a hurry."""

    def __init__(self, logs: Path) -> None:
        self._logs: Final = logs
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.children: Final[dict[str, Child]] = {}

    async def __aenter__(self) -> "Processes":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(within_s=HURRIED_STOP_S_MAX)

    async def start(self, name: str, *arguments: str) -> Child:
        """Start `isthmus ARGUMENTS`; what it says goes to LOGS/NAME.log."""
        path = self._logs / f"{name}.log"
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "isthmus.cli.demo.guarded",
                *arguments,
                stdin=PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        child = Child(name, process, path)
        self.children[name] = child
        return child

    async def guard(self, work: Coroutine[Any, Any, T], *, but_for: str = "") -> T:
        """Do this as long as all children run, but for one that may end; raises DemoError about the first that ends."""
        task = asyncio.create_task(work)
        guarded = [child for child in self.children.values() if child.name != but_for]
        ends = [asyncio.create_task(child.ended()) for child in guarded]
        try:
            await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                for child in guarded:
                    child.check()
            return await task
        finally:
            for one in [task, *ends]:
                one.cancel()
            await asyncio.wait([task, *ends], timeout=HURRIED_STOP_S_MAX)

    async def stop(self, *, within_s: float = STOP_S_MAX) -> list[str]:
        """End all; those that had to be killed, or failed, are named with the reason."""
        children = list(self.children.values())
        self.children.clear()
        for child in children:
            child.tell(signal.SIGTERM)
        return [problem for problem in await asyncio.gather(*(_stopped(one, within_s) for one in children)) if problem]


async def _stopped(child: Child, within_s: float) -> str:
    try:
        async with asyncio.timeout(within_s):
            status = await child.ended()
    except TimeoutError:
        child.tell(signal.SIGKILL)
        await child.ended()
        return f"{child.name} did not stop within {within_s:g} s"
    except asyncio.CancelledError:
        child.tell(signal.SIGKILL)
        raise
    return "" if status == 0 else child.obituary()


async def awaited(child: Child, look: Callable[[], T | None]) -> T:
    """Wait until `look` finds something, as long as the child runs."""
    deadline = asyncio.get_running_loop().time() + START_S_MAX
    while True:
        child.check()
        found = look()
        if found is not None:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise DemoError(f"{child.name} was not ready within {START_S_MAX} s")
        await asyncio.sleep(POLL_S)


async def running(child: Child, path: Path) -> dict[str, Any]:
    """Wait until the child has written this JSON file, and return what it holds."""
    return await awaited(child, lambda: _json_object(path))


async def connected(child: Child, admin_url: str, *, waiting_for: frozenset[str]) -> None:
    """Wait until a node's links are up, but for those of accounts whose peers come later."""
    deadline = asyncio.get_running_loop().time() + START_S_MAX
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=START_S_MAX)) as http:
        while True:
            child.check()
            async with http.get(f"{admin_url}/health") as answer:
                down = set((await answer.json())["links_down"]) - waiting_for
            if not down:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise DemoError(f"{child.name} has no connection to {', '.join(sorted(down))}")
            await asyncio.sleep(POLL_S)


async def routed(child: Child, admin_url: str, token: str, prefixes: frozenset[str], *, via: str | None = None) -> None:
    """Wait until a node has a route to each of these prefixes; `via`: by this account."""
    deadline = asyncio.get_running_loop().time() + START_S_MAX
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=START_S_MAX), headers=headers) as http:
        while True:
            child.check()
            async with http.get(f"{admin_url}/routes") as answer:
                routes = (await answer.json())["routes"]
            missing = prefixes - {route["prefix"] for route in routes if via in (None, route["account"])}
            if not missing:
                return
            if asyncio.get_running_loop().time() > deadline:
                way = f" by {via}" if via else ""
                raise DemoError(f"{child.name} has found no route to {', '.join(sorted(missing))}{way}")
            await asyncio.sleep(POLL_S)


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def is_free(port: int) -> bool:
    """Whether nobody listens there, on this address or on all."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on right now.

    Not what the system gives for port 0: from that range it takes the near ends of outgoing connections too, so that
    a port could be one of those by the time a process listens there, or while one that was stopped starts again.
    """
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if is_free(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise DemoError(f"{len(PORTS)} ports were tried, and there were no {count} on which nobody listens")


def last_words(path: Path) -> str:
    """The last line that a process said and that isn't mere news of a log."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in map(str.strip, reversed(lines)):
        if line and '"level": "info"' not in line and not line.startswith('{"money"'):
            return line
    return ""
