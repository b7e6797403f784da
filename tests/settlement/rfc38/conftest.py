"""Servers of others, as RFC 38 has them, and what their callers are told."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from isthmus.node.config_values import Endpoint
from isthmus.node.engines.rfc38 import listener_at
from isthmus.settlement.rfc38.http import MakeListener

ANYWHERE = Endpoint("127.0.0.1", 0)
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(slots=True)
class Call:
    """One request that came."""

    method: str
    path: str
    key: str | None
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)


class Other:
    """The program at the other end: takes every request down, and answers as the test says."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answer: Callable[[Call], Awaitable[web.StreamResponse]] = self._fine
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def _fine(self, call: Call) -> web.StreamResponse:
        return web.Response(status=204 if call.method == "DELETE" else 201, body=call.body)

    async def start(self, port: int = 0) -> "Other":
        app = web.Application(client_max_size=10**6)
        app.router.add_route("*", "/{rest:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def _take(self, request: web.Request) -> web.StreamResponse:
        call = Call(
            request.method,
            request.raw_path,
            request.headers.get("Idempotency-Key"),
            await request.read(),
            dict(request.headers),
        )
        self.calls.append(call)
        self._news.set()
        return await self.answer(call)

    def of(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]

    async def until(self, path: str, count: int = 1) -> list[Call]:
        """So many requests to this path."""
        async with asyncio.timeout(60):
            while len(self.of(path)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(path)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    other = await Other().start()
    yield other
    await other.close()


@pytest.fixture
def make_listener() -> MakeListener:
    return listener_at(ANYWHERE)


@dataclass(slots=True)
class Answered:
    status: int
    body: bytes
    headers: dict[str, str]

    def detail(self) -> str:
        assert self.headers["Content-Type"] == "application/problem+json"
        found = json.loads(self.body)
        assert found["status"] == self.status
        return str(found["detail"])


async def call(
    url: str,
    method: str = "POST",
    *,
    body: bytes = b"",
    key: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answered:
    """What a server of ours answers."""
    sent = {**(headers or {}), **({} if key is None else {"Idempotency-Key": key})}
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        session.request(method, url, data=body, headers=sent, allow_redirects=False) as response,
    ):
        return Answered(response.status, await response.read(), dict(response.headers))


def quantity(amount: int | str, scale: int = 9) -> bytes:
    return json.dumps({"amount": str(amount), "scale": scale}).encode()
