"""An engine elsewhere beside a kernel of ours: what it is told, what it tells, and what it can't do to us."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from aiohttp import web

from isthmus.connector.events import Inbound
from isthmus.errors import ConfigError
from isthmus.ilp.packet import Fulfill, Reject, encode_fulfill, encode_reject
from isthmus.node.engines.rfc38 import listener_at
from isthmus.settlement.port import SettlingAccount
from isthmus.settlement.rfc38 import http
from isthmus.settlement.rfc38.http import Client
from isthmus.settlement.rfc38.remote import RemoteEngine
from tests.runtime.engine_world import PEER, USD, World
from tests.settlement.rfc38.conftest import ANYWHERE, OCTETS, Answered, Call, Other, call, quantity

TOKEN = "the-token-that-the-engine-shows"


def make_remote(url: str, *, token: str | None = None, timeout_ms: int = 2_000) -> RemoteEngine:
    client = Client("the engine", url, token="ours", timeout_ms=timeout_ms)
    digest = None if token is None else sha256(token.encode()).digest()
    return RemoteEngine(client, listener_at(ANYWHERE), token_sha256=digest, random=lambda: 1.0, retry_s_min=0.001)


@pytest.fixture
async def remote(other: Other) -> RemoteEngine:
    return make_remote(other.url)


@pytest.fixture
async def world(remote: RemoteEngine) -> AsyncIterator[World]:
    world = World(engine=remote)
    yield world
    await world.stop()


def ours(remote: RemoteEngine, what: str = "settlements") -> str:
    """Where the engine calls us."""
    return f"{remote.describe(PEER)['engine_calls_us_at']}/accounts/peer/{what}"


# --- the engine is told ----------------------------------------------------------------------------------------------


async def test_accounts_are_set_up_and_deleted(world: World, other: Other) -> None:
    """SE-2, SE-6."""
    await world.start()
    (found,) = await other.until("/accounts")
    assert (found.method, found.json()) == ("POST", {"id": "peer"})
    assert found.headers["Authorization"] == "Bearer ours"
    await world.runner.follow({})
    (found,) = await other.until("/accounts/peer")
    assert found.method == "DELETE"


async def test_an_account_may_have_another_id_there(world: World, other: Other, remote: RemoteEngine) -> None:
    """SE-6."""
    await world.start(engines=False)
    await world.runner.start({"bank": [SettlingAccount(PEER, USD, {"id": "p~1"})]})
    (found,) = await other.until("/accounts")
    assert found.json() == {"id": "p~1"}
    assert remote.describe(PEER)["account"] == "p~1"
    await world.settle(5)
    await other.until("/accounts/p~1/settlements")


async def test_two_accounts_cant_have_one_id(world: World) -> None:
    """SE-6."""
    same = [SettlingAccount(PEER, USD, {"id": "x"}), SettlingAccount(PEER.__class__("q"), USD, {"id": "x"})]
    with pytest.raises(ConfigError, match="by the same id"):
        await world.runner.start({"bank": same})


@pytest.mark.parametrize("status", [200, 201, 204, 409])
async def test_any_success_tells_that_the_account_is_known(
    world: World, other: Other, remote: RemoteEngine, status: int
) -> None:
    """X-14: Java answers 200; 409 is said by engines that have it already."""

    async def answer(found: Call) -> web.StreamResponse:
        return web.Response(status=status)

    other.answer = answer
    await world.start()
    await other.until("/accounts")
    await world.until_logged("engine_knows_account")
    assert remote.describe(PEER)["known_to_the_engine"] == "yes"
    assert len(other.calls) == 1


async def test_an_engine_that_isnt_there_is_told_later(world: World, other: Other, remote: RemoteEngine) -> None:
    port = int(other.url.rpartition(":")[2])
    await other.close()
    await world.start()
    await world.until_logged("engine_not_told_of_account")
    assert remote.describe(PEER)["known_to_the_engine"].startswith("not yet: the engine: ")
    await other.start(port)
    await other.until("/accounts")


# --- it is asked to settle -------------------------------------------------------------------------------------------


async def test_a_settlement_is_posted_with_its_key_and_ends_with_201(world: World, other: Other) -> None:
    """SE-3, SE-7, SE-10: debited before, and our part ends when it is acknowledged."""
    await world.start()
    debited: list[int] = []

    async def answer(found: Call) -> web.StreamResponse:
        debited.append(world.kernel.books.peers[PEER].balance)
        return web.Response(status=201)

    other.answer = answer
    number = await world.settle(12)
    (found,) = await other.until("/accounts/peer/settlements")
    assert found.json() == {"amount": "12", "scale": 9}
    assert found.headers["Content-Type"] == "application/json"
    assert found.key is not None
    assert len(found.key) == 36
    await world.until_logged("settlement_ended")
    assert world.state(number) is None
    assert debited[-1] == 12


@pytest.mark.parametrize("status", [200, 202])
async def test_any_success_acknowledges(world: World, other: Other, status: int) -> None:
    """X-14: Java answers 200."""

    async def answer(found: Call) -> web.StreamResponse:
        return web.Response(status=status)

    other.answer = answer
    await world.start()
    await world.settle(12)
    await world.until_logged("settlement_ended")
    assert len(other.of("/accounts/peer/settlements")) == 1


@pytest.mark.parametrize("status", [302, 400, 404, 409, 422, 500, 503])
async def test_whatever_else_it_answers_it_is_asked_the_same_again(world: World, other: Other, status: int) -> None:
    """SE-9: with the same key, also after 4xx; redirects are not followed."""
    path = "/accounts/peer/settlements"

    async def answer(found: Call) -> web.StreamResponse:
        if found.path == path and len(other.of(path)) < 5:
            return web.Response(status=status, headers={"Location": "/elsewhere"})
        return web.Response(status=201)

    other.answer = answer
    await world.start()
    await world.settle(12)
    await world.until_logged("settlement_ended")
    calls = other.of(path)
    assert len(calls) == 5
    assert len({(one.key, one.body) for one in calls}) == 1
    assert not other.of("/elsewhere")
    assert world.kernel.books.peers[PEER].balance == 12  # never refunded (SE-10)
    told = str(world.logged("settlement_not_taken")[0].fields["problem"])
    assert f"the engine answers {status}" in told


async def test_an_answer_that_is_lost_is_asked_for_under_the_same_key(world: World, other: Other) -> None:
    """SE-9: the engine may have done it."""
    path = "/accounts/peer/settlements"

    async def answer(found: Call) -> web.StreamResponse:
        if found.path == path and len(other.of(path)) < 3:
            raise ConnectionResetError
        return web.Response(status=201)

    other.answer = answer
    await world.start()
    await world.settle(12)
    await world.until_logged("settlement_ended")
    assert len({one.key for one in other.of(path)}) == 1
    assert len(other.of(path)) >= 3


async def test_an_engine_that_lost_its_accounts_is_told_again(world: World, other: Other) -> None:
    known: set[str] = set()

    async def answer(found: Call) -> web.StreamResponse:
        if found.path == "/accounts":
            known.add(found.json()["id"])
            return web.Response(status=201)
        return web.Response(status=201 if known else 404)

    other.answer = answer
    await world.start()
    await other.until("/accounts")
    known.clear()
    await world.settle(12)
    await world.until_logged("settlement_ended")
    assert len(other.of("/accounts")) == 2


async def test_a_slow_engine_is_given_up_for_now(other: Other) -> None:
    gate = asyncio.Event()

    async def answer(found: Call) -> web.StreamResponse:
        if found.path != "/accounts" and not gate.is_set():
            await gate.wait()
        return web.Response(status=201)

    other.answer = answer
    world = World(engine=make_remote(other.url, timeout_ms=50))
    await world.start()
    await world.settle(12)
    await world.until_logged("settlement_not_taken")
    assert "didn't answer within 0.05 s" in str(world.logged("settlement_not_taken")[0].fields["problem"])
    gate.set()
    await world.until_logged("settlement_ended")
    await world.stop()


async def test_a_settlement_that_was_reversed_meanwhile_is_told_of_loudly(world: World, other: Other) -> None:
    """SE-10: the operator said for certain that it can't happen, and it may have."""
    from isthmus.connector.events import ReverseSettlement

    gate = asyncio.Event()
    path = "/accounts/peer/settlements"

    async def answer(found: Call) -> web.StreamResponse:
        if found.path == path:
            await gate.wait()
        return web.Response(status=201)

    other.answer = answer
    await world.start()
    number = await world.settle(12)
    await other.until(path)
    told = await world.driver.correct(ReverseSettlement(PEER, number, "r", "sure", 0, is_certain=True))
    assert not told.problem
    gate.set()
    await world.until_logged("settlement_paid_and_reversed")


# --- it tells what came in -------------------------------------------------------------------------------------------


async def credit(remote: RemoteEngine, body: bytes, key: str | None = "k-1", **more: str) -> Answered:
    return await call(ours(remote), body=body, key=key, headers=more)


async def test_an_incoming_settlement_is_credited_and_answered_with_201(world: World, remote: RemoteEngine) -> None:
    """SE-5: durable before the answer; the answer is the quantity, so that engines of others keep no leftover."""
    await world.start()
    answered = await credit(remote, quantity(500))
    assert (answered.status, answered.body) == (201, b'{"amount":"500","scale":9}')
    assert world.kernel.books.peers[PEER].balance == -500


async def test_one_key_credits_once(world: World, remote: RemoteEngine) -> None:
    """SE-7: the same response."""
    await world.start()
    answers = await asyncio.gather(*(credit(remote, quantity(500)) for _ in range(5)))
    assert {(one.status, one.body) for one in answers} == {(201, b'{"amount":"500","scale":9}')}
    assert world.kernel.books.peers[PEER].balance == -500


async def test_a_key_for_something_else_is_a_conflict(world: World, remote: RemoteEngine) -> None:
    """SE-8: also where both are less than a unit."""
    await world.start()
    assert (await credit(remote, quantity(5, 12))).status == 201
    for body in (quantity(6, 12), quantity(5, 13), quantity(0, 0)):
        answered = await credit(remote, body)
        assert answered.status == 409
        assert "another quantity" in answered.detail()
    assert (await credit(remote, quantity(5, 12))).status == 201


async def test_a_key_is_known_after_a_restart(remote: RemoteEngine, other: Other) -> None:
    """SE-7."""
    first = World(engine=remote)
    await first.start()
    assert (await credit(remote, quantity(500))).status == 201
    await first.stop()
    again = make_remote(other.url)
    second = World(first.disk, engine=again)
    await second.start()
    assert (await credit(again, quantity(500))).status == 201
    assert (await credit(again, quantity(501))).status == 409
    assert second.kernel.books.peers[PEER].balance == -500
    await second.stop()


@pytest.mark.parametrize("key", [None, "", "a b", "x" * 256])
async def test_without_a_key_nothing_is_credited(world: World, remote: RemoteEngine, key: str | None) -> None:
    """SE-8, X-14: some clients send none."""
    await world.start()
    answered = await credit(remote, quantity(500), key)
    assert answered.status == 400
    assert "Idempotency-Key" in answered.detail()


@pytest.mark.parametrize(
    "body, status",
    [(b"", 400), (b"{}", 400), (quantity(-1), 400), (quantity(2**256), 400), (b" " * 4_097, 413)],
)
async def test_what_is_no_quantity_is_refused(world: World, remote: RemoteEngine, body: bytes, status: int) -> None:
    """SE-1."""
    await world.start()
    assert (await credit(remote, body)).status == status


async def test_fractions_of_a_unit_add_up(world: World, remote: RemoteEngine) -> None:
    """SE-11, SE-1: any scale, any size."""
    await world.start()
    for index in range(1_000 // 125):
        assert (await credit(remote, quantity(125, 12), f"k{index}")).status == 201
    assert world.kernel.books.peers[PEER].balance == -1
    assert (await credit(remote, quantity(2**80, 9), "large")).status == 201
    assert world.kernel.books.peers[PEER].balance == -1 - 2**80


async def test_an_account_that_isnt_there(world: World, remote: RemoteEngine) -> None:
    """SE-14: the id is all that names an account, and only this engine's are known."""
    await world.start()
    url = ours(remote).replace("peer", "somebody")
    assert (await call(url, body=quantity(5), key="k")).status == 404
    assert (await call(ours(remote).replace("peer", "%2e%2e"), body=quantity(5), key="k")).status == 404


async def test_while_the_node_stops_it_is_asked_again_later(world: World, remote: RemoteEngine) -> None:
    """SE-9: 503, and not a word that it is booked."""
    await world.start()
    world.holds = True
    asking = asyncio.ensure_future(credit(remote, quantity(500)))
    await world.until_logged("settlement_received")
    await world.driver.stop()
    answered = await asking
    assert answered.status == 503
    assert answered.headers["Retry-After"] == "60"
    world.holds = False


async def test_whoever_must_show_a_token_does(other: Other) -> None:
    remote = make_remote(other.url, token=TOKEN)
    world = World(engine=remote)
    await world.start()
    assert (await credit(remote, quantity(5))).status == 401
    assert (await credit(remote, quantity(5), Authorization="Bearer wrong")).status == 401
    assert (await credit(remote, quantity(5), Authorization=f"Bearer {TOKEN}")).status == 201
    await world.stop()


async def test_what_is_compressed_is_not_looked_into(world: World, remote: RemoteEngine) -> None:
    """P-9: a small body may be a large one."""
    await world.start()
    answered = await call(ours(remote), body=quantity(5), key="k", headers={"Content-Encoding": "br"})
    assert answered.status == 400


async def test_other_methods_and_paths_are_problems_too(world: World, remote: RemoteEngine) -> None:
    await world.start()
    assert (await call(ours(remote), "GET")).status == 405
    answered = await call(ours(remote, "nothing"))
    assert (answered.status, answered.detail()) == (404, "Not Found")


# --- messages --------------------------------------------------------------------------------------------------------


async def test_a_message_of_the_engine_reaches_the_peer_and_its_answer_the_engine(
    world: World, remote: RemoteEngine
) -> None:
    """SE-4, SE-12: octets both ways."""
    await world.start()
    asking = asyncio.ensure_future(call(ours(remote, "messages"), body=b"\x00hello\xff", headers=OCTETS))
    frame = await world.link.frame()
    packet = encode_fulfill(Fulfill(bytes(32), b"\x00hi\xff"))
    world.driver.inbound([Inbound(PEER, frame.session, frame.request_id, packet, world.driver.mono_ms())])
    answered = await asking
    assert (answered.status, answered.body) == (201, b"\x00hi\xff")
    assert answered.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("code, status", [("F01", 400), ("T00", 503), ("R00", 504)])
async def test_a_message_that_the_peer_rejects(world: World, remote: RemoteEngine, code: str, status: int) -> None:
    """SE-12."""
    await world.start()
    asking = asyncio.ensure_future(call(ours(remote, "messages"), body=b"hello", headers=OCTETS))
    frame = await world.link.frame()
    packet = encode_reject(Reject(code, "peer.settle", "no"))
    world.driver.inbound([Inbound(PEER, frame.session, frame.request_id, packet, world.driver.mono_ms())])
    answered = await asking
    assert answered.status == status
    assert code in answered.detail()


@pytest.mark.parametrize("size, status", [(32_767, 201), (32_768, 413)])
async def test_messages_have_a_bound(world: World, remote: RemoteEngine, size: int, status: int) -> None:
    """SE-14."""
    await world.start()
    asking = asyncio.ensure_future(call(ours(remote, "messages"), body=bytes(size), headers=OCTETS))
    if status == 201:
        frame = await world.link.frame()
        packet = encode_fulfill(Fulfill(bytes(32), b"hi"))
        world.driver.inbound([Inbound(PEER, frame.session, frame.request_id, packet, world.driver.mono_ms())])
    assert (await asking).status == status


async def test_a_message_of_the_peer_reaches_the_engine_and_its_answer_the_peer(world: World, other: Other) -> None:
    """SE-4, SE-12."""

    async def answer(found: Call) -> web.StreamResponse:
        return web.Response(status=200, body=b"they say " + found.body)

    other.answer = answer
    await world.start()
    await world.ask(b"\x00hello")
    answered = await world.answer()
    assert isinstance(answered, Fulfill)
    assert answered.data == b"they say \x00hello"
    (found,) = other.of("/accounts/peer/messages")
    assert found.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("status, code", [(400, "F00"), (404, "F00"), (500, "T00"), (302, "T00")])
async def test_an_engine_that_refuses_a_message(world: World, other: Other, status: int, code: str) -> None:
    """SE-12: the code comes from the status."""

    async def answer(found: Call) -> web.StreamResponse:
        return web.Response(status=status if found.path.endswith("messages") else 201, text="no\nthanks")

    other.answer = answer
    await world.start()
    await world.ask(b"hello")
    answered = await world.answer()
    assert isinstance(answered, Reject)
    assert (answered.code, answered.triggered_by) == (code, "peer.settle")
    assert "\n" not in answered.message


async def test_an_engine_that_isnt_there_has_the_message_rejected(world: World, other: Other) -> None:
    """SE-12."""
    await other.close()
    await world.start()
    await world.ask(b"hello")
    answered = await world.answer()
    assert isinstance(answered, Reject)
    assert answered.code == "T01"


async def test_an_answer_that_is_too_long_is_not_relayed(world: World, other: Other) -> None:
    """SE-14."""

    async def answer(found: Call) -> web.StreamResponse:
        return web.Response(status=201, body=bytes(32_768 if found.path.endswith("messages") else 0))

    other.answer = answer
    await world.start()
    await world.ask(b"hello")
    answered = await world.answer()
    assert isinstance(answered, Reject)
    assert answered.code == "T01"


async def test_a_body_that_never_ends_is_not_waited_for(
    world: World, remote: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_S_MAX", 0.05)
    await world.start()
    host, port = ours(remote).split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /accounts/peer/settlements HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 9\r\n\r\n{"
    )
    async with asyncio.timeout(60):
        assert b" 408 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
