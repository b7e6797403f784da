"""The server against requests of every kind, made by hand over real sockets (RFC 0035)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from isthmus.connector.events import Inbound, Log, Outbound
from isthmus.errors import LinkError
from isthmus.ilp.packet import (
    DATA_BYTES_MAX,
    PACKET_BYTES_MAX,
    PREPARE_BYTES_MAX,
    Fulfill,
    Prepare,
    Reject,
    decode,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)
from isthmus.links.http.auth import BearerVerifier
from isthmus.links.http.server import HttpServer
from isthmus.links.http.session import KEPT_REPLY_BYTES_MAX, format_uuid, request_key
from isthmus.links.http.settings import HttpSettings, IncomingMode
from isthmus.links.places import StrangerBounds
from isthmus.links.throttle import FailureThrottle

MakeNode = Callable[..., Awaitable[Any]]

ALICE, BOB, CAROL = "a" * 43, "b" * 43, "c" * 43
ID = "42ee09c8-a6de-4ae3-8a47-4732b0cbb07b"
OTHER_ID = "52ee09c8-a6de-4ae3-8a47-4732b0cbb07b"
OCTETS = "application/octet-stream"
CALLBACK = "http://127.0.0.1:1/in"
FULFILL = encode_fulfill(Fulfill(bytes(32), b"data"))
REJECT = encode_reject(Reject("F02", "g.far", "no route"))


def a_prepare(amount: int = 1, *, lasts_ms: int = 30_000, data: bytes = b"d", destination: str = "g.bob.x") -> bytes:
    expires_at = time.time_ns() // 1_000_000 + lasts_ms
    return encode_prepare(Prepare(amount, expires_at, bytes(32), destination, data))


class Peer:
    """Alice, by hand."""

    def __init__(self, http: aiohttp.ClientSession, node: Any, link: Any, owner: Any) -> None:
        self.http = http
        self.node = node
        self.link = link
        self.owner = owner

    async def post(
        self, body: Any, *, token: str | None = ALICE, path: str = "", method: str = "POST", **headers: str | None
    ) -> tuple[int, bytes, Any]:
        """Header names with underscores; None leaves one out."""
        given: dict[str, str | None] = {"Content_Type": OCTETS, "Request_Id": ID, **headers}
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        sent = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
        async with self.http.request(method, self.node.server.url + path, data=body, headers=sent) as response:
            return response.status, await response.read(), response.headers

    def answer(self, packet: Inbound, reply: bytes = FULFILL) -> None:
        self.link.write([Outbound(packet.session, packet.request_id, reply)])


@pytest.fixture
async def peer(make_node: MakeNode) -> AsyncIterator[Peer]:
    """Bob's node with Alice's account, without replies of its own."""
    node = await make_node()
    link, owner = await node.link(HttpSettings(url=CALLBACK), shows=BOB, expects=ALICE)
    async with aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http:
        yield Peer(http, node, link, owner)


def is_problem(status: int, body: bytes, headers: Any) -> bool:
    fields = json.loads(body)
    return bool(
        headers["Content-Type"] == "application/problem+json" and fields["status"] == status and fields["detail"]
    )


# --- synchronous mode -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [FULFILL, REJECT])
async def test_the_request_is_held_open_until_its_reply(peer: Peer, reply: bytes) -> None:
    """HTTP-10, HTTP-1: 200 with the packet, for rejects too; the wire identity is the Request-Id."""
    packet = a_prepare()
    request = asyncio.create_task(peer.post(packet))
    taken = await peer.owner.arrived.get()
    assert (taken.packet, taken.session, taken.request_id) == (packet, UUID(ID).bytes, 0)
    assert not request.done()
    peer.answer(taken, reply)
    status, body, headers = await request
    assert (status, body, headers["Content-Type"]) == (200, reply, OCTETS)


async def test_without_a_request_id_the_session_is_random(peer: Peer) -> None:
    """HTTP-2, HTTP-10: rs and Rafiki send none; two equal packets are two Prepares then."""
    packet = a_prepare()
    requests = [asyncio.create_task(peer.post(packet, Request_Id=None)) for _ in range(2)]
    taken = [await peer.owner.arrived.get() for _ in range(2)]
    assert taken[0].session != taken[1].session and len(taken[0].session) == 16
    for each, reply in zip(taken, (FULFILL, REJECT), strict=True):
        peer.answer(each, reply)
    assert sorted([(await request)[1] for request in requests]) == [FULFILL, REJECT]
    assert len(peer.link._incoming) == 0


async def test_a_repeated_prepare_is_not_processed_twice(peer: Peer) -> None:
    """HTTP-7: while it is open, and after its answer; the same reply each time."""
    packet = a_prepare()
    requests = [asyncio.create_task(peer.post(packet)) for _ in range(3)]
    taken = await peer.owner.arrived.get()
    peer.answer(taken)
    assert [(await request)[:2] for request in requests] == [(200, FULFILL)] * 3
    assert (await peer.post(packet))[:2] == (200, FULFILL)
    assert peer.owner.arrived.empty()


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_paid_prepare_is_never_called_not_taken(peer: Peer, is_kept: bool) -> None:
    """HTTP-7, HTTP-8: its reply was dropped here, but the node keeps the fulfillment; or nobody does."""
    packet = a_prepare()
    request = asyncio.create_task(peer.post(packet))
    taken = await peer.owner.arrived.get()
    peer.answer(taken)
    await request
    if is_kept:
        peer.owner.fulfillments[taken.session, taken.request_id] = bytes(32)
    await _drop_replies(peer)
    for paused in (False, True):
        if paused:
            peer.link.pause_reading()
        status, body, _ = await peer.post(packet)
        assert (status, body) == (200, encode_fulfill(Fulfill(bytes(32)))) if is_kept else status == 504
    assert peer.owner.arrived.empty()


async def test_a_rejected_prepare_whose_answer_was_dropped_was_not_taken(peer: Peer) -> None:
    """HTTP-7, HTTP-8."""
    packet = a_prepare()
    request = asyncio.create_task(peer.post(packet))
    peer.answer(await peer.owner.arrived.get(), REJECT)
    await request
    await _drop_replies(peer)
    assert (await peer.post(packet))[0] == 400


async def test_what_was_paid_before_a_restart_is_not_refused_by_a_busy_link(peer: Peer) -> None:
    """HTTP-8: T03 would say "not taken", and so would a 503 in asynchronous mode."""
    peer.owner.fulfillments[UUID(ID).bytes, 0] = bytes(32)
    peer.link.pause_reading()
    assert (await peer.post(a_prepare()))[:2] == (200, encode_fulfill(Fulfill(bytes(32))))
    assert (await peer.post(a_prepare(), Prefer="respond-async", Callback_Url=CALLBACK))[0] == 504


async def _drop_replies(peer: Peer) -> None:
    """Answers of the largest size fill the link's memory of replies."""
    large = encode_fulfill(Fulfill(bytes(32), bytes(DATA_BYTES_MAX)))
    for number in range(KEPT_REPLY_BYTES_MAX // DATA_BYTES_MAX + 1):
        request = asyncio.create_task(peer.post(a_prepare(), Request_Id=format_uuid(number.to_bytes(16, "big"))))
        peer.answer(await peer.owner.arrived.get(), large)
        await request


async def test_waiting_repetitions_are_bounded(peer: Peer) -> None:
    """HTTP-7: the fifth is refused."""
    packet = a_prepare()
    requests = [asyncio.create_task(peer.post(packet)) for _ in range(5)]
    done, waiting = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
    assert [request.result()[0] for request in done] == [429] and len(waiting) == 4
    peer.answer(await peer.owner.arrived.get())
    assert [(await request)[0] for request in waiting] == [200] * 4


async def test_another_packet_under_the_same_id_is_refused(peer: Peer) -> None:
    """HTTP-7."""
    request = asyncio.create_task(peer.post(a_prepare(1)))
    taken = await peer.owner.arrived.get()
    assert (await peer.post(a_prepare(2)))[0] == 400
    peer.answer(taken)
    assert (await request)[0] == 200 and peer.owner.arrived.empty()


async def test_a_request_without_reply_ends_a_little_after_its_expiry(make_node: MakeNode) -> None:
    """HTTP-8, HTTP-14: 504, which says nothing about the Prepare; the owner's own Reject comes before, as a rule."""
    node = await make_node()
    link, owner = await node.link(HttpSettings(url=None, grace_ms=50), shows=BOB, expects=ALICE)
    async with aiohttp.ClientSession() as http:
        status, body, headers = await Peer(http, node, link, owner).post(a_prepare(lasts_ms=20))
    assert status == 504 and is_problem(status, body, headers)
    assert len(link._waiters) == 0


async def test_a_client_that_went_away_can_ask_again(peer: Peer) -> None:
    """HTTP-7: the reply is kept until the expiry."""
    packet = a_prepare()
    request = asyncio.create_task(peer.post(packet))
    taken = await peer.owner.arrived.get()
    request.cancel()
    peer.answer(taken)
    assert (await peer.post(packet))[:2] == (200, FULFILL)


async def test_a_paused_account_answers_t03(peer: Peer) -> None:
    """HTTP-8: in a form that each mode understands as "not taken"; replies are still read."""
    peer.link.pause_reading()
    status, body, _ = await peer.post(a_prepare())
    reject = decode(body)
    assert status == 200 and isinstance(reject, Reject) and reject.code == "T03"
    assert (await peer.post(a_prepare(), Prefer="respond-async", Callback_Url=CALLBACK))[0] == 503
    peer.link.restore([(bytes(16), 1, peer.owner.mono_ms() + 10_000)])
    assert (await peer.post(FULFILL, Request_Id=format_uuid(request_key(bytes(16), 1))))[0] == 200
    peer.link.resume_reading()
    request = asyncio.create_task(peer.post(a_prepare(), Request_Id=OTHER_ID))
    assert (await peer.owner.arrived.get()).packet == FULFILL
    peer.answer(await peer.owner.arrived.get())
    assert (await request)[:2] == (200, FULFILL)


async def test_one_waiting_request_holds_up_no_other(peer: Peer) -> None:
    """HTTP-10: replies come in any order."""
    slow = asyncio.create_task(peer.post(a_prepare(1)))
    first = await peer.owner.arrived.get()
    fast = asyncio.create_task(peer.post(a_prepare(2), Request_Id=OTHER_ID))
    peer.answer(await peer.owner.arrived.get(), REJECT)
    assert (await fast)[1] == REJECT and not slow.done()
    peer.answer(first)
    assert (await slow)[1] == FULFILL


# --- asynchronous mode ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Prefer": "respond-async", "Callback_Url": CALLBACK},
        {"Prefer": "wait=5, Respond-Async; x=1", "Callback_Url": CALLBACK + "/other?x=1"},
        {"Callback_Url": CALLBACK},
    ],
)
async def test_asynchronous_requests_are_accepted_at_once(peer: Peer, headers: dict[str, str]) -> None:
    """HTTP-3, HTTP-11: 202 before there is any reply; a Callback-Url alone asks for it too (RFC 0035)."""
    status, body, answered = await peer.post(a_prepare(), **headers)
    assert (status, body) == (202, b"")
    assert answered.get("Preference-Applied") == ("respond-async" if "Prefer" in headers else None)
    assert (await peer.post(a_prepare(9), **headers))[0] == 400
    assert peer.owner.arrived.qsize() == 1


async def test_a_repeated_asynchronous_prepare_is_accepted_and_not_processed(peer: Peer) -> None:
    """HTTP-3, HTTP-7."""
    packet = a_prepare()
    for _ in range(3):
        assert (await peer.post(packet, Callback_Url=CALLBACK))[0] == 202
    assert peer.owner.arrived.qsize() == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:2/in",
        "http://localhost:1/in",
        "https://127.0.0.1:1/in",
        "http://evil.example/in",
        "http://127.0.0.1:1@evil.example/in",
        "http://127.0.0.1:1#@evil.example/",
        "http://127.0.0.1:1\\@evil.example/",
        "http://u@127.0.0.1:1/in",
        "//127.0.0.1:1/in",
        "file:///etc/passwd",
        "http://127.0.0.1:1 /in",
        "http://127.0.0.1:1/" + "a" * 2_048,
        "",
    ],
)
async def test_a_callback_url_of_another_place_is_refused(peer: Peer, url: str) -> None:
    """HTTP-13: scheme, host and port as configured."""
    assert (await peer.post(a_prepare(), Prefer="respond-async", Callback_Url=url))[0] == 400
    assert peer.owner.arrived.empty()


async def test_a_callback_url_without_tls_is_for_this_machine_only(make_node: MakeNode) -> None:
    """HTTP-13: https, also if the peer's agreed host is meant."""
    node = await make_node()
    _, owner = await node.link(
        HttpSettings(url=None, peer_callback_url="https://alice.example/in"), shows=BOB, expects=ALICE
    )
    async with aiohttp.ClientSession() as http:
        peer = Peer(http, node, None, owner)
        assert (await peer.post(a_prepare(), Callback_Url="http://alice.example/in"))[0] == 400
        assert (await peer.post(a_prepare(), Callback_Url="http://alice.example:443/in"))[0] == 400
        assert (await peer.post(a_prepare(), Callback_Url="https://alice.example:443/other"))[0] == 202


@pytest.mark.parametrize(
    ("mode", "headers", "status"),
    [
        (IncomingMode.ASYNC, {}, 400),
        (IncomingMode.ASYNC, {"Callback_Url": CALLBACK, "Request_Id": None}, 400),
        (IncomingMode.ASYNC, {"Callback_Url": CALLBACK}, 202),
        (IncomingMode.ANY, {"Prefer": "respond-async"}, 400),
        (IncomingMode.ANY, {"Prefer": "respond-async", "Callback_Url": CALLBACK, "Request_Id": None}, 400),
    ],
)
async def test_what_asynchronous_mode_needs(
    make_node: MakeNode, mode: IncomingMode, headers: dict[str, Any], status: int
) -> None:
    """HTTP-2, HTTP-11: as dassie does, 400 without Request-Id or Callback-Url."""
    node = await make_node()
    _, owner = await node.link(HttpSettings(url=CALLBACK, incoming=mode), shows=BOB, expects=ALICE)
    async with aiohttp.ClientSession() as http:
        assert (await Peer(http, node, None, owner).post(a_prepare(), **headers))[0] == status
    assert owner.arrived.qsize() == (status == 202)


async def test_a_callback_url_may_be_agreed_out_of_band(make_node: MakeNode) -> None:
    """HTTP-2."""
    node = await make_node()
    settings = HttpSettings(url=None, incoming=IncomingMode.ASYNC, peer_callback_url=CALLBACK)
    _, owner = await node.link(settings, shows=BOB, expects=ALICE)
    async with aiohttp.ClientSession() as http:
        assert (await Peer(http, node, None, owner).post(a_prepare()))[0] == 202


async def test_a_synchronous_account_ignores_the_preference(make_node: MakeNode) -> None:
    """HTTP-10, HTTP-11: chosen per peer."""
    node = await make_node()
    settings = HttpSettings(url=None, incoming=IncomingMode.SYNC)
    link, owner = await node.link(settings, shows=BOB, expects=ALICE, reply=FULFILL)
    async with aiohttp.ClientSession() as http:
        peer = Peer(http, node, link, owner)
        answer = await peer.post(a_prepare(), Prefer="respond-async", Callback_Url="http://evil.example/")
    assert answer[:2] == (200, FULFILL)


# --- replies that are POSTed to us ------------------------------------------------------------------------------------


async def test_replies_to_nothing_are_refused(peer: Peer) -> None:
    """HTTP-5: unknown, without id, or no reply at all."""
    for body, request_id in ((FULFILL, ID), (REJECT, ID), (FULFILL, None), (FULFILL[:-1], ID), (REJECT[:5], ID)):
        status, problem, headers = await peer.post(body, Request_Id=request_id)
        assert status == 400 and is_problem(status, problem, headers)
    assert peer.owner.arrived.empty()


async def test_a_reply_counts_only_from_the_peer_that_was_asked(make_node: MakeNode, peer: Peer) -> None:
    """HTTP-13, HTTP-5: with another account's token the Request-Id is unknown."""
    carol, _ = await peer.node.link(HttpSettings(url=None), shows=BOB, expects=CAROL, account="carol")
    peer.link.restore([(bytes(16), 1, peer.owner.mono_ms() + 10_000)])
    request_id = format_uuid(request_key(bytes(16), 1))
    assert (await peer.post(FULFILL, token=CAROL, Request_Id=request_id))[0] == 400
    assert peer.owner.arrived.empty() and carol is not peer.link
    assert (await peer.post(FULFILL, Request_Id=request_id))[0] == 200
    assert (await peer.post(FULFILL, Request_Id=request_id))[0] == 400
    assert peer.owner.arrived.qsize() == 1


# --- strangers and broken requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "z" * 43, ALICE + "x", ALICE[:-1]])
async def test_without_the_right_token_nothing_is_read(peer: Peer, token: str | None) -> None:
    """HTTP-12, AUTH-1: 401, also for a body that never ends."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1_000)

    status, body, headers = await peer.post(a_prepare(), token=token)
    assert status == 401 and is_problem(status, body, headers) and headers["WWW-Authenticate"] == "Bearer"
    with suppress(aiohttp.ClientError, OSError):  # the connection may be closed before we read the answer
        assert (await peer.post(endless(), token=token))[0] == 401
    assert peer.owner.arrived.empty()


async def test_wrong_tokens_again_and_again_are_told_to_wait(peer: Peer) -> None:
    """P-16: 429 with Retry-After, and not at once. The right token is served from the same address all the same."""
    logs: list[Log] = []
    throttle = FailureThrottle(failures_max=2, hold_ms=1)
    server = HttpServer(host="127.0.0.1", port=0, now=peer.link._now, throttle=throttle, on_log=logs.append)
    server.add(peer.link, BearerVerifier.of_tokens(ALICE))
    await server.start()
    url = f"http://127.0.0.1:{server.port}/ilp"
    async with aiohttp.ClientSession() as session:

        async def status(token: str) -> tuple[int, str | None]:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": OCTETS}
            async with session.post(url, data=b"no packet", headers=headers) as response:
                return response.status, response.headers.get("Retry-After")

        assert [await status(CAROL) for _ in range(4)] == [(401, None), (401, None), (429, "2"), (429, "2")]
        assert (await status(ALICE))[0] == 400
    assert [(log.event, log.fields["address"]) for log in logs] == [("http.throttled", "127.0.0.1")]
    await server.close()


async def test_strangers_connections_are_bounded_and_peers_take_no_place(peer: Peer) -> None:
    """Beyond the bound a stranger is hung up on; a connection with a good request on it counts for its account."""
    bounds = StrangerBounds(strangers_max=4, strangers_per_address_max=2)
    server = HttpServer(host="127.0.0.1", port=0, now=peer.link._now, strangers=bounds, connections_per_account_max=3)
    server.add(peer.link, BearerVerifier.of_tokens(ALICE))
    await server.start()
    head = f"POST /ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\nContent-Length: 0\r\n\r\n".encode()

    open_connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for status in (b"400", b"400", b"400", b"429"):
        open_connections.append(await asyncio.open_connection("127.0.0.1", server.port))
        open_connections[-1][1].write(head)
        assert (await open_connections[-1][0].readline()).split()[1] == status
    await open_connections[-1][0].read()  # the fourth is closed by the server
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with suppress(ConnectionError):
        assert await reader.read() == b""
    assert server.strangers == 2
    for _, each in (*open_connections, *silent, (reader, writer)):
        each.close()
    await server.close()


async def test_who_holds_connections_without_a_word_makes_room(peer: Peer) -> None:
    bounds = StrangerBounds(strangers_max=4, strangers_per_address_max=1, kept_ms=0)
    server = HttpServer(host="127.0.0.1", port=0, now=peer.link._now, strangers=bounds)
    await server.start()
    first, first_writer = await asyncio.open_connection("127.0.0.1", server.port)
    second, second_writer = await asyncio.open_connection("127.0.0.1", server.port)
    with suppress(ConnectionError):
        assert await first.read() == b""
    second_writer.write(b"GET /ilp HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 405 " in await second.readline()
    for writer in (first_writer, second_writer):
        writer.close()
    await server.close()


async def test_a_path_per_account(peer: Peer) -> None:
    """HTTP-1, AUTH-2: where the path names the account, another account's token is none."""
    await peer.node.link(HttpSettings(url=None), shows=BOB, expects=CAROL, account="carol", reply=REJECT)
    assert (await peer.post(a_prepare(), token=CAROL, path="/carol"))[:2] == (200, REJECT)
    assert (await peer.post(a_prepare(), token=ALICE, path="/carol"))[0] == 401
    assert (await peer.post(a_prepare(), token=CAROL, path="/peer"))[0] == 401
    assert (await peer.post(a_prepare(), token=CAROL, path="/nobody"))[0] == 401
    assert peer.owner.arrived.empty()


async def test_a_removed_account_is_a_stranger(peer: Peer) -> None:
    """HTTP-12."""
    peer.node.server.remove("peer")
    assert (await peer.post(a_prepare()))[0] == 401


async def test_a_changed_token_counts_at_once(peer: Peer) -> None:
    """AUTH-2."""
    peer.node.server.add(peer.link, BearerVerifier.of_tokens(CAROL))
    assert (await peer.post(a_prepare()))[0] == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_only_post_is_served(peer: Peer, method: str) -> None:
    """HTTP-1."""
    status, _, headers = await peer.post(None, method=method)
    assert status == 405 and headers["Allow"] == "POST"


async def test_the_content_type_of_ilp_plugin_http_is_taken(peer: Peer) -> None:
    """HTTP-1, X-1: it sends a type of its own."""
    request = asyncio.create_task(peer.post(a_prepare(), Content_Type="application/ilp+octet-stream"))
    peer.answer(await peer.owner.arrived.get())
    assert (await request)[:2] == (200, FULFILL)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream2", "x", None])
async def test_another_content_type_is_refused(peer: Peer, content_type: str | None) -> None:
    """HTTP-1, HTTP-12: and a missing one."""
    status, body, headers = await peer.post(a_prepare(), Content_Type=content_type)
    assert status == 400 and is_problem(status, body, headers)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00", b"\x0c", b"hello", a_prepare()[:-1], a_prepare()[:40], b"\x0c\xff" + bytes(100), bytes(1_000)],
    ids=["empty", "zero", "type", "hello", "short", "half", "length", "zeros"],  # workers must agree on them
)
async def test_undecodable_packets_are_refused(peer: Peer, body: bytes) -> None:
    """HTTP-12."""
    status, problem, headers = await peer.post(body)
    assert status == 400 and is_problem(status, problem, headers)
    assert peer.owner.arrived.empty()


@pytest.mark.parametrize("request_id", ["1", "", "x" * 36, ID + "0", ID.replace("-", "")])
async def test_a_bad_request_id_is_refused(peer: Peer, request_id: str) -> None:
    """HTTP-2."""
    assert (await peer.post(a_prepare(), Request_Id=request_id))[0] == 400


async def test_the_largest_prepare_passes(peer: Peer) -> None:
    """HTTP-14: 33,857 bytes."""
    packet = a_prepare(data=bytes(32_767), destination="g." + "a" * 1_021)
    assert len(packet) == PREPARE_BYTES_MAX
    request = asyncio.create_task(peer.post(packet))
    taken = await peer.owner.arrived.get()
    assert taken.packet == packet
    peer.answer(taken)
    assert (await request)[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_larger_bodies_are_refused_without_being_kept(peer: Peer, chunked: bool) -> None:
    """HTTP-14: on the bound and one past it, with a length and without."""

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1_000):
            yield bytes(1_000)
        yield bytes(size % 1_000)

    for size, expected in ((PACKET_BYTES_MAX, 400), (PACKET_BYTES_MAX + 1, 413), (1_000_000, 413)):
        try:
            status, body, headers = await peer.post(chunks(size) if chunked else bytes(size))
        except (aiohttp.ClientError, OSError):
            assert size == 1_000_000  # refused while we were still sending
            continue
        assert status == expected and is_problem(status, body, headers)


async def test_a_compressed_body_is_not_unpacked(peer: Peer) -> None:
    """HTTP-12."""
    assert (await peer.post(a_prepare(), Content_Encoding="gzip"))[0] == 415


async def test_a_body_that_does_not_come_is_given_up(peer: Peer) -> None:
    """HTTP-12, HTTP-14: 408, and the others are served meanwhile."""
    server = HttpServer(host="127.0.0.1", port=0, now=peer.link._now, body_ms_max=100)
    server.add(peer.link, BearerVerifier.of_tokens(ALICE))
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"POST /ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n"
        f"Content-Type: {OCTETS}\r\nContent-Length: 100\r\n\r\nabc".encode()
    )
    request = asyncio.create_task(peer.post(a_prepare()))
    peer.answer(await peer.owner.arrived.get())
    assert (await request)[0] == 200
    assert b" 408 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    await server.close()


@pytest.mark.parametrize("head", [b"", b"POST /ilp HT", b"POST /ilp HTTP/1.1\r\nHost: x\r\nAuthor"])
async def test_a_connection_without_a_request_is_closed(peer: Peer, head: bytes) -> None:
    """HTTP-12: whoever opens connections and dribbles a head into them holds none for long."""
    server = HttpServer(host="127.0.0.1", port=0, now=peer.link._now, idle_ms_max=100)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await server.close()


async def test_a_body_in_pieces_is_put_together(peer: Peer) -> None:
    """HTTP-1: another request is served between two pieces, so they are read one by one."""
    packet = a_prepare(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.node.server.port)
    writer.write(
        f"POST /ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n"
        f"Content-Type: {OCTETS}\r\nContent-Length: {len(packet)}\r\n\r\n".encode()
        + packet[:10]
    )
    for start, end in ((10, 20), (20, None)):
        between = asyncio.create_task(peer.post(a_prepare(2), Request_Id=None))
        peer.answer(await peer.owner.arrived.get())
        await between
        writer.write(packet[start:end])
    taken = await peer.owner.arrived.get()
    assert taken.packet == packet
    peer.answer(taken)
    assert b" 200 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_half_a_body_is_no_packet(peer: Peer) -> None:
    """HTTP-12: a connection that is cut in the middle of a Prepare hands nothing over."""
    packet = a_prepare()
    _, writer = await asyncio.open_connection("127.0.0.1", peer.node.server.port)
    writer.write(
        f"POST /ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n"
        f"Content-Type: {OCTETS}\r\nContent-Length: {len(packet)}\r\n\r\n".encode()
        + packet[:-1]
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    request = asyncio.create_task(peer.post(a_prepare(), Request_Id=OTHER_ID))
    taken = await peer.owner.arrived.get()
    assert taken.session == UUID(OTHER_ID).bytes
    peer.answer(taken)
    await request


async def test_a_taken_port_is_a_link_error(peer: Peer) -> None:
    """HTTP-1."""
    server = HttpServer(host="127.0.0.1", port=peer.node.server.port, now=peer.link._now)
    with pytest.raises(LinkError, match="can't listen"):
        await server.start()
