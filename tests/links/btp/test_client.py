"""The client: it comes back by itself, shows its token to nobody else, and loses no answer."""

import asyncio
import hashlib
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from isthmus.connector.events import AccountId, Outbound
from isthmus.errors import ConfigError, LinkError
from isthmus.links.btp import codec, framing
from isthmus.links.btp.backoff import Backoff
from isthmus.links.btp.client import BtpClient
from isthmus.links.btp.codec import BtpError, BtpMessage, BtpResponse, ProtocolData
from isthmus.links.btp.session import AUTH_REQUEST_ID, SESSION_ENTRY, Timing

ALICE = AccountId("alice")
Script = Callable[["Caller"], Awaitable[None]]


class Caller:
    """A client that dialled a scripted server: the request it made, and its frames."""

    def __init__(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.reader = reader
        self.writer = writer

    def send(self, payload: bytes, opcode: int = framing.BINARY) -> None:
        size = len(payload)
        head = bytes((0x80 | opcode, size)) if size < 126 else bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
        self.writer.write(head + payload)

    async def read(self) -> tuple[int, bytes]:
        head = await self.reader.readexactly(2)
        assert head[1] & 0x80, "a client masks"
        size = head[1] & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        mask = await self.reader.readexactly(4)
        return head[0] & 0x0F, framing.xor_mask(await self.reader.readexactly(size), mask)

    async def read_btp(self) -> Any:
        return codec.decode((await self.read())[1])

    async def admit(self) -> BtpMessage:
        packet = await self.read_btp()
        assert isinstance(packet, BtpMessage) and packet.request_id == AUTH_REQUEST_ID
        self.send(codec.encode(BtpResponse(packet.request_id, [])))
        return packet


@pytest.fixture
async def scripted() -> AsyncIterator[Callable[[Script], Awaitable[str]]]:
    """Serve each connection with a script, after the upgrade; gives the URL."""
    servers: list[asyncio.Server] = []
    failures: list[BaseException] = []

    async def start(script: Script) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                request = await reader.readuntil(b"\r\n\r\n")
                key = request.partition(b"Sec-WebSocket-Key: ")[2].split(b"\r\n")[0]
                accept = b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                )
                await script(Caller(request, reader, writer))
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # the client left
            except AssertionError as error:
                failures.append(error)
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        return f"btp+ws://al:s3cret@127.0.0.1:{server.sockets[0].getsockname()[1]}/btp"

    yield start
    for server in servers:
        server.close()
    assert failures == []


async def test_it_authenticates_first_and_on_each_connection(scripted: Any, dial: Any, owner: Any) -> None:
    """BTP-5, BTP-7, BTP-16. The credentials are in the auth message only, not in the request."""
    seen: list[tuple[bytes, BtpMessage]] = []

    async def script(caller: Caller) -> None:
        seen.append((caller.request, await caller.admit()))

    url = await scripted(script)
    await dial(url, own=owner, wait=False)
    await owner.up(ALICE, 3)
    for request, packet in seen[:3]:
        assert request.startswith(b"GET /btp HTTP/1.1\r\n")
        assert b"s3cret" not in request and b"Authorization" not in request
        assert [entry.name for entry in packet.protocol_data][:3] == ["auth", "auth_token", "auth_username"]
        assert packet.protocol_data[1].data == b"s3cret" and packet.protocol_data[2].data == b"al"


async def test_a_token_given_apart_wins_over_the_urls(scripted: Any, dial: Any, owner: Any) -> None:
    """BTP-16."""
    seen: list[BtpMessage] = []

    async def script(caller: Caller) -> None:
        seen.append(await caller.admit())
        await caller.read()

    await dial(await scripted(script), own=owner, token="other", username="")
    entries = seen[0].protocol_data
    assert (entries[0].name, entries[1].data, entries[2].name) == ("auth", b"other", SESSION_ENTRY)


async def test_it_comes_back_and_brings_the_answers_that_fell_due(
    scripted: Any, dial: Any, owner: Any, packets: Any
) -> None:
    """BTP-18. Under their old ids; a Prepare meanwhile is undelivered at once. What was written is not repeated."""
    may_come = asyncio.Event()
    answers: list[Any] = []
    done = asyncio.Event()
    connections = 0

    async def script(caller: Caller) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await caller.admit()
            caller.send(codec.encode_ilp(codec.MESSAGE, 51, packets["prepare"]))
            caller.send(codec.encode_ilp(codec.MESSAGE, 52, packets["prepare"]))
            await caller.read()
            return
        await may_come.wait()
        await caller.admit()
        answers.append(await caller.read_btp())
        done.set()
        await caller.read()

    client, _ = await dial(await scripted(script), own=owner)
    await owner.until(lambda: len(owner.packets) == 2)
    session = owner.packets[0].session
    client.write([Outbound(session, 51, packets["fulfill"])])
    await owner.down(ALICE)
    client.write([Outbound(session, 52, packets["reject"]), Outbound(client.session, 1, packets["prepare"])])
    assert [(failure.request_id, failure.code) for failure in owner.failures] == [(1, "T01")]
    may_come.set()
    async with asyncio.timeout(60):
        await done.wait()
    assert [(answer.request_id, answer.protocol_data[0].data) for answer in answers] == [(52, packets["reject"])]


async def test_a_refusal_is_told_and_not_repeated_soon(scripted: Any, dial: Any, owner: Any) -> None:
    """BTP-6, BTP-14."""
    connections = 0

    async def script(caller: Caller) -> None:
        nonlocal connections
        connections += 1
        packet = await caller.read_btp()
        caller.send(codec.encode(BtpError(packet.request_id, "F00", "NotAcceptedError", 1, b"who are you?")))
        await caller.read()

    backoff = Backoff(lambda: 0.5, first_ms=1, max_ms=10**8)
    client, _ = await dial(await scripted(script), own=owner, wait=False, backoff=backoff)
    with pytest.raises(LinkError, match="who are you"):
        await client.wait_up(20_000)
    assert connections == 1 and owner.facts == []


async def test_a_server_that_does_not_answer_auth_is_left(scripted: Any, dial: Any, owner: Any) -> None:
    """BTP-7."""
    connections = 0

    async def script(caller: Caller) -> None:
        nonlocal connections
        connections += 1
        if connections < 3:
            await caller.read()
            while (await caller.read())[0] != framing.CLOSE:
                pass
        else:
            await caller.admit()
            await caller.read()

    await dial(await scripted(script), own=owner, timing=Timing(auth_ms=20))
    assert connections == 3 and owner.count("up", ALICE) == 1


async def test_packets_of_interledger_rs_are_understood(scripted: Any, dial: Any, owner: Any, packets: Any) -> None:
    """X-2, X-9. A Prepare in a Response, a Fulfill in a Message, none of them awaited."""

    async def script(caller: Caller) -> None:
        await caller.admit()
        caller.send(codec.encode_ilp(codec.RESPONSE, 4, packets["prepare"]))
        caller.send(codec.encode_ilp(codec.MESSAGE, 5, packets["fulfill"]))
        answer = await caller.read_btp()
        assert isinstance(answer, BtpResponse) and answer.request_id == 4
        await caller.read()

    client, _ = await dial(await scripted(script), own=owner)
    await owner.until(lambda: len(owner.packets) == 2)
    assert [(packet.request_id, packet.packet[0]) for packet in owner.packets] == [(4, 12), (5, 13)]
    assert owner.packets[1].session == b""
    client.write([Outbound(owner.packets[0].session, 4, packets["reject"])])


async def test_a_btp_error_makes_a_prepare_undelivered(scripted: Any, dial: Any, owner: Any, packets: Any) -> None:
    """BTP-10, BTP-18."""

    async def script(caller: Caller) -> None:
        await caller.admit()
        packet = await caller.read_btp()
        caller.send(codec.encode(BtpError(packet.request_id, "T00", "UnreachableError", 1)))
        await caller.read()

    client, _ = await dial(await scripted(script), own=owner)
    client.write([Outbound(client.session, 12, packets["prepare"])])
    await owner.until(lambda: len(owner.failures) == 1)
    assert (owner.failures[0].request_id, owner.failures[0].code) == (12, "T01")


async def test_a_peer_that_breaks_the_rules_is_left_and_dialled_again(scripted: Any, dial: Any, owner: Any) -> None:
    connections = 0

    async def script(caller: Caller) -> None:
        nonlocal connections
        connections += 1
        await caller.admit()
        if connections == 1:
            caller.send(b"text", framing.TEXT)
        elif connections == 2:
            caller.writer.write(b"\x82\xff" + bytes(12))  # masked by a server
        elif connections == 3:
            caller.writer.write(b"\x82\x7f" + (1 << 40).to_bytes(8, "big"))
        await caller.read()

    await dial(await scripted(script), own=owner, wait=False)
    await owner.up(ALICE, 4)
    assert connections == 4 and owner.packets == []


async def test_a_dead_server_is_found_by_a_ping(scripted: Any, dial: Any, owner: Any) -> None:
    """BTP-15. One that answers pings stays."""
    connections = 0
    pings = asyncio.Event()

    async def script(caller: Caller) -> None:
        nonlocal connections
        connections += 1
        await caller.admit()
        count = 0
        while True:
            opcode, payload = await caller.read()
            if opcode == framing.PING and connections > 1:
                caller.send(payload, framing.PONG)
                count += 1
                if count == 3:
                    pings.set()

    await dial(await scripted(script), own=owner, timing=Timing(ping_after_ms=10, pong_ms=300), wait=False)
    await owner.up(ALICE)
    async with asyncio.timeout(60):
        await pings.wait()
    assert connections == 2 and owner.count("down", ALICE) == 1


async def test_redirects_are_not_followed(dial: Any, owner: Any, library: Any) -> None:
    """BTP-16. The token is for the configured host."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client, _ = await dial(f"btp+ws://:t@127.0.0.1:{port}/", own=owner, wait=False)
    await owner.until(lambda: len(requests) >= 2)
    assert all(b"GET / " in request for request in requests)
    with pytest.raises(LinkError):
        await client.wait_up(1)
    server.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\nhello", b"SSH-2.0-OpenSSH_9.6\r\n", b""])
async def test_what_is_no_btp_server_is_a_failure_told_in_words(
    dial: Any, owner: Any, library: Any, answer: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client, _ = await dial(f"btp+ws://al:s3cret@127.0.0.1:{port}/", own=owner, wait=False)
    await owner.until(lambda: client.last_failure is not None)
    assert client.last_failure is not None and f"127.0.0.1:{port}" in client.last_failure
    assert "s3cret" not in client.last_failure and owner.facts == []
    server.close()


async def test_nobody_there_is_told_and_tried_again(dial: Any, owner: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client, _ = await dial(f"btp+ws://al:s3cret@127.0.0.1:{port}/", own=owner, wait=False)
    await owner.until(lambda: sum(log.event == "btp.no_connection" for log in owner.logs) >= 3)
    with pytest.raises(LinkError, match="can't connect"):
        await client.wait_up(1)
    assert all("s3cret" not in str(log) for log in owner.logs)


async def test_a_closed_client_stays_away(serve: Any, dial: Any, url: Any, owner: Any) -> None:
    server = await serve()
    client, theirs = await dial(url(server))
    await client.close()
    await owner.down(ALICE)
    assert theirs.facts == [("up", ALICE), ("down", ALICE)] and not client.is_up
    await client.close()


async def test_a_reset_client_comes_back(serve: Any, dial: Any, url: Any, owner: Any) -> None:
    server = await serve()
    client, theirs = await dial(url(server))
    client.reset("a test")
    await theirs.up(ALICE, 2)
    await owner.up(ALICE, 2)


async def test_a_renewed_session_is_announced_on_the_next_connection(
    serve: Any, dial: Any, url: Any, owner: Any, packets: Any
) -> None:
    """An answer to a request of the older session names it, since ids begin again."""
    server = await serve()
    client, theirs = await dial(url(server))
    old = client.session
    client.write([Outbound(old, 1, packets["prepare"])])
    await owner.until(lambda: len(owner.packets) == 1)
    client.session = b"n" * 16
    client.reset("a test")
    await theirs.up(ALICE, 2)
    await owner.up(ALICE, 2)
    client.write([Outbound(client.session, 1, packets["prepare"])])
    await owner.until(lambda: len(owner.packets) == 2)
    assert [packet.session for packet in owner.packets] == [old, client.session]
    server.link(ALICE).write([Outbound(packet.session, 1, packets["fulfill"]) for packet in owner.packets])
    await theirs.until(lambda: len(theirs.packets) == 2)
    assert [packet.session for packet in theirs.packets] == [old, client.session]


async def test_sub_protocols_are_asked_and_answered(serve: Any, dial: Any, url: Any, owner: Any) -> None:
    """BTP-9, BTP-11."""
    server = await serve()
    server.subprotocols["echo"] = lambda account, entries: [ProtocolData("echo", 0, entries[0].data + b"!")]
    server.subprotocols["no"] = lambda account, entries: ("F00", f"not for {account}")
    client, _ = await dial(url(server))
    answers: list[Any] = []
    came = asyncio.Event()

    def take(answer: Any) -> None:
        answers.append(answer)
        came.set()

    for name in ("echo", "no", "unheard-of"):
        came.clear()
        assert client.ask([ProtocolData(name, 0, b"hi")], take)
        async with asyncio.timeout(60):
            await came.wait()
    assert answers[0] == [ProtocolData("echo", 0, b"hi!")]
    assert [(answer.code, answer.data) for answer in answers[1:]] == [
        ("F00", b"not for alice"),
        ("F00", b"this sub-protocol is not spoken here"),
    ]
    server.subprotocols["echo"] = lambda account, entries: pytest.fail("not asked")
    client.reset("a test")
    assert not client.ask([ProtocolData("echo", 0, b"")], take)


@pytest.mark.parametrize("options", [{}, {"ca_file": "/nonexistent/ca.pem"}])
async def test_settings_that_can_not_be_used_are_config_errors(owner: Any, library: Any, options: Any) -> None:
    url = "btp+wss://al:s3cret@127.0.0.1/" if options else "btp+ws://al@127.0.0.1/"
    with pytest.raises(ConfigError) as caught:
        BtpClient(ALICE, url, owner, session=bytes(16), library=library, **options)
    assert "s3cret" not in str(caught.value)


async def test_whatever_goes_wrong_with_a_dial_it_is_told_and_tried_again(dial: Any) -> None:
    """A name that no resolver takes is a UnicodeError, not an OSError: the task must not end for it, unseen."""
    client, _ = await dial(f"btp+ws://{'x' * 64}.localhost:1/", allow_insecure=True, token="t", wait=False)
    for _ in range(2):
        client._changed.clear()
        await asyncio.wait_for(client._changed.wait(), 60)
    assert "localhost" in client.last_failure
    assert not client._dialling.done()
