"""Our links by themselves against the plugins of others: ilp-plugin-btp 1.5.0 and ilp-plugin-http 1.6.1."""

import asyncio
import signal
import time
from hashlib import sha256
from typing import Any

import pytest

from bench.js_process import JsError
from isthmus.connector.events import AccountId, Inbound, Now, Outbound, Undelivered
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode_prepare, decode_reply, encode_fulfill, encode_prepare
from isthmus.links.btp.client import BtpClient
from isthmus.links.btp.server import BtpServer, ServerAccount, hash_token
from isthmus.links.http.auth import BearerCredentials, BearerVerifier
from isthmus.links.http.link import HttpLink
from isthmus.links.http.server import HttpServer
from isthmus.links.http.settings import HttpSettings
from isthmus.links.port import Link

PEER = AccountId("peer")
SESSION = bytes(16)
TOKEN = "our-token"
SECONDS = 60.0


def now() -> Now:
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


class Till:
    """Owns a link: fulfils every Prepare with its data, and keeps what else it is told."""

    def __init__(self) -> None:
        self.link: Link
        self.up = asyncio.Event()
        self.prepares: list[Prepare] = []
        self.replies: dict[int, asyncio.Future[Fulfill | Reject]] = {}
        self.failures: list[Undelivered] = []

    def inbound(self, packets: list[Inbound]) -> None:
        for inbound in packets:
            if inbound.packet[0] != 12:
                self.replies[inbound.request_id].set_result(decode_reply(inbound.packet))
                continue
            prepare = decode_prepare(inbound.packet)
            self.prepares.append(prepare)
            fulfill = encode_fulfill(Fulfill(prepare.data))
            self.link.write([Outbound(inbound.session, inbound.request_id, fulfill)])

    def undelivered(self, failures: list[Undelivered]) -> None:
        self.failures += failures

    def link_up(self, account: AccountId) -> None:
        self.up.set()

    def link_down(self, account: AccountId, why: str) -> None:
        self.up.clear()

    def blocked(self, account: AccountId) -> None: ...

    def writable(self, account: AccountId) -> None: ...

    def mono_ms(self) -> int:
        return now().mono_ms

    def fulfillment(self, account: AccountId, session: bytes, request_id: int) -> bytes | None:
        return None

    async def send(self, request_id: int, preimage: bytes) -> Fulfill | Reject:
        """A Prepare of ours, and what the peer answers."""
        await asyncio.wait_for(self.up.wait(), SECONDS)
        self.replies[request_id] = asyncio.get_running_loop().create_future()
        condition = sha256(preimage).digest()
        prepare = Prepare(5, now().wall_ms + 20_000, condition, "test.far.away", preimage)
        self.link.write([Outbound(SESSION, request_id, encode_prepare(prepare))])
        return await asyncio.wait_for(self.replies[request_id], SECONDS)


async def both_ways(till: Till, peer: Any) -> None:
    """Many packets from us at once and one from the peer; each side fulfils what it gets."""
    preimages = [sha256(bytes([number])).digest() for number in range(50)]
    replies = await asyncio.gather(*(till.send(number + 1, each) for number, each in enumerate(preimages)))
    assert [reply.fulfillment for reply in replies if isinstance(reply, Fulfill)] == preimages
    assert (await peer.event("prepare"))["amount"] == "5"
    answer = await peer.call("prepare", destination="test.isthmus.till", amount="18446744073709551615")
    assert (answer["type"], answer["valid"]) == ("fulfill", True)
    assert till.prepares[-1].amount == 2**64 - 1
    assert not till.failures


async def test_btp_we_dial(peers: Any) -> None:
    """BTP-5, BTP-10."""
    peer = await peers.start("endpoint")
    await peer.call("start", plugin=peers.listener(TOKEN), handler="fulfill")
    port = (await peer.event("listening"))["port"]
    till = Till()
    till.link = BtpClient(PEER, f"btp+ws://:{TOKEN}@127.0.0.1:{port}", till, session=SESSION)
    await till.link.start()
    try:
        await both_ways(till, peer)
    finally:
        await till.link.close()


async def test_btp_they_dial(peers: Any) -> None:
    """BTP-5, BTP-6, BTP-10."""
    till = Till()
    server = BtpServer(("127.0.0.1", 0), [ServerAccount(PEER, hash_token(TOKEN), SESSION)], till)
    till.link = server.link(PEER)
    await server.start()
    try:
        peer = await peers.endpoint(peers.dial(server.address[1], token=TOKEN), handler="fulfill")
        await both_ways(till, peer)
        # A second connection takes over (newest wins), and packets flow on it. The first process is frozen meanwhile:
        # its plugin would dial again, and the two would throw each other out.
        peer.process.send_signal(signal.SIGSTOP)
        again = await peers.endpoint(peers.dial(server.address[1], token=TOKEN), handler="fulfill")
        answer = await again.call("prepare", destination="test.isthmus.till", amount="1")
        peer.process.send_signal(signal.SIGCONT)
        assert answer["valid"]
    finally:
        await server.close()


async def test_btp_a_reject_arrives_whole(peers: Any) -> None:
    """ILP-6, BTP-10."""
    peer = await peers.start("endpoint")
    reject = {"code": "T04", "message": "über", "triggeredBy": "test.far"}
    await peer.call("start", plugin=peers.listener(TOKEN), handler="reject", **reject)
    port = (await peer.event("listening"))["port"]
    till = Till()
    till.link = BtpClient(PEER, f"btp+ws://:{TOKEN}@127.0.0.1:{port}", till, session=SESSION)
    await till.link.start()
    try:
        assert await till.send(1, bytes(32)) == Reject("T04", "test.far", "über", b"")
    finally:
        await till.link.close()


async def test_btp_a_wrong_token_is_refused_by_them(peers: Any) -> None:
    """BTP-6, BTP-7: their Error ends the attempt, and says why."""
    peer = await peers.start("endpoint")
    await peer.call("start", plugin=peers.listener(TOKEN))
    port = (await peer.event("listening"))["port"]
    till = Till()
    failed = asyncio.Event()
    url = f"btp+ws://:wrong@127.0.0.1:{port}"
    client = till.link = BtpClient(PEER, url, till, session=SESSION, on_log=lambda fact: failed.set())
    await client.start()
    try:
        await asyncio.wait_for(failed.wait(), SECONDS)
        assert "F00" in str(client.last_failure)
        assert not till.up.is_set()
    finally:
        await client.close()


async def test_btp_a_wrong_token_is_refused_by_us(peers: Any) -> None:
    """BTP-6."""
    till = Till()
    server = BtpServer(("127.0.0.1", 0), [ServerAccount(PEER, hash_token(TOKEN), SESSION)], till)
    till.link = server.link(PEER)
    await server.start()
    try:
        peer = await peers.start("endpoint")
        await peer.call("start", plugin=peers.dial(server.address[1], token="wrong"))
        assert (await peer.event("failed"))["message"] == "connection aborted"
        assert not till.up.is_set()
    finally:
        await server.close()


async def test_http_synchronous(peers: Any) -> None:
    """HTTP-10: ilp-plugin-http sends no Request-Id and `application/ilp+octet-stream`."""
    till = Till()
    server = HttpServer(host="127.0.0.1", port=0, now=now)
    await server.start()
    peer = await peers.start("endpoint")
    plugin = peers.http(server.url, incoming=TOKEN, outgoing="their-token")
    await peer.call("start", plugin=plugin, handler="fulfill")
    port = (await peer.event("listening"))["port"]
    settings = HttpSettings(url=f"http://127.0.0.1:{port}/ilp")
    link = till.link = HttpLink(PEER, till, settings, BearerCredentials(TOKEN), now=now)
    server.add(link, BearerVerifier.of_tokens("their-token"))
    await link.start()
    try:
        await both_ways(till, peer)
        stranger = await peers.endpoint(peers.http(server.url, incoming="x", outgoing="wrong"))
        with pytest.raises(JsError, match="code=401"):
            await stranger.call("prepare", destination="test.a", amount="1")
    finally:
        await link.close()
        await server.close()
