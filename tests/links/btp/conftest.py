"""Peers for the BTP tests: a recording owner, a server, clients, and a raw socket that may break every rule."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from isthmus.connector.events import AccountId, Inbound, Outbound, Undelivered
from isthmus.links.btp import codec, framing
from isthmus.links.btp.backoff import Backoff
from isthmus.links.btp.client import BtpClient
from isthmus.links.btp.codec import BtpMessage, ProtocolData
from isthmus.links.btp.server import BtpServer, ServerAccount, hash_token
from isthmus.links.btp.websocket import Library, choose_library

ALICE, BOB = AccountId("alice"), AccountId("bob")
TOKENS = {ALICE: "alice-token", BOB: "bob-token"}
WAIT_SECONDS = 60.0  # a bound for a loaded machine; nothing here takes that long


class Owner:
    """Records what links tell it. `until` waits for a condition on it."""

    def __init__(self) -> None:
        self.packets: list[Inbound] = []
        self.reads: list[int] = []  # packets in each call
        self.failures: list[Undelivered] = []
        self.facts: list[tuple[str, AccountId]] = []
        self.logs: list[Any] = []
        self._changed = asyncio.Event()

    def inbound(self, packets: list[Inbound]) -> None:
        self.reads.append(len(packets))
        self.packets += packets
        self._changed.set()

    def undelivered(self, failures: list[Undelivered]) -> None:
        self.failures += failures
        self._changed.set()

    def link_up(self, account: AccountId) -> None:
        self.facts.append(("up", account))
        self._changed.set()

    def link_down(self, account: AccountId, why: str) -> None:
        self.facts.append(("down", account))
        self._changed.set()

    def blocked(self, account: AccountId) -> None:
        self.facts.append(("blocked", account))
        self._changed.set()

    def writable(self, account: AccountId) -> None:
        self.facts.append(("writable", account))
        self._changed.set()

    def log(self, fact: Any) -> None:
        self.logs.append(fact)
        self._changed.set()

    def mono_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def count(self, fact: str, account: AccountId) -> int:
        return self.facts.count((fact, account))

    async def up(self, account: AccountId, times: int = 1) -> None:
        await self.until(lambda: self.count("up", account) >= times)

    async def down(self, account: AccountId, times: int = 1) -> None:
        await self.until(lambda: self.count("down", account) >= times)


class RawPeer:
    """A client on a bare socket. It sends what it is told, and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, port: int, path: str = "/") -> "RawPeer":
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        try:
            await peer.upgrade(path)
        except BaseException:
            peer.writer.close()
            raise
        return peer

    async def upgrade(self, path: str) -> bytes:
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    def send_bytes(self, data: bytes) -> None:
        self.writer.write(data)

    def frame(self, opcode: int, payload: bytes, *, first: int = 0x80, masked: bool = True) -> bytes:
        size = len(payload)
        length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        if size >= 1 << 16:
            length = b"\x7f" + size.to_bytes(8, "big")
        if not masked:
            return bytes((first | opcode,)) + length + payload
        mask = b"\x01\x02\x03\x04"
        return bytes((first | opcode, length[0] | 0x80)) + length[1:] + mask + framing.xor_mask(payload, mask)

    def send(self, payload: bytes, opcode: int = framing.BINARY) -> None:
        self.send_bytes(self.frame(opcode, payload))

    async def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame; IncompleteReadError or ConnectionError once it is over."""
        async with asyncio.timeout(WAIT_SECONDS):
            head = await self.reader.readexactly(2)
            size = head[1] & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return head[0] & 0x0F, await self.reader.readexactly(size)

    async def read_btp(self) -> Any:
        opcode, payload = await self.read_frame()
        assert opcode == framing.BINARY, (opcode, payload)
        return codec.decode(payload)

    async def read_close(self) -> int:
        """Skip to the close frame and give its status; 1006 if the connection ends without one."""
        try:
            while True:
                opcode, payload = await self.read_frame()
                if opcode == framing.CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006

    async def no_bytes(self) -> bool:
        """Whether the node has sent nothing that waits to be read. It has had its turn: a ping is answered first."""
        self.send(b"", framing.PING)
        return await self.read_frame() == (framing.PONG, b"")

    async def ended(self) -> None:
        """Wait until the other side has closed the TCP connection."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while await self.reader.read(1 << 16):
                    pass
        except ConnectionError:
            pass

    def send_auth(self, token: str, *extra: ProtocolData, request_id: int = 7) -> None:
        entries = [ProtocolData("auth", 0, b""), ProtocolData("auth_token", 1, token.encode()), *extra]
        self.send(codec.encode(BtpMessage(request_id, entries)))

    async def close(self) -> None:
        self.writer.close()


@pytest.fixture(params=["picows", "websockets"])
def library(request: pytest.FixtureRequest) -> Library:
    """Each test runs on both libraries: one suite for the two."""
    return choose_library(request.param)


@pytest.fixture
async def owner() -> Owner:
    return Owner()


@pytest.fixture
async def owners() -> Callable[[], Owner]:
    return Owner


@pytest.fixture
def packets() -> dict[str, bytes]:
    """Bytes that look like ILP packets; links look at the first byte only."""
    return {"prepare": b"\x0c" + bytes(100), "fulfill": b"\x0d" + bytes(40), "reject": b"\x0e" + bytes(60)}


@pytest.fixture
def session_of() -> Callable[[str], bytes]:
    return lambda name: hashlib.sha256(name.encode()).digest()[:16]


@pytest.fixture
async def serve(
    owner: Owner, library: Library, session_of: Callable[[str], bytes]
) -> AsyncIterator[Callable[..., Awaitable[BtpServer]]]:
    """Start a server for alice and bob; its owner is `owner`."""
    servers: list[BtpServer] = []

    async def start(**options: Any) -> BtpServer:
        accounts = [
            ServerAccount(account, hash_token(token), session_of(f"server {account}"))
            for account, token in TOKENS.items()
        ]
        server = BtpServer(("127.0.0.1", 0), accounts, owner, library=library, on_log=owner.log, **options)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def dial(
    library: Library, session_of: Callable[[str], bytes]
) -> AsyncIterator[Callable[..., Awaitable[tuple[BtpClient, Owner]]]]:
    """Start a client; gives it and its owner. Waits until it is up unless told otherwise."""
    clients: list[BtpClient] = []

    async def start(
        url: str, *, account: AccountId = ALICE, wait: bool = True, own: Owner | None = None, **options: Any
    ) -> tuple[BtpClient, Owner]:
        owner = own if own is not None else Owner()
        options.setdefault("backoff", Backoff(lambda: 0.5, first_ms=2, max_ms=20))
        options.setdefault("session", session_of(f"client {account}"))
        client = BtpClient(account, url, owner, library=library, on_log=owner.log, **options)
        clients.append(client)
        await client.start()
        if wait:
            await client.wait_up(int(WAIT_SECONDS * 1000))
        return client, owner

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def raw() -> AsyncIterator[Callable[..., Awaitable[RawPeer]]]:
    """Dial a server by a bare socket, with the WebSocket upgrade done; `token` authenticates too."""
    peers: list[RawPeer] = []

    async def start(server: BtpServer, path: str = "/", token: str | None = None) -> RawPeer:
        peer = await RawPeer.dial(server.address[1], path)
        peers.append(peer)
        if token is not None:
            peer.send_auth(token)
            answer = await peer.read_btp()
            assert isinstance(answer, codec.BtpResponse) and answer.request_id == 7
        return peer

    yield start
    for peer in peers:
        await peer.close()


@pytest.fixture
def url() -> Callable[..., str]:
    def of(server: BtpServer, account: AccountId = ALICE) -> str:
        return f"btp+ws://{account}:{TOKENS[account]}@127.0.0.1:{server.address[1]}/"

    return of


@pytest.fixture
def outbound() -> Callable[[int, bytes], Outbound]:
    return lambda request_id, packet: Outbound(bytes(16), request_id, packet)


@pytest.fixture
def entropy() -> Callable[[int], bytes]:
    return os.urandom
