"""Our STREAM machines and `ilp-protocol-stream` 2.7.2-alpha.3 through an ilp-connector: money and data, both ways."""

import asyncio
import os
import time
from fractions import Fraction
from typing import Any

import pytest

from isthmus.connector.events import AccountId, Inbound, Outbound, Undelivered
from isthmus.ilp.asset import Asset
from isthmus.ilp.ildcp import decode_response, encode_request
from isthmus.ilp.packet import (
    Fulfill,
    Reject,
    decode_prepare,
    decode_reply,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)
from isthmus.links.btp.client import BtpClient
from isthmus.stream.connection import Connection
from isthmus.stream.orders import (
    DataArrived,
    QuoteReady,
    SendDone,
    SendFulfill,
    SendPrepare,
    SendReject,
    StreamOpened,
)
from isthmus.stream.receipt import verify_receipt
from isthmus.stream.server import ConnectionAccepted, Server
from isthmus.stream.settings import Settings

ACCOUNT = AccountId("uplink")
SECONDS = 60.0


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Shell:
    """The least that drives STREAM over a BTP link: no journal, no promises."""

    def __init__(self, port: int) -> None:
        self.link = BtpClient(ACCOUNT, f"btp+ws://:s@127.0.0.1:{port}", self, session=bytes(16))
        self.server: Server | None = None
        self.connections: list[Connection] = []
        self.news: list[tuple[Connection | None, Any]] = []
        self._up = asyncio.Event()
        self._told = asyncio.Event()
        self._next_id = 1
        self._sent: dict[int, tuple[Connection | None, int]] = {}
        self._asked: dict[int, bytes] = {}
        self._ildcp: asyncio.Future[Fulfill | Reject] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> Settings:
        """Connect, and learn our address from the parent."""
        await self.link.start()
        await asyncio.wait_for(self._up.wait(), SECONDS)
        self._sent[0] = (None, 0)
        self.link.write([Outbound(bytes(16), 0, encode_request(wall_ms() + 10_000))])
        answer = await asyncio.wait_for(self._ildcp, SECONDS)
        assert isinstance(answer, Fulfill)
        info = decode_response(answer.data)
        return Settings(address=info.address, asset=Asset(info.asset_code, info.asset_scale))

    async def until(self, kind: type, connection: Connection | None = None) -> Any:
        """The oldest news of that kind."""
        async with asyncio.timeout(SECONDS):
            while True:
                for index, (of, order) in enumerate(self.news):
                    if isinstance(order, kind) and connection in (None, of):
                        return self.news.pop(index)[1]
                self._told.clear()
                await self._told.wait()

    # --- links.port.LinkOwner

    def inbound(self, packets: list[Inbound]) -> None:
        for inbound in packets:
            if inbound.packet[0] == 12:
                prepare = decode_prepare(inbound.packet)
                self._asked[inbound.request_id] = inbound.session
                deadline = mono_ms() + prepare.expires_at - wall_ms()
                if self.server is not None:
                    self.server.prepare_received(inbound.request_id, prepare, mono_ms(), deadline)
                else:
                    self.connections[0].prepare_received(inbound.request_id, prepare, mono_ms(), deadline)
                continue
            connection, number = self._sent.pop(inbound.request_id)
            reply = decode_reply(inbound.packet)
            if connection is None:
                self._ildcp.set_result(reply)
            else:
                connection.reply_received(number, reply, mono_ms())
        self.poll()

    def undelivered(self, failures: list[Undelivered]) -> None:
        raise AssertionError(failures)

    def link_up(self, account: AccountId) -> None:
        self._up.set()

    def link_down(self, account: AccountId, why: str) -> None: ...

    def blocked(self, account: AccountId) -> None: ...

    def writable(self, account: AccountId) -> None: ...

    def mono_ms(self) -> int:
        return mono_ms()

    # --- orders

    def poll(self) -> None:
        """Carry out what the machines want, and come back when they say so."""
        now = mono_ms()
        orders: list[tuple[Connection | None, Any]] = []
        if self.server is not None:
            orders += self.server.poll(now)
            for of, order in orders:
                if isinstance(order, ConnectionAccepted) and of is not None:
                    self.connections.append(of)
        for connection in self.connections:
            orders += [(connection, order) for order in connection.poll(now)]
        for of, order in orders:
            self._carry_out(of, order)
        self._told.set()
        if self._timer is not None:
            self._timer.cancel()
        times = [connection.wakes_at(now) for connection in self.connections]
        if self.server is not None:
            times.append(self.server.wakes_at())
        wakes_at = min((at for at in times if at is not None), default=None)
        if wakes_at is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0, wakes_at - now) / 1000, self.poll)

    def _carry_out(self, of: Connection | None, order: Any) -> None:
        if isinstance(order, SendPrepare):
            self._sent[self._next_id] = (of, order.number)
            self.link.write([Outbound(bytes(16), self._next_id, encode_prepare(order.prepare(wall_ms())))])
            self._next_id += 1
        elif isinstance(order, SendFulfill):
            self._answer(order.request, encode_fulfill(order.fulfill))
        elif isinstance(order, SendReject):
            self._answer(order.request, encode_reject(order.reject))
        else:
            self.news.append((of, order))

    def _answer(self, request: int, packet: bytes) -> None:
        self.link.write([Outbound(self._asked.pop(request), request, packet)])

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self.link.close()


@pytest.fixture
async def ends(peers: Any) -> Any:
    """Their endpoint and our shell, each a child of one ilp-connector."""
    child = peers.account("child", peers.listener(), maxPacketAmount="1000")
    _, ports = await peers.connector(us=child, them=child)
    theirs = await peers.endpoint(peers.dial(ports["them"]))
    ours = Shell(ports["us"])
    settings = await ours.start()
    yield theirs, ours, settings
    await ours.close()


async def test_we_pay_them(ends: Any) -> None:
    """STREAM-2, STREAM-3, STREAM-4, STREAM-20; many packets under their maximum (ILP-15, ILP-17)."""
    theirs, ours, settings = ends
    credentials = await theirs.call("listen", quiet=True)
    connection = Connection(
        settings, bytes.fromhex(credentials["secret"]), random_bytes=os.urandom, peer_address=credentials["address"]
    )
    ours.connections.append(connection)
    connection.start_quote(source=123_456)
    ours.poll()
    quote = (await ours.until(QuoteReady)).quote
    assert (quote.destination_amount, quote.packet_max) == (123_456, 1000)
    connection.set_minimum_rate(Fraction(1))
    stream = connection.open_stream()
    assert stream is not None
    connection.send_total(stream, 123_456)
    ours.poll()
    done = await ours.until(SendDone)
    assert (done.sent, done.delivered, done.unsent) == (123_456, 123_456, 0)
    connection.end_stream(stream)
    connection.close()
    ours.poll()
    assert (await theirs.event("end"))["received"] == "123456"
    assert connection.peer_asset == Asset("XRP", 9)


async def test_they_pay_us(ends: Any) -> None:
    """STREAM-2, STREAM-8, STREAM-10: they probe our receiver, and pay it in many packets."""
    theirs, ours, settings = ends
    ours.server = Server(bytes(32), settings, random_bytes=os.urandom)
    invitation = ours.server.invite()
    paid = await theirs.call("pay", amount="54321", address=invitation.address, secret=invitation.shared_secret.hex())
    assert (paid["sent"], paid["delivered"]) == ("54321", "54321")
    assert (paid["destinationAssetCode"], paid["destinationAssetScale"]) == ("XRP", 9)
    assert ours.connections[0].received == 54_321


async def test_data_and_money_both_ways_when_we_connect(ends: Any) -> None:
    """STREAM-13, STREAM-17, STREAM-19, STREAM-22, STREAM-25."""
    theirs, ours, settings = ends
    credentials = await theirs.call("listen", answer="pong", giveBack="2500")
    connection = Connection(
        settings, bytes.fromhex(credentials["secret"]), random_bytes=os.urandom, peer_address=credentials["address"]
    )
    ours.connections.append(connection)
    connection.set_minimum_rate(Fraction(1))
    stream = connection.open_stream()
    assert stream is not None
    connection.write(stream, b"ping")
    connection.send_total(stream, 3000)
    ours.poll()
    assert (await theirs.event("data"))["text"] == "ping"
    await ours.until(SendDone)
    await ours.until(DataArrived)
    assert connection.read(stream) == b"pong"
    async with asyncio.timeout(SECONDS):
        while connection.received < 2500:
            await theirs.event("gaveBack")
    assert connection.received == 2500


async def test_data_and_money_both_ways_when_they_connect(ends: Any) -> None:
    """STREAM-13, STREAM-17, STREAM-21, STREAM-25: we learn their address, and pay and write back."""
    theirs, ours, settings = ends
    ours.server = Server(bytes(32), settings, random_bytes=os.urandom)
    invitation = ours.server.invite()
    to_us = {"address": invitation.address, "secret": invitation.shared_secret.hex()}
    # Above the first window of both sides. With 32,700 bytes and more to say it makes packets with 32,768 bytes of
    # data, one more than RFC 0027 allows (ILP-13): connectors that count refuse them.
    text = "x" * 32_000
    talk = {"text": text, "amount": "3000", "expectText": "pong", "expectMoney": "2500"}
    talking = asyncio.create_task(theirs.call("exchange", **talk, **to_us))
    opened = await ours.until(StreamOpened)
    connection = ours.connections[0]
    connection.set_minimum_rate(Fraction(1))
    connection.send_total(opened.stream_id, 2500)
    connection.write(opened.stream_id, b"pong")
    heard = b""
    while len(heard) < len(text):
        await ours.until(DataArrived)
        heard += connection.read(opened.stream_id)
        ours.poll()
    assert heard.decode() == text
    assert await talking == {"heard": "pong", "sent": "3000", "received": "2500"}
    assert connection.received == 3000


async def test_their_receipts(ends: Any) -> None:
    """RCPT-1, RCPT-2, RCPT-4."""
    theirs, ours, settings = ends
    nonce, secret = bytes(range(16)), bytes(range(32))
    await theirs.call("listen", quiet=True)
    credentials = await theirs.call("credentials", receiptNonce=nonce.hex(), receiptSecret=secret.hex())
    assert credentials["receiptsEnabled"]
    connection = Connection(
        settings, bytes.fromhex(credentials["secret"]), random_bytes=os.urandom, peer_address=credentials["address"]
    )
    ours.connections.append(connection)
    connection.set_minimum_rate(Fraction(1))
    stream = connection.open_stream()
    assert stream is not None
    connection.send_total(stream, 2000)
    ours.poll()
    await ours.until(SendDone)
    receipt = verify_receipt(connection.receipt(stream), secret)
    assert (receipt.nonce, receipt.stream_id, receipt.total_received) == (nonce, 1, 2000)


async def test_our_receipts(ends: Any) -> None:
    """RCPT-1, RCPT-4: they keep the receipt of ours that came last."""
    theirs, ours, settings = ends
    nonce, secret = bytes(range(16)), bytes(range(32))
    ours.server = Server(bytes(32), settings, random_bytes=os.urandom)
    invitation = ours.server.invite(receipt_nonce=nonce, receipt_secret=secret)
    paid = await theirs.call("pay", amount="3500", address=invitation.address, secret=invitation.shared_secret.hex())
    receipt = verify_receipt(bytes.fromhex(paid["receipt"]), secret)
    assert (receipt.nonce, receipt.stream_id, receipt.total_received) == (nonce, 1, 3500)
