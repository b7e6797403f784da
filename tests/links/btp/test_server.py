"""The server against peers that break rules: each gets the answer the list names, and nobody else notices."""

import asyncio
import sys
from typing import Any

import pytest

from isthmus.connector.events import AccountId, Outbound
from isthmus.errors import ConfigError, LinkError
from isthmus.ilp.packet import REJECT_BYTES_MAX, Reject, encode_reject
from isthmus.links.btp import codec, framing
from isthmus.links.btp.codec import BtpError, BtpResponse, ProtocolData
from isthmus.links.btp.server import BtpServer, Tokens, hash_token
from isthmus.links.btp.session import SESSION_ENTRY, Timing
from isthmus.links.btp.websocket import (
    CONTROL_FRAMES_PER_SECOND_MAX,
    FRAGMENTS_MAX,
    MESSAGE_BYTES_MAX,
    Bounds,
    choose_library,
)
from isthmus.links.places import StrangerBounds
from isthmus.links.throttle import FAILURES_MAX, FailureThrottle

ALICE, BOB = AccountId("alice"), AccountId("bob")
LARGEST_PREPARE = b"\x0c" + bytes(33_856)


def prepare_frame(request_id: int, packet: bytes = b"\x0c" + bytes(50)) -> bytes:
    return codec.encode_ilp(codec.MESSAGE, request_id, packet)


async def works(owner: Any, peer: Any, account: AccountId, request_id: int) -> None:
    """The peer's Prepares still reach the owner."""
    peer.send(prepare_frame(request_id))
    await owner.until(lambda: any(p.account == account and p.request_id == request_id for p in owner.packets))


# --- who may come in -------------------------------------------------------------------------------------------------


async def test_a_token_opens_its_account(serve: Any, raw: Any, owner: Any) -> None:
    """BTP-5, BTP-6, P-16."""
    server = await serve()
    for account in (ALICE, BOB):
        peer = await raw(server, token=f"{account}-token")
        await works(owner, peer, account, 1)
    assert {packet.account for packet in owner.packets} == {ALICE, BOB}


@pytest.mark.parametrize(
    ("path", "username", "account"),
    [("/", "", ALICE), ("/alice", "", ALICE), ("/", "alice", ALICE), ("/", "somebody", ALICE), ("/?x=1", "", ALICE)],
)
async def test_a_name_beside_the_token_must_not_contradict_it(
    serve: Any, raw: Any, owner: Any, path: str, username: str, account: AccountId
) -> None:
    server = await serve()
    peer = await raw(server, path)
    peer.send_auth("alice-token", ProtocolData("auth_username", 1, username.encode()))
    assert isinstance(await peer.read_btp(), BtpResponse)
    await works(owner, peer, account, 3)


@pytest.mark.parametrize(
    ("path", "username", "token"),
    [
        ("/", "", "wrong"),
        ("/", "", ""),
        ("/bob", "", "alice-token"),
        ("/", "bob", "alice-token"),
        ("/bob", "alice", "alice-token"),
    ],
)
async def test_a_wrong_token_and_one_of_another_account_are_refused(
    serve: Any, raw: Any, owner: Any, path: str, username: str, token: str
) -> None:
    """BTP-6. An Error under the request's id, then the close."""
    server = await serve()
    peer = await raw(server, path)
    peer.send_auth(token, ProtocolData("auth_username", 1, username.encode()), request_id=77)
    peer.send(prepare_frame(1))
    answer = await peer.read_btp()
    assert isinstance(answer, BtpError) and (answer.request_id, answer.code) == (77, "F00")
    assert await peer.read_close() == 1008
    await peer.close()
    assert owner.facts == [] and owner.packets == []


@pytest.mark.parametrize("path", ["/btp", "/btp/", "/btp/alice", "/btp?a=b"])
async def test_the_path_is_configurable(serve: Any, raw: Any, owner: Any, path: str) -> None:
    server = await serve(path="/btp")
    await works(owner, await raw(server, path, token="alice-token"), ALICE, 1)


@pytest.mark.parametrize("path", ["/", "/btpx", "/other/alice"])
async def test_other_paths_are_not_found(serve: Any, path: str) -> None:
    server = await serve(path="/btp/")
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
    writer.close()


@pytest.mark.parametrize("request_bytes", [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01\x00\x05hello\r\n\r\n"])
async def test_what_is_no_websocket_is_sent_away(serve: Any, raw: Any, owner: Any, request_bytes: bytes) -> None:
    server = await serve()
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(request_bytes)
    assert b"101" not in await reader.read()
    writer.close()
    await works(owner, await raw(server, token="alice-token"), ALICE, 1)


@pytest.mark.parametrize(
    "bad", [("Version: 13", "Version: 12"), ("Key: AAAA", "Key: A"), ("Upgrade: websocket", "Upgrade: h2c")]
)
async def test_a_failed_upgrade_gives_its_room_back(serve: Any, raw: Any, owner: Any, bad: tuple[str, str]) -> None:
    server = await serve(bounds=StrangerBounds(strangers_max=1))
    reader, writer = await asyncio.open_connection(*server.address)
    request = (
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    writer.write(request.replace(*bad).encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 4")
    writer.close()
    await owner.until(lambda: server.strangers == 0)
    await works(owner, await raw(server, token="alice-token"), ALICE, 1)


async def test_anything_before_auth_gets_an_error_and_a_close(serve: Any, raw: Any, owner: Any) -> None:
    """BTP-6."""
    server = await serve()
    peer = await raw(server)
    peer.send(prepare_frame(5))
    answer = await peer.read_btp()
    assert isinstance(answer, BtpError) and answer.request_id == 5
    assert await peer.read_close() == 1008
    assert owner.packets == []


async def test_a_stranger_who_says_nothing_is_sent_away_in_time(serve: Any, raw: Any, owner: Any) -> None:
    """BTP-6, BTP-7."""
    server = await serve(timing=Timing(auth_ms=30))
    peer = await raw(server)
    answer = await peer.read_btp()
    assert isinstance(answer, BtpError) and answer.data == b"no auth in time"
    assert await peer.read_close() == 1008


async def test_control_frames_are_answered_before_auth(serve: Any, raw: Any) -> None:
    """BTP-15."""
    server = await serve()
    peer = await raw(server)
    peer.send(b"who", framing.PING)
    assert await peer.read_frame() == (framing.PONG, b"who")
    peer.send(b"", framing.PONG)
    peer.send_auth("alice-token")
    assert isinstance(await peer.read_btp(), BtpResponse)


async def test_strangers_have_bounded_room_and_authenticated_peers_take_none_of_it(
    serve: Any, raw: Any, owner: Any
) -> None:
    server = await serve(bounds=StrangerBounds(strangers_max=8, strangers_per_address_max=2))
    peers = [await raw(server, token="alice-token") for _ in range(4)]
    await owner.up(ALICE, 4)
    idle = [await asyncio.open_connection(*server.address) for _ in range(2)]
    extra_reader, extra_writer = await asyncio.open_connection(*server.address)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await extra_reader.readexactly(1)
    extra_writer.close()
    await works(owner, peers[-1], ALICE, 9)
    for _, writer in idle:  # their places become free when they leave
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(60):
        while True:
            try:
                await raw(server, token="bob-token")
                break
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0)
    await owner.up(BOB)


async def test_who_holds_places_without_a_word_makes_room_for_others(serve: Any, raw: Any, owner: Any) -> None:
    """From the same address: the oldest goes, once it has had its time."""
    server = await serve(bounds=StrangerBounds(strangers_max=8, strangers_per_address_max=2, kept_ms=0))
    silent = [await raw(server) for _ in range(2)]
    for _ in range(3):
        await works(owner, await raw(server, token="alice-token"), ALICE, 9)
    # The first to come lost its place to the first peer; a peer that is let in gives his back.
    assert await silent[0].read_close() == 1001
    assert server.strangers == 1


async def test_wrong_tokens_again_and_again_wait_for_their_answer(serve: Any, raw: Any, owner: Any) -> None:
    """P-16; who has the right one is let in at once, from the same address too."""
    server = await serve(throttle=FailureThrottle(hold_ms=60_000))
    for number in range(FAILURES_MAX):
        peer = await raw(server)
        peer.send_auth("guess", request_id=number)
        assert isinstance(await peer.read_btp(), BtpError)
        assert await peer.read_close() == 1008
    held = [await raw(server) for _ in range(2)]
    for peer in held:
        peer.send_auth("guess")
    await owner.until(lambda: [log.event for log in owner.logs].count("btp.throttled") == 1)
    await works(owner, await raw(server, token="alice-token"), ALICE, 9)
    assert server.strangers == 2
    for peer in held:
        assert await peer.no_bytes()


async def test_the_refusal_comes_once_its_time_is_over(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve(throttle=FailureThrottle(failures_max=1, hold_ms=20))
    for words in (b"wrong credentials", b"wrong credentials, too often from this address"):
        peer = await raw(server)
        peer.send_auth("guess")
        answer = await peer.read_btp()
        assert isinstance(answer, BtpError) and (answer.code, answer.data) == ("F00", words)
        assert await peer.read_close() == 1008
        await owner.until(lambda: server.strangers == 0)
    # What is above the limit is told once, not once for each.
    levels = [log.level for log in owner.logs if log.event == "btp.refused"]
    assert levels == ["debug", "debug"] or levels == ["info", "debug"]


def test_tokens_are_kept_as_hashes() -> None:
    """P-16."""
    tokens = Tokens()
    tokens.add(ALICE, hash_token("t"))
    assert tokens.find(b"t", ()) == ALICE and tokens.find(b"u", ()) is None and tokens.find(b"t", ("alice",)) == ALICE
    for bad in ("", "zz", "00", hash_token("t") + "00"):
        with pytest.raises(ConfigError):
            tokens.add(BOB, bad)
    with pytest.raises(ConfigError):  # one token, two accounts: it would be chance which one it opens
        tokens.add(BOB, hash_token("t"))


async def test_an_address_in_use_is_a_link_error(serve: Any, owner: Any) -> None:
    server = await serve()
    with pytest.raises(LinkError, match="can't listen on"):
        await BtpServer(server.address, [], owner, library=choose_library("websockets")).start()


# --- frames that break the rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [34 * 1024, MESSAGE_BYTES_MAX])
async def test_large_messages_pass(serve: Any, raw: Any, owner: Any, size: int) -> None:
    """BTP-17."""
    server = await serve()
    peer = await raw(server, token="alice-token")
    peer.send(bytes(size))  # no BTP packet: it is dropped, the connection stays (BTP-9)
    peer.send(prepare_frame(1, LARGEST_PREPARE))
    await owner.until(lambda: len(owner.packets) == 1)
    assert owner.packets[0].packet == LARGEST_PREPARE


async def test_the_largest_reject_passes(serve: Any, raw: Any, owner: Any) -> None:
    """BTP-17, ILP-4: else any receiver could break a connection between two connectors."""
    server = await serve()
    peer = await raw(server, token="alice-token")
    reject = encode_reject(Reject("F99", "test." + "a" * 1_018, "m" * 8_191, bytes(32_767)))
    assert len(reject) == REJECT_BYTES_MAX
    peer.send(codec.encode_ilp(codec.RESPONSE, 1, reject))
    await owner.until(lambda: len(owner.packets) == 1)
    assert owner.packets[0].packet == reject


@pytest.mark.parametrize("authenticated", [True, False])
async def test_a_frame_over_the_limit_ends_the_connection(
    serve: Any, raw: Any, owner: Any, authenticated: bool
) -> None:
    """BTP-17."""
    server = await serve()
    good = await raw(server, token="bob-token")
    peer = await raw(server, token="alice-token" if authenticated else None)
    peer.send(bytes(MESSAGE_BYTES_MAX + 1))
    assert await peer.read_close() == 1009
    if authenticated:
        await owner.down(ALICE)
    await works(owner, good, BOB, 2)
    assert owner.count("down", BOB) == 0


async def test_fragments_are_joined(serve: Any, raw: Any, owner: Any) -> None:
    """BTP-1. A ping may come between them."""
    server = await serve()
    peer = await raw(server, token="alice-token")
    whole = prepare_frame(1)
    peer.send_bytes(peer.frame(framing.BINARY, whole[:10], first=0))
    peer.send(b"", framing.PING)
    peer.send_bytes(peer.frame(framing.CONTINUATION, whole[10:20], first=0))
    peer.send_bytes(peer.frame(framing.CONTINUATION, whole[20:]))
    await works(owner, peer, ALICE, 2)
    assert [packet.request_id for packet in owner.packets] == [1, 2]


@pytest.mark.parametrize("pieces", [(3, 20_000), (FRAGMENTS_MAX + 1, 1)])
async def test_fragments_over_the_limit_end_the_connection(
    serve: Any, raw: Any, owner: Any, pieces: tuple[int, int]
) -> None:
    """BTP-17."""
    server = await serve()
    peer = await raw(server, token="alice-token")
    count, size = pieces
    peer.send_bytes(peer.frame(framing.BINARY, b"", first=0))
    for _ in range(count):
        peer.send_bytes(peer.frame(framing.CONTINUATION, bytes(size), first=0))
    assert await peer.read_close() == 1009
    await owner.down(ALICE)


@pytest.mark.parametrize("token", ["alice-token", None])
async def test_a_text_frame_ends_the_connection(serve: Any, raw: Any, owner: Any, token: str | None) -> None:
    """BTP-1."""
    server = await serve()
    peer = await raw(server, token=token)
    peer.send(b"hello", framing.TEXT)
    assert await peer.read_close() == 1003
    assert owner.packets == []


@pytest.mark.parametrize(
    "breaks",
    [
        "an unmasked frame",
        "a reserved bit",
        "a reserved opcode",
        "a fragmented ping",
        "a long ping",
        "a continuation of nothing",
        "a message within a message",
    ],
)
async def test_breaking_the_websocket_protocol_ends_the_connection(
    serve: Any, raw: Any, owner: Any, breaks: str
) -> None:
    server = await serve()
    peer = await raw(server, token="alice-token")
    good = prepare_frame(1)
    bad = {
        "an unmasked frame": peer.frame(framing.BINARY, good, masked=False),
        "a reserved bit": peer.frame(framing.BINARY, good, first=0xC0),
        "a reserved opcode": peer.frame(5, good),
        "a fragmented ping": peer.frame(framing.PING, b"", first=0),
        "a long ping": peer.frame(framing.PING, bytes(126)),
        "a continuation of nothing": peer.frame(framing.CONTINUATION, good),
        "a message within a message": peer.frame(framing.BINARY, good, first=0) + peer.frame(framing.BINARY, good),
    }[breaks]
    peer.send_bytes(bad)
    assert await peer.read_close() == 1002
    await owner.down(ALICE)
    assert owner.packets == []


async def test_what_came_before_a_broken_frame_still_counts(serve: Any, raw: Any, owner: Any) -> None:
    """Nothing that was read is lost: a Fulfill may be among it."""
    server = await serve()
    peer = await raw(server, token="alice-token")
    peer.send_bytes(peer.frame(framing.BINARY, prepare_frame(1)) + peer.frame(framing.TEXT, b"x"))
    await owner.down(ALICE)
    assert [packet.request_id for packet in owner.packets] == [1]


async def test_half_a_frame_holds_up_nobody(serve: Any, raw: Any, owner: Any) -> None:
    """BTP-15. It is completed later, or never."""
    server = await serve()
    slow = await raw(server, token="alice-token")
    good = await raw(server, token="bob-token")
    whole = slow.frame(framing.BINARY, prepare_frame(1))
    slow.send_bytes(whole[:20])
    for request_id in range(5):
        await works(owner, good, BOB, request_id)
    assert owner.count("down", ALICE) == 0
    slow.send_bytes(whole[20:] + whole[:3])
    await owner.until(lambda: any(packet.account == ALICE for packet in owner.packets))
    await slow.close()
    await owner.down(ALICE)
    await works(owner, good, BOB, 6)


async def test_a_ping_flood_is_bounded(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve()
    good = await raw(server, token="bob-token")
    peer = await raw(server, token="alice-token")
    peer.send_bytes(peer.frame(framing.PING, b"") * (CONTROL_FRAMES_PER_SECOND_MAX * 50))
    pongs = 0
    code = 0
    try:
        while not code:
            opcode, payload = await peer.read_frame()
            pongs += opcode == framing.PONG
            code = int.from_bytes(payload[:2], "big") if opcode == framing.CLOSE else 0
    except (asyncio.IncompleteReadError, ConnectionError):
        code = 1006
    assert code in (1008, 1006) and pongs <= CONTROL_FRAMES_PER_SECOND_MAX
    await owner.down(ALICE)
    await works(owner, good, BOB, 1)


async def test_a_goodbye_is_answered(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve()
    peer = await raw(server, token="alice-token")
    peer.send(framing.close_payload(1000, "bye"), framing.CLOSE)
    assert await peer.read_close() == 1000
    await peer.ended()
    await owner.down(ALICE)


# --- the newest connection, and the life of a link -------------------------------------------------------------------


async def test_the_newest_authenticated_connection_wins(serve: Any, raw: Any, owner: Any, packets: Any) -> None:
    """BTP-18. The older is closed only once the newer is authenticated; its requests are answered on the newer."""
    server = await serve()
    older = await raw(server, token="alice-token")
    await works(owner, older, ALICE, 41)
    stranger = await raw(server)
    stranger.send_auth("wrong")
    assert await stranger.read_close() == 1008
    await works(owner, older, ALICE, 42)
    newer = await raw(server, token="alice-token")
    assert await older.read_close() == 1000
    await owner.up(ALICE, 2)
    assert owner.count("down", ALICE) == 0
    server.link(ALICE).write([Outbound(owner.packets[0].session, 41, packets["fulfill"])])
    assert await newer.read_btp() == BtpResponse(41, [ProtocolData("ilp", 0, packets["fulfill"])])
    await works(owner, newer, ALICE, 43)


async def test_what_was_under_way_on_the_older_connection_is_still_taken(
    serve: Any, raw: Any, owner: Any, packets: Any
) -> None:
    """BTP-18. A Fulfill that crossed our goodbye is worth money; answers go out on the newer connection."""
    server = await serve()
    older = await raw(server, token="alice-token")
    newer = await raw(server, token="alice-token")
    await owner.up(ALICE, 2)
    older.send(codec.encode_ilp(codec.RESPONSE, 8, packets["fulfill"]))
    older.send(prepare_frame(9))
    await owner.until(lambda: len(owner.packets) == 2)
    server.link(ALICE).write([Outbound(owner.packets[1].session, 9, packets["reject"])])
    assert (await newer.read_btp()).request_id == 9
    older.send(framing.close_payload(1000, ""), framing.CLOSE)
    await older.ended()
    assert owner.count("down", ALICE) == 0 and server.link(ALICE).is_up


async def test_each_connection_of_another_implementation_has_its_own_session(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve()
    for request_id in range(2):
        await works(owner, await raw(server, token="alice-token"), ALICE, request_id)
    assert owner.packets[0].session != owner.packets[1].session


async def test_a_prepare_to_a_link_that_is_down_is_undelivered(serve: Any, owner: Any, packets: Any) -> None:
    """BTP-18. T01 at once, for not a byte was written."""
    server = await serve()
    server.link(ALICE).write([Outbound(bytes(16), i, packets["prepare"]) for i in (5, 6)])
    assert [(one.account, one.request_id, one.code) for one in owner.failures] == [(ALICE, 5, "T01"), (ALICE, 6, "T01")]


async def test_a_prepare_that_was_written_stays_without_outcome(serve: Any, raw: Any, owner: Any, packets: Any) -> None:
    """BTP-18. Neither undelivered nor sent again: the peer may still fulfil it."""
    server = await serve()
    peer = await raw(server, token="alice-token")
    await owner.up(ALICE)
    server.link(ALICE).write([Outbound(bytes(16), 5, packets["prepare"])])
    await peer.close()
    await owner.down(ALICE)
    again = await raw(server, token="alice-token")
    await works(owner, again, ALICE, 1)
    again.send(b"", framing.PING)
    assert await again.read_frame() == (framing.PONG, b"")
    assert owner.failures == []


@pytest.mark.parametrize("knows_sessions", [False, True])
async def test_answers_due_while_down_go_out_on_the_next_connection(
    serve: Any, raw: Any, owner: Any, packets: Any, session_of: Any, knows_sessions: bool
) -> None:
    """BTP-18. Under the old id; what was written just before the break goes out again to isthmus peers only."""
    hello = [ProtocolData(SESSION_ENTRY, 0, session_of("peer"))] if knows_sessions else []
    server = await serve()
    peer = await raw(server)
    peer.send_auth("alice-token", *hello)
    assert (await peer.read_btp()).request_id == 7
    await works(owner, peer, ALICE, 1)
    session = owner.packets[0].session
    link = server.link(ALICE)
    link.write([Outbound(session, 1, packets["fulfill"]), Outbound(session, 2, packets["reject"])])
    await peer.close()
    await owner.down(ALICE)
    link.write([Outbound(session, 3, packets["reject"])])
    link.write([Outbound(session, 4, packets["fulfill"])])
    assert owner.failures == []
    again = await raw(server)
    again.send_auth("alice-token", *hello)
    expected = [7, 1, 3, 4] if knows_sessions else [7, 3, 4]
    assert [(await again.read_btp()).request_id for _ in expected] == expected


async def test_reset_and_close_end_the_connection(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve()
    peer = await raw(server, token="alice-token")
    await owner.up(ALICE)
    server.link(ALICE).reset("a test")
    assert await peer.read_close() == 1000
    assert owner.count("down", ALICE) == 1
    peer = await raw(server, token="alice-token")
    stranger = await raw(server)
    await server.close()
    assert (await peer.read_close(), await stranger.read_close()) == (1000, 1001)
    assert owner.count("down", ALICE) == 2


async def test_a_closed_link_lets_nobody_in_again(serve: Any, raw: Any, owner: Any) -> None:
    """While a node stops, its links close before its listener does."""
    server = await serve()
    peer = await raw(server, token="alice-token")
    await owner.up(ALICE)
    await server.link(ALICE).close()
    assert await peer.read_close() == 1000
    again = await raw(server, token="alice-token")
    again.send(prepare_frame(1))
    assert await again.read_close() == 1001
    assert owner.facts == [("up", ALICE), ("down", ALICE)] and owner.packets == []


# --- back pressure ---------------------------------------------------------------------------------------------------

SMALL = Bounds(blocked_bytes=64 << 10, writable_bytes=16 << 10, pause_bytes=256 << 10, backlog_bytes_max=64 << 20)


def replies(count: int) -> list[Outbound]:
    return [Outbound(bytes(16), i, b"\x0d" + bytes(30_000)) for i in range(count)]


async def test_a_slow_reader_blocks_its_own_link_only(serve: Any, raw: Any, owner: Any) -> None:
    """Its reading is stopped only above a second bound, and all goes on when it reads."""
    server = await serve(send_bounds=SMALL)
    slow = await raw(server, token="alice-token")
    good = await raw(server, token="bob-token")
    await owner.up(ALICE)
    link = server.link(ALICE)
    written = 0
    while owner.count("blocked", ALICE) == 0:
        link.write(replies(10))
        written += 10
    for _ in range(3):
        link.write(replies(10))
        written += 10
    await works(owner, good, BOB, 1)
    slow.send(prepare_frame(77))
    for _ in range(written):
        await slow.read_frame()
    await owner.until(lambda: owner.count("writable", ALICE) == 1)
    await owner.until(lambda: any(packet.request_id == 77 for packet in owner.packets))
    assert owner.count("down", ALICE) == 0


async def test_a_link_that_closes_lets_out_what_was_written(serve: Any, raw: Any, owner: Any) -> None:
    """A process that ends takes its buffers along, and with them Fulfills that its books have posted."""
    server = await serve(send_bounds=SMALL)
    slow = await raw(server, token="alice-token")
    await owner.up(ALICE)
    link = server.link(ALICE)
    written = 0
    while owner.count("blocked", ALICE) == 0:
        link.write(replies(10))
        written += 10
    transport = link._channel._socket.transport
    closing = asyncio.create_task(link.close())
    for _ in range(written):
        await slow.read_frame()
    await asyncio.wait_for(closing, 60)
    assert transport.get_write_buffer_size() == 0


async def test_a_link_that_closes_waits_for_nobody_long(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve(send_bounds=SMALL)
    await raw(server, token="alice-token")
    await owner.up(ALICE)
    while owner.count("blocked", ALICE) == 0:
        server.link(ALICE).write(replies(10))
    await asyncio.wait_for(server.link(ALICE).close(), 60)


async def test_a_peer_that_takes_nothing_is_closed_after_a_bounded_stall(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve(send_bounds=SMALL, timing=Timing(stall_ms=50))
    await raw(server, token="alice-token")
    good = await raw(server, token="bob-token")
    await owner.up(ALICE)
    while owner.count("blocked", ALICE) == 0:
        server.link(ALICE).write(replies(10))
    await owner.down(ALICE)
    await works(owner, good, BOB, 1)


async def test_the_send_buffer_has_a_hard_bound(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve(
        send_bounds=Bounds(blocked_bytes=1 << 10, writable_bytes=1 << 9, pause_bytes=1 << 12, backlog_bytes_max=1 << 16)
    )
    await raw(server, token="alice-token")
    await owner.up(ALICE)
    for _ in range(10_000):
        if not server.link(ALICE).is_up:
            break
        server.link(ALICE).write(replies(10))
        await asyncio.sleep(0)
    await owner.down(ALICE)


async def test_the_owner_can_stop_reading_from_one_peer(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve()
    alice = await raw(server, token="alice-token")
    bob = await raw(server, token="bob-token")
    await owner.up(BOB)
    server.link(ALICE).pause_reading()
    alice.send(prepare_frame(1))
    for request_id in range(5):
        await works(owner, bob, BOB, request_id)
    assert all(packet.account == BOB for packet in owner.packets)
    # The pause holds for the account: a newer connection is not read either. Of the older the rest is, for it ends.
    again = await raw(server, token="alice-token")
    again.send(prepare_frame(2))
    await owner.until(lambda: any(packet.account == ALICE for packet in owner.packets))
    await works(owner, bob, BOB, 9)
    assert [packet.request_id for packet in owner.packets if packet.account == ALICE] == [1]
    server.link(ALICE).resume_reading()
    await owner.until(lambda: owner.packets[-1].account == ALICE)
    assert owner.packets[-1].request_id == 2


async def test_a_dead_peer_is_found_by_a_ping(serve: Any, raw: Any, owner: Any) -> None:
    server = await serve(timing=Timing(ping_after_ms=20, pong_ms=20))
    peer = await raw(server, token="alice-token")
    assert await peer.read_frame() == (framing.PING, b"")
    await owner.down(ALICE)


def test_the_library_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_WEBSOCKET", "websockets")
    assert choose_library().name == "websockets"
    monkeypatch.setenv("ISTHMUS_WEBSOCKET", "picows")
    assert choose_library().name == "picows"
    monkeypatch.delenv("ISTHMUS_WEBSOCKET")
    assert choose_library().name == "picows"
    monkeypatch.setenv("ISTHMUS_WEBSOCKET", "carrier pigeons")
    with pytest.raises(ConfigError):
        choose_library()


def test_without_picows_the_other_library_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISTHMUS_WEBSOCKET", raising=False)
    monkeypatch.setitem(sys.modules, "picows", None)  # as where there is no wheel for the machine
    monkeypatch.delitem(sys.modules, "isthmus.links.btp.picows_library", raising=False)
    assert choose_library().name == "websockets"
    with pytest.raises(ConfigError, match="not installed"):
        choose_library("picows")
