"""SPSP with `ilp-protocol-spsp` 3.0.0 as the client and the middleware of `ilp` 14.1.0 as the server."""

from typing import Any

import pytest
from aiohttp import web

from isthmus.apps.spsp import SpspClient, UnknownReceiverError
from isthmus.apps.spsp_server import SpspServer

ADDRESS = "test.isthmus.bob.token"
SECRET = bytes(range(32))


async def test_our_client_asks_the_npm_server(peers: Any) -> None:
    """SPSP-1, SPSP-3: the server gives no Cache-Control, and fields that the RFC doesn't have."""
    _, ports = await peers.connector(bob=peers.account("child", peers.listener()))
    bob = await peers.endpoint(peers.dial(ports["bob"]))
    url = (await bob.call("spspListen", amount="777"))["url"]
    async with SpspClient(mono_ms=lambda: 0) as client:
        first = await client.query(url)
        second = await client.query(url)
        with pytest.raises(UnknownReceiverError):
            await client.query(url.replace("pay", "nobody"))
    assert first.destination_account.startswith("test.js.bob.")
    assert len(first.shared_secret) == 32
    assert first.shared_secret != second.shared_secret  # not kept: the server didn't say that it may be


async def test_the_npm_client_asks_our_server(peers: Any) -> None:
    """SPSP-2, SPSP-3."""
    server = SpspServer()
    server.add(lambda: (ADDRESS, SECRET))
    app = web.Application()
    server.register(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = await peers.start("endpoint")
    try:
        # It resolves a bare host as a payment pointer does.
        answer = await endpoint.call("spspQuery", url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()
    assert answer["destination_account"] == ADDRESS
    assert answer["shared_secret"] == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert answer["content_type"].startswith("application/spsp4+json")
