"""Engines at servers that push: looks come when ledgers close, and nothing rests on a push alone."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

from isthmus.settlement.xrp import engine
from tests.ledgers.xrp.dev.conftest import Serving, serving
from tests.settlement.xrp.world import XRP, Party, a_key, channel_party, join, payment_party, until

ALICE, BOB = a_key(1), a_key(2)
NEVER_MS: Final = 600_000


@pytest.fixture
async def closing() -> AsyncIterator[Serving]:
    """A ledger that closes by itself."""
    async with serving(close_every_ms=300) as ledger:
        for key in (ALICE, BOB):
            ledger.service.fund(key.address, 1_000)
        ledger.service.close_ledger()
        yield ledger


@pytest.mark.parametrize("make", [channel_party, payment_party])
async def test_what_closes_is_looked_at_without_any_poll(closing: Serving, parties: list[Party], make: Any) -> None:
    """Opening a channel, and following payments, takes several looks."""
    alice, bob = (make(closing, key, urls=(closing.web_socket,), poll_ms=NEVER_MS) for key in (ALICE, BOB))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    for amount in (3 * XRP, 12 * XRP):
        alice.owe(amount)
        await until(lambda: alice.is_paid)
    await until(lambda: bob.balance == -15 * XRP)


@contextlib.asynccontextmanager
async def silent(ledger: Serving) -> AsyncIterator[str]:
    """The ledger's WebSocket, behind somebody who swallows every push."""

    async def answers(there: ClientWebSocketResponse, here: web.WebSocketResponse) -> None:
        async for message in there:
            if message.type is WSMsgType.TEXT and "id" in json.loads(message.data):
                await here.send_str(message.data)

    async def serve(request: web.Request) -> web.WebSocketResponse:
        here = web.WebSocketResponse()
        await here.prepare(request)
        async with ClientSession() as session, session.ws_connect(ledger.web_socket) as there:
            task = asyncio.create_task(answers(there, here))
            async for message in here:
                if message.type is WSMsgType.TEXT:
                    await there.send_str(message.data)
            task.cancel()
        return here

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_pushes_that_are_lost_only_delay(
    closing: Serving, parties: list[Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has promised pushes and sends none is asked all the same."""
    monkeypatch.setattr(engine, "PUSHED_POLL_MS", 100)
    async with silent(closing) as url:
        alice, bob = (channel_party(closing, key, urls=(url,)) for key in (ALICE, BOB))
        join(alice, bob)
        parties += [await alice.start(), await bob.start()]
        alice.owe(3 * XRP)
        await until(lambda: alice.is_paid)
        assert bob.balance == -3 * XRP
        for one in (alice, bob):
            await one.kill()


async def test_one_server_that_pushes_is_enough_to_look_and_not_to_poll_less(
    closing: Serving, parties: list[Party]
) -> None:
    """The other may validate later: its ledgers are told by nobody."""
    urls = (closing.web_socket, closing.json_rpc)
    alice, bob = (channel_party(closing, key, urls=urls) for key in (ALICE, BOB))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    alice.owe(3 * XRP)
    await until(lambda: alice.is_paid)
    assert not alice.channels._network.is_pushing
