"""Our node as a target: its config, its process, and what is measured of it alone."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.fire import fire
from bench.stream import PAYMENT_SECONDS_MAX, Paid
from bench.targets import ROOT, TOKENS, Target, folder_bytes, rss_bytes
from isthmus.cli.demo.processes import free_ports

NATIVE = ROOT / "build" / "native"
START_SECONDS = 60.0
STOP_SECONDS = 60.0
SCALE = 9
HEAD = 'address = "test.node"\n\n'
ADMIN = '[admin]\nlisten = "127.0.0.1:{port}"\n\n'


def builds() -> list[str]:
    """Which builds of the node can be measured here: none before it exists, the compiled one after `make native`."""
    if importlib.util.find_spec("isthmus.node.config") is None:
        return []
    return ["isthmus", "isthmus-native"] if NATIVE.is_dir() else ["isthmus"]


def environment(name: str) -> dict[str, str]:
    """The compiled build is the same package, found first."""
    return {**os.environ, "PYTHONPATH": str(NATIVE)} if name == "isthmus-native" else dict(os.environ)


def free_port() -> int:
    """A port that nothing listens on; the node is told it, since clients need it before its logs can be read."""
    (port,) = free_ports(1)
    return port


async def links_up(admin_port: int, accounts: frozenset[str] | None = None) -> None:
    """Until the links of these accounts are up, or everyone's, as the node's own health says."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", admin_port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            down = set(json.loads(body)["links_down"])
            if not (down if accounts is None else down & accounts):
                return
        await asyncio.sleep(0.02)
    raise RuntimeError("the node's links did not come up")


async def listening(port: int, process: asyncio.subprocess.Process) -> None:
    """Until something accepts connections there."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.returncode is not None:
            break
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return
    raise RuntimeError("the node did not start")


async def metric(admin_port: int, name: str, label: str = "") -> int:
    """One metric's value; 0 if there is none yet."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{admin_port}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    found = [line for line in lines if line.startswith((name + "{", name + " ")) and label in line]
    return int(float(found[0].split()[-1])) if found else 0


@contextlib.asynccontextmanager
async def process(build: str, config: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`isthmus node run CONFIG`, ready; SIGTERM ends it, and its exit code must then be 0."""
    log = config.with_suffix(".log").open("ab")
    node = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "isthmus", "node", "run", str(config)),
        stdout=log,
        stderr=log,
        cwd=ROOT,
        env=environment(build),
    )
    try:
        await listening(port, node)
        yield node
        if node.returncode is None:
            node.send_signal(signal.SIGTERM)
        if await asyncio.wait_for(node.wait(), STOP_SECONDS) not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the node ended with {node.returncode}: {tail(config)}")
    except BaseException:
        if node.returncode is None:
            node.kill()
            await node.wait()
        raise
    finally:
        log.close()


def tail(config: Path) -> str:
    return config.with_suffix(".log").read_text()[-2000:]


@contextlib.asynccontextmanager
async def isthmus(*, max_packet: int | None = None, build: str = "isthmus") -> AsyncIterator[Target]:
    """Two BTP children of one node with a SQLite journal, all limits and metrics on, none of them in the way."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        port = free_port()
        config = Path(folder) / "node.toml"
        config.write_text(config_text(port, max_packet=max_packet))
        async with process(build, config, port) as node:
            yield target(build, port, node.pid, Path(folder))


def target(build: str, port: int, pid: int, folder: Path) -> Target:
    return Target(
        name=build,
        sender_url=f"btp+ws://sender:{TOKENS['sender']}@127.0.0.1:{port}/",
        receiver_url=f"btp+ws://receiver:{TOKENS['receiver']}@127.0.0.1:{port}/",
        destination="test.node.receiver",
        pid=pid,
        folder=folder,
    )


def isthmus_native() -> AbstractAsyncContextManager[Target]:
    return isthmus(build="isthmus-native")


TARGETS: dict[str, Callable[[], AbstractAsyncContextManager[Target]]] = {
    "isthmus": isthmus,
    "isthmus-native": isthmus_native,
}


@dataclass(slots=True, kw_only=True)
class LongRun:
    """A node that forwarded for long, and was started again."""

    resident: list[tuple[int, int]]  # (packets so far, bytes)
    journal: list[tuple[int, int]]  # (packets so far, bytes of the folder)
    restart_seconds: float  # after SIGKILL: from the start of the process to its listening
    resident_after_restart: int


async def long_run(build: str, *, packets: int, step: int) -> LongRun:
    """Forward `packets` in steps, look at memory and files after each, kill the node, and start it again."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        port = free_port()
        config = Path(folder) / "node.toml"
        config.write_text(config_text(port))
        resident, journal = [], []
        async with process(build, config, port) as node:
            for done in range(step, packets + 1, step):
                await fire(target(build, port, node.pid, Path(folder)), packets=step, window=100)
                resident.append((done, rss_bytes(node.pid)))
                journal.append((done, folder_bytes(Path(folder))))
            node.kill()
            await node.wait()
        started = time.monotonic()
        async with process(build, config, port) as node:
            seconds = time.monotonic() - started
            after = rss_bytes(node.pid)
    return LongRun(resident=resident, journal=journal, restart_seconds=seconds, resident_after_restart=after)


@contextlib.asynccontextmanager
async def http_node(receiver_port: int, *, build: str = "isthmus") -> AsyncIterator[tuple[dict[str, str], int]]:
    """Two ILP-over-HTTP children: what to tell the HTTP load generator, and the node's process id."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        port = free_port()
        config = Path(folder) / "node.toml"
        admin_port = free_port()
        config.write_text(http_config_text(port, receiver_port, admin_port))
        order = {
            "url": f"http://127.0.0.1:{port}/ilp/sender",
            "token": TOKENS["sender"],
            "destination": "test.node.receiver",
        }
        async with process(build, config, port) as node:
            await links_up(admin_port)
            yield order, node.pid


async def stream_pair(target: Target, *, packets: int, packet_amount: int, build: str) -> Paid:
    """Our library at both ends, a process each, wallets in memory."""
    receiver = await endpoint(build, "receive", target.receiver_url)
    assert receiver.stdin is not None and receiver.stdout is not None
    try:
        invited = json.loads(await asyncio.wait_for(receiver.stdout.readline(), START_SECONDS))
        amount = packets * packet_amount
        sender = await endpoint(build, "pay", target.sender_url, invited["address"], invited["secret"], str(amount))
        out, _ = await asyncio.wait_for(sender.communicate(), PAYMENT_SECONDS_MAX)
        if sender.returncode:
            raise RuntimeError(f"the sender ended with {sender.returncode}")
        paid = json.loads(out)
    finally:
        receiver.stdin.close()
        await receiver.wait()
    if paid["delivered"] != amount:
        raise RuntimeError(f"{paid['delivered']} of {amount} arrived")
    return Paid(
        packets=packets, delivered=paid["delivered"], setup_seconds=paid["setup_seconds"], seconds=paid["seconds"]
    )


async def endpoint(build: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.stream_endpoint", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(build),
    )


# Every limit is switched on, as an operator would have them, and none is reached.
LIMITS = """\
receivable = "1000000000"
payable = "1000000000"
packet = "{packet}"
in_flight = "1000000000"
per_second = "1000000000"
packets_per_minute = 1_000_000_000
"""


def account_text(name: str, link: str, packet: str) -> str:
    limits = LIMITS.format(packet=packet)
    return (
        f'[accounts.{name}]\nasset = "USD"\nscale = {SCALE}\nrelation = "child"\nlink = {link}\n'
        f"[accounts.{name}.limits]\n{limits}\n"
    )


def config_text(port: int, *, max_packet: int | None = None) -> str:
    """Two children that dial us; `max_packet` in base units."""
    packet = f"{max_packet / 10**SCALE:.{SCALE}f}" if max_packet else "1000000"
    links = {name: f'{{ type = "btp-server", token = "{token}" }}' for name, token in TOKENS.items()}
    accounts = "".join(account_text(name, link, packet) for name, link in links.items())
    return f'{HEAD}[listeners.btp]\nlisten = "127.0.0.1:{port}"\n\n{ADMIN.format(port=free_port())}{accounts}'


def http_config_text(port: int, receiver_port: int, admin_port: int) -> str:
    """Two children by ILP over HTTP, synchronous."""
    accounts = ""
    for name, token in TOKENS.items():
        url = f"http://127.0.0.1:{receiver_port}/ilp"
        outgoing = f'outgoing = {{ auth = "bearer", token = "{token}" }}'
        incoming = f'incoming = {{ auth = "bearer", token = "{token}" }}'
        accounts += account_text(name, f'{{ type = "http", url = "{url}", {outgoing}, {incoming} }}', "1000000")
    return f'{HEAD}[listeners.http]\nlisten = "127.0.0.1:{port}"\n\n{ADMIN.format(port=admin_port)}{accounts}'
