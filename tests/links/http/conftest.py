"""Two nodes' ends of an HTTP link on real loopback sockets, with owners that record what they are told."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from isthmus.connector.events import AccountId, Inbound, Now, Outbound, Undelivered
from isthmus.links.http.auth import BearerCredentials, BearerVerifier
from isthmus.links.http.link import HttpLink
from isthmus.links.http.server import HttpServer
from isthmus.links.http.settings import HttpSettings
from tests.certificates import self_signed

ACCOUNT = AccountId("peer")


def real_now() -> Now:
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


@dataclass
class Owner:
    """Keeps what its link tells it; answers Prepares at once where `replies` has a packet."""

    reply: bytes | None = None
    link: HttpLink | None = None
    batches: list[list[Inbound]] = field(default_factory=list)
    arrived: "asyncio.Queue[Inbound]" = field(default_factory=asyncio.Queue)
    failed: "asyncio.Queue[Undelivered]" = field(default_factory=asyncio.Queue)
    states: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)
    fulfillments: dict[tuple[bytes, int], bytes] = field(default_factory=dict)  # that the node keeps

    def inbound(self, packets: list[Inbound]) -> None:
        self.batches.append(packets)
        for packet in packets:
            self.arrived.put_nowait(packet)
        if self.reply is not None and self.link is not None:
            self.link.write([Outbound(p.session, p.request_id, self.reply) for p in packets if p.packet[0] == 12])

    def undelivered(self, failures: list[Undelivered]) -> None:
        for failure in failures:
            self.failed.put_nowait(failure)

    def link_up(self, account: AccountId) -> None:
        self.states.put_nowait("up")

    def link_down(self, account: AccountId, why: str) -> None:
        self.states.put_nowait("down")

    def blocked(self, account: AccountId) -> None:
        self.states.put_nowait("blocked")

    def writable(self, account: AccountId) -> None:
        self.states.put_nowait("writable")

    def mono_ms(self) -> int:
        return real_now().mono_ms

    def fulfillment(self, account: AccountId, session: bytes, request_id: int) -> bytes | None:
        return self.fulfillments.get((session, request_id))


@dataclass
class Node:
    """One side: a server, and links by the tokens that the other side shows and is shown."""

    server: HttpServer
    ssl_context: ssl.SSLContext | None = None
    links: list[HttpLink] = field(default_factory=list)

    async def link(
        self,
        settings: HttpSettings,
        *,
        shows: str,
        expects: str,
        account: str = ACCOUNT,
        reply: bytes | None = None,
        started: bool = True,
    ) -> tuple[HttpLink, Owner]:
        owner = Owner(reply)
        link = HttpLink(
            AccountId(account), owner, settings, BearerCredentials(shows), now=real_now, ssl_context=self.ssl_context
        )
        owner.link = link
        self.links.append(link)
        self.server.add(link, BearerVerifier.of_tokens(expects))
        if started:
            await link.start()
        return link, owner


@pytest.fixture
async def make_node() -> AsyncIterator[Callable[..., Awaitable[Node]]]:
    """`await make_node()` listens on a free port of 127.0.0.1."""
    nodes: list[Node] = []

    async def make(*, server_tls: ssl.SSLContext | None = None, client_tls: ssl.SSLContext | None = None) -> Node:
        server = HttpServer(host="127.0.0.1", port=0, now=real_now, ssl_context=server_tls)
        await server.start()
        nodes.append(Node(server, client_tls))
        return nodes[-1]

    yield make
    for node in nodes:
        for link in node.links:
            await link.close()
    for node in nodes:
        await node.server.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """`await serve(handler)` is a peer of any behaviour; gives its URL."""
    runners: list[web.ServerRunner] = []

    async def start(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> str:
        runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/ilp"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture(scope="session")
def make_tls(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]:
    """`make_tls(name)` gives contexts of a server and a client that hold one certificate for 127.0.0.1 and trust it."""

    def make(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        certificate = self_signed(tmp_path_factory.mktemp("tls"), subject=name)
        server = certificate.server()
        server.load_verify_locations(certificate.file)
        client = ssl.create_default_context(cafile=certificate.file)
        client.load_cert_chain(certificate.file, certificate.key)
        return server, client

    return make
