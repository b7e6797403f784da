"""The load generator for ILP over HTTP, synchronous: keep-alive connections that post Prepares, and a server that
fulfils what the node posts to it.

Talks by JSON lines, since the node's config needs the receiver's port first: prints {"port"}, reads one line with
{"url", "token", "destination", "packets", "connections"}, prints the measurement.
"""

import asyncio
import dataclasses
import json
import os
import sys
import time
import uuid
from collections import deque
from typing import cast
from urllib.parse import urlsplit

from bench import frames
from bench.load import Measured

FULFILL_BODY_HEAD = b"\x0d\x21"
RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 35\r\n\r\n"
PEER = b"\x15peer.isthmus.outcomes"
REJECT_BODY = b"\x0e\x06F02\0\0\0"
REJECT_HEAD = RESPONSE_HEAD.replace(b": 35", b": %d" % len(REJECT_BODY))
PROBE_ANSWER = b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n"
RUN_SECONDS_MAX = 300.0


def body_of(buffer: bytes) -> tuple[bytes, bytes, int] | None:
    """Head, body and end of the first HTTP message in the buffer, if it is whole. Lengths only, no chunks."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = buffer[:end]
    if head.startswith(b"HEAD "):
        return head, b"", end + 4
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at < 0:
        raise ValueError(f"an HTTP message without a length: {head!r}")
    size = int(lower[at + 15 :].split(b"\r\n", 1)[0])
    start = end + 4
    if len(buffer) < start + size:
        return None
    return head, buffer[start : start + size], start + size


class Fulfiller(asyncio.Protocol):
    """A connection of the node to the receiving account."""

    received = 0  # over all connections

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        out = []
        while (message := body_of(self.buffer)) is not None:
            _, body, end = message
            self.buffer = self.buffer[end:]
            if not body:  # the node looks whether somebody is here
                out.append(PROBE_ANSWER)
                continue
            if PEER in body[:96]:  # a question between neighbours, which this implementation doesn't know
                out.append(REJECT_HEAD + REJECT_BODY)
                continue
            Fulfiller.received += 1
            out.append(RESPONSE_HEAD + FULFILL_BODY_HEAD + body[-frames.DATA_BYTES :] + b"\0")
        if out:
            self.transport.write(b"".join(out))


@dataclasses.dataclass(slots=True)
class Work:
    """What is left to post, and what came of it; shared by all connections."""

    requests: deque[tuple[bytes, bytes]]  # (request, preimage)
    left: int
    done: asyncio.Future[None]
    latencies: list[float] = dataclasses.field(default_factory=list)
    rejects: dict[str, int] = dataclasses.field(default_factory=dict)


class Poster(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.post()

    def post(self) -> None:
        if not self.work.requests:
            self.transport.abort()
            return
        request, self.preimage = self.work.requests.popleft()
        self.sent_at = time.perf_counter()
        self.transport.write(request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.work.left and self.work.requests and not self.work.done.done():
            self.work.done.set_exception(ConnectionError(f"the node closed a connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        message = body_of(self.buffer)
        if message is None:
            return
        head, body, end = message
        self.buffer = self.buffer[end:]
        work = self.work
        if body[:2] == FULFILL_BODY_HEAD and body[2:34] == self.preimage:
            work.latencies.append(time.perf_counter() - self.sent_at)
        else:
            code = body[2:5].decode("ascii", "replace") if body[:1] == b"\x0e" else head[9:12].decode()
            work.rejects[code] = work.rejects.get(code, 0) + 1
        work.left -= 1
        if work.left == 0 and not work.done.done():
            work.done.set_result(None)
        self.post()


def prebuild(path: str, host: str, token: str, destination: str, packets: int) -> deque[tuple[bytes, bytes]]:
    shot = frames.load(packets, seed=os.urandom(16), destination=destination, amount=1_000)
    requests: deque[tuple[bytes, bytes]] = deque()
    for frame, preimage in zip(shot.frames, shot.preimages, strict=True):
        body = frame[frame.index(b"\x03ilp\x00") + 5 :]
        body = body[2 if body[0] == 0x81 else 1 :]  # past the length of the BTP entry
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/octet-stream\r\nAccept: application/octet-stream\r\n"
            f"Request-Id: {uuid.uuid4()}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append((head.encode() + body, preimage))
    return requests


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Fulfiller, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    order = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    url = urlsplit(order["url"])
    assert url.port is not None
    packets, connections = order["packets"], order["connections"]
    requests = prebuild(url.path, url.netloc, order["token"], order["destination"], packets)
    work = Work(requests, packets, loop.create_future())
    started = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Poster(work), url.hostname, url.port)
    await asyncio.wait_for(work.done, RUN_SECONDS_MAX)
    seconds = time.perf_counter() - started
    latencies = sorted(work.latencies) or [float("nan")]
    measured = Measured(
        packets=packets,
        window=connections,
        seconds=seconds,
        packets_per_second=len(work.latencies) / seconds,
        p50_ms=latencies[len(latencies) // 2] * 1000,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1000,
        received=Fulfiller.received,
        rejects=work.rejects,
    )
    print(json.dumps(dataclasses.asdict(measured)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
