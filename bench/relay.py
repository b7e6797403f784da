"""A relay that decides nothing: what one account sends goes to the other. It shows the load generator's ceiling.

The same job as a connector's, without reading a packet: take WebSocket frames apart, put them together, one write for
what one read brought. Run by the benchmarks as a process of its own; prints its two ports.
"""

import asyncio
import base64
import hashlib
import json
import struct
import sys
from typing import cast

from bench import frames

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Side(asyncio.Protocol):
    """One account. `other` is where frames go."""

    def __init__(self, sides: dict[str, "Side"], name: str, other: str) -> None:
        self.sides, self.name, self.other = sides, name, other
        self.buffer = b""
        self._stage = 0  # 0: HTTP, 1: auth, 2: packets
        self._size = 0  # of one frame's payload, all are equal in a run

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.sides[self.name] = self

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data if self.buffer else data
        if self._stage == 0:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.buffer = head
                return
            self._upgrade(head)
        if self._stage == 1:
            for _, payload, end_of_frame in frames.split(data):
                answer = struct.pack(">BIBBB", frames.BTP_RESPONSE, struct.unpack_from(">I", payload, 1)[0], 2, 1, 0)
                self.transport.write(frames.server_header(len(answer)) + answer)
                self._stage = 2
                data = data[end_of_frame:]
                break
        self.buffer = self._relay(data) if self._stage == 2 else data

    def _upgrade(self, head: bytes) -> None:
        key = next(line[18:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._stage = 1

    def _relay(self, data: bytes) -> bytes:
        if not self._size:
            first = next(frames.split(data), None)
            if first is None:
                return data
            self._size = len(first[1])
            self._in_header = frames.client_header(self._size)
            self._out_header = frames.server_header(self._size)
            self._record = struct.Struct(f">{len(self._in_header)}s{self._size}s")
        whole = len(data) // self._record.size * self._record.size
        header, expected = self._out_header, self._in_header
        out = []
        for start, payload in self._record.iter_unpack(data[:whole]):
            assert start == expected, "frames of one side differ in size"
            out.append(header)
            out.append(payload)
        if out:
            self.sides[self.other].transport.write(b"".join(out))
        return data[whole:]


async def main() -> None:
    loop = asyncio.get_running_loop()
    sides: dict[str, Side] = {}
    ports = {}
    for name, other in (("sender", "receiver"), ("receiver", "sender")):
        server = await loop.create_server(lambda name=name, other=other: Side(sides, name, other), "127.0.0.1", 0)  # type: ignore[misc]
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # ends with its parent


if __name__ == "__main__":
    asyncio.run(main())
