"""A Node process of `tests/interop/js`, spoken to by JSON lines: calls are answered, events are waited for.

Used by the interop tests and by the benchmarks.
"""

import asyncio
import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import IO, Any, Self, TypeAlias

Fields: TypeAlias = dict[str, Any]

INTEROP = Path(__file__).resolve().parent.parent / "tests" / "interop"
CALL_SECONDS = 60.0  # a payment through two processes on a loaded machine
EVENT_SECONDS = 60.0
LINE_BYTES_MAX = 1 << 20


def missing() -> str | None:
    """Why no Node peer can be started here, with the remedy; None if one can."""
    if shutil.which("node") is None:
        return "node is not installed: install Node.js 20 or later"
    if not (INTEROP / "node_modules" / "ilp-connector").is_dir():
        return "the npm packages are not installed: run `npm ci --ignore-scripts` in tests/interop"
    return None


class JsError(Exception):
    """The script answered a call with an error, or ended."""


class JsProcess:
    """One script. `events` holds every event not yet taken, in order of arrival."""

    def __init__(self, process: asyncio.subprocess.Process, log: IO[bytes] | None) -> None:
        self.process = process
        self.events: list[Fields] = []
        self._log = log
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()
        self._ended = False
        self._next_id = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, script: str, *, log: Path | None = None) -> Self:
        """Start `tests/interop/js/{script}.js` and wait until it listens to us; its stderr goes to `log`."""
        file = log.open("wb") if log else None
        process = await asyncio.create_subprocess_exec(
            "node",
            str(INTEROP / "js" / f"{script}.js"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=file or asyncio.subprocess.DEVNULL,
            cwd=INTEROP,
            limit=LINE_BYTES_MAX,
        )
        started = cls(process, file)
        await started.event("hello")
        return started

    @property
    def pid(self) -> int:
        return self.process.pid

    async def call(self, name: str, *, seconds: float = CALL_SECONDS, **arguments: Any) -> Any:
        """The result of one call. Raises JsError with the script's words."""
        assert self.process.stdin is not None
        self._next_id += 1
        call_id = self._next_id
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = answer
        line = json.dumps({"id": call_id, "call": name, "args": arguments})
        self.process.stdin.write(line.encode() + b"\n")
        try:
            return await asyncio.wait_for(answer, seconds)
        finally:
            self._calls.pop(call_id, None)

    async def event(self, name: str, *, seconds: float = EVENT_SECONDS, **fields: Any) -> Fields:
        """Take the oldest event of that name with those fields, waiting for it if need be."""
        deadline = time.monotonic() + seconds
        while True:
            for index, event in enumerate(self.events):
                if event["event"] == name and all(event.get(key) == value for key, value in fields.items()):
                    return self.events.pop(index)
            if self._ended:
                raise JsError(f"the script ended before {name} {fields}; events: {self.events}")
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise JsError(f"no {name} {fields} within {seconds} s; events: {self.events}") from None

    async def close(self) -> None:
        """End the script: it leaves with its stdin, and is killed if it doesn't."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 5.0)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await self._reader
        if self._log is not None:
            self._log.close()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            message = json.loads(line)
            if "event" in message:
                self.events.append(message)
                self._news.set()
                continue
            answer = self._calls.get(message["id"])
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(JsError(message["error"]))
            else:
                answer.set_result(message["result"])
        self._ended = True
        self._news.set()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(JsError("the script ended"))
