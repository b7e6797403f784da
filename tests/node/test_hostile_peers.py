"""What a bad peer can do to a running node: it gets its reply, nothing is half booked, and the others go on.

One node for all attackers, in the order of this file. During each attack erin pays dave, and the books are compared
with what she paid; mallory's account must end as the attacker says.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from isthmus.ilp.packet import (
    DATA_BYTES_MAX,
    Fulfill,
    Prepare,
    Reject,
    decode,
    decode_prepare,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)
from isthmus.links.btp import codec, framing
from isthmus.links.btp.codec import BtpError
from isthmus.links.btp.websocket import MESSAGE_BYTES_MAX

pytestmark = pytest.mark.asyncio(loop_scope="module")

HONEST_PACKETS = 20
MALLORY = "test.node.mallory"
HOLD = "test.node.dave.hold"


@dataclass
class World:
    """The node, two honest peers, and what honest money has moved so far."""

    kit: Any
    node: Any
    erin: Any  # who pays all the while
    carol: Any  # whose packets are held for 2 s at most
    dave: Any
    honest: int = 0
    mallory: int = 0  # her balance as it should be
    raws: list[Any] = field(default_factory=list)

    async def dial(self, name: str | None = "mallory", **more: Any) -> Any:
        raw = await self.kit.RawPeer.dial(self.node, name, **more)
        self.raws.append(raw)
        return raw

    async def honest_payments(self) -> None:
        for _ in range(HONEST_PACKETS):
            assert isinstance(await self.erin.pay("test.node.dave", 3), Fulfill)
            self.honest += 3

    async def check(self) -> None:
        """The books say what the peers have seen, and nothing of the attacker is left in flight."""
        async with asyncio.timeout(60):
            while True:
                accounts = await self.node.accounts()
                if not any(each["packets_in_flight"] for each in accounts.values()):
                    break
        balances = {name: int(each["balance"]) for name, each in accounts.items()}
        assert balances == {
            "erin": self.honest - self.mallory,
            "carol": 0,
            "dave": -self.honest,
            "mallory": self.mallory,
            "eve": 0,
        }
        assert all(each["reserved_incoming"] == each["reserved_outgoing"] == "0" for each in accounts.values())
        assert (await self.node.get("/health"))[0] == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(config: Any, tmp_path_factory: Any) -> AsyncIterator[World]:
    eve = f'{{ type = "http", incoming = {{ auth = "bearer", token = "{config.token_of("eve")}" }} }}'
    text = config.toml(
        *[config.account(name, margin="100 ms", hold="2 s") for name in ("carol", "dave", "mallory")],
        config.account("erin"),
        config.account("eve", link=eve),
        http=0,
    )
    nodes = config.Nodes(tmp_path_factory.mktemp("hostile"))
    node = await nodes.run(text)
    erin, carol, dave = map(config.Peer, ("erin", "carol", "dave"))

    def answer(inbound: Any) -> None:
        """Dave fulfils all but what is for `…hold`: that waits in his `requests`."""
        if decode_prepare(inbound.packet).destination.endswith(".hold"):
            dave.requests.put_nowait(inbound)
        else:
            dave.fulfil(inbound)

    dave.answer = answer
    for one in (erin, carol, dave):
        await one.dial(node.port)
    yield World(config, node, erin, carol, dave)
    for one in (erin, carol, dave):
        await one.close()
    await nodes.close()


def a_prepare(destination: str = "test.node.dave", *, amount: int = 5, data: bytes = bytes(32), wall_ms: int) -> bytes:
    return encode_prepare(Prepare(amount, wall_ms + 25_000, sha256(data[:32]).digest(), destination, data))


async def reply(raw: Any) -> tuple[int, Any]:
    packet = await raw.read_btp()
    return packet.request_id, decode(packet.protocol_data[0].data)


# --- attackers -------------------------------------------------------------------------------------------------------

Attacker = Callable[[World, int], Awaitable[None]]
ATTACKERS: list[Attacker] = []


def attacker(one: Attacker) -> Attacker:
    ATTACKERS.append(one)
    return one


@attacker
async def a_frame_over_the_limit(world: World, wall_ms: int) -> None:
    raw = await world.dial()
    raw.send(bytes(MESSAGE_BYTES_MAX + 1))
    assert await raw.read_close() == 1009


@attacker
async def a_length_over_the_limit(world: World, wall_ms: int) -> None:
    """The length alone is enough: nothing is waited for."""
    raw = await world.dial()
    raw.send_bytes(b"\x82\xff" + (2**40).to_bytes(8, "big"))
    assert await raw.read_close() == 1009


@attacker
async def half_a_frame(world: World, wall_ms: int) -> None:
    raw = await world.dial()
    frame = raw.frame(framing.BINARY, codec.encode_ilp(codec.MESSAGE, 1, a_prepare(wall_ms=wall_ms)))
    raw.send_bytes(frame[: len(frame) // 2])
    await world.honest_payments()


@attacker
async def half_a_packet_in_a_whole_frame(world: World, wall_ms: int) -> None:
    raw = await world.dial()
    frame = codec.encode_ilp(codec.MESSAGE, 1, a_prepare(wall_ms=wall_ms))
    raw.send(frame[: len(frame) // 2])  # unreadable: no reply (BTP-9)
    raw.send_ilp(2, a_prepare(wall_ms=wall_ms)[:-40])
    request_id, packet = await reply(raw)
    assert (request_id, packet.code) == (2, "F01")


@attacker
async def a_text_frame(world: World, wall_ms: int) -> None:
    raw = await world.dial()
    raw.send(b"hello", framing.TEXT)
    assert await raw.read_close() == 1003


@attacker
async def a_ping_flood(world: World, wall_ms: int) -> None:
    raw = await world.dial()
    raw.send_bytes(raw.frame(framing.PING, b"") * 20_000)
    assert await raw.read_close() in (1008, 1006)


@attacker
async def a_slow_reader_of_refusals(world: World, wall_ms: int) -> None:
    """It asks much and reads nothing: its reading stops, and nobody else's."""
    raw = await world.dial()
    packet = a_prepare("test.node.nobody", wall_ms=wall_ms)
    frames = b"".join(
        raw.frame(framing.BINARY, codec.encode_ilp(codec.MESSAGE, number, packet)) for number in range(20_000)
    )
    raw.send_bytes(frames)
    await world.honest_payments()


@attacker
async def a_slow_reader_of_prepares(world: World, wall_ms: int) -> None:
    """Much is for it, and it reads nothing: what was written expires, the rest is refused at once."""
    await world.dial()
    data = bytes(DATA_BYTES_MAX - 32)
    answers = [world.carol.prepare(MALLORY, 1, data=data) for _ in range(300)]
    await world.honest_payments()
    async with asyncio.timeout(60):
        codes = {one.code for one in await asyncio.gather(*answers)}
    assert codes <= {"R00", "T01", "T02", "T03"}, codes


@attacker
async def one_that_never_answers(world: World, wall_ms: int) -> None:
    """ILP-10."""
    raw = await world.dial()
    answer = world.carol.prepare(MALLORY, 5)
    request_id, prepare = await reply(raw)
    await world.honest_payments()
    refused = await asyncio.wait_for(answer, 60)
    assert isinstance(refused, Reject) and refused.code == "R00"
    raw.send_ilp(request_id, encode_fulfill(Fulfill(prepare.data[:32])), codec.RESPONSE)
    await world.node.until("late_fulfill", account="mallory", amount="5")


@attacker
async def one_that_answers_twice(world: World, wall_ms: int) -> None:
    """BTP-9: the first answer counts, whichever comes after it."""
    raw = await world.dial()
    answer = world.erin.prepare(MALLORY, 5)
    request_id, prepare = await reply(raw)
    fulfil = encode_fulfill(Fulfill(prepare.data[:32]))
    for packet in (fulfil, fulfil, encode_reject(Reject("F99", "test.mallory", "no"))):
        raw.send_ilp(request_id, packet, codec.RESPONSE)
    assert isinstance(await asyncio.wait_for(answer, 60), Fulfill)
    world.mallory -= 5
    answer = world.erin.prepare(MALLORY, 7)
    request_id, prepare = await reply(raw)
    for packet in (encode_reject(Reject("F99", "test.mallory", "no")), encode_fulfill(Fulfill(prepare.data[:32]))):
        raw.send_ilp(request_id, packet, codec.RESPONSE)
    assert isinstance(await asyncio.wait_for(answer, 60), Reject)


@attacker
async def one_that_sends_a_request_twice(world: World, wall_ms: int) -> None:
    """BTP-8: one answer, one movement."""
    raw = await world.dial()
    for _ in range(2):
        raw.send_ilp(9, a_prepare(HOLD, wall_ms=wall_ms))
    request = await world.dave.request()
    world.dave.reject(request)
    assert (await reply(raw))[0] == 9
    assert world.dave.requests.empty()


@attacker
async def a_wrong_fulfillment(world: World, wall_ms: int) -> None:
    """ILP-11."""
    raw = await world.dial()
    answer = world.erin.prepare(MALLORY, 5)
    request_id, _ = await reply(raw)
    raw.send_ilp(request_id, encode_fulfill(Fulfill(bytes(32))), codec.RESPONSE)
    refused = await asyncio.wait_for(answer, 60)
    assert isinstance(refused, Reject) and refused.code == "F05"


@attacker
async def an_answer_that_does_not_parse(world: World, wall_ms: int) -> None:
    """BTP-18: it says nothing, so the expiry decides."""
    raw = await world.dial()
    answer = world.carol.prepare(MALLORY, 5)
    request_id, _ = await reply(raw)
    raw.send_ilp(request_id, b"\x0d\x05hello", codec.RESPONSE)
    refused = await asyncio.wait_for(answer, 60)
    assert isinstance(refused, Reject) and refused.code == "R00"


@attacker
async def a_response_to_an_unknown_request(world: World, wall_ms: int) -> None:
    """BTP-9. And one that answers what another account was asked."""
    raw = await world.dial()
    answer = world.erin.prepare(HOLD, 2)
    request = await world.dave.request()
    fulfil = encode_fulfill(Fulfill(decode_prepare(request.packet).data[:32]))
    for request_id in (request.request_id, 2**31, 2**32 - 1):
        raw.send_ilp(request_id, fulfil, codec.RESPONSE)
        raw.send(codec.encode(BtpError(request_id, "T00", "UnreachableError", 0, b"", [])))
    raw.send_ilp(3, a_prepare("test.node.nobody", wall_ms=wall_ms))
    assert (await reply(raw))[0] == 3  # all before it was taken in, and got no reply
    world.dave.reject(request)
    refused = await asyncio.wait_for(answer, 60)
    assert isinstance(refused, Reject) and refused.triggered_by == "test.far"


@attacker
async def a_wrong_token(world: World, wall_ms: int) -> None:
    """BTP-6."""
    for token in ("", "wrong", world.kit.token_of("mallory")[:-1], "\x00" * 5_000):
        raw = await world.dial(None)
        raw.send_auth(token, request_id=77)
        answer = await raw.read_btp()
        assert isinstance(answer, BtpError) and (answer.request_id, answer.code) == (77, "F00")
        assert await raw.read_close() == 1008


@attacker
async def a_token_of_another_account(world: World, wall_ms: int) -> None:
    """Mallory's own token at carol's path, and that of an account that has no BTP link."""
    for path, token in (("/carol", "mallory"), ("/", "eve")):
        raw = await world.dial(None, path=path)
        raw.send_auth(world.kit.token_of(token))
        assert isinstance(await raw.read_btp(), BtpError)
        assert await raw.read_close() == 1008
    assert world.carol.is_up


@attacker
async def a_message_before_auth(world: World, wall_ms: int) -> None:
    """BTP-6."""
    raw = await world.dial(None)
    raw.send_ilp(4, a_prepare(wall_ms=wall_ms))
    answer = await raw.read_btp()
    assert isinstance(answer, BtpError) and answer.request_id == 4
    assert await raw.read_close() == 1008


@attacker
async def random_bytes(world: World, wall_ms: int) -> None:
    raw = await world.dial()
    for size in (0, 1, 5, 6, 100, 1_000):
        raw.send(os.urandom(size))
    raw.send_ilp(8, a_prepare("test.node.nobody", wall_ms=wall_ms))
    while (answer := await raw.read_btp()).request_id != 8:
        assert isinstance(answer, BtpError)


@attacker
async def http_of_the_wrong_kind(world: World, wall_ms: int) -> None:
    """HTTP-12, HTTP-14: content type, length, token, method."""
    url = world.node.listening["http"]
    good = {
        "Authorization": f"Bearer {world.kit.token_of('eve')}",
        "Content-Type": "application/octet-stream",
    }
    packet = a_prepare("test.node.nobody", wall_ms=wall_ms)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        for expected, changed, body in (
            (200, {}, packet),
            (400, {"Content-Type": "application/json"}, packet),
            (400, {"Content-Type": "text/plain"}, packet),
            (400, {"Request-Id": "no uuid"}, packet),
            (400, {}, b""),
            (400, {}, packet[:-10]),
            (413, {}, bytes(100_000)),
            (401, {"Authorization": "Bearer wrong"}, packet),
            (401, {"Authorization": f"Bearer {world.kit.token_of('mallory')}"}, packet),
            (401, {"Authorization": f"Basic {world.kit.token_of('eve')}"}, packet),
        ):
            async with session.post(url, data=body, headers={**good, **changed}) as response:
                assert response.status == expected, (changed, body[:20])
        async with session.get(url, headers=good) as response:
            assert response.status == 405


@attacker
async def http_that_promises_more_than_it_sends(world: World, wall_ms: int) -> None:
    host, _, port = world.node.listening["http"].removeprefix("http://").partition("/")[0].partition(":")
    for length, body in (("300", b"\x0c"), ("-1", b""), ("3x", b"abc"), ("99999999999999999999", b"abc")):
        _, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST /ilp HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {world.kit.token_of('eve')}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        await world.honest_payments()
        writer.close()


@pytest.mark.parametrize("attack", ATTACKERS, ids=[one.__name__ for one in ATTACKERS])
async def test_others_keep_paying_and_the_books_stay_right(world: World, attack: Attacker, wall_ms: int) -> None:
    """BTP-6, BTP-8, BTP-9, BTP-18, HTTP-12, HTTP-14, ILP-10, ILP-11, P-12."""
    async with asyncio.timeout(60):
        await asyncio.gather(attack(world, wall_ms), world.honest_payments())
        await world.honest_payments()
        while world.raws:
            await world.raws.pop().close()
        await world.check()
