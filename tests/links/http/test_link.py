"""Two ends of a link over real sockets, and a link against peers that behave in every way (RFC 0035)."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from isthmus.connector.events import Inbound, Outbound
from isthmus.errors import ConfigError
from isthmus.ilp.packet import Fulfill, Prepare, Reject, encode_fulfill, encode_prepare, encode_reject
from isthmus.links.http.auth import JwtCredentials, JwtVerifier, NoCredentials
from isthmus.links.http.link import DELIVERIES_MAX, HttpLink
from isthmus.links.http.server import HttpServer
from isthmus.links.http.session import format_uuid, request_key
from isthmus.links.http.settings import HttpSettings, IncomingMode, OutgoingMode

MakeNode = Callable[..., Awaitable[Any]]
Serve = Callable[..., Awaitable[str]]
MakeTls = Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]

ALICE, BOB = "a" * 43, "b" * 43  # the token that each side shows
SESSION = bytes(range(16))
FULFILL = encode_fulfill(Fulfill(bytes(32), b"data"))
REJECT = encode_reject(Reject("F02", "g.far", "no route"))


@pytest.fixture
def prepare() -> Callable[..., bytes]:
    import time

    def make(amount: int = 1, *, lasts_ms: int = 30_000) -> bytes:
        expires_at = time.time_ns() // 1_000_000 + lasts_ms
        return encode_prepare(Prepare(amount, expires_at, bytes(32), "g.bob.x", b"d"))

    return make


async def joined(
    make_node: MakeNode, mode: OutgoingMode, reply: bytes | None, **options: Any
) -> tuple[Any, Any, Any, Any]:
    """Alice's link and owner, Bob's link and owner; Alice's Prepares are answered in `mode`."""
    a, b = await make_node(**options), await make_node(**options)
    alice = await a.link(
        HttpSettings(url=b.server.url, outgoing=mode, callback_url=a.server.url), shows=ALICE, expects=BOB
    )
    bob = await b.link(HttpSettings(url=a.server.url), shows=BOB, expects=ALICE, reply=reply)
    assert await alice[1].states.get() == "up" and await bob[1].states.get() == "up"
    return *alice, *bob


def scripted(
    behaviour: Callable[[web.BaseRequest, bytes], Awaitable[web.StreamResponse]],
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """A peer: 405 to the probe, `behaviour` for each POST."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=405)
        return await behaviour(request, await request.read())

    return handle


async def linked_to(make_node: MakeNode, url: str, **settings: Any) -> tuple[Any, Any]:
    node = await make_node()
    link, owner = await node.link(HttpSettings(url=url, **settings), shows=ALICE, expects=BOB)
    assert await owner.states.get() == "up"
    return link, owner


# --- both ends ours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [FULFILL, REJECT])
@pytest.mark.parametrize("mode", list(OutgoingMode))
async def test_a_prepare_goes_out_and_its_reply_comes_back(
    make_node: MakeNode, prepare: Callable[..., bytes], mode: OutgoingMode, reply: bytes
) -> None:
    """HTTP-1, HTTP-3, HTTP-4, HTTP-10, X-1: both modes, Fulfill and Reject; wire identities as the books know them."""
    link, alice, _, bob = await joined(make_node, mode, reply)
    packet = prepare()
    link.write([Outbound(SESSION, 7, packet)])
    taken = await bob.arrived.get()
    assert (taken.packet, taken.session, taken.request_id) == (packet, SESSION, 7)  # by the Isthmus-Leg header
    answer = await alice.arrived.get()
    assert (answer.account, answer.session, answer.request_id, answer.packet) == ("peer", SESSION, 7, reply)
    assert alice.failed.empty()


@pytest.mark.parametrize("mode", list(OutgoingMode))
async def test_both_directions_at_once(make_node: MakeNode, prepare: Callable[..., bytes], mode: OutgoingMode) -> None:
    """HTTP-1, HTTP-2: 100 Prepares each way, every reply to its request; a turn's arrivals come in one batch."""
    link_a, alice, link_b, bob = await joined(make_node, mode, FULFILL)
    alice.reply = REJECT
    for link in (link_a, link_b):
        link.write([Outbound(SESSION, number, prepare(number)) for number in range(100)])
    for owner, reply in ((alice, FULFILL), (bob, REJECT)):
        answers: set[int] = set()
        while len(answers) < 100:
            packet = await owner.arrived.get()
            if packet.packet[0] != 12:
                assert packet.session == SESSION and packet.packet == reply and packet.request_id not in answers
                answers.add(packet.request_id)
        assert len(owner.batches) < 200


async def test_the_headers_that_the_rfc_and_its_peers_ask_for(
    make_node: MakeNode, serve: Serve, prepare: Callable[..., bytes]
) -> None:
    """HTTP-1, HTTP-2, HTTP-11, AUTH-1: dassie wants Prefer, Request-Id and Callback-Url."""
    seen: asyncio.Queue[web.BaseRequest] = asyncio.Queue()

    async def behaviour(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        seen.put_nowait(request)
        return web.Response(status=202)

    url = await serve(scripted(behaviour))
    link, _ = await linked_to(make_node, url, outgoing=OutgoingMode.ASYNC, callback_url="https://alice.example/in")
    link.write([Outbound(SESSION, 7, prepare())])
    headers = (await seen.get()).headers
    assert headers["Content-Type"] == headers["Accept"] == "application/octet-stream"
    assert headers["Request-Id"] == format_uuid(request_key(SESSION, 7))
    assert headers["Authorization"] == f"Bearer {ALICE}"
    assert headers["Prefer"] == "respond-async" and headers["Callback-Url"] == "https://alice.example/in"
    plain, _ = await linked_to(make_node, url)
    plain.write([Outbound(SESSION, 8, prepare())])
    headers = (await seen.get()).headers
    assert "Prefer" not in headers and "Callback-Url" not in headers and "Request-Id" in headers


async def test_jwts_over_the_wire(make_node: MakeNode, prepare: Callable[..., bytes]) -> None:
    """AUTH-1, AUTH-3, HTTP-9."""
    key = bytes(range(32))
    b = await make_node()
    _, bob = await b.link(HttpSettings(url=None), shows=BOB, expects=ALICE, reply=FULFILL)
    b.server.add(b.links[0], JwtVerifier("HS256", key, subject="alice"))
    a = await make_node()
    link, alice = await a.link(HttpSettings(url=b.server.url), shows=ALICE, expects=BOB, started=False)
    now = link._now
    good = HttpLink(
        link.account,
        alice,
        HttpSettings(url=b.server.url),
        JwtCredentials("HS256", key, subject="alice"),
        now=now,
    )
    a.links.append(good)
    await good.start()
    good.write([Outbound(SESSION, 1, prepare())])
    assert (await alice.arrived.get()).packet == FULFILL
    await link.start()
    link.write([Outbound(SESSION, 2, prepare())])
    assert (await alice.failed.get()).code == "T01"
    assert bob.arrived.qsize() == 1


async def test_mutual_tls_and_http_1_1_by_alpn(
    make_node: MakeNode, make_tls: MakeTls, prepare: Callable[..., bytes]
) -> None:
    """HTTP-9, AUTH-6: client certificates may stand beside or instead of tokens; HTTP/1.1 is what is spoken."""
    server_tls, client_tls = make_tls("both")
    server_tls.verify_mode = ssl.CERT_REQUIRED
    both = {"server_tls": server_tls, "client_tls": client_tls}
    link, alice, other, _ = await joined(make_node, OutgoingMode.ASYNC, FULFILL, **both)
    link.write([Outbound(SESSION, 1, prepare())])
    assert (await alice.arrived.get()).packet == FULFILL
    client_tls.set_alpn_protocols(["h2", "http/1.1"])
    url = URL(other._settings.url)
    _, writer = await asyncio.open_connection(url.host, url.port, ssl=client_tls)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.close()
    await writer.wait_closed()


async def test_a_stranger_to_the_certificates_is_not_served(make_node: MakeNode, make_tls: MakeTls) -> None:
    """HTTP-9: and on our side, a server with a foreign certificate is not spoken to."""
    server_tls, _ = make_tls("one")
    _, foreign = make_tls("other")
    a, b = await make_node(client_tls=foreign), await make_node(server_tls=server_tls)
    _, alice = await a.link(HttpSettings(url=b.server.url), shows=ALICE, expects=BOB)
    assert await alice.states.get() == "down"


# --- Prepares that fail -----------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_undelivered_and_the_link_goes_down(
    make_node: MakeNode, serve: Serve, prepare: Callable[..., bytes]
) -> None:
    """HTTP-8: T01 at once; once the peer is back the link comes up again."""
    b = await make_node()
    link, alice = await linked_to(make_node, b.server.url)
    port = b.server.port
    await b.server.close()
    link.write([Outbound(SESSION, 1, prepare())])
    failure = await alice.failed.get()
    assert (failure.account, failure.request_id, failure.code) == ("peer", 1, "T01")
    assert "127.0.0.1" not in failure.message and str(port) not in failure.message  # it goes upstream
    assert await alice.states.get() == "down"
    server = HttpServer(host="127.0.0.1", port=port, now=link._now)
    await server.start()
    assert await alice.states.get() == "up"
    await server.close()


async def test_a_host_that_is_no_name_is_down_and_asked_again(make_node: MakeNode) -> None:
    """HTTP-8. What looks for the peer must not end for it, unseen."""
    a = await make_node()
    settings = HttpSettings(url=f"http://{'x' * 64}.localhost:1/ilp")
    link, alice = await a.link(settings, shows=ALICE, expects=BOB)
    assert await alice.states.get() == "down"
    assert link._probe is not None and not link._probe.done()


async def test_a_peer_that_was_never_there_is_told_down_once(make_node: MakeNode) -> None:
    """HTTP-8."""
    a = await make_node()
    _, alice = await a.link(HttpSettings(url="http://127.0.0.1:1/ilp"), shows=ALICE, expects=BOB)
    assert await alice.states.get() == "down"


@pytest.mark.parametrize(("status", "code"), [(400, "F00"), (401, "T01"), (404, "T01"), (429, "T03")])
async def test_a_4xx_is_undelivered(
    make_node: MakeNode, serve: Serve, prepare: Callable[..., bytes], status: int, code: str
) -> None:
    """HTTP-8, HTTP-12."""

    async def behaviour(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        return web.Response(status=status, body=FULFILL)

    link, alice = await linked_to(make_node, await serve(scripted(behaviour)))
    link.write([Outbound(SESSION, 1, prepare())])
    assert (await alice.failed.get()).code == code
    assert alice.arrived.empty()


async def cut(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_in_the_body(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(FULFILL[:10])
    return await cut(request, body)


async def bad_gateway(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return web.Response(status=502)


async def not_ilp(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return web.Response(text="<html>It works!</html>", content_type="text/html")


async def a_prepare_back(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return web.Response(body=body)


async def huge(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return web.Response(body=FULFILL + bytes(100_000))


async def redirect(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "/elsewhere"})


@pytest.mark.parametrize(
    "behaviour", [cut, cut_in_the_body, bad_gateway, not_ilp, a_prepare_back, huge, redirect], ids=lambda b: b.__name__
)
async def test_after_silence_or_nonsense_the_expiry_decides(
    make_node: MakeNode, serve: Serve, prepare: Callable[..., bytes], behaviour: Any
) -> None:
    """HTTP-8: nothing is reported, nothing is sent again; the next Prepare fares better."""
    bodies: list[bytes] = []

    async def first_bad(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        bodies.append(body)
        if len(bodies) == 1:
            answer: web.StreamResponse = await behaviour(request, body)
            return answer
        return web.Response(body=FULFILL)

    # One request at a time: when the second is answered, the first is over.
    link, alice = await linked_to(make_node, await serve(scripted(first_bad)), concurrency_max=1)
    packets = [prepare(1), prepare(2)]
    link.write([Outbound(SESSION, number, packet) for number, packet in enumerate(packets)])
    assert (await alice.arrived.get()).request_id == 1
    assert alice.failed.empty() and alice.arrived.empty()
    assert bodies == packets


async def test_a_peer_that_never_answers_is_waited_for_beyond_the_expiry(
    make_node: MakeNode, serve: Serve, prepare: Callable[..., bytes]
) -> None:
    """HTTP-14: a synchronous reply just after the expiry is still read, and judged by the owner."""
    release = asyncio.Event()

    async def behaviour(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        await release.wait()
        return web.Response(body=FULFILL)

    link, alice = await linked_to(make_node, await serve(scripted(behaviour)))
    link.write([Outbound(SESSION, 1, prepare(lasts_ms=50))])
    asyncio.get_running_loop().call_later(0.3, release.set)
    assert (await alice.arrived.get()).packet == FULFILL


async def test_a_prepare_that_waited_too_long_is_not_sent(
    make_node: MakeNode, serve: Serve, prepare: Callable[..., bytes]
) -> None:
    """HTTP-14: its owner has rejected it at its expiry."""
    bodies: list[bytes] = []

    async def behaviour(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        bodies.append(body)
        return web.Response(body=FULFILL)

    link, alice = await linked_to(make_node, await serve(scripted(behaviour)), concurrency_max=1)
    packets = [prepare(1, lasts_ms=-1), prepare(2)]
    link.write([Outbound(SESSION, number, packet) for number, packet in enumerate(packets)])
    assert (await alice.arrived.get()).request_id == 1
    assert bodies == packets[1:]


async def test_the_queue_is_bounded_and_says_so(
    make_node: MakeNode, serve: Serve, prepare: Callable[..., bytes]
) -> None:
    """HTTP-8: beyond the bound T03 at once, `blocked` before it, `writable` when it has drained; none is lost."""
    release = asyncio.Event()

    async def behaviour(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        await release.wait()
        return web.Response(body=FULFILL)

    link, alice = await linked_to(make_node, await serve(scripted(behaviour)), concurrency_max=1, queue_max=16)
    link.write([Outbound(SESSION, number, prepare()) for number in range(4)])
    assert alice.states.empty()
    link.write([Outbound(SESSION, 4, prepare())])
    assert await alice.states.get() == "blocked"
    link.write([Outbound(SESSION, number, prepare()) for number in range(5, 18)])
    assert (await alice.failed.get()).code == "T03" and alice.failed.empty()
    release.set()
    assert sorted([(await alice.arrived.get()).request_id for _ in range(17)]) == list(range(17))
    assert await alice.states.get() == "writable"


async def test_an_account_without_url_only_receives(make_node: MakeNode, prepare: Callable[..., bytes]) -> None:
    """HTTP-8, HTTP-10: up, but blocked for good."""
    a = await make_node()
    link, alice = await a.link(HttpSettings(url=None), shows=ALICE, expects=BOB)
    assert [await alice.states.get(), await alice.states.get()] == ["up", "blocked"]
    link.write([Outbound(SESSION, 1, prepare())])
    assert (await alice.failed.get()).code == "T01"


# --- replies ----------------------------------------------------------------------------------------------------------


async def test_a_reply_is_delivered_again_until_it_is_taken(
    make_node: MakeNode, serve: Serve, prepare: Callable[..., bytes]
) -> None:
    """HTTP-6, HTTP-13: after a cut connection and a 503; a redirect is not followed; stops at 200."""
    statuses = [0, 503, 307, 200, 599]
    attempts: list[tuple[str, str, str, bytes]] = []
    done = asyncio.Event()

    async def behaviour(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        attempts.append((request.path, request.headers["Request-Id"], request.headers["Authorization"], body))
        status = statuses[len(attempts) - 1]
        if status == 200:
            done.set()
        return await cut(request, body) if status == 0 else web.Response(status=status, headers={"Location": "/x"})

    url = await serve(scripted(behaviour))
    b = await make_node()
    await b.link(HttpSettings(url=url), shows=BOB, expects=ALICE, reply=FULFILL)
    request_id = "42ee09c8-a6de-4ae3-8a47-4732b0cbb07b"
    async with aiohttp.ClientSession() as http:
        headers = {
            "Authorization": f"Bearer {ALICE}",
            "Content-Type": "application/octet-stream",
            "Request-Id": request_id,
            "Callback-Url": url.replace("/ilp", "/incoming"),
        }
        async with http.post(b.server.url, data=prepare(lasts_ms=2_000), headers=headers) as response:
            assert response.status == 202
    await done.wait()
    assert attempts == [("/incoming", request_id, f"Bearer {BOB}", FULFILL)] * 4


async def test_replies_find_their_way_after_a_restart(make_node: MakeNode, prepare: Callable[..., bytes]) -> None:
    """HTTP-4, HTTP-7: of our open legs, and of the peer's by the agreed callback URL."""
    a, b = await make_node(), await make_node()
    link, alice = await a.link(HttpSettings(url=b.server.url), shows=ALICE, expects=BOB)
    other, _ = await b.link(HttpSettings(url=a.server.url, peer_callback_url=a.server.url), shows=BOB, expects=ALICE)
    link.restore([(SESSION, 7, alice.mono_ms() + 10_000)])
    other.write([Outbound(request_key(SESSION, 7), 0, FULFILL)])
    answer = await alice.arrived.get()
    assert (answer.session, answer.request_id, answer.packet) == (SESSION, 7, FULFILL)


async def test_close_lets_replies_out_first(make_node: MakeNode, prepare: Callable[..., bytes]) -> None:
    """HTTP-6."""
    link, alice, other, bob = await joined(make_node, OutgoingMode.ASYNC, None)
    link.write([Outbound(SESSION, 7, prepare())])
    taken: Inbound = await bob.arrived.get()
    other.write([Outbound(taken.session, taken.request_id, FULFILL)])
    await other.close()
    assert (await alice.arrived.get()).packet == FULFILL


async def test_close_lets_all_replies_out_not_only_those_on_their_way(
    make_node: MakeNode, prepare: Callable[..., bytes]
) -> None:
    """HTTP-6: each is a Fulfill that our books have posted."""
    count = DELIVERIES_MAX + 9
    link, alice, other, bob = await joined(make_node, OutgoingMode.ASYNC, None)
    link.write([Outbound(SESSION, number, prepare(number)) for number in range(count)])
    taken = [await bob.arrived.get() for _ in range(count)]
    other.write([Outbound(one.session, one.request_id, FULFILL) for one in taken])
    await other.close()
    assert {(await alice.arrived.get()).request_id for _ in range(count)} == set(range(count))


async def test_reset_leaves_waiting_requests_and_looks_for_the_peer_again(
    make_node: MakeNode, prepare: Callable[..., bytes]
) -> None:
    """HTTP-8: the peer sees a 504, which says nothing; no outcome is made up."""
    link, alice, other, bob = await joined(make_node, OutgoingMode.SYNC, None)
    link.write([Outbound(SESSION, 7, prepare())])
    await bob.arrived.get()
    other.reset("stalled")
    assert [await bob.states.get(), await bob.states.get()] == ["down", "up"]
    assert alice.failed.empty() and alice.arrived.empty()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://example.com/ilp"},
        {"url": "ftp://example.com/ilp"},
        {"url": "https://u:psst@example.com/ilp"},
        {"url": "https://example.com/ilp\n"},
        {"url": "https://example.com:0/"},
        {"url": "https://example.com:x/"},
        {"url": "https:///ilp"},
        {"url": None, "callback_url": "http://example.com/"},
        {"url": None, "incoming": IncomingMode.ASYNC},
        {"url": None, "concurrency_max": 0},
    ],
)
async def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    """AUTH-6, HTTP-9: TLS always, but on this machine."""
    with pytest.raises(ConfigError) as refusal:
        HttpSettings(**settings).check()
    assert "psst" not in str(refusal.value)
    HttpSettings(url="http://example.com/ilp", allow_insecure=True).check()


async def test_a_server_without_tls_stays_on_this_machine(make_node: MakeNode) -> None:
    """AUTH-6."""
    now = (await make_node()).server._now
    with pytest.raises(ConfigError, match="without TLS"):
        HttpServer(host="0.0.0.0", port=0, now=now)
    HttpServer(host="0.0.0.0", port=0, now=now, allow_insecure=True)
    assert NoCredentials().authorization(0) is None
