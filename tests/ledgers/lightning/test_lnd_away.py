"""The client where lnd goes away in the middle of what it does: a server that drops connections, without an lnd."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import web

from isthmus.errors import LedgerError
from isthmus.ledgers.lightning.lnd import Invoice, Lnd, LndSettings
from tests.ledgers.lightning.stand_in import in_place_of_lnd

# What lnd tells of a paid invoice.
PAID = {
    "r_hash": b64encode(bytes(32)).decode(),
    "value_msat": "5000",
    "payment_request": "lnsb50n1",
    "state": "SETTLED",
    "amt_paid_msat": "5000",
    "settle_index": "2",
    "creation_date": "1800000000",
    "expiry": "3600",
}


class Server:
    """Answers what it is asked; breaks off a call, and tells of an invoice, when a test wants it to."""

    def __init__(self) -> None:
        self.settings: LndSettings
        self.breaks, self.is_asked_to_break = asyncio.Event(), asyncio.Event()
        self.pays, self.is_followed = asyncio.Event(), asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/broken":
            self.is_asked_to_break.set()
            await self.breaks.wait()
            assert request.transport is not None
            request.transport.abort()
        elif request.path == "/v1/invoices/subscribe":
            stream = web.StreamResponse()
            await stream.prepare(request)
            self.is_followed.set()
            await self.pays.wait()
            await stream.write(json.dumps({"result": PAID}).encode() + b"\n")
            return stream
        return web.json_response({})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    found = Server()
    async with in_place_of_lnd(found.answer, tmp_path) as found.settings:
        yield found


async def test_a_call_that_breaks_takes_no_other_with_it(server: Server) -> None:
    """Who asks from then on has a session of its own, and a stream goes on. One that nobody closes fails the test."""
    async with Lnd(server.settings) as lnd:

        async def first_paid() -> Invoice:
            async with aclosing(lnd.settled(1)) as invoices:
                return await anext(invoices)

        following = asyncio.create_task(first_paid())
        await server.is_followed.wait()
        broken = asyncio.create_task(lnd.get("/v1/broken"))
        await server.is_asked_to_break.wait()
        server.breaks.set()
        while not broken.done():
            assert await lnd.get("/v1/ok") == {}
        with pytest.raises(LedgerError, match="can't be reached"):
            await broken
        assert await lnd.get("/v1/ok") == {}
        server.pays.set()
        assert (await following).settle_index == 2


async def test_nothing_is_asked_of_a_closed_client(server: Server) -> None:
    lnd = Lnd(server.settings)
    assert await lnd.get("/v1/ok") == {}
    await lnd.close()
    with pytest.raises(LedgerError, match="closed"):
        await lnd.get("/v1/ok")
