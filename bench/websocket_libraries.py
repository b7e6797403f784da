"""Which WebSocket library carries the most messages for us? Echo servers side by side, one load generator.

    python bench/websocket_libraries.py [--seconds 2] [--bytes 200]

Each server is a process of its own that sends back what it reads. The generator is one raw socket with prepared
frames, so that it costs the same beside every server. Figures are noisy on shared cores: read them as ratios.
"""

import argparse
import asyncio
import base64
import contextlib
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

WINDOWS = (1, 100, 1000)
ROUNDS = 3
SOCKET_BYTES = 1 << 20


def header(size: int) -> bytes:
    """Give the head of one unmasked binary frame."""
    return bytes((0x82, size)) if size < 126 else b"\x82\x7e" + struct.pack(">H", size)


async def picows_server(batched: bool) -> asyncio.Server:
    import picows

    class Echo(picows.WSListener):
        def on_ws_connected(self, transport: Any) -> None:
            self.parts: list[bytes] = []

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            payload = frame.get_payload_as_bytes()
            if not batched:
                transport.send(picows.WSMsgType.BINARY, payload)
                return
            self.parts.append(header(len(payload)))
            self.parts.append(payload)
            if frame.last_in_buffer:
                transport.underlying_transport.write(b"".join(self.parts))
                self.parts.clear()

    return await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", 0, use_aiofastnet=False)


async def picows_one_write_each() -> asyncio.Server:
    return await picows_server(batched=False)


async def picows_batched() -> asyncio.Server:
    return await picows_server(batched=True)


async def websockets_connection() -> Any:
    import websockets.asyncio.server
    from websockets.exceptions import ConnectionClosed

    async def echo(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosed):  # the generator leaves without a goodbye
            async for message in connection:
                await connection.send(message)

    return await websockets.asyncio.server.serve(echo, "127.0.0.1", 0, compression=None)


class SansIoEcho(asyncio.Protocol):
    """The `websockets` protocol object under a transport of our own, one write per read."""

    def connection_made(self, transport: Any) -> None:
        from websockets.frames import Opcode
        from websockets.server import ServerProtocol

        self.transport = transport
        self.protocol = ServerProtocol(max_size=1 << 16)
        self.binary = Opcode.BINARY

    def data_received(self, data: bytes) -> None:
        from websockets.http11 import Request

        self.protocol.receive_data(data)
        parts: list[bytes] = []
        for event in self.protocol.events_received():
            if getattr(event, "opcode", None) is self.binary:
                payload = bytes(event.data)  # type: ignore[union-attr]
                parts.append(header(len(payload)))
                parts.append(payload)
            elif isinstance(event, Request):
                self.protocol.send_response(self.protocol.accept(event))
        parts[:0] = self.protocol.data_to_send()
        if parts:
            self.transport.write(b"".join(parts))


async def websockets_sans_io() -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(SansIoEcho, "127.0.0.1", 0)


SERVERS: dict[str, Callable[[], Awaitable[Any]]] = {
    "picows, one write per read": picows_batched,
    "picows, send() per frame": picows_one_write_each,
    "websockets protocol, one write per read": websockets_sans_io,
    "websockets connection, send() per frame": websockets_connection,
}


async def serve(name: str) -> None:
    server = await SERVERS[name]()
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().create_future()


def connect(port: int) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    peer.sendall(
        f"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += peer.recv(4096)
    return peer


def masked_frames(count: int, size: int) -> bytes:
    head = bytes((0x82, 0x80 | size)) if size < 126 else b"\x82\xfe" + struct.pack(">H", size)
    return b"".join(head + os.urandom(4 + size) for _ in range(count))


def messages_per_second(port: int, window: int, size: int, seconds: float) -> float:
    """Send `window` messages, wait until all came back, and again."""
    peer = connect(port)
    block = masked_frames(window, size)
    awaited = window * (len(header(size)) + size)
    buffer = bytearray(SOCKET_BYTES)
    done = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        peer.sendall(block)
        left = awaited
        while left:
            left -= peer.recv_into(buffer, min(left, SOCKET_BYTES))
        done += window
    elapsed = time.perf_counter() - start
    peer.close()
    return done / elapsed


def measure(seconds: float, size: int) -> None:
    servers = {}
    for name in SERVERS:
        process = subprocess.Popen([sys.executable, __file__, "--serve", name], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        servers[name] = (process, int(process.stdout.readline()))
    print(f"messages/s, {size} bytes, median of {ROUNDS}; windows {WINDOWS}")
    figures: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):  # interleaved, so that a busy minute hits all of them
        for window in WINDOWS:
            for name, (_, port) in servers.items():
                figures.setdefault((name, window), []).append(messages_per_second(port, window, size, seconds))
    for name in servers:
        row = " ".join(f"{statistics.median(figures[name, window]):>12,.0f}" for window in WINDOWS)
        print(f"{name:<42}{row}")
    for process, _ in servers.values():
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--serve", choices=list(SERVERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
    else:
        measure(arguments.seconds, arguments.bytes)


if __name__ == "__main__":
    main()
