"""What is measured: each target is started afresh for a run, with two BTP accounts, and stopped after it."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.js_process import JsProcess

ROOT = Path(__file__).resolve().parent.parent
TOKENS = {"sender": "sender-token-of-the-benchmark-0001", "receiver": "receiver-token-of-the-benchmark-02"}
AMOUNT_UNLIMITED = "1000000000000000000"


@dataclass(slots=True, kw_only=True)
class Target:
    """A running target. `folder` is where its journal lies, None if it keeps nothing."""

    name: str
    sender_url: str
    receiver_url: str
    destination: str
    pid: int
    with_pids: tuple[int, ...] = ()  # whose processor time counts too: of a path of more than one connector
    folder: Path | None = None


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, as Linux counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no VmRSS")


def folder_bytes(folder: Path) -> int:
    """What a folder's files hold."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextlib.asynccontextmanager
async def relay() -> AsyncIterator[Target]:
    """Decides nothing and keeps nothing: the ceiling of the load generator."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.relay", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None and process.stdin is not None
    ports = json.loads(await process.stdout.readline())
    yield Target(
        name="relay",
        sender_url=f"btp+ws://sender:{TOKENS['sender']}@127.0.0.1:{ports['sender']}/",
        receiver_url=f"btp+ws://receiver:{TOKENS['receiver']}@127.0.0.1:{ports['receiver']}/",
        destination="test.node.receiver",
        pid=process.pid,
    )
    process.stdin.close()
    await process.wait()


def js_account(name: str, *, max_packet: int | None = None) -> dict[str, Any]:
    """A child account of an ilp-connector with every limit out of the way, but switched on as in production."""
    listener = {"port": 0, "secret": TOKENS[name]}
    return {
        "relation": "child",
        "assetCode": "USD",
        "assetScale": 9,
        "plugin": {"module": "btp", "options": {"listener": listener}},
        "balance": {"minimum": f"-{AMOUNT_UNLIMITED}", "maximum": AMOUNT_UNLIMITED},
        "rateLimit": {"refillPeriod": 1000, "refillCount": 10_000_000, "capacity": 10_000_000},
        "throughput": {"incomingAmount": AMOUNT_UNLIMITED, "outgoingAmount": AMOUNT_UNLIMITED},
        "maxPacketAmount": str(max_packet) if max_packet else AMOUNT_UNLIMITED,
    }


@contextlib.asynccontextmanager
async def ilp_connector(*, max_packet: int | None = None) -> AsyncIterator[Target]:
    """ilp-connector, all in memory. All its middleware is on; NODE_ENV as it comes."""
    connector = await JsProcess.start("connector")
    accounts = {name: js_account(name, max_packet=max_packet) for name in TOKENS}
    config = {"env": "test", "ilpAddress": "test.node", "accounts": accounts, "initialConnectTimeout": 1000}
    await connector.call("start", config=config)
    ports = {name: (await connector.event("listening", account=name))["port"] for name in TOKENS}
    yield Target(
        name="ilp-connector",
        sender_url=f"btp+ws://sender:{TOKENS['sender']}@127.0.0.1:{ports['sender']}/",
        receiver_url=f"btp+ws://receiver:{TOKENS['receiver']}@127.0.0.1:{ports['receiver']}/",
        destination="test.node.receiver",
        pid=connector.pid,
    )
    await connector.close()


@contextlib.asynccontextmanager
async def ilp_connector_http(receiver_port: int) -> AsyncIterator[dict[str, str]]:
    """ilp-connector with two ilp-plugin-http children: what to tell the HTTP load generator."""
    connector = await JsProcess.start("connector")
    accounts = {}
    for name, port in (("sender", receiver_port), ("receiver", receiver_port)):
        outgoing = {"url": f"http://127.0.0.1:{port}/ilp", "staticToken": TOKENS[name]}
        options = {"incoming": {"port": 0, "staticToken": TOKENS[name]}, "outgoing": outgoing}
        accounts[name] = {**js_account(name), "plugin": {"module": "http", "options": options}}
    config = {"env": "test", "ilpAddress": "test.node", "accounts": accounts}
    await connector.call("start", config=config)
    port = (await connector.event("listening", account="sender"))["port"]
    await connector.event("ready")
    yield {"url": f"http://127.0.0.1:{port}/ilp", "token": TOKENS["sender"], "destination": "test.node.receiver"}
    await connector.close()


TARGETS: dict[str, Callable[[], AbstractAsyncContextManager[Target]]] = {
    "relay": relay,
    "ilp-connector": ilp_connector,
}
