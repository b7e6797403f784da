"""Runs of the load generator, each in a process of its own, on the other core than its target."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

from bench.load import Measured
from bench.targets import ROOT, Target

RUN_SECONDS_MAX = 300.0
WARM_UP_PACKETS = 10_000  # a second or so of ilp-connector: its code is compiled by then
WARM_UP_ONE_BY_ONE = 1_000


async def generate(target: Target, *options: str, until_ready: Callable[[], Awaitable[None]] | None = None) -> Measured:
    """One run of the load generator, in a process of its own. `until_ready`: before it sends, and after it connects."""
    waits = [] if until_ready is None else ["--waits"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load"),
        *("--sender", target.sender_url, "--receiver", target.receiver_url),
        *("--destination", target.destination, *options, *waits),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        if until_ready is not None:
            await until_ready()
        out, _ = await asyncio.wait_for(process.communicate(b"\n"), RUN_SECONDS_MAX)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"the load generator failed on {target.name} with {options}")
    return Measured(**json.loads(out))


async def fire(
    target: Target,
    *,
    packets: int,
    window: int,
    warm_up: int = WARM_UP_PACKETS,
    prefixes: int = 1,
    until_ready: Callable[[], Awaitable[None]] | None = None,
) -> Measured:
    """Send that many packets, once it is ready. All must have been delivered and fulfilled."""
    if window == 1:
        warm_up = min(warm_up, WARM_UP_ONE_BY_ONE)
    counts = ["--packets", str(packets), "--window", str(window), "--warm-up", str(min(warm_up, packets))]
    pids = [option for pid in (target.pid, *target.with_pids) for option in ("--pid", str(pid))]
    measured = await generate(target, *counts, "--prefixes", str(prefixes), *pids, until_ready=until_ready)
    if measured.received != packets or measured.rejects:
        raise RuntimeError(f"{target.name} at window {window}: {measured}")
    return measured


async def flood(target: Target, *, window: int, seconds: float) -> Measured:
    """Prepares that the receiver never answers, at full rate."""
    return await generate(target, "--window", str(window), "--flood-seconds", str(seconds))


class HttpGenerator:
    """The HTTP load generator: its receiving server is there before the node, since the node's config names it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def fire(self, order: dict[str, str], *, packets: int, connections: int) -> Measured:
        """One run; the generator ends after it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        line = json.dumps({**order, "packets": packets, "connections": connections})
        self.process.stdin.write(line.encode() + b"\n")
        out = await asyncio.wait_for(self.process.stdout.readline(), RUN_SECONDS_MAX)
        if not out:
            raise RuntimeError(f"the HTTP load generator failed on {order['url']}")
        measured = Measured(**json.loads(out))
        if measured.received != packets or measured.rejects:
            raise RuntimeError(f"HTTP, {connections} connections: {measured}")
        return measured


@contextlib.asynccontextmanager
async def http_generator() -> AsyncIterator[HttpGenerator]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.http_load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield HttpGenerator(process, json.loads(await process.stdout.readline())["port"])
    finally:
        process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
