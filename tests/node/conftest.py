"""Nodes as processes of their own, peers that speak BTP to them, and bare sockets that may break every rule.

Nothing here sleeps: a node is waited for by its log, a peer by what it is sent.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from isthmus.connector.events import AccountId, Inbound, Outbound, Undelivered
from isthmus.ilp.outcomes import (
    OUTCOMES_DESTINATION,
    OutcomesReport,
    decode_report,
    encode_answer,
    encode_report,
)
from isthmus.ilp.packet import (
    PREPARE,
    Fulfill,
    Prepare,
    Reject,
    decode,
    decode_prepare,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)
from isthmus.links.btp import codec, framing
from isthmus.links.btp.backoff import Backoff
from isthmus.links.btp.client import BtpClient
from isthmus.links.btp.codec import BtpMessage, ProtocolData
from tests.ports import free_port

WAIT_SECONDS = 60.0  # a bound for a loaded machine; nothing here takes that long
ADMIN_TOKEN = "admin-token-of-the-node-tests-0123456789"


def token_of(account: str) -> str:
    return f"token-of-{account}-with-enough-length-0123456789"


def toml(
    *accounts: str,
    address: str = "test.node",
    btp: int | None = 0,
    http: int | None = None,
    routes: dict[str, str] | None = None,
    rates: str = "",
    rest: str = "",
) -> str:
    """A whole file: accounts from `account`, listeners on these ports (None: not there), an admin API."""
    listeners = "".join(
        f'[listeners.{name}]\nlisten = "127.0.0.1:{port}"\n'
        for name, port in (("btp", btp), ("http", http))
        if port is not None
    )
    table = "".join(f'"{prefix}" = "{name}"\n' for prefix, name in (routes or {}).items())
    return (
        f'address = "{address}"\n{listeners}[admin]\nlisten = "127.0.0.1:0"\ntoken = "{ADMIN_TOKEN}"\n'
        f"[routes]\n{table}[rates]\n{rates}\n{rest}\n" + "".join(accounts)
    )


def account(
    name: str, *, relation: str = "child", asset: str = "USD", link: str | None = None, more: str = "", **limits: str
) -> str:
    """One account; without a link its peer dials us by BTP. Limits are in whole units of the asset, scale 9."""
    link = link or f'{{ type = "btp-server", token = "{token_of(name)}" }}'
    allowed = {"receivable": "1000", "payable": "1000", **limits}
    table = "".join(f'{key} = "{value}"\n' for key, value in allowed.items())
    return (
        f'[accounts.{name}]\nasset = "{asset}"\nscale = 9\nrelation = "{relation}"\nlink = {link}\n{more}\n'
        f"[accounts.{name}.limits]\n{table}"
    )


def dials(port: int, name: str) -> str:
    """A link that dials another node of the test, where we are known as `name`."""
    return f'{{ type = "btp-client", url = "btp+ws://127.0.0.1:{port}", token = "{token_of(name)}" }}'


# --- nodes -----------------------------------------------------------------------------------------------------------


class NodeProcess:
    """One `isthmus node run`. Its log is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.file = folder / "node.toml"
        self.lines: list[str] = []
        self.log: list[dict[str, Any]] = []
        self._taken = 0
        self._news = asyncio.Event()
        self._ended = False
        self._reader = asyncio.create_task(self._read())
        self.listening: dict[str, str] = {}

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            text = line.decode().rstrip("\n")
            self.lines.append(text)
            if text.startswith("{"):
                self.log.append(json.loads(text))
            self._news.set()
        self._ended = True
        self._news.set()

    async def until(self, event: str, *, within_s: float = WAIT_SECONDS, **fields: Any) -> dict[str, Any]:
        """The next line of the log with this event and these fields, after the one that was waited for last."""
        async with asyncio.timeout(within_s):
            while True:
                for index in range(self._taken, len(self.log)):
                    line = self.log[index]
                    if line["event"] == event and all(line.get(key) == value for key, value in fields.items()):
                        self._taken = index + 1
                        return line
                assert not self._ended, f"the node ended: {self.lines}"
                self._news.clear()
                await self._news.wait()

    async def started(self, within_s: float = WAIT_SECONDS) -> "NodeProcess":
        await self.until("running", within_s=within_s)
        self.listening = json.loads((self.folder / "data" / "running.json").read_text())["listening"]
        return self

    @property
    def port(self) -> int:
        return int(self.listening["btp"].rpartition(":")[2])

    async def get(
        self, path: str, *, token: str | None = ADMIN_TOKEN, method: str = "GET"
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer of the admin API."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, self.listening["admin"] + path, headers=headers) as response,
        ):
            return response.status, dict(response.headers), await response.read()

    async def accounts(self) -> dict[str, dict[str, Any]]:
        status, _, body = await self.get("/accounts")
        assert status == 200
        return {each["id"]: each for each in json.loads(body)["accounts"]}

    async def balances(self) -> dict[str, int]:
        """Of the peers."""
        return {name: int(each["balance"]) for name, each in (await self.accounts()).items()}

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def reload(self, text: str) -> dict[str, Any]:
        """Write the file, send SIGHUP, and give the line that tells what came of it."""
        self.file.write_text(text)
        self.signal(signal.SIGHUP)
        first = len(self.log)
        events = ("configuration reloaded", "configuration not reloaded")
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                for line in self.log[first:]:
                    if line["event"] in events:
                        return line
                assert not self._ended, self.lines
                self._news.clear()
                await self._news.wait()

    async def exit_code(self) -> int:
        async with asyncio.timeout(WAIT_SECONDS):
            code = await self.process.wait()
            await self._reader
        return code

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGTERM)
        return await self.exit_code()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert await self.exit_code() == -signal.SIGKILL


class Nodes:
    """Starts nodes. What still runs at the end of a test must leave by SIGTERM with exit status 0."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: list[NodeProcess] = []

    async def launch(self, text: str, *, folder: Path | None = None, wrapper: tuple[str, ...] = ()) -> NodeProcess:
        """A process; whether it runs is not waited for."""
        folder = folder or self._folder / f"node-{len(self.processes)}"
        folder.mkdir(exist_ok=True)
        (folder / "node.toml").write_text(text)
        command = (*(wrapper or (sys.executable, "-m", "isthmus")), "node", "run", str(folder / "node.toml"))
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, limit=1 << 20)
        node = NodeProcess(process, folder)
        self.processes.append(node)
        return node

    async def run(self, text: str, *, folder: Path | None = None, wrapper: tuple[str, ...] = ()) -> NodeProcess:
        """A node that runs."""
        return await (await self.launch(text, folder=folder, wrapper=wrapper)).started()

    async def close(self) -> None:
        codes = []
        for node in reversed(self.processes):
            if node.process.returncode is None:
                codes.append((await node.stop(), node.lines[-5:]))
        for node in self.processes:
            defects = [line for line in node.lines if "Traceback" in line]
            assert not defects, defects
        assert all(code == 0 for code, _ in codes), codes


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    await nodes.close()


# --- peers -----------------------------------------------------------------------------------------------------------


class Peer:
    """The other end of an account: pays, and is paid. Prepares that it gets wait in `requests`, or go to `answer`."""

    def __init__(self, name: str, *, session: bytes | None = None) -> None:
        self.name = name
        self.session = os.urandom(16) if session is None else session
        self.requests: asyncio.Queue[Inbound] = asyncio.Queue()
        self.answer: Callable[[Inbound], None] | None = None
        self.packets: list[Inbound] = []
        self.failures: list[Undelivered] = []
        self.link: BtpClient | None = None
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Fulfill | Reject]] = {}
        self._changed = asyncio.Event()
        self.is_up = False
        self.takes_reports = False
        self.reports: list[OutcomesReport] = []

    async def dial(self, port: int) -> "Peer":
        self.link = BtpClient(
            AccountId(self.name),
            f"btp+ws://127.0.0.1:{port}",
            self,
            session=self.session,
            token=token_of(self.name),
            backoff=Backoff(lambda: 0.5, first_ms=5, max_ms=50),
        )
        await self.link.start()
        await self.link.wait_up(int(WAIT_SECONDS * 1000))
        return self

    # links.port.LinkOwner

    def inbound(self, packets: list[Inbound]) -> None:
        for inbound in packets:
            if inbound.packet[0] == PREPARE and decode_prepare(inbound.packet).destination.startswith("peer."):
                self._neighbour(inbound)
                continue
            self.packets.append(inbound)
            if inbound.packet[0] == PREPARE:
                if self.answer is not None:
                    self.answer(inbound)
                else:
                    self.requests.put_nowait(inbound)
                continue
            # What an earlier connection of the account had asked may be answered on this one: ids alone don't tell.
            is_ours = not inbound.session or inbound.session == self.session
            waiting = self._waiting.get(inbound.request_id) if is_ours else None
            if waiting is not None and not waiting.done():
                waiting.set_result(decode(inbound.packet))  # type: ignore[arg-type]
        self._changed.set()

    def undelivered(self, failures: list[Undelivered]) -> None:
        self.failures += failures
        self._changed.set()

    def link_up(self, account: AccountId) -> None:
        self.is_up = True
        self._changed.set()

    def link_down(self, account: AccountId, why: str) -> None:
        self.is_up = False
        self._changed.set()

    def blocked(self, account: AccountId) -> None: ...

    def writable(self, account: AccountId) -> None: ...

    def mono_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    # paying

    def prepare(
        self, destination: str, amount: int, *, left_ms: int = 25_000, data: bytes = b"", seed: bytes | None = None
    ) -> asyncio.Future[Fulfill | Reject]:
        """Send a Prepare whose fulfillment is the first 32 bytes of its data; the answer to come."""
        preimage = os.urandom(32) if seed is None else seed
        packet = Prepare(amount, wall_ms() + left_ms, sha256(preimage).digest(), destination, preimage + data)
        return self._send(encode_prepare(packet))

    def _send(self, packet: bytes) -> asyncio.Future[Fulfill | Reject]:
        assert self.link is not None
        self._last_id += 1
        answer: asyncio.Future[Fulfill | Reject] = asyncio.get_running_loop().create_future()
        self._waiting[self._last_id] = answer
        self.link.write([Outbound(self.session, self._last_id, packet)])
        return answer

    async def pay(self, destination: str, amount: int, **more: Any) -> Fulfill | Reject:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.prepare(destination, amount, **more)

    async def pay_when_linked(self, destination: str, amount: int, *, also: str = "T01") -> None:
        """Pay as soon as there is a way: again while a link of the nodes between isn't up yet (T01: nothing was sent),
        and after this other code."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not isinstance(answer := await self.pay(destination, amount), Fulfill):
                assert answer.code in ("T01", also), answer
                await asyncio.sleep(0.05)

    # being paid

    async def request(self) -> Inbound:
        """The next Prepare from the node."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.requests.get()

    def fulfil(self, inbound: Inbound) -> None:
        fulfillment = decode_prepare(inbound.packet).data[:32]
        self._reply(inbound, encode_fulfill(Fulfill(fulfillment)))

    def reject(self, inbound: Inbound, code: str = "F99") -> None:
        self._reply(inbound, encode_reject(Reject(code, "test.far", "no")))

    # outcomes

    def _neighbour(self, inbound: Inbound) -> None:
        """Unless it was told to, this peer speaks no protocol of neighbours."""
        if self.takes_reports:
            self.reports.append(decode_report(decode_prepare(inbound.packet).data))
            self._reply(inbound, encode_answer([]))
        else:
            self.reject(inbound, "F01")

    async def report(self) -> None:
        """Tell the node that all our Prepares so far have outcomes that will survive a crash."""
        packet = encode_report(OutcomesReport(self.session, self._last_id, [], [], []), wall_ms() + 5_000)
        async with asyncio.timeout(WAIT_SECONDS):
            assert isinstance(await self._send(packet), Fulfill)

    def _reply(self, inbound: Inbound, packet: bytes) -> None:
        assert self.link is not None
        self.link.write([Outbound(inbound.session, inbound.request_id, packet)])

    def fulfil_all(self) -> "Peer":
        self.answer = self.fulfil
        return self

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close()


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


MakePeer = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def peer() -> AsyncIterator[MakePeer]:
    """A peer of this name, connected to the node; `fulfils` answers what comes."""
    peers: list[Peer] = []

    async def start(node: NodeProcess, name: str, *, fulfils: bool = False) -> Peer:
        one = Peer(name)
        peers.append(one)
        if fulfils:
            one.fulfil_all()
        return await one.dial(node.port)

    yield start
    for one in peers:
        await one.close()


class RawPeer:
    """A BTP client on a bare socket. It sends what it is told, and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, node: NodeProcess, name: str | None = None, *, path: str = "/") -> "RawPeer":
        """A bare socket to the node's BTP listener, upgraded; with a name it authenticates too."""
        one = cls(*await asyncio.open_connection("127.0.0.1", node.port))
        await one.upgrade(path)
        if name is not None:
            one.send_auth(token_of(name))
            answer = await one.read_btp()
            assert isinstance(answer, codec.BtpResponse) and answer.request_id == 7
        return one

    async def upgrade(self, path: str = "/") -> None:
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

    def send_bytes(self, data: bytes) -> None:
        self.writer.write(data)

    def frame(self, opcode: int, payload: bytes, *, first: int = 0x80) -> bytes:
        size = len(payload)
        length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        if size >= 1 << 16:
            length = b"\x7f" + size.to_bytes(8, "big")
        mask = b"\x01\x02\x03\x04"
        return bytes((first | opcode, length[0] | 0x80)) + length[1:] + mask + framing.xor_mask(payload, mask)

    def send(self, payload: bytes, opcode: int = framing.BINARY) -> None:
        self.send_bytes(self.frame(opcode, payload))

    def send_auth(self, token: str, *, request_id: int = 7) -> None:
        entries = [ProtocolData("auth", 0, b""), ProtocolData("auth_token", 1, token.encode())]
        self.send(codec.encode(BtpMessage(request_id, entries)))

    def send_ilp(self, request_id: int, packet: bytes, kind: int = codec.MESSAGE) -> None:
        self.send(codec.encode_ilp(kind, request_id, packet))

    async def read_frame(self) -> tuple[int, bytes]:
        async with asyncio.timeout(WAIT_SECONDS):
            head = await self.reader.readexactly(2)
            size = head[1] & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return head[0] & 0x0F, await self.reader.readexactly(size)

    async def read_btp(self) -> Any:
        """The next BTP packet; control frames are skipped, and reports of outcomes refused: they aren't known here."""
        while True:
            opcode, payload = await self.read_frame()
            if opcode == framing.BINARY:
                packet = codec.decode(payload)
                if OUTCOMES_DESTINATION.encode() not in payload:
                    return packet
                self.send_ilp(packet.request_id, encode_reject(Reject("F01", "test.far", "no")), codec.RESPONSE)
                continue
            assert opcode in (framing.PING, framing.PONG), (opcode, payload)

    async def read_close(self) -> int:
        """Skip to the close frame and give its status; 1006 if the connection ends without one."""
        try:
            while True:
                opcode, payload = await self.read_frame()
                if opcode == framing.CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006

    async def ended(self) -> None:
        """Wait until the other side has closed the TCP connection."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(WAIT_SECONDS):
                while await self.reader.read(1 << 16):
                    pass

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@pytest.fixture
async def raw() -> AsyncIterator[Callable[..., Awaitable[RawPeer]]]:
    """`RawPeer.dial`; they end with the test."""
    peers: list[RawPeer] = []

    async def start(node: NodeProcess, name: str | None = None) -> RawPeer:
        peers.append(await RawPeer.dial(node, name))
        return peers[-1]

    yield start
    for one in peers:
        await one.close()


class HttpPeer:
    """The other end of an HTTP account: takes POSTs, and answers as `status` and `body` say."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.status = 202
        self.body = b""
        self.runner = web.AppRunner(self._app(), access_log=None, handle_signals=False, shutdown_timeout=0.1)

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/ilp", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        self.requests.put_nowait((request.headers.get("Request-Id", ""), await request.read()))
        return web.Response(status=self.status, body=self.body, content_type="application/octet-stream")

    async def start(self) -> "HttpPeer":
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/ilp"

    async def request(self) -> tuple[str, bytes]:
        """Request-Id and body of the next POST."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.requests.get()

    @staticmethod
    async def post(url: str, body: bytes, request_id: str, token: str) -> int:
        """A POST of ours to the node; its status."""
        headers = {
            "Authorization": f"Bearer {token}",
            "Request-Id": request_id,
            "Content-Type": "application/octet-stream",
        }
        timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=body, headers=headers) as response,
        ):
            return response.status


# --- what tests need by name -----------------------------------------------------------------------------------------


class Config:
    """Pieces of a node's TOML; and the classes above, for fixtures that live longer than a test."""

    Nodes = Nodes
    Peer = Peer
    RawPeer = RawPeer
    HttpPeer = HttpPeer
    toml = staticmethod(toml)
    account = staticmethod(account)
    dials = staticmethod(dials)
    token_of = staticmethod(token_of)
    free_port = staticmethod(free_port)
    admin_token = ADMIN_TOKEN


@pytest.fixture(scope="session")
def config() -> type[Config]:
    return Config


@pytest.fixture
def two(config: type[Config]) -> str:
    """A node with the children alice and bob, in USD."""
    return toml(account("alice"), account("bob"))


@pytest.fixture(name="wall_ms")
def wall_ms_now() -> int:
    return wall_ms()


@pytest.fixture
def http_port() -> int:
    return free_port()


@pytest.fixture
async def http_peer() -> AsyncIterator[Callable[[], Awaitable[HttpPeer]]]:
    peers: list[HttpPeer] = []

    async def start() -> HttpPeer:
        peers.append(await HttpPeer().start())
        return peers[-1]

    yield start
    for one in peers:
        await one.runner.cleanup()
