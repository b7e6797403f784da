"""Servers by both ways: the same answers, pushes that only say when to look, and connections that break."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from isthmus.ledgers.door import ServerAwayError
from isthmus.ledgers.xrp import servers
from isthmus.ledgers.xrp.servers import (
    QUESTIONS_MAX,
    AskedServer,
    PushingServer,
    RefusedError,
    Server,
    server_at,
)
from tests.ledgers.xrp.dev.conftest import Serving, serving

WAIT_SECONDS = 60.0


@pytest.fixture
async def ledger() -> AsyncIterator[Serving]:
    async with serving() as ledger:
        yield ledger


class News:
    """Counts pushes."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._event.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while self.count < count:
                self._event.clear()
                await self._event.wait()


def is_pushing(server: Server) -> bool:
    return server.is_pushing


def test_the_scheme_says_how_it_is_asked() -> None:
    for url, kind in (
        ("ws://a", PushingServer),
        ("wss://a", PushingServer),
        ("http://a", AskedServer),
        ("https://a", AskedServer),
    ):
        assert isinstance(server_at(url, lambda: None), kind)


async def test_both_ways_get_the_same_answers(ledger: Serving) -> None:
    both: list[Server] = [server_at(url, lambda: None) for url in (ledger.web_socket, ledger.json_rpc)]
    answers: list[list[Any]] = []
    for one in both:
        found: list[Any] = [await one.ask("ledger", ledger_index="validated"), await one.ask("fee")]
        for method, params in (
            ("account_info", {"account": "rrrrrrrrrrrrrrrrrrrrrhoLvTp", "ledger_index": "validated"}),
            ("tx", {"transaction": "0" * 64, "min_ledger": 1, "max_ledger": 2}),
            ("nonsense", {}),
        ):
            with pytest.raises(RefusedError) as refused:
                await one.ask(method, **params)
            found.append((refused.value.token, refused.value.result.get("searched_all")))
        answers.append(found)
        await one.close()
    for found in answers:
        for each in found[:2]:
            each.pop("status", None)  # by JSON-RPC it is part of the result
    assert answers[0] == answers[1]


async def test_a_ledger_that_closes_is_told(ledger: Serving) -> None:
    news = News()
    server = server_at(ledger.web_socket, news)
    assert is_pushing(server) is False
    await server.ask("fee")
    assert is_pushing(server)
    ledger.service.close_ledger()
    await news.until(1)
    await server.close()
    assert not is_pushing(server)


async def test_a_server_that_is_only_asked_pushes_nothing(ledger: Serving) -> None:
    server = server_at(ledger.json_rpc, News())
    await server.ask("fee")
    assert not is_pushing(server)
    await server.close()


async def test_a_connection_that_broke_is_made_again_and_its_end_is_news(tmp_path: Path) -> None:
    """Whoever waits for pushes looks at once, and finds out."""
    news = News()
    async with serving(tmp_path / "xrp.db") as first:
        server = server_at(first.web_socket, news)
        await server.ask("fee")
        port = first.port
    await news.until(1)
    assert not is_pushing(server)
    with pytest.raises(ServerAwayError):
        await server.ask("fee")
    async with serving(tmp_path / "xrp.db", port=port), asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                await server.ask("fee")
                break
            except ServerAwayError:
                await asyncio.sleep(0.02)
        assert is_pushing(server)
        await server.close()


# --- servers that are not as they should be ---


class Odd:
    """A WebSocket server that does what a test says with each message that comes."""

    def __init__(self) -> None:
        self.connections = 0
        self.act: Callable[[web.WebSocketResponse, dict[str, Any]], Any]
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> "Odd":
        app = web.Application()
        app.router.add_get("/", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"ws://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        self.connections += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await self.act(socket, json.loads(message.data))
        return socket


@pytest.fixture
async def odd() -> AsyncIterator[Odd]:
    odd = await Odd().start()
    yield odd
    await odd.close()


async def answer(socket: web.WebSocketResponse, asked: dict[str, Any], **result: Any) -> None:
    await socket.send_json({"id": asked["id"], "status": "success", "type": "response", "result": result})


async def test_nonsense_is_passed_over_and_a_flood_of_pushes_is_few_looks(odd: Odd) -> None:
    news = News()

    async def act(socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        for text in ("{", "[]", "5", "null", '{"id": true}', '{"id": 99}', '{"type": "ledgerClosed"}', "[" * 100_000):
            await socket.send_str(text)
        await socket.send_bytes(b"\x00")
        if asked["command"] != "subscribe":
            for index in (*range(5, 500), "7", 1.5, None, {}):
                await socket.send_json({"type": "ledgerClosed", "ledger_index": index})
        await answer(socket, asked, fine=True)

    odd.act = act
    server = server_at(odd.url, news)
    assert await server.ask("fee") == {"fine": True}
    assert news.count < 50
    await server.close()


async def test_who_refuses_to_push_is_asked_only(odd: Odd) -> None:
    async def act(socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        if asked["command"] == "subscribe":
            error = {"status": "error", "type": "response", "error": "noPermission"}
            await socket.send_json({"id": asked["id"], **error})
            await socket.send_json({"type": "ledgerClosed", "ledger_index": 9})
        else:
            await answer(socket, asked)

    odd.act = act
    news = News()
    server = server_at(odd.url, news)
    assert await server.ask("fee") == {}
    assert not is_pushing(server) and news.count == 0
    await server.close()


async def test_pushes_that_stop_are_not_counted_on(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    odd.act = answer
    server = server_at(odd.url, News())
    await server.ask("fee")
    assert is_pushing(server)
    monkeypatch.setattr(servers, "GAP_S", 0.0)
    assert not is_pushing(server)
    await server.close()


async def test_a_server_that_hangs_up_is_not_called_in_a_loop(odd: Odd) -> None:
    async def act(socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        await answer(socket, asked)
        await socket.close()

    odd.act = act
    server = server_at(odd.url, News())
    for _ in range(100):
        with pytest.raises(ServerAwayError):
            await server.ask("fee")
        await asyncio.sleep(0.001)
    assert odd.connections <= 4
    await server.close()


async def test_questions_without_answers_are_bounded_and_end(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "ANSWER_SECONDS_MAX", 0.3)

    async def act(socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        if asked["command"] == "subscribe":
            await answer(socket, asked)

    odd.act = act
    server = server_at(odd.url, News())
    found = await asyncio.gather(*(server.ask("fee") for _ in range(QUESTIONS_MAX + 2)), return_exceptions=True)
    assert all(isinstance(one, ServerAwayError) for one in found)
    assert sum("wait for an answer" in str(one) for one in found) == 2
    await server.close()


async def test_what_isnt_there_is_away() -> None:
    server = server_at("ws://127.0.0.1:1/", News())
    with pytest.raises(ServerAwayError, match=r"127\.0\.0\.1: no connection"):
        await server.ask("fee")
    with pytest.raises(ServerAwayError, match="in a moment"):
        await server.ask("fee")
    await server.close()
