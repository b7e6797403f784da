"""The load generator: one account that sends Prepares and one that fulfils them, as BTP clients in one process.

A window of W keeps W Prepares unanswered. Every packet is different, every Fulfill is compared with the preimage, and
the receiver counts what it was given. Run as a process of its own: `python -m bench.load --help`.
"""

import argparse
import asyncio
import base64
import gc
import json
import os
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from bench import frames
from bench.frames import CLIENT_FULFILL, CLIENT_FULFILL_HEAD, FULFILL_MIDDLE, SERVER_FULFILL, SERVER_FULFILL_HEAD

AUTH_ID = 0xFFFFFFFF
CONNECT_SECONDS = 20.0
STALL_SECONDS = 60.0  # no answer for so long ends the run
REACHED_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Measured:
    """One run. Latencies in milliseconds, from the write of a Prepare to the read of its Fulfill."""

    packets: int
    window: int
    seconds: float
    packets_per_second: float
    p50_ms: float
    p99_ms: float
    received: int  # Prepares that reached the receiver, the warm-up's left out
    rejects: dict[str, int]
    processor_seconds: float = 0.0  # of the processes that were named, all their threads


def processor_seconds(pids: Sequence[int]) -> float:
    """What all threads of these processes have used, to the nanosecond (Linux)."""
    threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


class Client(asyncio.Protocol):
    """A WebSocket client that has said its BTP auth; subclasses take the bytes that follow."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.removeprefix("btp+"))
        assert parts.hostname is not None and parts.port is not None
        self.host, self.port, self.path = parts.hostname, parts.port, parts.path or "/"
        self.user, self.token = parts.username or "", parts.password or ""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        why = f"the connection to port {self.port} was closed: {exc}"
        self.lost.set_result(why)
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        if not self._upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.buffer = head
                return
            if b" 101 " not in head.partition(b"\r\n")[0] + b" ":
                self.ready.set_exception(ConnectionError(f"no upgrade: {head[:200]!r}"))
                return
            self._upgraded = True
            self.transport.write(frames.auth_frame(AUTH_ID, self.user, self.token))
        self.buffer = self.take(data) if data else b""

    def take(self, data: bytes) -> bytes:
        """Handle whole frames one by one; the rest is returned."""
        taken = 0
        for first, payload, end in frames.split(data):
            taken = end
            if first == frames.PING:
                self.transport.write(frames.client_header(len(payload), frames.PONG) + payload)
            elif first == frames.BINARY:
                kind, request_id = struct.unpack_from(">BI", payload)
                if request_id == AUTH_ID and not self.ready.done():
                    if kind == frames.BTP_RESPONSE:
                        self.ready.set_result(None)
                    else:
                        self.ready.set_exception(ConnectionError(f"auth refused: {payload!r}"))
                else:
                    self.packet(kind, request_id, payload)
        return data[taken:]

    def packet(self, kind: int, request_id: int, payload: bytes) -> None:
        """A BTP packet that no fast path took. Unknown requests get an empty Response."""
        if kind == frames.BTP_MESSAGE:
            answer = struct.pack(">BIBBB", frames.BTP_RESPONSE, request_id, 2, 1, 0)
            self.transport.write(frames.client_header(len(answer)) + answer)


class Receiver(Client):
    """Fulfils every Prepare with its last 32 bytes, and counts."""

    def __init__(self, url: str, message_bytes: int, *, silent: bool = False) -> None:
        super().__init__(url)
        header = frames.server_header(message_bytes)
        self.head = header + bytes((frames.BTP_MESSAGE,))
        self.record = struct.Struct(f">{len(self.head)}sI{message_bytes - 5 - frames.DATA_BYTES}x32s")
        self.received = 0
        self.silent = silent

    def take(self, data: bytes) -> bytes:
        count = len(data) // self.record.size
        if not count:
            return super().take(data)
        whole = count * self.record.size
        head, pack = self.head, CLIENT_FULFILL.pack
        answers = [
            pack(CLIENT_FULFILL_HEAD, request_id, FULFILL_MIDDLE, preimage, b"\0")
            for start, request_id, preimage in self.record.iter_unpack(data[:whole] if whole < len(data) else data)
            if start == head
        ]
        if len(answers) < count:  # something else is among them
            return super().take(data)
        self.received += count
        if not self.silent:
            self.transport.write(b"".join(answers))
        return data[whole:]

    def packet(self, kind: int, request_id: int, payload: bytes) -> None:
        if kind != frames.BTP_MESSAGE or b"\x03ilp" not in payload[:16]:
            super().packet(kind, request_id, payload)
            return
        self.received += 1
        if not self.silent:
            answer = (CLIENT_FULFILL_HEAD, request_id, FULFILL_MIDDLE, payload[-frames.DATA_BYTES :], b"\0")
            self.transport.write(CLIENT_FULFILL.pack(*answer))


class Sender(Client):
    """Keeps `window` Prepares of a shot unanswered until all are answered."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.shot: frames.Shot | None = None

    def fire(self, shot: frames.Shot, window: int) -> asyncio.Future[None]:
        self.shot = shot
        self.next = 0
        self.sent_at = [0.0] * len(shot.frames)
        self.latencies: list[float] = []
        self.rejects: dict[str, int] = {}
        self.answered = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send(window)
        return self.done

    def take(self, data: bytes) -> bytes:
        count = len(data) // SERVER_FULFILL.size
        shot = self.shot
        if not count or shot is None:
            return super().take(data)
        whole = count * SERVER_FULFILL.size
        now = time.perf_counter()
        first_id, preimages, sent_at = shot.first_id, shot.preimages, self.sent_at
        try:
            taken = [
                now - sent_at[request_id - first_id]
                for head, request_id, middle, fulfillment, _ in SERVER_FULFILL.iter_unpack(
                    data[:whole] if whole < len(data) else data
                )
                if head == SERVER_FULFILL_HEAD
                and middle == FULFILL_MIDDLE
                and fulfillment == preimages[request_id - first_id]
            ]
        except IndexError:
            return super().take(data)
        if len(taken) < count:  # a Reject or another size among them
            return super().take(data)
        self.latencies += taken
        self._answer(count)
        return data[whole:]

    def packet(self, kind: int, request_id: int, payload: bytes) -> None:
        shot = self.shot
        if kind == frames.BTP_MESSAGE or shot is None:
            super().packet(kind, request_id, payload)
            return
        index = request_id - shot.first_id
        if payload[5:].startswith(FULFILL_MIDDLE) and payload[16:48] == shot.preimages[index]:
            self.latencies.append(time.perf_counter() - self.sent_at[index])
        else:
            code = "BTP error"
            if kind == frames.BTP_RESPONSE and (at := payload.find(b"\x03ilp\x00")) >= 0:
                reply = payload[at + 5 :]
                reply = reply[1 + max(0, reply[0] - 0x80) :]  # past the length of the entry
                reply = reply[2 + max(0, reply[1] - 0x80) :]  # past the type and length of the packet
                code = reply[:3].decode("ascii", "replace")
            self.rejects[code] = self.rejects.get(code, 0) + 1
        self._answer(1)

    def _send(self, count: int) -> None:
        assert self.shot is not None
        batch = self.shot.frames[self.next : self.next + count]
        if batch:
            self.sent_at[self.next : self.next + len(batch)] = [time.perf_counter()] * len(batch)
            self.next += len(batch)
            self.transport.write(b"".join(batch))

    def _answer(self, count: int) -> None:
        self.answered += count
        self._send(count)
        if self.shot is not None and self.answered >= len(self.shot.frames) and not self.done.done():
            self.done.set_result(None)


class Flood(Sender):
    """Sends each Prepare again as soon as it is answered, whatever the answer: full rate for as long as it lasts."""

    def take(self, data: bytes) -> bytes:
        return Client.take(self, data)

    def packet(self, kind: int, request_id: int, payload: bytes) -> None:
        super().packet(kind, request_id, payload)
        if kind != frames.BTP_MESSAGE and self.shot is not None:
            self.transport.write(self.shot.frames[request_id - self.shot.first_id])


async def connect(client: Client) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: client, client.host, client.port)
    await asyncio.wait_for(client.ready, CONNECT_SECONDS)


async def wait(sender: Sender, receiver: Receiver, done: asyncio.Future[None]) -> None:
    """Until the shot is answered; an end of a connection or a stall is an error."""
    before = -1
    while not done.done():
        if sender.answered == before:
            raise TimeoutError(f"stalled after {before} answers, {receiver.received} received")
        before = sender.answered
        await asyncio.wait((done, sender.lost, receiver.lost), timeout=STALL_SECONDS, return_when="FIRST_COMPLETED")
        for lost in (sender.lost, receiver.lost):
            if lost.done():
                raise ConnectionError(lost.result())


def load(count: int, to: tuple[str, int, int], first_id: int = 1) -> frames.Shot:
    destination, amount, prefixes = to
    return frames.load(
        count, seed=os.urandom(16), destination=destination, amount=amount, first_id=first_id, prefixes=prefixes
    )


async def measure(
    sender_url: str,
    receiver_url: str,
    destination: str,
    *,
    packets: int,
    window: int,
    warm_up: int,
    amount: int,
    prefixes: int = 1,
    pids: Sequence[int] = (),
    waits: bool = False,
) -> Measured:
    """Connect both accounts, warm up, and time one shot. Several prefixes are first waited for: routes take a while.

    `waits`: after connecting, until somebody writes a line to us.
    """
    to = (destination, amount, prefixes)
    shot = load(packets, to)
    receiver = Receiver(receiver_url, shot.message_bytes)
    sender = Sender(sender_url)
    await connect(receiver)
    await connect(sender)
    if waits:
        await asyncio.to_thread(sys.stdin.readline)
    first_id = packets + 1
    deadline = time.monotonic() + REACHED_SECONDS
    while warm_up:
        await wait(sender, receiver, sender.fire(load(warm_up, to, first_id), window))
        first_id += warm_up
        if prefixes == 1 or not sender.rejects:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"some prefixes are reached by nobody: {sender.rejects}")
    gc.collect()
    gc.freeze()
    gc.disable()  # the generator's own pauses are none of the target's
    before = receiver.received
    spent = processor_seconds(pids)
    started = time.perf_counter()
    await wait(sender, receiver, sender.fire(shot, window))
    seconds = time.perf_counter() - started
    spent = processor_seconds(pids) - spent
    received = receiver.received - before
    for client in (sender, receiver):
        client.transport.abort()
    latencies = sorted(sender.latencies) or [float("nan")]
    return Measured(
        packets=packets,
        window=window,
        seconds=seconds,
        packets_per_second=len(sender.latencies) / seconds,
        p50_ms=latencies[len(latencies) // 2] * 1000,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1000,
        received=received,
        rejects=sender.rejects,
        processor_seconds=spent,
    )


async def flood(
    sender_url: str, receiver_url: str, destination: str, *, window: int, seconds: float, silent: bool = True
) -> Measured:
    """Prepares towards a receiver, who if `silent` never answers; what is answered is sent again at once."""
    shot = frames.load(window, seed=os.urandom(16), destination=destination, amount=1)
    receiver = Receiver(receiver_url, shot.message_bytes, silent=silent)
    sender = Flood(sender_url)
    await connect(receiver)
    await connect(sender)
    done = sender.fire(shot, window)
    await asyncio.wait((sender.lost, receiver.lost), timeout=seconds, return_when="FIRST_COMPLETED")
    done.cancel()
    rate = sender.answered / seconds
    nan = float("nan")
    counts = {"packets": sender.answered, "window": window, "received": receiver.received, "rejects": sender.rejects}
    return Measured(seconds=seconds, packets_per_second=rate, p50_ms=nan, p99_ms=nan, **counts)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sender", required=True, help="btp+ws://user:token@host:port/path of the sending account")
    parser.add_argument("--receiver", required=True, help="the same of the receiving account")
    parser.add_argument("--destination", required=True, help="an ILP address that leads to the receiving account")
    parser.add_argument("--packets", type=int, default=50_000)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=2_000)
    parser.add_argument("--amount", type=int, default=1_000)
    parser.add_argument("--prefixes", type=int, default=1, help="how many numbers a {:04} in the destination takes")
    parser.add_argument("--pid", type=int, action="append", help="whose processor time to measure; may be repeated")
    parser.add_argument("--waits", action="store_true", help="wait for a line, after connecting")
    parser.add_argument("--flood-seconds", type=float, help="flood a receiver that never answers, for so long")
    parser.add_argument("--flood-answered", action="store_true", help="let that receiver answer")
    options = parser.parse_args()
    if options.flood_seconds:
        urls = (options.sender, options.receiver, options.destination)
        measured = asyncio.run(
            flood(*urls, window=options.window, seconds=options.flood_seconds, silent=not options.flood_answered)
        )
        print(json.dumps(asdict(measured)))
        return
    measured = asyncio.run(
        measure(
            options.sender,
            options.receiver,
            options.destination,
            packets=options.packets,
            window=options.window,
            warm_up=options.warm_up,
            amount=options.amount,
            prefixes=options.prefixes,
            pids=options.pid or (),
            waits=options.waits,
        )
    )
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
